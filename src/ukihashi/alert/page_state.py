"""What a reader of the sensor's bus knows: the findings, whether they live, how well the sensor sees.

`View` is folded from the events of `alert/bus.py`, the same for the terminal (`alert/top.py`) and for the page.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

Event = Mapping[str, Any]

MAX_FOUND: Final = 1024  # findings kept, the oldest dropped
HISTORY: Final = 60  # minutes of coverage kept
CONFIRMED: Final = "CONFIRMED"
_FOLLOWERS: Final = frozenset({"vpn_connection", "vpn_end", "flow"})


@dataclass(slots=True)
class Found:
    """One finding, and what became of it."""

    key: str  # 16 hex digits, for addresses
    event: Event
    connections: int = 1
    ended: float | None = None  # seconds since 1970; None = it lives, as far as the sensor knows
    end_reason: str = ""

    @property
    def about(self) -> Event:
        """Our object inside the EVE object."""
        return mapping(self.event.get("ukihashi"))

    @property
    def confirmed(self) -> bool:
        """A log line, not only a suspicion."""
        return self.about.get("verdict") == CONFIRMED

    @property
    def allowed(self) -> bool:
        """The allow list knows it."""
        return bool(self.about.get("allowed"))

    @property
    def begin(self) -> float:
        """Seconds since 1970."""
        return moment(self.event.get("timestamp"))

    @property
    def score(self) -> float:
        """Sum of the reasons, as natural logarithm of the likelihood ratio."""
        return number(self.about.get("score"))

    @property
    def client(self) -> str:
        """Address and port."""
        return _end(self.event, "src")

    @property
    def server(self) -> str:
        """Address and port of whom the client talks to."""
        return _end(self.event, "dest")

    @property
    def reasons(self) -> list[tuple[str, float]]:
        """Names and scores, the strongest first."""
        given = self.about.get("reasons")
        rows = [(text(one.get("name")), number(one.get("score"))) for one in _mappings(given)]
        return sorted(rows, key=lambda row: -abs(row[1]))


@dataclass(frozen=True, slots=True)
class Gauge:
    """The sensor's last figures."""

    packets: int = 0  # since it began
    dropped: int = 0  # since it began
    rate: float = 0.0  # packets a second, now
    lost: int = 0  # packets dropped in the last minute
    coverage: float | None = None  # share of the traffic that was seen, 0..1
    flows: int = 0  # connections known now
    uptime: float = 0.0  # seconds


@dataclass(slots=True)
class Minute:
    """One bar of the history."""

    begin: float  # seconds since 1970, a whole minute
    packets: int = 0
    dropped: int = 0
    coverage: float = 1.0  # the worst of the minute
    known: bool = False


