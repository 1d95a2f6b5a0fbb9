"""The hub as processes: who they are, what they may, how they are replaced and how they end."""

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.hub.processes import DEADLINE, Supervised, children, is_alive, process_status

from ukihashi.net.listen import listen_tcp
from ukihashi.tap import netlink

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("needs_root")
def test_worker_and_control_have_no_rights_and_no_way_to_get_any(launch: Callable[..., Supervised]) -> None:
    hub = launch()
    worker, control = hub.status()["pid"], hub.told("control")[0]
    assert sorted(children(hub.process.pid)) == sorted([worker, control])
    uids = set()
    for pid in (worker, control):
        status = process_status(pid)
        uids |= set(status["Uid"].split())
        assert status["Gid"].split().count("0") == 0
        assert status["Groups"].strip() == ""
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
        assert status["NoNewPrivs"] == "1"
    assert len(uids) == 2
    assert "0" not in uids
    assert (hub.folder / "run" / "web.sock").stat().st_uid == int(process_status(worker)["Uid"].split()[0])
    assert (hub.folder / "run" / "web.sock").stat().st_mode & 0o777 == 0o600
    assert (hub.folder / "state").stat().st_mode & 0o777 == 0o700


def test_members_join_and_pages_pass_through_the_processes(
    launch: Callable[..., Supervised], member_types: Any
) -> None:
    hub = launch()
    with member_types.member.join(hub, "a") as a, member_types.member.join(hub, "b") as b:
        frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5"
        a.send(frame)
        assert b.receive(1) == [frame]
        with member_types.caller(hub) as caller:
            assert caller.get("/").body == b"hi"
        assert hub.finish() == 0
        assert a.callers[0].expect_end() is not None  # raises where close_notify is missing
        b.callers[0].expect_end()
    assert hub.events[-1] == {"control": "stopped"}
    assert not list((hub.folder / "run").iterdir())


def test_both_families_at_once(launch: Callable[..., Supervised]) -> None:
    hub = launch(listen=[["127.0.0.1", 0], ["::1", 0]])
    for host, port in hub.told("ready")[0]:
        socket.create_connection((host, port), timeout=DEADLINE).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_in_good_order(launch: Callable[..., Supervised], number: signal.Signals) -> None:
    hub = launch()
    pids = children(hub.process.pid)
    assert hub.finish(number) == 0
    assert not any(map(is_alive, pids))
    assert hub.told("told") == ([] if os.geteuid() == 0 else hub.told("told")[:1])


def test_a_signal_to_the_whole_group_ends_it_too(launch: Callable[..., Supervised]) -> None:
    hub = launch()
    pids = children(hub.process.pid)
    os.killpg(hub.process.pid, signal.SIGTERM)
    assert hub.process.wait(DEADLINE) == 0
    assert not any(map(is_alive, pids))
    assert len(hub.told("control")) <= 2  # started once, stopped once


def test_nothing_survives_a_killed_supervisor(
    launch: Callable[..., Supervised], until: Callable[..., Any], member_types: Any
) -> None:
    hub = launch()
    pids = children(hub.process.pid)
    with member_types.member.join(hub, "a") as a:
        hub.process.kill()
        a.callers[0].expect_end()  # with close_notify even now
    until(lambda: not any(map(is_alive, pids)), "the children's end", DEADLINE)


def test_a_crashed_worker_is_replaced(
    launch: Callable[..., Supervised], until: Callable[..., Any], member_types: Any
) -> None:
    hub = launch()
    first = hub.status()["pid"]
    os.kill(first, signal.SIGSEGV)
    until(lambda: (hub.status() or {}).get("hubs") == 1 and hub.status()["pid"] != first, "a new worker", DEADLINE)
    with member_types.member.join(hub, "a"):
        assert any("worker process ended (killed by signal 11)" in sentence for sentence in hub.told("told"))
        assert hub.finish() == 0


def test_a_crashed_control_is_replaced_and_sessions_live_on(
    launch: Callable[..., Supervised], until: Callable[..., Any], member_types: Any
) -> None:
    hub = launch()
    with member_types.member.join(hub, "a") as a, member_types.member.join(hub, "b") as b:
        hub.order(crash=True)
        until(lambda: len([pid for pid in hub.told("control") if pid != "stopped"]) == 2, "a new control", DEADLINE)
        frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5"
        a.send(frame)
        assert b.receive(1) == [frame]
        until(lambda: hub.status().get("sessions") == 2, "the new control knows", DEADLINE)
        with member_types.member.join(hub, "c"):
            assert any("control process ended (exit status 7)" in sentence for sentence in hub.told("told"))


