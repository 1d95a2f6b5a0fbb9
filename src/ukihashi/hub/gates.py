"""What stands before a session and in its place while it goes from one worker to another (hub/moving.py).

The worker that gave it away keeps a `Ghost`, which passes on what others still send to it there; the one that took it
has a `Gate`, which lets nothing in before that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ukihashi.ether.offload import Kind
from ukihashi.hub.mesh import Link
from ukihashi.hub.ports import Encodings
from ukihashi.hub.resumable import RESUME_BUFFER, ResumableSession
from ukihashi.hub.session import Session
from ukihashi.hub.trunk import OWN, MeshedHub
from ukihashi.switch.mac_table import Station
from ukihashi.switch.queue import PortQueue

if TYPE_CHECKING:
    from ukihashi.hub.loop import Timer

PART: Final = 256 * 1024  # bytes that are passed on in one piece


# -- the giver ---------------------------------------------------------------------------------------------------------


class _GhostQueue(PortQueue):
    __slots__ = ("_ghost",)

    def __init__(self, limit_bytes: int, ghost: "Ghost") -> None:
        super().__init__(limit_bytes)
        self._ghost = ghost

    def put(self, frames: Sequence[bytes], source: int = 0) -> int:
        origin = self._ghost.hub.origin
        if origin != OWN and origin not in self._ghost.awaited:  # a flood, which reaches the session without us
            return 0
        return super().put(frames, source)


class Ghost:
    """In the place of a session that has gone: passes on what is sent to it here."""

    def __init__(self, session: Session, stations: list[Station], hub: MeshedHub, link: Link, move: int) -> None:
        self.name = session.name
        self.hub = hub
        self.link = link
        self.move = move
        self.stations = stations
        self.awaited: set[int] = set()  # workers whose mark has not come
        self.timer: Timer | None = None
        self.queue: PortQueue = _GhostQueue(session.limits.resume_buffer, self)
        self.port = hub.plug(self, session.member.rules, kinds=Kind(session.member.super_frames))
        hub.untold.add(self.port)
        hub.switch.put_back(self.port, stations)
        hub.switch.hold(self.port)

    def flush(self, encodings: Encodings) -> bool:  # noqa: ARG002 - a worker takes frames
        """Hand on what waits as far as the link takes it."""
        if not self.link.is_full:
            self.push()
        return False

    def push(self) -> None:
        """Hand on all that waits."""
        while self.queue:
            self.link.send_moved(self.move, self.queue.take(PART))


# -- the taker ---------------------------------------------------------------------------------------------------------


@dataclass
class _Way:
    """From one worker's ports to the session."""

    marked: bool = False  # its mark has come, to us
    passed: bool = False  # and to the giver, and nothing of before is on its way
    held: list[bytes] = field(default_factory=list)


class _GateQueue(PortQueue):
    """What the switch gives goes into the session's queue, or is held back."""

    __slots__ = ("_gate",)

    def __init__(self, gate: "Gate") -> None:
        super().__init__(gate.session.limits.resume_buffer)
        self._gate = gate
        if isinstance(gate.session, ResumableSession):
            self.bound(self._limit, RESUME_BUFFER)

    @property
    def is_crowded(self) -> bool:
        return self._gate.session.queue.is_crowded

    def put(self, frames: Sequence[bytes], source: int = 0) -> int:
        gate = self._gate
        way = gate.ways.get(gate.hub.origin)
        if way is None:
            return gate.session.queue.put(frames, source)
        if not way.marked:  # a flood, that comes by the ghost, too; nobody sends to the session only, before it talks
            frames = [frame for frame in frames if not frame[0] & 1] if gate.is_answered else []
        dropped = 0
        for frame in frames:
            if self.bytes + len(frame) <= self._limit:
                way.held.append(frame)
                self.bytes += len(frame)
            else:
                dropped += 1
        if dropped:
            self.dropped[self._reason] += dropped
        return dropped


class Gate:
    """Before a session that has come: keeps what others send to it in order."""

    def __init__(self, session: Session, hub: MeshedHub, giver: int, move: int, marks: Sequence[int]) -> None:
        self.session = session
        self.name = session.name
        self.hub = hub
        self.giver = giver
        self.move = move
        self.ways = {giver: _Way(marked=False), OWN: _Way(marked=True), **{worker: _Way() for worker in marks}}
        self.queue: PortQueue = _GateQueue(self)
        self.timer: Timer | None = None
        self.is_answered = False  # the member goes on, though not everybody is known to know it
        hub.untold.add(session.port)
        hub.ports[session.port] = self

    def flush(self, encodings: Encodings) -> bool:
        """The session's."""
        return self.session.flush(encodings)

    def pass_on(self, frames: Sequence[bytes]) -> None:
        """What came by the ghost."""
        if self.session.is_open:
            self.session.queue.put(frames)
            self.hub.outbox.mark(self.session)

    def mark(self, worker: int, *, marked: bool = False, passed: bool = False) -> None:
        """One of both ways to hear of a worker's mark; with both, its frames come directly."""
        way = self.ways.get(worker)
        if way is None:
            return
        way.marked |= marked
        way.passed |= passed
        if way.marked and way.passed:
            del self.ways[worker]
            self.pass_on(way.held)

    def open(self) -> None:
        """Nobody is waited for any more."""
        for worker in list(self.ways):
            self.mark(worker, marked=True, passed=True)
        self.session.queue.put_back((), self.queue.dropped)
        if self.hub.ports.get(self.session.port) is self:
            self.hub.untold.discard(self.session.port)
            self.hub.ports[self.session.port] = self.session
