"""The hub's own key and certificate, made at the first start (D9).

The key lives long: cards know the hub by it (the pin of a join link). The certificate around it is renewed when it
nears its end and always keeps the key. RSA, because official clients want it. Files:

    hub.key   0600, PKCS#8 PEM, never replaced by us: a damaged one is an error, for another key is another hub
    hub.crt   0644, PEM
"""

import contextlib
import datetime as dt
import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ukihashi.errors import N_, ConfigError, EnvironmentLacks

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PublicKeyTypes
    from cryptography.x509 import Certificate

KEY_BITS: Final = 3072  # RSA; good past 2030 (NIST SP 800-57, table 4)
LIFE_DAYS: Final = 3650
RENEW_DAYS: Final = 60  # renewed when less than this is left
SKEW_DAYS: Final = 2  # valid this long before it was made: clients' clocks are wrong


@dataclass(frozen=True, slots=True)
class Identity:
    """What the hub proves itself with."""

    certificate: Path
    key: Path
    pin: bytes  # 32 bytes, SHA-256 of the SubjectPublicKeyInfo in DER
    fingerprint: bytes  # 32 bytes, SHA-256 of the certificate in DER: what browsers show
    not_after: dt.datetime
    kind: Literal["RSA", "ECDSA"]  # of the key: what cipher suites it can serve
    made_key: bool = False  # now, for the first time
    made_certificate: bool = False  # now, for the first time or anew
    der: bytes = b""  # the certificate


def load_or_make(folder: Path, *, name: str, now: dt.datetime) -> Identity:
    """The identity in `folder`; what is missing is made, a certificate near its end is renewed.

    Args:
        name: the machine's host name, for the certificate's subject.
        now: with zone.
    Raises:
        EnvironmentLacks: no right, no room.
        ConfigError: the key or the certificate is there but damaged, or they don't belong together.
    """
    key_path, certificate_path = folder / "hub.key", folder / "hub.crt"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        made_key = not key_path.exists()
        if made_key:
            if certificate_path.exists():
                raise ConfigError(
                    N_("{certificate} is there but its key {key} is not; put the key back, or remove both"),
                    certificate=certificate_path,
                    key=key_path,
                )
            _write(key_path, _new_key(), 0o600)
        elif key_path.stat().st_mode & 0o077:
            key_path.chmod(0o600)
        key = _read_key(key_path)
        made_certificate = not certificate_path.exists()
        if not made_certificate:
            certificate = _read_certificate(certificate_path)
            _check_pair(certificate, certificate_path, key.public_key(), key_path)
            made_certificate = certificate.not_valid_after_utc - now < dt.timedelta(days=RENEW_DAYS)
        if made_certificate:
            _write(certificate_path, _certify(key, name=name, now=now), 0o644)
        found = _identity(certificate_path, key_path)
    except OSError as error:
        raise EnvironmentLacks(
            N_("the hub's key can't be kept in {folder}: {reason}"), folder=folder, reason=error.strerror
        ) from error
    return replace(found, made_key=made_key, made_certificate=made_certificate)


def load_given(certificate_path: Path, key_path: Path) -> Identity:
    """The identity in the administrator's own files. Raises ConfigError for what can't be used."""
    try:
        _check_pair(_read_certificate(certificate_path), certificate_path, _read_key(key_path).public_key(), key_path)
        return _identity(certificate_path, key_path)
    except OSError as error:
        raise ConfigError(N_("{path} can't be read: {reason}"), path=error.filename, reason=error.strerror) from error


def pin_text(pin: bytes) -> str:
    """A pin or fingerprint as people compare it: `AB:CD:…`."""
    return pin.hex(":").upper()


def _identity(certificate_path: Path, key_path: Path) -> Identity:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = _read_certificate(certificate_path)
    public = certificate.public_key()
    der = certificate.public_bytes(Encoding.DER)
    return Identity(
        certificate=certificate_path,
        key=key_path,
        pin=hashlib.sha256(_spki(public)).digest(),
        fingerprint=hashlib.sha256(der).digest(),
        not_after=certificate.not_valid_after_utc,
        kind="RSA" if isinstance(public, rsa.RSAPublicKey) else "ECDSA",
        der=der,
    )


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certify(key: "CertificateIssuerPrivateKeyTypes", *, name: str, now: dt.datetime) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64] or "hub")])
    other_names = [one for one in (name, "localhost") if one.isascii() and one]
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=SKEW_DAYS))
        .not_valid_after(now + dt.timedelta(days=LIFE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in other_names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _read_key(path: Path) -> "CertificateIssuerPrivateKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            N_("the key {path} can't be used ({reason}); put back a good copy: cards know the hub by this key"),
            path=path,
            reason=str(error).splitlines()[0] if str(error) else type(error).__name__,
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ConfigError(N_("the key {path} is neither RSA nor on an elliptic curve of TLS"), path=path)
    return key


def _read_certificate(path: Path) -> "Certificate":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except ValueError as error:
        raise ConfigError(N_("the certificate {path} can't be used; is it a PEM file?"), path=path) from error


def _check_pair(certificate: "Certificate", certificate_path: Path, public: "PublicKeyTypes", key_path: Path) -> None:
    if _spki(certificate.public_key()) != _spki(public):
        raise ConfigError(
            N_("the certificate {certificate} was made for another key than {key}"),
            certificate=certificate_path,
            key=key_path,
        )


def _spki(public: "PublicKeyTypes") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, also after a power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the beginning
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
