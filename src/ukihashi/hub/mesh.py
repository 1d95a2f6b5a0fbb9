"""How the workers of one hub talk to each other: a stream between each two of them, made by the supervisor.

    piece := u32 length of what follows, u8 kind, body        numbers as this machine has them: nobody else reads them
    NOTE     MessagePack (`AnyNote`)
    FRAMES   u16 length of the head, head (what they entered by, `trunk`), frames
    MOVED    u32 number of the move, frames: for a session that has gone to the reader (`moving`)
    frames := u32 count, count x u32 size (bit 31: a super-frame), the bytes of all

Order is the stream's, so a note stands where its writer stood. What waits to be written is bounded by those who write:
frames stay in their trunk's queue while a link is full, and notes that come again by themselves are left out.
"""

import select
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from ukihashi.ether.offload import SuperFrame
from ukihashi.hub.loop import READ, WRITE, Loop

NOTE: Final = 0
FRAMES: Final = 1
MOVED: Final = 2

SUPER: Final = 1 << 31  # in a size
MAX_PIECE: Final = 4 << 20  # bytes; a longer one is none
FULL: Final = 256 * 1024  # bytes that wait; from there on no frames are added
OVERFULL: Final = 8 << 20  # bytes; from there on only what can't be said again is
READ_SIZE: Final = 256 * 1024  # bytes of one read
BUFFER: Final = 1 << 20  # bytes asked of the kernel for each direction
MANY: Final = 32  # pieces in one system call

_HEAD: Final = struct.Struct("=IB")
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_log = structlog.get_logger()


class Note(msgspec.Struct, tag=True, frozen=True, array_like=True):
    """Base of what workers tell each other."""


class Load(Note, frozen=True):
    """Connections and sessions that the writer has."""

    count: int


class Stations(Note, frozen=True):
    """What the writer's own ports of a hub have learned; times are the machine's monotonic ones."""

    hub: str
    stations: list[tuple[bytes, float, float]]  # key, created, seen
    addresses: list[tuple[bytes, float, float, bool]] = []  # address, created, seen, leased
    whole: bool = False  # it has no others: forget what it told before


class StationsGone(Note, frozen=True):
    """It has them no more."""

    hub: str
    stations: list[bytes]


class TellMe(Note, frozen=True):
    """The writer has this virtual hub now, and knows nothing of the reader's stations."""

    hub: str


class Last(Note, frozen=True):
    """The writer hands over to the next program: none of its own frames comes behind this.

    Said again (`passed`) when it has heard that of all others: now it has passed on what had to be, too.
    """

    passed: bool = False


class Crowded(Note, frozen=True):
    """A queue of the writer's, into which the reader sends, has much in it, or no more."""

    hub: str
    crowded: bool


class Want(Note, frozen=True):
    """A connection has come that goes on with a session: who has it?"""

    search: int  # of the writer's
    digest: bytes  # of the session's key
    attempt: int = -1  # of an exact resume; -1: it is none
    have: int = 0
    sure: bool = False  # the session has gone to the reader, who may still be waiting for it


class NotHere(Note, frozen=True):
    """The answer to `Want` of who has it not."""

    search: int
    gone_to: int = -1  # the worker that it went to lately; -1: not known


class Refused(Note, frozen=True):
    """The answer to `Want` of who has it: no, for the code of protocol section 11."""

    search: int
    code: int
    numbers: tuple[int, int, int, int] | None = None  # of `wire.extension.Numbers`


class Given(Note, frozen=True):
    """A part of the session's value (`saved`), the answer to `Want`; it is the reader's from the last part on."""

    search: int
    part: bytes
    last: bool
    move: int  # number of this move, of the writer's
    marks: tuple[int, ...]  # workers whose `Mark` is waited for


class Moved(Note, frozen=True):
    """A session of the writer's has gone to a third worker, with these stations."""

    move: int
    hub: str
    to: int
    stations: list[tuple[bytes, float, float]]


class Mark(Note, frozen=True):
    """Frames of the writer's up to here reach a moved session by the worker that gave it, later ones directly."""

    giver: int
    move: int


class Marked(Note, frozen=True):
    """The giver has passed on what `worker` had sent before its mark; its own number: it passes nothing on any more."""

    move: int
    worker: int


