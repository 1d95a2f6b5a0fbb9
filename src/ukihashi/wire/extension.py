"""What two ukihashi ends say beyond the protocol (docs/protocol.md): version, resume, control records.

A control record travels in a batch like a frame, with bit 30 of its size set, and is not counted:

    control := u32 (0x40000000 | size), u8 type, body
      1  have      u64 number             this end holds every record before that number
      2  bye       u8 reason, UTF-8 text  the session ends here, on purpose
      3  options   PACK                   how this end behaves from now on
      4  blocked   u8 blocked, UTF-8 name hub: this card's frames go nowhere, as they would come back by that port

Types that are not known are passed over, so that later versions may add some.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final, Self

from ukihashi.errors import N_, PeerViolation, VersionMismatch
from ukihashi.wire.constants import (
    EXTENSION_OLDEST,
    EXTENSION_VERSION,
    KEEPALIVE_MARK,
    MAX_CONTROL,
    MAX_TEXT,
    SENT_KEEPALIVE,
)
from ukihashi.wire.pack import Pack

CONTROL: Final = 1 << 30  # bit of a record's size
SUPER_FRAME: Final = 1 << 31  # bit of a record's size: an offload header follows the frame (`ether.offload`)
HAVE_LENGTH: Final = 8  # bytes of a number at the start of a keep-alive's body
MAX_NUMBER: Final = 1 << 62  # no session ever counts so far; a larger one is an error
MAX_PADDING: Final = SENT_KEEPALIVE - HAVE_LENGTH  # random bytes behind it
MAX_INTERVAL_MS: Final = 600_000

_BATCH_OF_ONE: Final = struct.Struct("!II")
_HAVE: Final = struct.Struct("!IIBQ")
_NUMBER: Final = struct.Struct("!Q")


class Control(enum.IntEnum):
    """Types of control records."""

    HAVE = 1
    BYE = 2
    OPTIONS = 3
    BLOCKED = 4


class Reason(enum.IntEnum):
    """Why a session ends on purpose; numbers that are not known mean `LEFT`."""

    LEFT = 0  # its user or this machine leaves
    STOPPING = 1  # the hub's program ends
    OFFLINE = 2  # the virtual hub is offline or gone
    REMOVED = 3  # ended by an admin


@dataclass(frozen=True, slots=True)
class Have:
    """Every record before `number` has come."""

    number: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The session is over; nothing is to be resumed."""

    reason: Reason = Reason.LEFT
    text: str = ""  # at most MAX_TEXT bytes of UTF-8


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How the sender behaves from now on."""

    keepalive_ms: int  # it sends something at least that often


@dataclass(frozen=True, slots=True)
class Blocked:
    """The hub lets no frame of this card pass, either way, because of a loop."""

    because: str | None  # the port by which they would come back; None: they pass again


ControlRecord = Have | Bye | PeerOptions | Blocked


def encode_have(number: int) -> bytes:
    """A batch of one control record: `have`."""
    return _HAVE.pack(1, CONTROL | 9, Control.HAVE, number)


def encode_bye(bye: Bye) -> bytes:
    """A batch of one control record: `bye`."""
    return _control(Control.BYE, bytes([bye.reason]) + _text(bye.text))


def encode_options(options: PeerOptions) -> bytes:
    """A batch of one control record: `options`."""
    pack = Pack()
    pack.add_int("keepalive_ms", options.keepalive_ms)
    return _control(Control.OPTIONS, pack.encode())


def encode_blocked(blocked: Blocked) -> bytes:
    """A batch of one control record: `blocked`."""
    if blocked.because is None:
        return _control(Control.BLOCKED, b"\0")
    return _control(Control.BLOCKED, b"\1" + _text(blocked.because))


def encode_have_keepalive(number: int, padding: bytes) -> bytes:
    """A keep-alive that is a `have` too; `padding` is at most MAX_PADDING bytes of anything."""
    if len(padding) > MAX_PADDING:
        raise ValueError(f"a keep-alive's padding is at most {MAX_PADDING} bytes")
    return _BATCH_OF_ONE.pack(KEEPALIVE_MARK, HAVE_LENGTH + len(padding)) + _NUMBER.pack(number) + padding


def read_number(body: bytes) -> Have:
    """The number at the start of a keep-alive's body. Raises: PeerViolation: shorter, or beyond all counting."""
    if len(body) < HAVE_LENGTH:
        raise PeerViolation(N_("a keep-alive without its record number"))
    return Have(_sane(_NUMBER.unpack_from(body)[0]))


