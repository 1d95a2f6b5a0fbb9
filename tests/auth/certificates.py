"""Certificates made for tests."""

import datetime as dt
import functools
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ukihashi.auth.certificate import Shown

CHALLENGE = bytes(range(20))
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@functools.cache
def key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same name, for making one takes long."""
    return rsa.generate_private_key(65537, bits)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certify(
    name: str = "Hanako",
    *,
    of: Any = None,
    by: str = "CA",
    serial: int = 0x0102,
    begins: dt.datetime = NOW - DAY,
    ends: dt.datetime = NOW + DAY,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(by))
        .public_key((of or key(name)).public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    return builder.sign(key(by), SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def shown(certificate: x509.Certificate, by: rsa.RSAPrivateKey, challenge: bytes = CHALLENGE) -> Shown:
    return Shown(der(certificate), by.sign(challenge, PKCS1v15(), SHA1()), CHALLENGE)


HANAKO = certify()
