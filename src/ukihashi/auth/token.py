"""Secrets that we make ourselves: one-use tokens of join links, generated passwords; and when a token lets in.

Random bytes and the time are arguments. A token is stored only as its SHA-256: it has 128 random bits, so no slow hash
is needed.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum
from typing import Final

TOKEN_BYTES: Final = 16  # random bytes a token is made of
PASSWORD_BYTES: Final = 13  # random bytes a generated password is made of; 100 bits of them are used
INVITE_DAYS: Final = 7.0  # how long a link lives unless said otherwise

_LETTERS: Final = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 that are hard to mistake for one another


def make_token(random: bytes) -> str:
    """22 characters of base64url for 16 random bytes."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a token wants {TOKEN_BYTES} random bytes, not {len(random)}")
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def token_digest(token: str) -> bytes:
    """32 bytes: the form a token is stored and looked up in."""
    return hashlib.sha256(token.encode()).digest()


def make_password(random: bytes) -> str:
    """A password of 100 random bits, easy to read out: `k7m2q-x9a4d-…`, four groups of five, for 13 random bytes."""
    if len(random) != PASSWORD_BYTES:
        raise ValueError(f"a password wants {PASSWORD_BYTES} random bytes, not {len(random)}")
    number = int.from_bytes(random, "big")
    letters = [_LETTERS[(number >> (5 * place)) & 31] for place in range(20)]
    return "-".join("".join(letters[start : start + 5]) for start in range(0, 20, 5))


class Redeemed(Enum):
    """What became of a token that a card showed."""

    FIRST = "first"  # store the hash as the user's password, mark the token used
    AGAIN = "again"  # the answer to the first use was lost; nothing changes
    USED = "used"  # another password was set with it
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Invite:
    """What the hub knows of one join link."""

    expires_at: float  # seconds since 1970
    used_hash: bytes = b""  # SHA-0 form of the password that was set with it; b"" = unused
    revoked: bool = False


def redeem(invite: Invite, password_hash: bytes, current_hash: bytes, now: float) -> Redeemed:
    """Decide about a token shown together with `password_hash`, the SHA-0 form of the card's own password.

    `current_hash` is the user's stored hash: a token shown again lets in only while the password it set still holds.
    A link that was used in time keeps answering the same card after its expiry.
    """
    if invite.revoked:
        return Redeemed.REVOKED
    if invite.used_hash:
        same = hmac.compare_digest(invite.used_hash, password_hash)
        holds = hmac.compare_digest(current_hash, password_hash)
        return Redeemed.AGAIN if same and holds else Redeemed.USED
    if now >= invite.expires_at:
        return Redeemed.EXPIRED
    return Redeemed.FIRST
