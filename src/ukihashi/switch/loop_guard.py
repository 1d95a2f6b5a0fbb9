"""Loops between hubs, found and cut (a virtual hub has no spanning tree, and neither have the others).

Each guarded port (a cascade, a bridge) sends a small broadcast of ours every PERIOD_S. If it comes back, through
whatever port, there is a second way to where it went, and frames would go round for ever. Then the younger of the
guarded ports on that way is blocked. After a time it listens: only probes go out, and if none returns it opens again.

    probe := ff:ff:ff:ff:ff:ff, sender of that port, 88b6, "ukLG", version u8, hub 8 bytes, port u32, number u64,
             16 bytes of keyed BLAKE2s over all that follows 88b6; zeros up to 60 bytes

Only who has the key can make a probe, and only the last few count, so that nobody cuts a port by an old one. Several
hubs of ours on one way see each other's probes: the one with the least id blocks at the first that returns, the next at
the second, and so on, or all would block and nobody could talk.
"""

import enum
import hashlib
import hmac
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ukihashi.ether.frame import BROADCAST

PERIOD_S: Final = 2.0  # between two probes of a port; slow enough for every storm control (protocol section 18.4)
BLOCK_S: Final = 30.0  # the first time; twice as long each time it follows on another
LONGEST_S: Final = 600.0  # of a block; and without a loop for so long, the next block is a first one again
HURRY_S: Final = 1.0  # to the next probe when one has returned and it is another hub's turn to block
RECENT: Final = 4  # probes of a port that still count when they return
LISTEN_S: Final = 2 * PERIOD_S  # a port that was blocked only listens
MAX_OTHERS: Final = 32  # hubs of ours whose probes are remembered
MAX_RANK: Final = 2  # of them that go first

ETHERTYPE: Final = b"\x88\xb6"  # local experimental (IEEE 802)
MAGIC: Final = b"ukLG"
VERSION: Final = 1
ID_BYTES: Final = 8
KEY_BYTES: Final = 16

LOOP: Final = "loop"  # reason of drops at a blocked port

_BODY: Final = struct.Struct("!4sB8sIQ")
_SEAL: Final = 16  # bytes
_LEAST: Final = 60  # bytes of an Ethernet frame without FCS


class State(enum.StrEnum):
    """Of a guarded port."""

    OPEN = "open"
    BLOCKED = "blocked"
    LISTENING = "listening"  # only probes


class Found(NamedTuple):
    """A loop: a probe of `sent` came back at `back`, a guarded port or none."""

    sent: int
    back: int | None
    blocked: int
    seconds: float


@dataclass(slots=True)
class _Port:
    age: int  # the larger, the younger
    sender: bytes
    next_probe: float
    state: State = State.OPEN
    until: float = 0.0  # of BLOCKED and LISTENING
    seconds: float = 0.0  # of the last block
    opened_at: float = 0.0
    number: int = 0  # of the last probe
    returned: int = -1  # the last one that came back
    in_a_row: int = 0  # that came back
    because: int | None = None  # blocked: the other port of the loop


