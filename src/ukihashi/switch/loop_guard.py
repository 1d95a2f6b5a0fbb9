"""Loops found and cut: a virtual hub has no spanning tree, and neither have others (docs/switch.md, "Loops").

Each guarded port (a cascade, a bridge, a member that bridges) sends a small broadcast of ours every PERIOD_S. If it
comes back, on another port or on the same, there is a second way to where it went, and frames would go round for ever.
Then the port that gives way is blocked: only probes pass it, both ways. As long as they return, the loop is there and
the port stays blocked; when they have failed to for QUIET_S it opens. So nothing is tried at the cost of a storm.

    probe := ff:ff:ff:ff:ff:ff, sender of that port, 88b6, "ukLG", version u8, hub 8 bytes, port u32, number u64,
             16 bytes of keyed BLAKE2s over all that follows 88b6; zeros up to 60 bytes

Only who has the key can make a probe, and only the last few count, so that nobody cuts a port by an old one. Several
hubs of ours on one way see each other's probes: the one with the least id blocks at the first that returns, the next at
one sent HURRY_S later, and so on, or all would block and nobody could talk.

One guard knows all ports of a virtual hub, whichever worker has them (`hub.guarding`).
"""

import enum
import hashlib
import hmac
import math
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ukihashi.ether.frame import BROADCAST

PERIOD_S: Final = 2.0  # between two probes of a port; slow enough for every storm control (protocol section 18.4)
HURRY_S: Final = 1.0  # that a hub of a higher id waits for one of a lower to block
SOON_S: Final = 0.25  # between two probes of a port at which something looks like a loop
QUIET_S: Final = 7.0  # without a probe that returns: a blocked port opens; three of each port would have to be lost
STAGGER_S: Final = 2.2  # added for each hub of ours on the way with a lower id, so that two don't open at once
STAGGERS: Final = 3  # at most so often
AGAIN_S: Final = 60.0  # blocked again so soon after it opened: the quiet has to be twice as long then
LONGEST_S: Final = 600.0  # of a quiet
GONE_S: Final = 3.0  # a port that is gone counts still: it may be on its way to another worker
LOOK_S: Final = 0.5  # how often blocked ports are looked at
RECENT: Final = 8  # probes of a port that still count when they return
FRESH_S: Final = 4.0  # for so long
ROW_S: Final = 2 * PERIOD_S + SOON_S  # without a return, and the next is a first one again
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
_TICKS: Final = 16  # numbers of probes rise at least so many a second, in whatever process


class State(enum.StrEnum):
    """Of a guarded port, for listings."""

    OPEN = "open"
    BLOCKED = "blocked"


class Kind(enum.IntEnum):
    """Of two ports the one of the larger kind gives way; of one kind, the younger."""

    BRIDGE = 0  # the hub's own
    CASCADE = 1
    MEMBER = 2  # that bridges
    SUSPECT = 3  # a member that doesn't say so


Age = tuple[int, float]  # kind, and when it began: the larger gives way


class Change(NamedTuple):
    """A port was blocked, or is open again."""

    port: str
    blocked: bool
    because: str  # the other port of the loop; `port` itself if all of it is behind this one
    sent: str = ""  # blocked: whose probe came back
    back: str = ""  # and where


class Probe(NamedTuple):
    """What stands in one."""

    hub: bytes  # 8 bytes
    body: bytes  # with its seal


def read_probe(frame: bytes) -> Probe | None:
    """The probe in a frame, of whatever hub; None for any other frame. Says nothing about who made it."""
    start = 14 if frame[12:14] == ETHERTYPE else 18  # in a VLAN that somebody on the way put it into
    end = start + _BODY.size + _SEAL
    if frame[start - 2 : start] != ETHERTYPE or len(frame) < end:
        return None
    magic, version, hub, _port, _number = _BODY.unpack_from(frame, start)
    return Probe(hub, frame[start:end]) if magic == MAGIC and version == VERSION else None


@dataclass(slots=True)
class _Port:
    age: Age
    number: int  # of this port
    sender: bytes
    next_probe: float
    last: int = 0  # number of the last probe
    sent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT))  # numbers, and when
    is_blocked: bool = False
    because: str = ""
    quiet_s: float = QUIET_S
    hold_until: float = -math.inf  # blocked whatever is seen
    opened_at: float = -math.inf
    gone_at: float = math.inf  # it was removed

    @property
    def is_there(self) -> bool:
        return self.gone_at == math.inf


