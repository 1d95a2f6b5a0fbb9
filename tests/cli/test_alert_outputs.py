"""All outputs of one live sensor at once, and the allow list: the whole way from a wire to files, sockets and pages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.alert.schema import problems

from lab.net import Host, Net, Process
from lab.scene import Talk, softether_login
from lab.wait import until
from ukihashi.alert.bus import Events, connect

ALERT = [sys.executable, "-m", "ukihashi.cli.main", "alert"]
CORPUS = Path(__file__).resolve().parent.parent / "corpus"
IDLE = CORPUS / "se-d443-idle.pcap.gz"


def run(*words: str | Path, folder: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LANGUAGE": "en", "UKIHASHI_CONFIG_DIR": str(folder / "conf")}
    environment |= {"UKIHASHI_RUNTIME_DIR": str(folder / "run"), "UKIHASHI_STATE_DIR": str(folder / "state")}
    done = subprocess.run(
        [*ALERT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment,
        cwd=folder,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def events_of(path: Path) -> list[dict[str, Any]]:
    """Every line, each valid by the schema."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [problem for event in found for problem in problems(event)] == []
    return found


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_type"] for event in events]


def tunnel(host: Host, interface: str, port: int) -> None:
    """A login and a further connection, as frames on the wire."""
    with host.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for further in (False, True):
            talk = Talk(("10.0.0.1", port + further), ("10.0.0.2", 443))
            softether_login(talk, Random(port + further), further=further)
            for _, frame in talk.frames:
                raw.send(frame)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a sensor that has given its rights up may still write."""
    path = Path("/tmp") / f"ukihashi-test-{os.getpid()}"
    path.mkdir()
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


# -- files --------------------------------------------------------------------------------------------------------


def test_events_of_a_capture_file_fit_the_schema_and_belong_together(tmp_path: Path) -> None:
    run("-r", IDLE, "--eve", "eve.json", "--community-id-seed", "1", folder=tmp_path)
    events = events_of(tmp_path / "eve.json")
    assert kinds(events) == ["alert", "flow", "flow", "vpn_end", "stats"]
    alert, *others, end, stats = events
    assert {event["session"] for event in [*others, end]} == {alert["community_id"]}
    assert end["seconds"] == pytest.approx(150.6, abs=0.1)
    assert stats["stats"]["findings"] == {"softether TCP CONFIRMED": 1}
    run("-r", IDLE, "--json", "other.json", folder=tmp_path)
    assert events_of(tmp_path / "other.json")[0]["community_id"] != alert["community_id"]


def test_the_report_of_a_capture_file_says_what_was_seen(tmp_path: Path) -> None:
    done = run("-r", IDLE, "--report", "1h", folder=tmp_path)
    assert ": coverage 100.00 %; 741 packets, 0 lost; 0 of " in done.stderr
    assert " TCP bytes missing; 1 detections" in done.stderr


def test_the_evidence_of_a_finding_is_a_bundle_that_can_be_checked_and_judged_again(tmp_path: Path) -> None:
    run("-r", IDLE, "--evidence", "kept", "--eve", "eve.json", folder=tmp_path)
    (bundle,) = (tmp_path / "kept").iterdir()
    assert events_of(tmp_path / "eve.json")[0]["ukihashi"]["evidence_file"] == str(bundle)
    run("verify", bundle, folder=tmp_path)
    run("replay", bundle, folder=tmp_path)


def test_the_bounds_of_evidence_are_the_administrators(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "alert.toml").write_text("evidence_per_day = 1\n")
    run("-r", IDLE, "--evidence", "kept", folder=tmp_path)
    done = run("-r", CORPUS / "se-d443-v6-idle.pcap.gz", "--evidence", "kept", folder=tmp_path)
    assert "1 evidence bundles in 24 hours" in done.stderr
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_an_allowed_tunnel_has_no_line_and_no_alarm_but_its_events(tmp_path: Path) -> None:
    added = run(
        *("allow", "add", "--client", "10.77.8.2", "--server", "10.77.200.0/24", "--owner", "Ann", "--reason", "ok"),
        *("--until", "2099-12-31", "--json"),
        folder=tmp_path,
    )
    identity = json.loads(added.stdout)["id"]
    done = run("-r", IDLE, "--eve", "eve.json", "--log", "a.log", "--fail-on-detect", folder=tmp_path)
    assert (done.stdout, (tmp_path / "a.log").read_text()) == ("", "")
    events = events_of(tmp_path / "eve.json")
    assert events[0]["ukihashi"]["allowed"] == {
        "id": identity,
        "owner": "Ann",
        "reason": "ok",
        "expires": "2099-12-31",
    }
    assert all(event["allowed"] for event in events[1:-1])
    listed = run("allow", "list", folder=tmp_path).stdout.splitlines()
    assert listed[0].split() == ["ID", "CLIENT", "SERVER", "PORT", "FAMILY", "UNTIL", "STATE", "OWNER", "REASON"]
    assert listed[1].split() == [
        identity,
        *["10.77.8.2", "10.77.200.0/24", "-", "-", "2099-12-31", "holds", "Ann", "ok"],
    ]
    run("allow", "remove", identity, folder=tmp_path)
    assert "nothing is allowed yet" in run("allow", "list", folder=tmp_path).stderr
    assert f"no entry {identity}" in run("allow", "remove", identity, folder=tmp_path, status=2).stderr
    run("-r", IDLE, "--fail-on-detect", folder=tmp_path, status=1)


def test_an_expired_entry_is_told_and_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "allow.toml").write_text(
        '[[allow]]\nid="old"\nclient="10.0.0.0/8"\nowner="Ann"\nreason="r"\nexpires=2026-11-20\n'
    )
    done = run("-r", IDLE, folder=tmp_path)
    assert done.stdout.count("Connection Detected") == 1
    assert "entry old of the allow list (Ann) expired on 2026-11-20; what it allowed is reported again" in done.stderr
    assert "expired" in run("allow", "list", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--report", "soon"], 2, "“soon” is no time"),
        (["--syslog", "tls://x"], 2, "a syslog server is a path"),
        (["--metrics", "nonsense:x"], 2, "is no address"),
        (["--metrics", "192.0.2.1:9719"], 3, "metrics can't be offered at 192.0.2.1:9719"),
        (["--bus", "/proc/none/alert.sock"], 3, "the bus /proc/none/alert.sock can't be made"),
        (["--evidence", "/proc/none"], 3, "evidence can't be written to /proc/none"),
        (["--community-id-seed", "65536"], 2, "65536"),
    ],
)
def test_a_wrong_option_is_a_sentence(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    assert said in run("-r", IDLE, *words, folder=tmp_path, status=status).stderr


def test_a_wrong_allow_list_is_a_sentence_and_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "allow.toml").write_text("[[allow]]\n")
    done = run("-r", IDLE, folder=tmp_path, status=2)
    assert "allow.toml: allow[0].id is missing" in done.stderr
    assert done.stdout == ""


def test_settings_of_the_file_hold_where_no_option_is_given(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "alert.toml").write_text('eve = "from-file.json"\nreport = "1h"\ncommunity_id_seed = 1\n')
    done = run("-r", IDLE, folder=tmp_path)
    assert "coverage 100.00 %" in done.stderr
    assert events_of(tmp_path / "from-file.json")[0]["event_type"] == "alert"
    done = run("-r", IDLE, "--report", "off", "--eve", "mine.json", folder=tmp_path)
    assert "coverage" not in done.stderr
    assert (tmp_path / "mine.json").exists()


# -- live ---------------------------------------------------------------------------------------------------------


class Listening:
    """Counts the frames that come out of the sensor's card."""

    def __init__(self, host: Host, interface: str) -> None:
        with host.inside():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((interface, 3))
        self.socket.setblocking(False)

    def frames(self) -> list[bytes]:
        """Those that came in since the last call, but for what the kernel says by itself (IPv6 neighbours)."""
        found = list[bytes]()
        while True:
            try:
                frame, (_card, _protocol, kind, *_rest) = self.socket.recvfrom(2048)
            except BlockingIOError:
                return [frame for frame in found if not (frame[12:14] == b"\x86\xdd" and frame[20] in (0, 58))]
            if kind != socket.PACKET_OUTGOING:
                found.append(frame)


