"""Logins by certificate (protocol section 8.5): the proof is an RSA signature over the hello's random bytes.

Only decides. All checks are made for every login, in the same order, so that an answer's time says nothing about which
users there are. SHA-1 is what the protocol has here; what is signed is 20 fresh bytes of our own, so that a collision
found beforehand is of no use.
"""

import base64
import datetime as dt
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from ukihashi.errors import N_, UsageError
from ukihashi.wire.constants import MAX_CERTIFICATE

P = ParamSpec("P")
T = TypeVar("T")

MIN_BITS: Final = 1024
MAX_BITS: Final = 4096

# what the parser says of hostile bytes
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
_PEM: Final = "-----BEGIN CERTIFICATE-----"


def _quietly(function: Callable[P, T]) -> Callable[P, T]:
    """The official programs make certificates with serial number 0, and the library has a warning for each."""

    @wraps(function)
    def call(*args: P.args, **more: P.kwargs) -> T:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return function(*args, **more)

    return call


@dataclass(frozen=True, slots=True)
class Shown:
    """What a login showed."""

    certificate: bytes  # DER
    signature: bytes
    challenge: bytes  # of the hello on this connection


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the hub knows of the user. With neither `certificate` nor `issued` nothing is proof enough."""

    certificate: bytes = b""  # this very one, DER
    issued: bool = False  # one of a trusted authority, with ...
    common_name: str = ""  # ... this name, in any case; "" = any
    serial: bytes = b""  # ... this number; b"" = any


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the hub trusts."""

    authorities: Sequence[bytes] = ()  # DER
    revoked: frozenset[bytes] = frozenset()  # serial numbers, as `serial_bytes` has them


@_quietly
def refusal(shown: Shown, wanted: Wanted, trust: Trust, now: float) -> str:
    """Why this is no proof, in words for the log; "" if it is one. `now`: seconds since 1970."""
    try:
        certificate = _load(shown.certificate)
        key = _key(certificate)
        proven = _is_signed(key, shown)
        in_time = _is_in_time(certificate, now)
        serial = serial_bytes(certificate.serial_number)
        vouched = sum(
            _vouches(authority, certificate, now) for authority in trust.authorities
        )  # `any` would stop early
        name = common_name(certificate)
    except UsageError as error:
        return str(error)
    except _UNREADABLE as error:
        return f"the certificate can't be read: {error}"
    if not proven:
        return "the signature is not by the certificate's key"
    if not in_time:
        return "the certificate is not valid at this time"
    if serial in trust.revoked:
        return "the certificate was revoked"
    if wanted.certificate:
        return "" if shown.certificate == wanted.certificate else "not the certificate that the user has"
    if not wanted.issued:
        return "the user does not log in by certificate"
    if not vouched:
        return "no trusted authority has issued the certificate"
    if wanted.common_name and wanted.common_name.casefold() != name.casefold():
        return f"the certificate is for “{name}”"
    if wanted.serial and wanted.serial != serial:
        return f"the certificate has the serial number {serial.hex()}"
    return ""


@_quietly
def read(text: str, *, authority: bool = False) -> bytes:
    """The DER of a certificate given as PEM, or as base64 of its DER.

    Raises:
        UsageError: no certificate, or one that no login could use; of an `authority` any kind of key will do.
    """
    try:
        if _PEM in text:
            der = x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
        else:
            der = base64.b64decode(text, validate=True)
        certificate = _load(der)
        described(der)
        if not authority:
            _key(certificate)
    except _UNREADABLE:
        raise UsageError(
            N_("this is no certificate; give one as PEM (a file that begins with {mark})"), mark=_PEM
        ) from None
    return der


def serial_bytes(number: int) -> bytes:
    """A serial number as it is stored: big-endian, without leading zeros."""
    number = abs(number)
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def read_serial(text: str) -> bytes:
    """A serial number in hexadecimal, with or without colons. Raises UsageError."""
    try:
        return serial_bytes(int(text.replace(":", "").replace(" ", ""), 16))
    except ValueError:
        raise UsageError(
            N_("“{text}” is no serial number; give it in hexadecimal, as in 01:A4:7F"), text=text
        ) from None


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name; "" if it has none, or several."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


@_quietly
def described(der: bytes) -> dict[str, object]:
    """A stored certificate as plain values for listings."""
    certificate = x509.load_der_x509_certificate(der)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": serial_bytes(certificate.serial_number).hex(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }


def _load(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise UsageError(
            N_("a certificate has at most {most} bytes; this one has {size}"), most=MAX_CERTIFICATE, size=len(der)
        )
    return x509.load_der_x509_certificate(der)


def _key(certificate: x509.Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise UsageError(N_("the certificate's key is not RSA; this protocol knows no other kind"))
    if not MIN_BITS <= key.key_size <= MAX_BITS:
        raise UsageError(
            N_("the certificate's key has {bits} bits; use {least} to {most}"),
            bits=key.key_size,
            least=MIN_BITS,
            most=MAX_BITS,
        )
    return key


def _is_signed(key: RSAPublicKey, shown: Shown) -> bool:
    try:
        key.verify(shown.signature, shown.challenge, PKCS1v15(), SHA1())  # noqa: S303 - see the module
    except InvalidSignature:
        return False
    return True


def _is_in_time(certificate: x509.Certificate, now: float) -> bool:
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _vouches(authority: bytes, certificate: x509.Certificate, now: float) -> bool:
    """Whether this CA, itself valid now, has signed the certificate directly."""
    try:
        issuer = x509.load_der_x509_certificate(authority)
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return _is_in_time(issuer, now)