class LoopGuard:
    """The guarded ports of one virtual hub."""

    def __init__(self, *, hub_id: bytes, key: bytes) -> None:
        """Both random, of this start."""
        self._id: Final = hub_id
        self._key: Final = key
        self._ports: dict[int, _Port] = {}
        self._others: dict[bytes, float] = {}  # other hubs: when one of their probes passed here last
        self.dropped: dict[int, Counter[str]] = {}  # frames at blocked ports
        self.found: list[Found] = []  # for the caller to take out
        self.stirred = False  # `found` and `due_at` may have changed between two ticks; for the caller to put back

    def add(self, port: int, *, age: int, now: float) -> None:
        """Guard `port`, which is open; its first probe is due at once. `age`: the larger, the younger."""
        sender = hashlib.blake2s(port.to_bytes(4, "big"), key=self._id, digest_size=6).digest()
        self._ports[port] = _Port(age, bytes([sender[0] & 0xFC | 0x02]) + sender[1:], next_probe=now, opened_at=now)
        self.dropped[port] = Counter()

    def remove(self, port: int, now: float) -> None:
        """It is gone. What was blocked because of it listens at once."""
        self._ports.pop(port, None)
        self.dropped.pop(port, None)
        for one in self._ports.values():
            if one.state is State.BLOCKED and one.because == port:
                one.until = now

    @property
    def due_at(self) -> float:
        """When `tick` is wanted next."""
        return min((min(_times(one)) for one in self._ports.values()), default=float("inf"))

    def tick(self, now: float) -> list[tuple[int, bytes]]:
        """Do what is due; gives the probes to send, each by its port."""
        probes = []
        for port, one in self._ports.items():
            if one.state is State.BLOCKED and now >= one.until:
                one.state, one.until, one.next_probe = State.LISTENING, now + LISTEN_S, now
                one.in_a_row = 0
            elif one.state is State.LISTENING and now >= one.until:
                one.state, one.opened_at, one.because = State.OPEN, now, None
            if one.state is not State.BLOCKED and now >= one.next_probe:
                one.number += 1
                if one.number - one.returned > 2:  # two did not come back
                    one.in_a_row = 0
                one.next_probe = now + PERIOD_S
                probes.append((port, self._probe(port, one)))
        return probes

    def inward(self, frames: Sequence[bytes], port: int, now: float) -> Sequence[bytes]:
        """What of the frames that came in at a guarded `port` goes on: nothing while it is not open, no own probe."""
        if any(ETHERTYPE in frame[12:18] for frame in frames):
            frames = [frame for frame in frames if not self._is_own(frame, port, now)]
        return self._passing(frames, port)

    def outward(self, frames: Sequence[bytes], port: int, now: float) -> Sequence[bytes]:
        """What of the frames that would leave by a guarded `port` does so. An own probe came in where nobody guards."""
        if any(ETHERTYPE in frame[12:18] for frame in frames):
            frames = [frame for frame in frames if not self._is_own(frame, None, now)]
        return self._passing(frames, port)

    def row(self, port: int, now: float, name: Callable[[int], str]) -> dict[str, Any]:
        """How a guarded port stands, for listings."""
        one = self._ports[port]
        return {
            "loop": str(one.state),
            "loop_with": name(one.because) if one.because is not None else "",
            "loop_left_s": 0.0 if one.state is State.OPEN else round(max(0.0, one.until - now), 1),
        }

    def _passing(self, frames: Sequence[bytes], port: int) -> Sequence[bytes]:
        if self._ports[port].state is State.OPEN:
            return frames
        self.dropped[port][LOOP] += len(frames)
        return ()

    # -- probes ---------------------------------------------------------------------------------------------------

    def _probe(self, port: int, one: _Port) -> bytes:
        body = _BODY.pack(MAGIC, VERSION, self._id, port, one.number)
        return (BROADCAST + one.sender + ETHERTYPE + body + self._seal(body)).ljust(_LEAST, b"\0")

    def _seal(self, body: bytes) -> bytes:
        return hashlib.blake2s(body, key=self._key, digest_size=_SEAL).digest()

    def _is_own(self, frame: bytes, back: int | None, now: float) -> bool:
        """Is it a probe of this hub? Then see what it says."""
        start = 14 if frame[12:14] == ETHERTYPE else 18  # in a VLAN that somebody on the way put it into
        end = start + _BODY.size
        if frame[start - 2 : start] != ETHERTYPE or len(frame) < end + _SEAL:
            return False
        body = frame[start:end]
        magic, version, hub, port, number = _BODY.unpack(body)
        if magic != MAGIC or version != VERSION:
            return False
        if hub != self._id:
            self._note_other(hub, now)
            return False
        if not hmac.compare_digest(frame[end : end + _SEAL], self._seal(body)):
            return False
        self._returned(port, number, back, now)
        return True

    def _note_other(self, hub: bytes, now: float) -> None:
        self._others.pop(hub, None)
        while len(self._others) >= MAX_OTHERS:
            del self._others[next(iter(self._others))]
        self._others[hub] = now

    def _returned(self, port: int, number: int, back: int | None, now: float) -> None:
        one = self._ports.get(port)
        if one is None or one.state is State.BLOCKED or not one.number - RECENT < number <= one.number:
            return
        other = self._ports.get(back) if back is not None else None
        if other is not None and other.state is State.BLOCKED:
            return
        self.stirred = True
        if number > one.returned:
            one.returned = number
            one.in_a_row += 1
        tried = State.LISTENING in (one.state, other.state if other else None)
        if not tried and one.in_a_row <= self._rank(now):
            one.next_probe = min(one.next_probe, now + HURRY_S)
            return
        if other is None or back is None or _gives_way(one) >= _gives_way(other):
            self._block(port, back, port, back, now)
        else:
            self._block(back, port, port, back, now)

    def _rank(self, now: float) -> int:
        """How many hubs on the way decide before us."""
        lately = [hub for hub, at in self._others.items() if now - at <= 2 * PERIOD_S]
        return min(MAX_RANK, sum(hub < self._id for hub in lately))

    def _block(self, port: int, because: int | None, sent: int, back: int | None, now: float) -> None:
        one = self._ports[port]
        lasting = one.seconds and (one.state is State.LISTENING or now - one.opened_at < LONGEST_S)
        one.seconds = min(2 * one.seconds, LONGEST_S) if lasting else BLOCK_S
        one.state, one.until, one.in_a_row = State.BLOCKED, now + one.seconds, 0
        one.because = because if because != port else None
        self.found.append(Found(sent, back, port, one.seconds))


def _gives_way(one: _Port) -> tuple[bool, int]:
    """Of two ports the one with the larger value is blocked: one that is only being tried, else the younger."""
    return one.state is State.LISTENING, one.age


def _times(one: _Port) -> tuple[float, ...]:
    match one.state:
        case State.BLOCKED:
            return (one.until,)
        case State.LISTENING:
            return (one.until, one.next_probe)
        case _:
            return (one.next_probe,)
