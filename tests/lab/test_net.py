"""The laboratory leaves nothing behind, whatever ends it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.net import NAMESPACES, ROOM, Ended, LabError, Net, sweep
from lab.wait import TimeOver, until

MAKES_ONE = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from lab.net import Net
with Net() as net:
    a, b = net.lan("a", "b")
    a.spawn(["sleep", "1000"])
    b.spawn(["sh", "-c", "(sleep 1000 &); echo left a child behind; exec sleep 1000"]).wait_for("child")
    if sys.argv[2] == "stubborn":
        b.spawn(["sh", "-c", "trap '' TERM; echo trapped; while :; do sleep 1; done"]).wait_for("trapped")
    print(net.mark, flush=True)
    if sys.argv[2] == "raise":
        raise RuntimeError("on purpose")
    if sys.argv[2] == "exit":
        sys.exit(3)
    signal.pause()
"""


def traces(mark: str) -> list[str]:
    """Everything on this machine that carries the mark of a Net."""
    folders = [str(path) for path in ROOM.glob(mark)]
    return folders + [path.name for path in NAMESPACES.glob(f"uk{mark}-*")]


@contextlib.contextmanager
def started(repository: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python of its own that makes a Net; with the Net's mark, once it is made. It never outlives the block."""
    argv = [sys.executable, "-c", MAKES_ONE, str(repository), how]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    with process.stdout:
        mark = process.stdout.readline().strip()
    try:
        yield process, mark
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
            sweep()


@pytest.mark.netns
@pytest.mark.parametrize(("how", "status"), [("raise", 1), ("exit", 3)])
def test_an_exception_or_an_exit_leaves_nothing(repository: Path, how: str, status: int) -> None:
    with started(repository, how) as (process, mark):
        assert mark
        assert process.wait(30) == status
        assert traces(mark) == []


@pytest.mark.netns
@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGINT, "wait"), (signal.SIGTERM, "stubborn"), (signal.SIGHUP, "wait")]
)
def test_a_signal_leaves_nothing_and_still_ends_the_process(repository: Path, number: signal.Signals, how: str) -> None:
    with started(repository, how) as (process, mark):
        assert len(traces(mark)) == 4  # the folder, two hosts, the wire
        process.send_signal(number)
        assert process.wait(30) == -number  # the parent of a run sees which signal ended it
        assert traces(mark) == []


@pytest.mark.netns
def test_what_a_killed_run_left_is_swept_by_the_next(repository: Path) -> None:
    with started(repository, "wait") as (process, mark):
        process.kill()
        process.wait(10)
    assert traces(mark)
    with Net() as net:
        assert traces(mark) == []
        assert traces(net.mark)
        sweep()
        assert traces(net.mark), "one's own network is not stale"


@pytest.mark.netns
def test_an_exception_inside_the_block_comes_out_and_the_hosts_are_gone() -> None:
    marks: list[str] = []

    def fail() -> None:
        with Net() as net:
            marks.append(net.mark)
            net.host("a").spawn(["sleep", "1000"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert traces(marks[0]) == []


def test_hosts_on_one_wire_reach_each_other_over_both_protocols(net: Net) -> None:
    hub, a, b = net.lan("hub", "a", "b")
    assert (hub.ipv4, a.ipv4, b.ipv6) == ("10.77.1.1", "10.77.1.2", "fd77:0:0:1::3")
    assert a.pings(hub.ipv4) < 1000
    assert b.pings(a.ipv6) < 1000
    assert hub.pings("127.0.0.1") < 1000


def test_a_cable_joins_two_hosts_and_no_third(net: Net) -> None:
    a, b, c = (net.host(name) for name in "abc")
    assert net.link(a, b) == ("to-b", "to-a")
    net.link(b, c)
    assert a.pings(b.ipv4) < 1000
    assert a.ask(["ping", "-c1", "-W1", c.ipv4]).returncode != 0


def test_tcp_is_cubic_and_addresses_are_usable_at_once(net: Net) -> None:
    a, _b = net.lan("a", "b")
    assert "cubic" in a.run(["sysctl", "-n", "net.ipv4.tcp_congestion_control"])
    assert "tentative" not in a.run(["ip", "-6", "addr", "show", "dev", "eth0"])


def test_two_networks_of_one_process_do_not_meet(net: Net) -> None:
    a, _ = net.lan("a", "b")
    with Net() as other:
        other_a, _ = other.lan("a", "b")
        assert a.namespace != other_a.namespace
        assert a.ipv4 == other_a.ipv4
    assert a.pings("10.77.1.2") < 1000


def test_a_socket_made_inside_belongs_to_the_host(net: Net) -> None:
    a, _b = net.lan("a", "b")
    home = Path("/proc/self/ns/net").stat().st_ino
    with a.inside():
        assert Path(f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net").stat().st_ino != home
    assert Path("/proc/self/ns/net").stat().st_ino == home


def test_commands_and_processes_report_how_they_ended(net: Net) -> None:
    a = net.host("a")
    with pytest.raises(Ended, match="unhappy") as caught:
        a.run(["sh", "-c", "echo unhappy >&2; exit 7"])
    assert caught.value.status == 7
    assert a.run(["cat"], stdin="x") == "x"
    talker = a.spawn(["sh", "-c", "echo first; exit 5"])
    assert talker.wait_for("fi(r)st")[1] == "r"
    assert talker.wait() == 5
    with pytest.raises(LabError, match="ended with 5"):
        talker.wait_for("second")
    sleeper = a.spawn(["sleep", "1000"])
    until(lambda: sleeper.pid in a.pids(), seconds=10, what="the program being on its host")
    assert sleeper.stop() == -signal.SIGTERM
    assert not sleeper.running


def test_a_ping_that_nobody_answers_ends_with_a_sentence(net: Net) -> None:
    a, _b = net.lan("a", "b")
    with pytest.raises(TimeOver, match=r"a hearing 10\.77\.1\.9"):
        a.pings("10.77.1.9", seconds=0.5)


def test_until_asks_a_last_time_when_the_time_is_over() -> None:
    asked = iter([0, 7])
    assert until(lambda: next(asked), seconds=0.05, what="x") == 7
    with pytest.raises(TimeOver, match=r"^0\.05 s passed without a miracle$"):
        until(lambda: None, seconds=0.05, what="a miracle")
