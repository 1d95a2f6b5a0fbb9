"""The bus: a snapshot, then every event; readers that are slow, die or are too many harm nobody."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.alert.findings import ATTACHED, FINDING, session_end

from lab.wait import until
from ukihashi.alert import bus as bus_module
from ukihashi.alert.bus import MAX_READERS, MAX_UNSENT, REMEMBERED, Bus, Events, connect
from ukihashi.alert.eve import Eve, Stats
from ukihashi.detect.record import Verdict
from ukihashi.errors import DaemonUnreachable, EnvironmentLacks

STATS = Stats(1_700_000_000.0, 5.0, packets=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "alert.sock"


@pytest.fixture
def bus(path: Path) -> Iterator[Bus]:
    made = Bus(path, ("eth1", "eth2"), Eve("eth1,eth2"))
    yield made
    made.close()


def first(events: Events, count: int) -> list[dict[str, Any]]:
    found = []
    for event in events:
        found.append(event)
        if len(found) == count:
            return found
    raise AssertionError(f"only {found}")


def test_hello_then_each_event_as_it_happens(bus: Bus, path: Path) -> None:
    bus.take(FINDING)
    with connect(path) as events:
        (hello,) = first(events, 1)
        bus.take(ATTACHED)
        bus.count(STATS)
        attached, stats = first(events, 2)
    assert (hello["event_type"], hello["cards"]) == ("hello", ["eth1", "eth2"])
    assert [finding["event_type"] for finding in hello["findings"]] == ["alert"]
    assert attached["event_type"] == "vpn_connection"
    assert attached["session"] == hello["findings"][0]["community_id"]
    assert (stats["event_type"], stats["stats"]["packets"]) == ("stats", 7)


def test_only_the_owner_may_read(bus: Bus, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_snapshot_is_bounded_knows_ends_and_replaces_what_was_only_probable(bus: Bus, path: Path) -> None:
    for port in range(REMEMBERED):
        bus.take(replace(FINDING, client=replace(FINDING.client, port=port)))
    bus.take(replace(FINDING, verdict=Verdict.PROBABLE))
    bus.take(replace(FINDING, again=True))
    bus.take(session_end(FINDING, 61.0))
    with connect(path) as events:
        findings = first(events, 1)[0]["findings"]
    assert len(findings) == REMEMBERED
    assert findings[-1]["ukihashi"]["verdict"] == "CONFIRMED"
    assert findings[-1]["ukihashi"]["ended"] == "2004-08-28T11:02:01.000000+0000"
    assert [one["src_port"] for one in findings].count(FINDING.client.port) == 1


def test_a_reader_misses_nothing_and_gets_nothing_twice(bus: Bus, path: Path) -> None:
    """Readers come while events are made: snapshot and events together are each event once, in order."""
    total = 200

    def make() -> None:
        for port in range(total):
            bus.take(replace(FINDING, client=replace(FINDING.client, port=port)))

    made = threading.Thread(target=make)
    made.start()
    for _ in range(5):
        seen: list[int] = []
        with connect(path) as events:
            for event in events:
                new = event["findings"] if event["event_type"] == "hello" else [event]
                seen += [one["src_port"] for one in new]
                if seen and seen[-1] == total - 1:
                    break
        assert seen == list(range(total))
    made.join()


def test_a_reader_that_does_not_read_is_cut_off_and_the_others_get_everything(bus: Bus, path: Path) -> None:
    with connect(path) as good, contextlib.closing(socket.socket(socket.AF_UNIX)) as lazy:
        lazy.connect(str(path))
        first(good, 1)
        until(lambda: bus.readers == 2, seconds=5, what="both readers")
        big = replace(FINDING, target="x" * 60_000)
        needed = MAX_UNSENT // 60_000 + 20
        for count in range(needed):
            bus.take(big)
            assert first(good, 1)[0]["ukihashi"]["target"] == big.target, count
        until(lambda: bus.readers == 1, seconds=5, what="the lazy reader is cut")
        assert bus.cut == 1
        bus.count(STATS)
        assert first(good, 1)[0]["event_type"] == "stats"


def test_a_reader_that_dies_is_forgotten(bus: Bus, path: Path) -> None:
    with connect(path) as events:
        first(events, 1)
    until(lambda: bus.readers == 0, seconds=5, what="the dead reader")
    bus.count(STATS)
    with connect(path) as events:
        assert first(events, 1)[0]["event_type"] == "hello"


def test_what_a_reader_says_is_ignored(bus: Bus, path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as loud:
        loud.connect(str(path))
        loud.sendall(b"x" * 100_000)
        assert json.loads(loud.makefile().readline())["event_type"] == "hello"


def test_at_most_sixteen_readers(bus: Bus, path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_READERS):
            first(stack.enter_context(connect(path)), 1)
        with connect(path) as refused:
            assert list(refused) == []
    until(lambda: bus.readers == 0, seconds=5, what="all gone")


def test_a_left_over_socket_is_taken_away_and_a_second_sensor_is_refused(bus: Bus, path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="a sensor runs already with the bus"):
        Bus(path, (), Eve())
    left_over = path.with_name("left.sock")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(left_over))
    again = Bus(left_over, (), Eve())
    with connect(left_over) as events:
        first(events, 1)
    again.close()
    assert not left_over.exists()


def test_a_path_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "alert.sock", tmp_path / "file", tmp_path / ("x" * 200)):
        with pytest.raises(EnvironmentLacks, match=r"the bus .* can't be made"):
            Bus(path, (), Eve())


def test_close_hands_over_what_is_left_and_takes_only_its_own_socket_away(path: Path) -> None:
    bus = Bus(path, (), Eve())
    with connect(path) as events:
        first(events, 1)
        bus.take(FINDING)
        path.unlink()
        path.write_text("somebody else's")
        bus.close()
        bus.close()
        assert [event["event_type"] for event in events] == ["alert"]
    assert path.read_text() == "somebody else's"


def test_no_sensor_is_one_sentence(path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="no sensor answers on"):
        connect(path)


def test_a_thread_that_is_too_slow_drops_the_oldest_and_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "MAX_QUEUE", 5000)
    monkeypatch.setattr(Bus, "_work", lambda self: None)
    bus = Bus(path, (), Eve())
    for _ in range(100):
        bus.take(FINDING)
    assert bus.dropped > 50
    bus.close()


def test_the_detector_waits_for_no_reader(bus: Bus, path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as lazy:
        lazy.connect(str(path))
        begin = time.monotonic()
        for _ in range(2000):
            bus.take(FINDING)
        assert time.monotonic() - begin < 10