def until_event(events: Events, kind: str) -> dict[str, Any]:
    """The next event of that kind."""
    return next(event for event in events if event["event_type"] == kind)


def page(host: Host) -> str:
    with host.inside(), urllib.request.urlopen("http://127.0.0.1:9719/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def start(host: Host, folder: Path, far: str, *words: str) -> Process:
    process = host.spawn(
        [*ALERT, "-i", far, *words],
        log="alert",
        cwd=folder,
        env={
            "LANGUAGE": "en",
            "UKIHASHI_CONFIG_DIR": str(folder / "conf"),
            "UKIHASHI_RUNTIME_DIR": str(folder / "run"),
            "UKIHASHI_STATE_DIR": str(folder / "state"),
        },
    )
    process.wait_for(r"Starting Capture Packets at \[")
    return process


def refused(host: Host, far: str, *words: str, status: int) -> str:
    """What a sensor says that does not start."""
    argv = host.inside_argv([*ALERT, "-i", far, *words])
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"LANGUAGE": "en"}
    )
    assert done.returncode == status, done.stderr
    return done.stderr


def test_one_sensor_tells_everybody_and_sends_nothing_on_its_card(net: Net, folder: Path) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    log_server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log_server.bind(str(folder / "log.sock"))
    (folder / "log.sock").chmod(0o777)
    log_server.settimeout(30)
    outside = Listening(a, near)
    words = ["--eve", "eve.json", "--log", "alert.log", "--metrics", "9719", "--report", "2s", "--probable"]
    words += ["--evidence", str(folder / "kept")]
    sensor = start(b, folder, far, *words, "--syslog", str(folder / "log.sock"))
    assert "runs already" not in sensor.output()
    with log_server, outside.socket, connect(folder / "run" / "alert.sock") as events:
        hello = until_event(events, "hello")
        assert (hello["cards"], hello["findings"]) == ([far], [])
        tunnel(a, near, 50000)
        alert = until_event(events, "alert")
        assert (alert["src_port"], alert["in_iface"], alert["ukihashi"]["allowed"]) == (50000, far, None)
        assert b":50000, server 10.0.0.2:443) sid=1904111 " in log_server.recv(4096)
        wanted = 'findings_total{family="softether",transport="TCP",verdict="CONFIRMED",allowed="no"} 1'
        until(lambda: wanted in page(b), seconds=20, what="the finding in the metrics")
        assert "ukihashi_alert_coverage_ratio 1\n" in page(b)

        run(
            "allow",
            "add",
            "--client",
            "10.0.0.1",
            "--owner",
            "o",
            "--reason",
            "r",
            "--until",
            "2099-01-01",
            folder=folder,
        )
        until_event(events, "stats")
        until_event(events, "stats")
        (folder / "alert.log").rename(folder / "alert.log.1")
        (folder / "eve.json").rename(folder / "eve.json.1")
        os.kill(sensor.pid, signal.SIGHUP)  # not needed, but no harm either: no terminal has hung up
        tunnel(a, near, 50020)
        assert until_event(events, "alert")["ukihashi"]["allowed"]["owner"] == "o"
        until((folder / "alert.log").exists, seconds=20, what="the new log")
        sensor.wait_for(r"coverage 100\.00 %; \d+ packets, 0 lost")
        until(lambda: b" stats - 20" in log_server.recv(4096), seconds=30, what="the report by syslog")
        assert outside.frames() == []
        assert sensor.stop() == 0
    assert (folder / "alert.log.1").read_text().count("Connection Detected") == 1
    assert (folder / "alert.log").read_text() == ""
    events_before, events_after = events_of(folder / "eve.json.1"), events_of(folder / "eve.json")
    assert "alert" in kinds(events_before)
    assert kinds(events_after)[-1] == "stats"
    assert [event["ukihashi"]["allowed"]["owner"] for event in events_after if event["event_type"] == "alert"] == ["o"]
    assert [str(path) for path in (folder / "kept").iterdir()] == [alert["ukihashi"]["evidence_file"]]
    periods = [event["stats"]["period"] for event in events_before + events_after if event["event_type"] == "stats"]
    assert all(1.9 <= period <= 6 for period in periods[:-1])


