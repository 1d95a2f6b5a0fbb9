"""A session that has its line is followed to its end, though nothing of it is looked at any more."""

from random import Random

import pytest

from lab.scene import Frame, Talk, softether_login, standard_keepalives
from ukihashi.detect import trail
from ukihashi.detect.flow import FlowTable
from ukihashi.detect.record import Ended, Finding, Found
from ukihashi.detect.trail import GONE_S
from ukihashi.detect.verdict import Detector

BEGIN = 1_700_000_000.0
LONG = 400.0  # seconds; longer than a silent connection is remembered


class Watch:
    """A detector that is fed frame by frame, and second by second."""

    def __init__(self) -> None:
        self.detector = Detector()
        self.table = FlowTable(self.detector)
        self.found: list[Found] = []

    def feed(self, frames: list[Frame]) -> None:
        for time, frame in sorted(frames, key=lambda item: item[0]):
            self.table.take(1, frame, [(time, 0, len(frame), len(frame))])
            self.found += self.detector.drain()

    def wait(self, begin: float, seconds: float) -> None:
        for second in range(round(seconds)):
            self.table.advance(begin + second)
            self.found += self.detector.drain()

    @property
    def ends(self) -> list[Ended]:
        return [one for one in self.found if isinstance(one, Ended)]


def session(port: int = 50000, client: str = "10.0.0.1") -> tuple[Talk, Talk]:
    """A login and its further connection."""
    first = Talk((client, port), ("10.0.0.2", 443), begin=BEGIN)
    softether_login(first, Random(port))
    second = Talk((client, port + 1), ("10.0.0.2", 443), begin=BEGIN + 1)
    softether_login(second, Random(port + 1), further=True)
    return first, second


def test_as_long_as_packets_pass_a_session_lives_and_its_end_is_told_once() -> None:
    first, second = session()
    standard_keepalives(first, Random(1), seconds=LONG)
    watch = Watch()
    watch.feed(first.frames + second.frames)
    assert [type(one) for one in watch.found if isinstance(one, Finding)] == [Finding]
    assert [end.connection.client.port for end in watch.ends] == [50001], "the silent one only"
    assert watch.ends[0].reason == "silent"
    said = len(first.frames)
    first.close()
    watch.feed(first.frames[said:])
    end = first.frames[-1][0]
    watch.wait(end, GONE_S - 5)
    assert [(one.connection.client.port, one.session) for one in watch.ends[1:]] == [(50000, False)]
    watch.wait(end + GONE_S - 5, 20)
    assert [(one.reason, one.session) for one in watch.ends[1:]] == [("closed", False), ("closed", True)]
    assert abs(watch.ends[-1].time - end) < 1e-3


def test_a_connection_that_joins_while_the_session_waits_keeps_it() -> None:
    first, second = session()
    first.close()
    watch = Watch()
    watch.feed(first.frames + second.frames)
    watch.wait(second.now, 3)
    second.now += 3
    second.close()
    later = Talk(("10.0.0.1", 50002), ("10.0.0.2", 443), begin=second.now + 20)
    softether_login(later, Random(9), further=True)
    watch.feed(second.frames[-2:] + later.frames)
    watch.wait(later.now, 60)
    assert [end.session for end in watch.ends] == [False, False], "20 s later it goes on"
    later.now += 61
    later.close()
    watch.feed(later.frames[-2:])
    watch.wait(later.now, 60)
    assert [end.session for end in watch.ends] == [False, False, False, True]


def test_the_number_of_sessions_that_are_followed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "MAX_TRAILS", 3)
    watch = Watch()
    for number in range(6):
        first, second = session(client=f"10.0.1.{number}")
        watch.feed(first.frames + second.frames)
    watch.detector.finish(BEGIN + 10)
    ends = [one for one in watch.detector.drain() if isinstance(one, Ended) and one.session]
    assert [end.finding.client.host for end in ends] == ["10.0.1.3", "10.0.1.4", "10.0.1.5"]