def test_a_worker_that_keeps_crashing_ends_the_hub(
    launch: Callable[..., Supervised], until: Callable[..., Any]
) -> None:
    hub = launch()
    killed: set[int] = set()
    while hub.process.poll() is None:
        pids = [pid for pid in children_or_none(hub.process.pid) if pid not in {*hub.told("control"), *killed}]
        for pid in pids:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        until(lambda: hub.process.poll() is not None or hub.process.pid, "the next")
    assert hub.process.returncode == 1
    assert 6 <= len(killed) <= 7
    assert "keeps ending" in hub.told("told")[-1]


def children_or_none(pid: int) -> list[int]:
    try:
        return children(pid)
    except FileNotFoundError:
        return []


def test_a_process_that_says_why_it_ends_is_not_replaced(launch: Callable[..., Supervised]) -> None:
    hub = launch()
    hub.order(fail=True)
    assert hub.process.wait(DEADLINE) == 3
    hub.close()
    assert hub.told("told")[-2:-1] == ["the disk is full"] or hub.told("told")[-1] == "the disk is full"


def test_a_missing_certificate_is_said(launch: Callable[..., Supervised]) -> None:
    hub = launch(wait=False, certificate="/nonexistent/hub.pem")
    assert hub.process.wait(DEADLINE) == 3
    hub.close()
    assert "/nonexistent/hub.pem" in hub.told("told")[-1]


def test_a_taken_port_is_said_before_anything_starts(launch: Callable[..., Supervised]) -> None:
    with listen_tcp("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        hub = launch(wait=False, listen=[["127.0.0.1", port]])
        assert hub.process.wait(DEADLINE) == 3
    hub.close()
    assert f"127.0.0.1:{port} is taken by" in hub.told("error")[0]
    assert not list((hub.folder / "run").iterdir())


def test_a_second_hub_on_the_same_folder_is_refused(launch: Callable[..., Supervised]) -> None:
    first = launch()
    second = launch(wait=False)
    assert second.process.wait(DEADLINE) == 3
    second.close()
    assert "already serves" in second.told("error")[0]
    assert first.status()["hubs"] == 1
    assert first.finish() == 0


@pytest.mark.netns
def test_a_host_port_is_a_member_of_its_hub(
    launch: Callable[..., Supervised], until: Callable[..., Any], member_types: Any
) -> None:
    hub, name = launch(), f"uk{os.getpid()}"
    hub.order(port=[name, "10.253.77.1/24"])
    until(lambda: hub.status()["host_ports"], "the host port", DEADLINE)
    assert netlink.addresses(name) == ["10.253.77.1/24"]
    with member_types.member.join(hub, "a") as member:
        station = b"\x02\0\0\0\0\x09"
        ask = b"\xff" * 6 + station + b"\x08\x06\0\1\x08\0\6\4\0\1" + station
        ask += socket.inet_aton("10.253.77.9") + bytes(6) + socket.inet_aton("10.253.77.1")
        member.send(ask)
        replies: list[bytes] = []
        while not replies:  # the machine says other things too
            replies = [frame for frame in member.receive(1) if frame[12:14] == b"\x08\x06" and frame[:6] == station]
        assert replies[0][6:12] == netlink.mac_of(name)
        until(lambda: hub.order(what="mac_table"), "stations")
        by = {row["mac"]: row["session"] for row in hub.order(what="mac_table", hub="LAN")}
        assert by[netlink.mac_of(name).hex(":")] == "host"
    os.kill(hub.status()["pid"], signal.SIGKILL)
    until(lambda: hub.status().get("host_ports"), "the host port with the new worker", DEADLINE)
    hub.order(port=[name, "10.253.78.1/24"])
    until(lambda: netlink.addresses(name) == ["10.253.78.1/24"], "its new address", DEADLINE)
    hub.order(port=[""])
    until(lambda: not netlink.exists(name), "its end", DEADLINE)
    hub.order(port=[name])
    until(lambda: netlink.exists(name), "it again", DEADLINE)
    assert hub.finish() == 0
    assert not netlink.exists(name)


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("wish", [["eth0"], ["uk/../x"], ["ukbad", "127.0.0.2/8"], ["ukbad", "junk"]])
def test_control_can_wish_for_nothing_else(
    launch: Callable[..., Supervised], until: Callable[..., Any], wish: list[str]
) -> None:
    hub = launch()
    hub.order(port=wish)
    until(lambda: hub.told("told"), "a sentence", DEADLINE)
    assert hub.status()["host_ports"] == []
    assert hub.finish() == 0