def test_a_second_sensor_is_refused_the_bus_and_works_without_if_nobody_named_it(net: Net, folder: Path) -> None:
    a, b = net.host("a"), net.host("b")
    _near, far = net.link(a, b)
    first = start(b, folder, far)
    second = start(b, folder, far)
    second.wait_for("a sensor runs already with the bus .*; give this one another with --bus, or --bus off")
    assert second.stop() == 0
    assert "a sensor runs already" in refused(b, far, "--bus", str(folder / "run" / "alert.sock"), status=3)
    assert first.stop() == 0


def test_what_would_send_on_the_capture_card_is_refused_unless_forced(net: Net, folder: Path) -> None:
    a, b = net.host("a"), net.host("b")
    _near, far = net.link(a, b)
    for words in (["--syslog", f"udp://{a.ipv4}"], ["--metrics", f"{b.ipv4}:9719"], ["--metrics", "0.0.0.0:9719"]):
        done = refused(b, far, "--bus", "off", *words, status=2)
        assert "a card that is captured on" in done
        assert "--send-on-capture-card" in done
    forced = start(b, folder, far, "--bus", "off", "--metrics", f"{b.ipv4}:9719", "--send-on-capture-card")
    assert forced.stop() == 0


@pytest.mark.skipif(not shutil.which("logrotate"), reason="needs logrotate")
def test_the_rotation_that_is_shipped_loses_no_line(net: Net, folder: Path) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    sensor = start(b, folder, far, "--log", "alert.log", "--eve", "eve.json", "--bus", "off")
    shipped = Path(__file__).resolve().parents[2] / "packaging/config/ukihashi-alert.logrotate"
    rules = shipped.read_text().replace("/var/log/ukihashi/", f"{folder}/")
    rules = rules.replace("su ukihashi-alert ukihashi-alert", "su root root")
    (folder / "rules").write_text(rules)
    (folder / "rules").chmod(0o644)
    for number in range(3):
        tunnel(a, near, 50000 + 10 * number)
        sensor.wait_for(f"client 10.0.0.1:{50000 + 10 * number},")
        time.sleep(0.5)  # the line is in the log right after the console's
        subprocess.run(["logrotate", "-f", "-s", folder / "state.txt", folder / "rules"], check=True, timeout=30)
    assert sensor.stop() == 0
    assert "can't be opened" not in sensor.output()
    lines = "".join(
        subprocess.run(["zcat", "-f", path], capture_output=True, text=True, check=True).stdout
        for path in sorted(folder.glob("alert.log*"), reverse=True)
    )
    assert [line.split("client 10.0.0.1:")[1][:5] for line in lines.splitlines()] == ["50000", "50010", "50020"]
