"""Where the detector is put: mirror ports, duplicated packets, tags, before and behind a NAT; and that it is silent."""

import re
import signal
import sys
from pathlib import Path

import pytest

from lab.capture import Capture
from lab.mirror import MAKERS, mirrored, silence
from lab.net import Host, Net, Process
from lab.raw import Wire
from lab.replay import CLIENT, SERVER, send, session
from lab.wait import until

LINE = r"SoftEther VPN TCP Connection Detected \(client (\S+), server (\S+)\)"
PYTHON = [sys.executable, "-m", "ukihashi.cli.main"]


def detector(host: Host, *words: str, log: str = "alert") -> Process:
    """A detector that listens; it has its files when this returns."""
    process = host.spawn([*PYTHON, "alert", *words], log=log)
    process.wait_for(r"Starting Capture Packets at \[", seconds=60)
    return process


def lines_of(process: Process) -> list[tuple[str, str]]:
    """(client, server) of each log line once it has ended."""
    assert process.stop(signal.SIGTERM, grace_s=30) == 0, process.output()
    return re.findall(LINE, process.output())


@pytest.mark.parametrize("by", sorted(MAKERS))
def test_at_a_mirror_port_sessions_of_others_are_seen_once_and_nothing_is_sent(net: Net, by: str) -> None:
    """B1, B25, B26: mirrored where packets enter and where they leave, so each comes twice."""
    sensor = mirrored(net, by=by, ports=("client", "server"))
    switch = net.hosts["wire"]
    process = detector(sensor, "-i", "to-wire")
    with Capture(switch, "to-sensor", expression="inbound") as silent:
        sent = sum(send(net.hosts["client"], "eth0", frames) for frames in session())
        process.wait_for(LINE, seconds=60)
        assert lines_of(process) == [(f"{CLIENT}:50000", f"{SERVER}:443")]
    seen = int(re.findall(r"(\d+) packets seen, 0 dropped", process.output())[0])
    assert 2 * sent <= seen < 2 * sent + 40
    assert silent.seen == 0
    assert silent.missed == 0


@pytest.mark.parametrize("ways", [("ingress",), ("egress",)])
def test_a_mirror_of_one_direction_is_enough(net: Net, ways: tuple[str, ...]) -> None:
    sensor = mirrored(net, ways=ways)
    process = detector(sensor, "-i", "to-wire")
    with Wire(net.hosts["client"], "eth0") as client, Wire(net.hosts["server"], "eth0") as server:
        for frames in session():
            for _, frame in frames:
                (client if frame[26:30] == bytes((10, 9, 0, 1)) else server).send(frame)
    process.wait_for(LINE, seconds=60)
    assert lines_of(process) == [(f"{CLIENT}:50000", f"{SERVER}:443")]


@pytest.mark.parametrize("tags", [(100,), (200, 100)])
def test_what_is_seen_live_is_what_a_file_gives_also_with_tags(net: Net, tags: tuple[int, ...], tmp_path: Path) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    process = detector(b, "-i", far, "--json", str(b.folder / "live.json"))
    with Capture(b, far, path=tmp_path / "same.pcap") as same:
        frames = [frame for talk in session(tags=tags) for frame in talk]
        send(a, near, frames)
        process.wait_for(LINE, seconds=60)
    assert same.missed == 0
    assert lines_of(process) == [(f"{CLIENT}:50000", f"{SERVER}:443")]
    offline = b.ask([*PYTHON, "alert", "-r", same.path, "--json", str(tmp_path / "file.json")])
    (line,) = re.findall(LINE, offline.stdout)
    assert line == (f"{CLIENT}:50000", f"{SERVER}:443")
    scores = [
        re.findall(r'"score":\s*([-\d.]+),"reasons"', (folder / name).read_text())
        for folder, name in ((b.folder, "live.json"), (tmp_path, "file.json"))
    ]
    assert scores[0]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("how", ["live", "file"])
def test_a_filter_leaves_sessions_out(net: Net, how: str, tmp_path: Path) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    talks = session() + session((CLIENT, 51000), (SERVER, 992), tags=(7,))
    if how == "live":
        process = detector(b, "-i", far, "--filter", "not port 443")
        for frames in talks:
            send(a, near, frames)
        process.wait_for(LINE, seconds=60)
        found = lines_of(process)
    else:
        with Capture(b, far, path=tmp_path / "all.pcap") as everything:
            for frames in talks:
                send(a, near, frames)
            until(lambda: everything.path.stat().st_size > 20_000, seconds=10, what="the packets in the file")
        found = re.findall(LINE, b.run([*PYTHON, "alert", "-r", everything.path, "--filter", "not port 443"]))
    assert found == [(f"{CLIENT}:51000", f"{SERVER}:992")]


def test_several_processes_find_each_session_once(net: Net) -> None:
    """All connections of a client to a server come to one process, so rule 1 sees both."""
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    silence(a, near)
    process = detector(b, "-i", far, "--workers", "2", "--ring", "8")
    wanted = set()
    for number in range(1, 17):
        client = f"10.9.1.{number}"
        for frames in session((client, 50000)):
            send(a, near, frames)
        wanted.add((f"{client}:50000", f"{SERVER}:443"))
    until(lambda: len(re.findall(LINE, process.output())) >= 16, seconds=60, what="all sessions")
    found = lines_of(process)
    assert len(found) == 16
    assert set(found) == wanted
    assert " 0 dropped by the kernel" in process.output()


def test_two_cards_of_a_tap_give_one_session(net: Net) -> None:
    """A network tap has an output for each direction: client's packets on one card, server's on the other."""
    client, server, sensor = (net.host(name) for name in ("client", "server", "sensor"))
    (out, left), (back, right) = net.link(client, sensor), net.link(server, sensor)
    process = detector(sensor, "-i", left, "-i", right)
    with Wire(client, out) as one, Wire(server, back) as other:
        for frames in session():
            for _, frame in frames:
                (one if frame[26:30] == bytes((10, 9, 0, 1)) else other).send(frame)
    process.wait_for(LINE, seconds=60)
    assert lines_of(process) == [(f"{CLIENT}:50000", f"{SERVER}:443")]


@pytest.mark.parametrize("cards", [1, 2])
def test_a_card_that_goes_down_ends_the_detector_with_a_sentence(net: Net, cards: int) -> None:
    sensor = net.host("sensor")
    names = [net.link(sensor, net.host(f"h{number}"))[0] for number in range(cards)]
    process = detector(sensor, *(word for name in names for word in ("-i", name)))
    sensor.ip(f"link set {names[-1]} down")
    assert process.wait(seconds=30) == 3
    assert f"the card {names[-1]} went down" in process.output()