class GuardKey(Note, frozen=True):
    """What probes of this virtual hub are made with, and known by. From or to the judge (`guarding`)."""

    hub: str
    id: bytes
    secret: bytes


class GuardPort(Note, frozen=True):
    """To the judge: the writer has this port, or no more."""

    hub: str
    port: str
    name: str  # for people
    age: tuple[int, float]  # as `switch.loop_guard.Age`
    there: bool = True
    because: str | None = None  # it is blocked, because of that one


class GuardBack(Note, frozen=True):
    """To the judge: a probe came in there."""

    hub: str
    port: str
    body: bytes


class GuardHurry(Note, frozen=True):
    """To the judge: stations jump to and from this port."""

    hub: str
    port: str


class GuardOther(Note, frozen=True):
    """To the judge: a probe of another hub came in."""

    hub: str
    id: bytes


class GuardProbe(Note, frozen=True):
    """From the judge: send this there, before all else."""

    hub: str
    port: str
    frame: bytes


class GuardState(Note, frozen=True):
    """From the judge: this port is blocked because of that one, or open."""

    hub: str
    port: str
    because: str | None


GuardNote = GuardKey | GuardPort | GuardBack | GuardHurry | GuardOther | GuardProbe | GuardState

AnyNote = (
    Load | Stations | StationsGone | TellMe | Last | Crowded | Want | NotHere | Refused | Given | Moved | Mark | Marked
    | GuardNote
)  # fmt: skip

_encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(AnyNote)


class MeshBroken(Exception):
    """What came over a link is nothing that a worker sends."""


class Ear(Protocol):
    """Whom a link tells what came over it."""

    def heard(self, link: "Link", note: AnyNote) -> None:
        """A note."""

    def frames_came(self, link: "Link", head: bytes, frames: list[bytes]) -> None:
        """Frames of a virtual hub."""

    def moved_came(self, link: "Link", move: int, frames: list[bytes]) -> None:
        """Frames for a session that has moved."""

    def drained(self, link: "Link") -> None:
        """It has room for frames again."""

    def lost(self, link: "Link") -> None:
        """The other worker is gone."""