def read_control(body: bytes) -> ControlRecord | None:
    """A control record without its size; None for a type that is not known. Raises: PeerViolation."""
    if not body:
        raise PeerViolation(N_("a control record without a type"))
    kind, rest = body[0], body[1:]
    if kind == Control.HAVE:
        return read_number(rest)
    if kind == Control.BYE:
        known = bool(rest) and rest[0] in Reason.__members__.values()
        return Bye(Reason(rest[0]) if known else Reason.LEFT, rest[1 : 1 + MAX_TEXT].decode("utf-8", "replace"))
    if kind == Control.OPTIONS:
        interval = Pack.decode(rest, max_bytes=MAX_CONTROL).get_int("keepalive_ms")
        return PeerOptions(min(interval, MAX_INTERVAL_MS)) if interval else None
    if kind == Control.BLOCKED:
        return Blocked(rest[1 : 1 + MAX_TEXT].decode("utf-8", "replace") if rest[:1] == b"\1" else None)
    return None


# -- resume -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resume:
    """What a card adds to `additional_connect` to go on with a session over a new connection."""

    attempt: int  # rises with each; a hub refuses one lower than the last it saw
    have: int  # every record of the hub's before this number has come

    def add_to(self, pack: Pack) -> None:
        pack.add_int64("ukihashi_attempt", self.attempt)
        pack.add_int64("ukihashi_have", self.have)

    @classmethod
    def read(cls, pack: Pack) -> Self | None:
        """None for a standard peer's request. Raises: PeerViolation."""
        if "ukihashi_have" not in pack:
            return None
        return cls(_sane(pack.get_int64("ukihashi_attempt")), _sane(pack.get_int64("ukihashi_have")))


@dataclass(frozen=True, slots=True)
class Numbers:
    """A hub's numbers in a refused resume."""

    attempt: int  # the last one it took
    have: int  # of the card's records
    first: int  # oldest record that it still holds
    end: int  # the next record's number

    def add_to(self, pack: Pack) -> None:
        pack.add_int64("ukihashi_attempt", self.attempt)
        pack.add_int64("ukihashi_have", self.have)
        pack.add_int64("ukihashi_first", self.first)
        pack.add_int64("ukihashi_end", self.end)

    @classmethod
    def read(cls, pack: Pack) -> Self | None:
        """None for a refusal of another kind. Raises: PeerViolation."""
        if "ukihashi_have" not in pack:
            return None
        names = ("ukihashi_attempt", "ukihashi_have", "ukihashi_first", "ukihashi_end")
        return cls(*(_sane(pack.get_int64(name)) for name in names))


# -- versions -----------------------------------------------------------------------------------------------------


def agree(
    newest: int, oldest: int, *, peer: str, our_newest: int = EXTENSION_VERSION, our_oldest: int = EXTENSION_OLDEST
) -> int:
    """The ukihashi version that both ends speak; 0 for a standard peer (`newest` 0).

    Args:
        newest, oldest: what the peer offered. peer: "hub" or "card", whichever the other end is.
    Raises:
        VersionMismatch: no version in common; the message names both and which end to upgrade (D6).
    """
    if newest == 0:
        return 0
    if newest < our_oldest:
        template = N_(
            "the {peer} speaks ukihashi protocol {newest}, this end {our_oldest} to {our_newest}; upgrade the {peer}"
        )
    elif oldest > our_newest:
        template = N_(
            "the {peer} speaks ukihashi protocol {oldest} to {newest}, this end {our_newest}; upgrade this end"
        )
    else:
        return min(newest, our_newest)
    ours = {"our_newest": our_newest, "our_oldest": our_oldest}
    raise VersionMismatch(template, peer=peer, newest=newest, oldest=oldest, **ours)


def _control(kind: Control, body: bytes) -> bytes:
    size = 1 + len(body)
    return _BATCH_OF_ONE.pack(1, CONTROL | size) + bytes([kind]) + body


def _text(text: str) -> bytes:
    return text.encode()[:MAX_TEXT].decode("utf-8", "ignore").encode()


def _sane(number: int) -> int:
    if number > MAX_NUMBER:
        raise PeerViolation(N_("a record number beyond all counting"))
    return number