@dataclass(slots=True)
class _Pair:
    """Two ports that a probe went between, or one to which its own came back."""

    first: float  # when the first of a row was sent
    last: float  # when the last one came


class LoopGuard:
    """The guarded ports of one virtual hub, by their names here: any text that is one port's own."""

    def __init__(self, *, hub_id: bytes, key: bytes) -> None:
        """Both random; the same for all workers of a hub, and for those after them."""
        self.id: Final = hub_id
        self.key: Final = key
        self._ports: dict[str, _Port] = {}
        self._numbers: dict[int, str] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}  # both in order
        self._others: dict[bytes, float] = {}  # other hubs: when one of their probes passed here last
        self._looked_at = -math.inf
        self.changes: list[Change] = []  # for the caller to take out

    def __contains__(self, port: str) -> bool:
        return port in self._ports and self._ports[port].is_there

    def knows(self, port: str) -> bool:
        """It is guarded, or was a moment ago."""
        return port in self._ports

    def add(self, port: str, *, age: Age, now: float, blocked_for: str = "") -> None:
        """Guard `port`; its first probe is due at once. One that is back within GONE_S is as it was.

        `blocked_for`: it was blocked because of that port, as who had it before says.
        """
        known = self._ports.get(port)
        if known is not None:
            known.age, known.gone_at = age, math.inf
            return
        number = self._number_for(port)
        sender = hashlib.blake2s(port.encode(), key=self.id, digest_size=6).digest()
        one = _Port(age, number, bytes([sender[0] & 0xFC | 0x02]) + sender[1:], next_probe=now)
        if blocked_for:
            one.is_blocked, one.because, one.hold_until = True, blocked_for, now + QUIET_S
        self._ports[port] = one
        self._numbers[number] = port

    def remove(self, port: str, now: float) -> None:
        """It is gone. What was blocked because of it opens soon."""
        one = self._ports.get(port)
        if one is not None and one.is_there:
            one.gone_at = now

    def is_blocked(self, port: str) -> bool:
        """Is it? Unknown ones are not."""
        one = self._ports.get(port)
        return one is not None and one.is_blocked

    def because(self, port: str) -> str:
        """Of a blocked port, the other one of the loop."""
        return self._ports[port].because

    @property
    def due_at(self) -> float:
        """When `tick` is wanted next."""
        due = min((one.next_probe for one in self._ports.values() if one.is_there), default=math.inf)
        if any(one.is_blocked or not one.is_there for one in self._ports.values()):
            due = min(due, self._looked_at + LOOK_S)
        return due

    def tick(self, now: float) -> list[tuple[str, bytes]]:
        """Do what is due; gives the probes to send, each by its port."""
        if now >= self._looked_at + LOOK_S:
            self._look(now)
        probes = []
        for port, one in self._ports.items():
            if not one.is_there or now < one.next_probe:
                continue
            one.next_probe = now + PERIOD_S
            itself = self._pairs.get((port, port))
            if one.is_blocked and itself is not None and now - itself.last < PERIOD_S:
                continue  # its probes go round out there by themselves: no more of them
            one.last = max(one.last + 1, int(now * _TICKS))
            one.sent.append((one.last, now))
            probes.append((port, self._probe(one)))
        return probes

    def hurry(self, port: str, now: float) -> None:
        """Something at an open `port` looks like a loop: don't wait for its next probe."""
        one = self._ports.get(port)
        if one is not None and not one.is_blocked:
            last = one.sent[-1][1] if one.sent else -math.inf
            one.next_probe = min(one.next_probe, max(now, last + SOON_S))

    def other(self, hub: bytes, now: float) -> None:
        """A probe of another hub passed here."""
        if hub == self.id:
            return
        self._others.pop(hub, None)
        while len(self._others) >= MAX_OTHERS:
            del self._others[next(iter(self._others))]
        self._others[hub] = now

    def returned(self, body: bytes, back: str, now: float) -> None:
        """What looks like a probe of this hub (`Probe.body`) came in at `back`."""
        end = len(body) - _SEAL
        if end != _BODY.size or not hmac.compare_digest(body[end:], self._seal(body[:end])):
            return
        _magic, _version, _hub, port_number, number = _BODY.unpack_from(body)
        sent = self._numbers.get(port_number, "")
        one, other = self._ports.get(sent), self._ports.get(back)
        if one is None or other is None or not one.is_there or not other.is_there:
            return
        sent_at = next((at for known, at in one.sent if known == number and now - at <= FRESH_S), None)
        key = (min(sent, back), max(sent, back))
        pair = self._pairs.get(key)
        if sent_at is None:
            if pair is not None and (one.is_blocked or other.is_blocked):
                pair.last = now  # an old one that still goes round shows as much
            return
        if pair is None or now - pair.last > ROW_S:
            pair = self._pairs[key] = _Pair(sent_at, now)
        pair.last = now
        if one.is_blocked or other.is_blocked:
            self._note_because(sent, back)
            return
        turn_at = pair.first + HURRY_S * min(self._rank(now), MAX_RANK)
        if sent_at < turn_at:
            one.next_probe = min(one.next_probe, turn_at)
        else:
            loser = max((one.age, sent), (other.age, back))[1]
            self._block(loser, back if loser == sent else sent, sent, back, now)

    # -- probes ---------------------------------------------------------------------------------------------------

    def _number_for(self, port: str) -> int:
        number = int.from_bytes(hashlib.blake2s(port.encode(), digest_size=4).digest(), "big")
        while number in self._numbers:
            number = (number + 1) & 0xFFFFFFFF
        return number

    def _probe(self, one: _Port) -> bytes:
        body = _BODY.pack(MAGIC, VERSION, self.id, one.number, one.last)
        return (BROADCAST + one.sender + ETHERTYPE + body + self._seal(body)).ljust(_LEAST, b"\0")

    def _seal(self, body: bytes) -> bytes:
        return hashlib.blake2s(body, key=self.key, digest_size=_SEAL).digest()

    def _rank(self, now: float) -> int:
        """How many hubs on the way decide before us."""
        return sum(hub < self.id and now - at <= 2 * PERIOD_S for hub, at in self._others.items())

    # -- blocks ---------------------------------------------------------------------------------------------------

    def _block(self, port: str, because: str, sent: str, back: str, now: float) -> None:
        one = self._ports[port]
        again = now - one.opened_at < AGAIN_S
        one.quiet_s = min(2 * one.quiet_s, LONGEST_S) if again else QUIET_S
        one.is_blocked, one.because = True, because
        one.next_probe = min(one.next_probe, now + PERIOD_S)
        self.changes.append(Change(port, True, because, sent, back))

    def _note_because(self, sent: str, back: str) -> None:
        """The loop of a blocked port may be another by now."""
        for blocked, opened in ((sent, back), (back, sent)):
            one = self._ports[blocked]
            if one.is_blocked and not self._ports[opened].is_blocked and not self._is_open(one.because):
                one.because = opened

    def _is_open(self, port: str) -> bool:
        one = self._ports.get(port)
        return one is not None and one.is_there and not one.is_blocked

    def _look(self, now: float) -> None:
        """Who is gone for good, and who may open: the oldest first, as what it then shows keeps others blocked."""
        self._looked_at = now
        for port, one in list(self._ports.items()):
            if now - one.gone_at >= GONE_S:
                del self._ports[port], self._numbers[one.number]
                self._pairs = {pair: seen for pair, seen in self._pairs.items() if port not in pair}
        for port, one in sorted(self._ports.items(), key=lambda item: (item[1].age, item[0])):
            if one.is_blocked and one.is_there and self._may_open(port, one, now):
                because, one.because = one.because, ""
                one.is_blocked, one.opened_at = False, now
                self.changes.append(Change(port, False, because))

    def _may_open(self, port: str, one: _Port, now: float) -> bool:
        quiet_s = one.quiet_s + STAGGER_S * min(self._rank(now), STAGGERS)
        for name, other, seen in self._seen_with(port):
            if now - seen.last >= quiet_s:
                continue
            if name == port or not other.is_blocked:
                return False
        return now >= one.hold_until

    def _seen_with(self, port: str) -> Iterator[tuple[str, _Port, _Pair]]:
        for pair, seen in self._pairs.items():
            if port in pair:
                name = pair[0] if pair[1] == port else pair[1]
                yield name, self._ports[name], seen
