import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ukihashi.alert.sinks import Console, JsonFile, LogFile
from ukihashi.detect.features import Outer
from ukihashi.detect.record import Attached, Connection, Endpoint, Family, Finding, Reason, Verdict
from ukihashi.errors import EnvironmentLacks

CLIENT = Endpoint(bytes([192, 168, 126, 229]), 1027)
FINDING = Finding(
    family=Family.SOFTETHER,
    verdict=Verdict.CONFIRMED,
    outer=Outer.TCP,
    client=CLIENT,
    server=Endpoint(bytes([61, 197, 235, 210]), 7777),
    target="",
    begin=1_093_690_860.0,
    decided=1_093_690_861.0,
    rule="1",
    score=9.0,
    reasons=(Reason("login dialogue", 9.0),),
    turns=(),
    gaps=(),
    sizes=(),
    connections=(Connection(CLIENT, 1_093_690_860.0),),
    lost=0,
)
ATTACHED = Attached(FINDING, Connection(replace(CLIENT, port=1028), 1_093_690_862.0))
LINE = (
    "[2004/08/28 20:01:00] SoftEther VPN TCP Connection Detected"
    " (client 192.168.126.229:1027, server 61.197.235.210:7777)"
)


@pytest.fixture(autouse=True)
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is Japan's for this test."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_console_line_is_the_log_line(tmp_path: Path) -> None:
    written: list[str] = []
    log = LogFile(tmp_path / "sealert.log")
    for sink in (Console(written.append), log):
        sink.take(FINDING)
        sink.take(ATTACHED)
        sink.take(replace(FINDING, again=True))
    log.close()
    assert written == [LINE]
    assert (tmp_path / "sealert.log").read_text() == LINE + "\n"


def test_the_classic_label(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "sealert.log", classic=True)
    log.take(replace(FINDING, family=Family.UKIHASHI))
    log.close()
    assert (tmp_path / "sealert.log").read_text() == LINE.replace("SoftEther VPN", "SoftEther 1.0") + "\n"


def test_the_log_is_made_at_once_appended_to_and_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "sealert.log"
    for count in range(3):
        log = LogFile(path)
        assert path.read_text() == (LINE + "\n") * count
        log.take(FINDING)
        log.close()
    assert path.read_text() == (LINE + "\n") * 3


def test_json_lines_carry_findings_and_attached_connections(tmp_path: Path) -> None:
    sink = JsonFile(tmp_path / "eve.json")
    sink.take(FINDING)
    sink.take(ATTACHED)
    sink.close()
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    assert [event["event_type"] for event in events] == ["alert", "vpn_connection"]
    written: list[str] = []
    console = Console(written.append, as_json=True)
    console.take(FINDING)
    console.take(ATTACHED)
    assert [json.loads(line) for line in written] == events


def test_a_full_disk_is_one_sentence() -> None:
    log = LogFile(Path("/dev/full"))
    with pytest.raises(EnvironmentLacks, match="/dev/full can't be written \\(No space left on device\\)"):
        log.take(FINDING)
    log.close()


def test_a_log_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="can't be opened"):
        LogFile(tmp_path / "nowhere" / "sealert.log")
