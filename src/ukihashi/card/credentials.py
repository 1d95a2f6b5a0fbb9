"""A card's own certificate and key, for a login by certificate (protocol section 8.5).

The key stays with the dialler. What the hub wants to have signed is known only in the middle of the opening talk, which
the data process leads; it asks for a signature of those 20 bytes and never sees the key. So whoever takes over the
process that reads strangers' bytes can log in as this card while that lasts, and no longer.
"""

from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ukihashi.errors import N_, EnvironmentLacks, PeerViolation, UsageError
from ukihashi.wire.constants import CHALLENGE_LENGTH, MAX_SIGNATURE

LARGEST: Final = 16 * 1024  # bytes of a certificate; it travels in one message beside authorities


class Credentials(NamedTuple):
    """A certificate and the key that belongs to it."""

    certificate: bytes  # DER
    key: rsa.RSAPrivateKey

    def sign(self, challenge: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-1, as the protocol has it.

        Raises:
            PeerViolation: that is no challenge. EnvironmentLacks: this machine's library refuses SHA-1.
        """
        if len(challenge) != CHALLENGE_LENGTH:  # it has come from the process that reads strangers' bytes
            raise PeerViolation(N_("element {name} must be {length} bytes"), name="random", length=CHALLENGE_LENGTH)
        try:
            return self.key.sign(challenge, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - fixed by the protocol
        except (UnsupportedAlgorithm, ValueError) as error:
            raise EnvironmentLacks(
                N_(
                    "this machine's cryptographic library does not sign with RSA and SHA-1 ({reason}), as the hub wants"
                ),
                reason=error,
            ) from error


def load(certificate: str, key: str) -> Credentials:
    """Read both PEM files.

    Raises:
        EnvironmentLacks: a file can't be read. UsageError: it does not hold what it should, or they don't belong
        together.
    """
    shown = _certificate(certificate)
    secret = _key(key)
    if shown.public_key() != secret.public_key():
        raise UsageError(
            N_("the key in {key} does not belong to the certificate in {certificate}"), key=key, certificate=certificate
        )
    plain = shown.public_bytes(serialization.Encoding.DER)
    if len(plain) > LARGEST:
        raise UsageError(
            N_("the certificate in {path} is too large: {size} bytes, at most {limit}"),
            path=certificate,
            size=len(plain),
            limit=LARGEST,
        )
    return Credentials(plain, secret)


def _certificate(path: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise UsageError(N_("{path} is no certificate in PEM form: {reason}"), path=path, reason=error) from error


def _key(path: str) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except TypeError as error:  # a passphrase is wanted
        raise UsageError(
            N_("the key in {path} is locked with a passphrase; a card starts alone, so give it one without"), path=path
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(N_("{path} is no key in PEM form: {reason}"), path=path, reason=error) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size > _MOST:
        raise UsageError(
            N_("the key in {path} can't be used: hubs take RSA keys of at most {bits} bits"), path=path, bits=_MOST
        )
    return key


_MOST: Final = MAX_SIGNATURE * 8  # bits


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise EnvironmentLacks(N_("{path} can't be read: {reason}"), path=path, reason=error.strerror) from error