class Link:
    """The stream to one other worker. Owns the socket."""

    def __init__(
        self, number: int, sock: socket.socket, loop: Loop, ear: Ear, *, is_read: bool = True, is_new: bool = False
    ) -> None:
        """`is_read`: else what comes waits, until `read_on`. `is_new`: the other worker has just been started."""
        sock.setblocking(False)
        self.number = number  # the other worker's
        self.is_new = is_new  # and it has said nothing yet: it has no session
        self.waiting = 0  # bytes to be written
        self.left_out = 0  # notes that it was too full for, since it was empty
        self._socket = sock
        self._loop = loop
        self._ear = ear
        self._pieces: deque[bytes | memoryview] = deque()
        self._rest = bytearray()  # the start of a piece
        self._is_open = True
        self._is_read = is_read
        self._watch()

    def read_on(self) -> None:
        """What comes is read from now on."""
        if self._is_open and not self._is_read:
            self._is_read = True
            self._watch()

    @property
    def is_full(self) -> bool:
        """Takes no frames at the moment; `Ear.drained` follows."""
        return self.waiting >= FULL

    def tell(self, note: AnyNote, *, comes_again: bool = False) -> None:
        """Send a note; one that `comes_again` is left out when too much waits already."""
        if comes_again and self.waiting >= OVERFULL:
            self.left_out += 1
            return
        self._put(NOTE, _encode(note))

    def send(self, head: bytes, frames: Sequence[bytes]) -> None:
        """Frames of a virtual hub; to be asked before: `is_full`."""
        self._put(FRAMES, _U16.pack(len(head)) + head, *_packed(frames))

    def send_moved(self, move: int, frames: Sequence[bytes]) -> None:
        """Frames for a session that has moved."""
        self._put(MOVED, _U32.pack(move), *_packed(frames))

    def close(self) -> None:
        """Let go of it. A second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._pieces.clear()

    # -- out ------------------------------------------------------------------------------------------------------

    def _put(self, kind: int, *parts: bytes) -> None:
        if not self._is_open:
            return
        size = sum(map(len, parts))
        piece = b"".join((_HEAD.pack(1 + size, kind), *parts))
        writes_later = bool(self._pieces)
        self._pieces.append(piece)
        self.waiting += len(piece)
        if not writes_later:
            self._write()
            if self._pieces and self._is_open:
                self._watch()

    def _watch(self) -> None:
        """Who isn't read isn't watched but for room: its end would wake us all the time."""
        events = (READ if self._is_read else 0) | (WRITE if self._pieces else 0)
        self._loop.forget(self._socket.fileno())
        if events:
            self._loop.watch(self._socket.fileno(), events, self._on_events)

    def _write(self) -> None:
        pieces = self._pieces
        while pieces:
            try:
                count = self._socket.sendmsg([pieces[i] for i in range(min(MANY, len(pieces)))])
            except BlockingIOError:
                return
            except OSError:  # the end is seen by reading, in the loop's next turn
                pieces.clear()
                self.waiting = 0
                return
            self.waiting -= count
            while count:
                piece = pieces.popleft()
                if len(piece) > count:
                    pieces.appendleft(memoryview(piece)[count:])
                    break
                count -= len(piece)

    # -- in -------------------------------------------------------------------------------------------------------

    def _on_events(self, events: int) -> None:
        if events & WRITE:
            was_full = self.is_full
            self._write()
            if not self._pieces:
                self._watch()
            if was_full and not self.is_full:
                self._ear.drained(self)
        if self._is_open and self._is_read and events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self.is_new = False
        if self._rest:
            self._rest += data
            data = bytes(self._rest)
        try:
            used, calls = self._cut(data)
        except MeshBroken as broken:
            _log.error("mesh_broken", worker=self.number, reason=str(broken))
            self._end()
            return
        self._rest = bytearray(data[used:])
        for call in calls:
            if self._is_open:
                self._do(call)

    def _do(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - a fault of ours with one piece must not cost those behind it
            self._loop.faults += 1
            _log.exception("internal error")

    def _end(self) -> None:
        if self._is_open:
            self.close()
            self._ear.lost(self)

    def _cut(self, data: bytes) -> tuple[int, list[Callable[[], None]]]:
        """The whole pieces in `data`: how many bytes they are, and what is to be done about them."""
        at, view, calls = 0, memoryview(data), list[Callable[[], None]]()
        while len(data) - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(data, at)
            end = at + 4 + length
            if not 1 <= length <= MAX_PIECE:
                raise MeshBroken(f"a piece of {length} bytes")
            if end > len(data):
                break
            try:
                calls.append(self._read_piece(kind, view[at + _HEAD.size : end]))
            except (msgspec.DecodeError, struct.error, ValueError, TypeError) as error:
                raise MeshBroken(str(error)) from error
            at = end
        return at, calls

    def _read_piece(self, kind: int, body: memoryview) -> Callable[[], None]:
        ear = self._ear
        if kind == FRAMES:
            start = _U16.size + _U16.unpack_from(body)[0]
            return partial(ear.frames_came, self, bytes(body[_U16.size : start]), _unpacked(body[start:]))
        if kind == NOTE:
            return partial(ear.heard, self, _decoder.decode(body))
        if kind == MOVED:
            return partial(ear.moved_came, self, _U32.unpack_from(body)[0], _unpacked(body[_U32.size :]))
        raise MeshBroken(f"a piece of kind {kind}")


def _packed(frames: Sequence[bytes]) -> tuple[bytes, ...]:
    sizes = [len(frame) | SUPER if frame.__class__ is SuperFrame else len(frame) for frame in frames]
    return (_U32.pack(len(sizes)), array("I", sizes).tobytes(), *frames)


def _unpacked(body: memoryview) -> list[bytes]:
    at = _U32.size + 4 * _U32.unpack_from(body)[0]
    sizes = body[_U32.size : at].cast("I").tolist()
    frames: list[bytes] = []
    for size in sizes:
        end = at + (size & ~SUPER)
        frames.append(SuperFrame(body[at:end]) if size & SUPER else bytes(body[at:end]))
        at = end
    if at != len(body):
        raise ValueError(f"frames of {at} bytes in {len(body)}")
    return frames


def mesh_pair() -> tuple[socket.socket, socket.socket]:
    """A stream for two workers; for the supervisor, who may ask for more room than they."""
    pair = socket.socketpair()
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return pair
