"""A sensor without a network: the real bus, fed by hand."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.alert.findings import FINDING, end, session_end

from ukihashi.alert.bus import Bus
from ukihashi.alert.eve import Eve, Stats
from ukihashi.detect.record import Connection, Finding, Piece, Reason, Step, Verdict

LOGIN = (("C1", True, 2739), ("S1", False, 1012), ("C2", True, 3105), ("S2", False, 2604))


def timeline(begin: float) -> tuple[Step, ...]:
    """A login, a further connection, and keep-alives of both directions."""
    steps = [Step(begin, "connection", 0, True, 0, 0.0), Step(begin + 0.01, "turn", 0, True, 517, 0.01, "hello")]
    steps.append(Step(begin + 0.02, "turn", 0, False, 1402, 0.01))
    for at, (name, toward_server, size) in enumerate(LOGIN):
        steps.append(Step(begin + 0.03 + at * 0.012, "turn", 0, toward_server, size, 0.012, name))
    steps.append(Step(begin + 1.1, "connection", 1, True, 0, 0.0))
    gaps = ((4.1, 233), (4.2, 87), (7.9, 402), (5.4, 311), (4.1, 520), (9.3, 61), (4.15, 274), (6.8, 355))
    for toward_server in (True, False):
        moment = begin + 1.4
        for gap, size in gaps if toward_server else gaps[::-1]:
            moment += gap
            steps.append(Step(moment, "message", 1, toward_server, size, gap))
    return tuple(sorted(steps, key=lambda step: step.time))


def finding(client: str = "192.168.126.229", ago: float = 10.0, **changes: Any) -> Finding:
    """A finding of this moment, from `client`, with a timeline."""
    begin = time.time() - ago
    first = end(client, 50412)
    pieces = (
        Piece("C1", 2739, "bytes", 1555, 3720, 0.11, 2.2),
        Piece("S1", 1012, "bytes", 300, 1750, 0.22, 1.5),
    )
    made = replace(
        FINDING,
        client=first,
        begin=begin,
        decided=begin + 1.5,
        connections=(Connection(first, begin), Connection(replace(first, port=50413), begin + 1.1)),
        reasons=(Reason("login dialogue", 8.8, pieces), Reason("further connection", 6.2)),
        timeline=timeline(begin),
    )
    return replace(made, **changes)


class Sensor:
    """Listens on `path` until closed."""

    def __init__(self, path: Path, cards: tuple[str, ...] = ("eth1",)) -> None:
        self._bus = Bus(path, cards, Eve(",".join(cards)))
        self._began = time.time() - 3 * 3600
        self._packets = 0

    def find(self, *found: Finding) -> None:
        """Tell of findings."""
        for one in found:
            self._bus.take(one)

    def suspect(self, found: Finding) -> Finding:
        """Tell of one that is only probable; the same, confirmed later."""
        self._bus.take(replace(found, verdict=Verdict.PROBABLE, score=8.8, reasons=found.reasons[:1]))
        return replace(found, again=True)

    def end(self, found: Finding) -> None:
        """A session is over now."""
        self._bus.take(session_end(found, time.time() - found.begin))

    def count(self, packets: int = 1000, *, drops: int = 0, coverage: float = 1.0, flows: int = 42) -> None:
        """A second has passed."""
        now = time.time()
        self._packets += packets
        self._bus.count(Stats(now, now - self._began, self._packets, drops, 0, coverage, flows))

    def close(self) -> None:
        """The sensor ends."""
        self._bus.close()


def findings(count: int) -> Iterable[Finding]:
    """Several, of different clients, the oldest first."""
    return [finding(f"192.168.126.{200 + number}", ago=100.0 * (count - number)) for number in range(count)]
