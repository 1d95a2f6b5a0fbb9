"""Certificates that logins show: whatever comes is a proof or has a reason why not, and what is listed can be shown."""

import base64
from contextlib import suppress

from fuzz.targets import vectors
from ukihashi.auth.certificate import Shown, Trust, Wanted, described, read, refusal
from ukihashi.errors import UsageError

ALLOWED = ()
TOKENS = [b"\x30\x82", b"\x02\x01\x00", b"\x06\x03\x55\x04\x03", b"\x0c\x08", b"\x17\x0d", b"\x18\x0f", b"\xa0\x03"]
NOW = 1_790_000_000.0

_PROOF = next(vector for vector in vectors() if vector["id"] == "cert-sign")
_GOOD, _SIGNATURE, _CHALLENGE = (bytes.fromhex(_PROOF[key]) for key in ("cert_der_hex", "sign_hex", "random_hex"))


def seeds() -> list[bytes]:
    """The real client's."""
    return [_GOOD]


def run(data: bytes) -> object:
    """The certificate alone is varied; only the seed itself is a proof that its own issuer vouches for."""
    shown, trust = Shown(data, _SIGNATURE, _CHALLENGE), Trust([_GOOD, data])
    issued = refusal(shown, Wanted(issued=True, common_name="certuser"), trust, NOW)
    same = refusal(shown, Wanted(certificate=_GOOD), trust, NOW)
    assert (same == "") is (data == _GOOD)
    assert issued or data == _GOOD
    with suppress(UsageError):
        described(read(base64.b64encode(data).decode()))
    return issued[:60]
