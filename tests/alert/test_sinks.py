"""Files of log lines and events: whole lines, whatever happens to the disk or the name."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.alert.findings import ATTACHED, FINDING, LINE

from ukihashi.alert import sinks
from ukihashi.alert.eve import Stats
from ukihashi.alert.sinks import MAX_WAITING, Console, JsonFile, LogFile
from ukihashi.detect.record import Allowed, Family
from ukihashi.errors import EnvironmentLacks


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


def test_a_full_disk_is_told_once_and_what_is_not_written_is_counted() -> None:
    log = LogFile(Path("/dev/full"))
    with pytest.raises(EnvironmentLacks, match="/dev/full can't be written \\(No space left on device\\)"):
        log.take(FINDING)
    log.take(FINDING)
    assert list(log.tick()) == []
    log.close()
    assert log.unwritten == 2 * len(LINE + "\n")


def limited(program: str, path: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Run `program` where no file may grow beyond `size` bytes, until it lifts that."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    argv = [sys.executable, "-c", program, str(path)]
    return subprocess.run(argv, preexec_fn=limit, capture_output=True, text=True, check=True, timeout=30)


def test_a_disk_that_fills_up_inside_a_line_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from tests.alert.findings import FINDING
from ukihashi.alert.sinks import LogFile
from ukihashi.errors import EnvironmentLacks
log, told = LogFile(Path(sys.argv[1])), []
for _ in range(4):
    try:
        log.take(FINDING)
    except EnvironmentLacks as error:
        told.append(error)
assert len(told) == 1, told
assert [str(error) for error in log.tick()] == []
assert Path(sys.argv[1]).stat().st_size == 200
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*[error for error in log.tick()])
log.take(FINDING)
assert not log.unwritten
log.close()
"""
    path = tmp_path / "sealert.log"
    done = limited(program, path, 200)
    assert done.stdout == f"{path} can be written again; 0 lines were lost\n"
    assert path.read_text() == (LINE + "\n") * 5


def test_a_line_that_was_cut_by_a_full_disk_and_a_crash_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "sealert.log"
    path.write_text(LINE + "\n" + LINE[:40])
    log = LogFile(path)
    log.take(FINDING)
    log.close()
    assert path.read_text() == f"{LINE}\n{LINE[:40]}\n{LINE}\n"


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    log = LogFile(Path("/dev/full"))
    for _ in range(MAX_WAITING // len(LINE) + 10):
        try:
            log.take(FINDING)
        except EnvironmentLacks:
            continue
    assert MAX_WAITING - 2 * len(LINE) < log.unwritten < MAX_WAITING + 200
    log.close()


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_file_that_was_moved_away_is_made_anew_within_a_second_or_at_the_next_line(how: str, tmp_path: Path) -> None:
    path, old = tmp_path / "sealert.log", tmp_path / "sealert.log.1"
    log = LogFile(path)
    log.take(FINDING)
    for asleep in (False, True):
        path.rename(old) if how == "renamed" else path.unlink()
        if asleep:
            assert list(log.tick()) == []
            assert path.read_text() == ""
        log.take(FINDING)
        assert path.read_text() == LINE + "\n"
    log.close()


def test_reopening_by_hand_begins_the_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    sink = JsonFile(path)
    sink.take(FINDING)
    path.rename(tmp_path / "eve.json.1")
    assert list(sink.reopen()) == []
    sink.take(ATTACHED)
    sink.close()
    assert len(path.read_text().splitlines()) == len((tmp_path / "eve.json.1").read_text().splitlines()) == 1


def test_a_folder_that_vanishes_is_told_once_and_the_old_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = LogFile(folder / "sealert.log")
    folder.rename(tmp_path / "moved")
    assert list(log.tick()) == [], "it may come back in a moment"
    monkeypatch.setattr(sinks, "STUCK_S", 0.0)
    with pytest.raises(EnvironmentLacks, match="can't be opened: No such file or directory"):
        log.take(FINDING)
    log.take(FINDING)
    assert list(log.tick()) == []
    assert (tmp_path / "moved" / "sealert.log").read_text() == (LINE + "\n") * 2
    folder.mkdir()
    log.take(FINDING)
    log.close()
    assert (folder / "sealert.log").read_text() == LINE + "\n"


def test_an_allowed_finding_gets_an_event_but_no_line(tmp_path: Path) -> None:
    written: list[str] = []
    log, events = LogFile(tmp_path / "sealert.log"), JsonFile(tmp_path / "eve.json")
    for sink in (Console(written.append), log, events):
        sink.take(replace(FINDING, allowed=Allowed("a", "Ann", "approved", "2030-06-30")))
        sink.close()
    assert written == []
    assert (tmp_path / "sealert.log").read_text() == ""
    assert json.loads((tmp_path / "eve.json").read_text())["ukihashi"]["allowed"]["owner"] == "Ann"


def test_stats_are_written_at_the_end_of_a_period_only(tmp_path: Path) -> None:
    sink = JsonFile(tmp_path / "eve.json")
    sink.count(Stats(1.0, 1.0))
    assert (tmp_path / "eve.json").read_text() == ""
    sink.count(Stats(1.0, 1.0, period=1.0))
    sink.close()
    assert json.loads((tmp_path / "eve.json").read_text())["event_type"] == "stats"


def test_a_log_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="can't be opened"):
        LogFile(tmp_path / "nowhere" / "sealert.log")


@pytest.mark.skipif(os.geteuid() != 0, reason="drops its rights")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    program = """
import os, sys
from pathlib import Path
from ukihashi.alert.sinks import LogFile
from ukihashi.errors import EnvironmentLacks
os.setuid(65534)
try:
    LogFile(Path(sys.argv[1]))
except EnvironmentLacks as error:
    print(error)
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "closed" / "sealert.log")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == f"{argv[-1]} can't be opened: Permission denied\n"
