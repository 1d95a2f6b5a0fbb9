"""Password forms of the protocol (sections 8.1, 8.2). Decide and compute only; storing is `store`'s.

SHA-0 is broken as a signature hash and unsalted here: what `hash_password` returns is as good as the password itself.
It exists because standard clients log in with it, and is kept only where an admin accepts that (docs/decisions.md).
"""

import hmac
import struct
from typing import Final

from ukihashi.wire.constants import DIGEST_LENGTH

_START: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_WORDS: Final = struct.Struct("!16I")
_DIGEST: Final = struct.Struct("!5I")
_MASK: Final = 0xFFFFFFFF


def sha0(data: bytes) -> bytes:
    """The 20-byte SHA-0 digest: SHA-1 (FIPS 180-4) without the rotation in its message schedule."""
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + (8 * len(data)).to_bytes(8, "big")
    state = _START
    for at in range(0, len(padded), 64):
        state = _compress(state, _WORDS.unpack_from(padded, at))
    return _DIGEST.pack(*state)


def _compress(state: tuple[int, int, int, int, int], block: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    words = list(block)
    for t in range(16, 80):
        words.append(words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16])
    a, b, c, d, e = state
    for t, word in enumerate(words):
        if t < 20:
            mixed, constant = (b & c) | (~b & d), 0x5A827999
        elif t < 40:
            mixed, constant = b ^ c ^ d, 0x6ED9EBA1
        elif t < 60:
            mixed, constant = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            mixed, constant = b ^ c ^ d, 0xCA62C1D6
        rotated = (a << 5) | (a >> 27)
        a, b, c, d, e = (rotated + mixed + e + constant + word) & _MASK, a, ((b << 30) | (b >> 2)) & _MASK, c, d
    a0, b0, c0, d0, e0 = state
    return (a0 + a) & _MASK, (b0 + b) & _MASK, (c0 + c) & _MASK, (d0 + d) & _MASK, (e0 + e) & _MASK


def hash_password(user: str, password: str) -> bytes:
    """The 20 bytes that a standard server stores for a user; the user name's case does not matter (8.2)."""
    return sha0(password.encode() + user.encode().upper())  # bytes.upper() knows ASCII only, as the peers do


def secure_password(hashed: bytes, challenge: bytes) -> bytes:
    """The login's answer to the hello's 20 random bytes."""
    return sha0(hashed + challenge)


def admin_hash(password: str) -> bytes:
    """The form of administration passwords: no user name in it."""
    return sha0(password.encode())


def check_secure_password(hashed: bytes, challenge: bytes, given: bytes) -> bool:
    """Whether `given` answers `challenge` for the stored `hashed`; takes the same time whatever differs."""
    return len(hashed) == DIGEST_LENGTH and hmac.compare_digest(secure_password(hashed, challenge), given)