@dataclass(slots=True)
class View:
    """Everything that is shown; `now` is always an argument, in seconds since 1970."""

    version: str = ""
    cards: tuple[str, ...] = ()
    connected: bool = False
    since: float | None = None  # when the bus was reached, or lost; None = never reached
    gauge: Gauge = field(default_factory=Gauge)
    changes: int = 0  # grows with each event
    _found: dict[str, Found] = field(default_factory=dict)  # oldest first
    _minutes: deque[Minute] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _second: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=61))

    def take(self, event: Event, now: float) -> None:
        """One event of the bus. What is not known is left out."""
        kind = event.get("event_type")
        self.changes += 1
        if kind == "hello":
            self._hello(event, now)
        elif kind == "alert":
            self._alert(event)
        elif kind == "stats":
            self._stats(event, now)
        elif kind in _FOLLOWERS:
            self._follow(event, text(kind))

    def lost(self, now: float) -> None:
        """The bus can't be reached."""
        if self.connected or self.since is None:
            self.changes += 1
            self.since = now if self.connected else None
            self.connected = False
            self.gauge = Gauge()
            self._second.clear()

    def found(self, *, probable: bool = True, allowed: bool = True) -> list[Found]:
        """Findings, the newest first."""
        return [
            one
            for one in sorted(self._found.values(), key=lambda one: -one.begin)
            if (one.confirmed or probable) and (allowed or not one.allowed)
        ]

    def find(self, key: str) -> Found | None:
        """The finding of that key."""
        return self._found.get(key)

    def minutes(self, now: float) -> list[Minute]:
        """`HISTORY` minutes up to now, the oldest first; those without a sensor are not known."""
        last = now // 60 * 60
        known = {minute.begin: minute for minute in self._minutes}
        starts = (last - 60 * back for back in reversed(range(HISTORY)))
        return [known.get(start, Minute(start)) for start in starts]

    # -- events --------------------------------------------------------------------------------------------------

    def _hello(self, event: Event, now: float) -> None:
        self.version = text(event.get("version"))
        cards = event.get("cards")
        self.cards = tuple(text(card) for card in cards) if isinstance(cards, list) else ()
        self.connected, self.since = True, now
        self._second.clear()
        for found in _mappings(event.get("findings")):
            self._alert(found)

    def _alert(self, event: Event) -> None:
        key = key_of(event)
        known = self._found.get(key)
        if known is not None:  # PROBABLE before, or told again after a new connection to the bus
            known.event = event
        else:
            known = self._found[key] = Found(key, event)
            while len(self._found) > MAX_FOUND:
                del self._found[next(iter(self._found))]
        evidence = mapping(known.about.get("evidence"))
        connections = evidence.get("connections")
        if isinstance(connections, list):
            known.connections = max(known.connections, len(connections))
        if known.about.get("ended"):  # the snapshot of a sensor that knows
            known.ended = moment(known.about["ended"])

    def _follow(self, event: Event, kind: str) -> None:
        """A further connection or the end of a session: of the latest finding of that session."""
        session = event.get("session") or event.get("community_id")
        for found in reversed(self._found.values()):
            if found.event.get("community_id") == session:
                if kind == "vpn_connection":
                    found.connections += 1
                elif kind == "vpn_end" and found.ended is None:
                    found.ended = moment(event.get("timestamp"))
                    found.end_reason = text(event.get("reason"))
                return

    def _stats(self, event: Event, now: float) -> None:
        told = mapping(event.get("stats")) or event
        packets, dropped = int(number(told.get("packets"))), int(number(told.get("drops")))
        share = told.get("coverage")
        coverage = min(max(number(share), 0.0), 1.0) if isinstance(share, int | float) else None
        if self._second and (packets < self._second[-1][1] or now < self._second[-1][0]):
            self._second.clear()  # another sensor, or the clock was set
        before = self._second[-1] if self._second else None
        self._second.append((now, packets, dropped))
        while self._second[0][0] < now - 60:
            self._second.popleft()
        rate = (packets - before[1]) / max(now - before[0], 0.001) if before is not None else 0.0
        lost = dropped - self._second[0][2]
        flows, uptime = int(number(told.get("flows"))), number(told.get("uptime"))
        self.gauge = Gauge(packets, dropped, rate, lost, coverage, flows, uptime)
        minute = now // 60 * 60
        if not self._minutes or self._minutes[-1].begin != minute:
            self._minutes.append(Minute(minute, known=True))
        bar = self._minutes[-1]
        if before is not None:
            bar.packets += packets - before[1]
            bar.dropped += max(0, dropped - before[2])
        if coverage is not None:
            bar.coverage = min(bar.coverage, coverage)


def key_of(event: Event) -> str:
    """A finding's key: its connection and when that began."""
    name = f"{event.get('community_id')} {event.get('timestamp')}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def lines_of(data: bytes) -> Iterator[Event]:
    """The objects of whole lines; what is none is skipped."""
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event


# -- fields that may be absent or of another kind ----------------------------------------------------------------


def mapping(value: object) -> Event:
    """An object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> float:
    """A number, else 0."""
    return float(value) if isinstance(value, int | float) else 0.0


def text(value: object) -> str:
    """A text without control characters; a stranger chose some of them. None is empty."""
    letters = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters[:1024])


def moment(value: object) -> float:
    """EVE's time stamp as seconds since 1970; 0 for anything else."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def numbers(value: object) -> list[float]:
    """A list of numbers; others are left out."""
    return [float(one) for one in value if isinstance(one, int | float)] if isinstance(value, list | tuple) else []


def _mappings(value: object) -> Iterable[Event]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _end(event: Event, side: str) -> str:
    host, port = text(event.get(f"{side}_ip")), text(event.get(f"{side}_port"))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
