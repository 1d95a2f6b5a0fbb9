"""What a reader of the bus makes of its events."""

import time
from typing import Any

import pytest
from tests.alert.findings import session_end
from tests.alert.sensor import finding

from ukihashi.alert import eve
from ukihashi.alert.page_state import HISTORY, MAX_FOUND, View, lines_of
from ukihashi.detect.record import Attached, Connection, Verdict

MAKER = eve.Eve("eth1")
NOW = 1_800_000_030.0


def stats(packets: int, drops: int = 0, coverage: float = 1.0) -> dict[str, Any]:
    return {"event_type": "stats", "stats": {"packets": packets, "drops": drops, "coverage": coverage, "flows": 3}}


def test_a_finding_lives_until_its_session_ends() -> None:
    view, found = View(), finding(ago=100.0)
    view.take(MAKER.event(found), NOW)
    view.take(MAKER.event(Attached(found, Connection(found.client, found.begin + 2))), NOW)
    (shown,) = view.found()
    assert (shown.connections, shown.ended) == (3, None)
    view.take(MAKER.event(session_end(found, 60.0)), NOW)
    assert shown.ended == pytest.approx(found.begin + 60.0, abs=0.01)
    assert shown.end_reason == "closed"


def test_a_suspicion_that_is_confirmed_is_one_finding() -> None:
    view, found = View(), finding()
    view.take(MAKER.event(finding(verdict=Verdict.PROBABLE, begin=found.begin)), NOW)
    assert [one.confirmed for one in view.found()] == [False]
    assert view.found(probable=False) == []
    view.take(MAKER.event(found), NOW)
    assert [one.confirmed for one in view.found()] == [True]


def test_the_snapshot_after_a_reconnect_adds_nothing_twice() -> None:
    view, found = View(), MAKER.event(finding())
    for _time in range(2):
        view.take({"event_type": "hello", "cards": ["eth1"], "findings": [found]}, NOW)
        view.lost(NOW)
    assert len(view.found()) == 1


def test_the_gauge_counts_a_minute_and_the_history_an_hour() -> None:
    view = View()
    view.take({"event_type": "hello", "cards": []}, NOW)
    for second in range(130):
        view.take(stats(1000 * second, 5 if second >= 90 else 0, 0.5 if second == 90 else 1.0), NOW + second)
    assert view.gauge.rate == pytest.approx(1000)
    assert view.gauge.lost == 5
    minutes = view.minutes(NOW + 130)
    assert len(minutes) == HISTORY
    assert [minute.coverage for minute in minutes if minute.known] == [1.0, 1.0, 0.5]
    assert sum(minute.dropped for minute in minutes) == 5
    for second in range(130, 200):
        view.take(stats(1000 * second, 5), NOW + second)
    assert view.gauge.lost == 0


def test_another_sensor_begins_to_count_anew() -> None:
    view = View()
    view.take(stats(1_000_000, 50), NOW)
    view.take(stats(10), NOW + 1)
    view.take(stats(30), NOW + 2)
    assert (view.gauge.rate, view.gauge.lost) == (20, 0)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event_type": 7},
        {"event_type": "alert"},
        {"event_type": "alert", "ukihashi": [], "timestamp": "yesterday"},
        {"event_type": "alert", "ukihashi": {"reasons": 3, "evidence": {"connections": 1}, "score": "x", "ended": {}}},
        {"event_type": "stats", "stats": {"packets": None, "coverage": "all", "drops": -1}},
        {"event_type": "vpn_end", "session": None},
        {"event_type": "hello", "findings": "none", "cards": 3},
    ],
)
def test_an_event_of_another_version_breaks_nothing(event: dict[str, Any]) -> None:
    view = View()
    view.take(event, NOW)
    for found in view.found():
        assert (found.client, found.reasons, found.begin) == (":", [], 0.0)


def test_lines_that_are_no_objects_are_skipped() -> None:
    assert list(lines_of(b'{"a":1}\n[]\nnonsense\n\xff\n' + b"[" * 100_000 + b'\n{"b":2}')) == [{"a": 1}, {"b": 2}]


def test_memory_is_bounded() -> None:
    view, event = View(), MAKER.event(finding())
    for number in range(MAX_FOUND + 100):
        view.take({**event, "community_id": str(number)}, time.time())
    assert len(view.found()) == MAX_FOUND
