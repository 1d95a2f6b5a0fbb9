"""The sensor's Ed25519 key (RFC 8032), which signs evidence: made at first use, readable by its owner only."""

import base64
import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ukihashi.errors import N_, EnvironmentLacks, InputUnreadable

NAME: Final = "sensor-key.pem"


class SensorKey:
    """A private key; `public` is given away with every signature."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: Final = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(data)

    @property
    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.public)


def load_or_make(folder: Path) -> SensorKey:
    """The key in `folder`; made there, mode 0600, if there is none.

    Raises:
        EnvironmentLacks: the folder can't be written.
        InputUnreadable: the file is there and is no Ed25519 key; it is left alone.
    """
    path = folder / NAME
    try:
        if not path.exists():
            _make(path)
        data = path.read_bytes()
    except OSError as error:
        raise EnvironmentLacks(
            N_("the sensor's key {file} can't be made or read: {reason}"), file=path, reason=error.strerror
        ) from error
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputUnreadable(
            N_("{file} is not a sensor's key (Ed25519, PEM); put the old one back, or remove it to get a new one"),
            file=path,
        )
    return SensorKey(key)


def _make(path: Path) -> None:
    """Whole or not at all; of two programs that make it at once, the first one's stays."""
    data = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def fingerprint(public: bytes) -> str:
    """SHA-256 of a PEM public key's DER form as OpenSSH writes fingerprints: "SHA256:..."; "" if it is no such key."""
    key = _public(public)
    if key is None:
        return ""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Did the owner of `public` (PEM) sign `data`?"""
    key = _public(public)
    if key is None:
        return False
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _public(pem: bytes) -> Ed25519PublicKey | None:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None
