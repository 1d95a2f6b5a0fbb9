"""What a service manager hears, and what it hands over."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.ops import notify
from ukihashi.ops.notify import Notifier, listening


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_message_says_what_the_manual_of_sd_notify_wants(manager: socket.socket) -> None:
    one = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    assert one.is_heard
    one.ready("serves\non 443")
    assert told(manager) == ["READY=1", f"MAINPID={os.getpid()}", "STATUS=serves on 443"]
    before = time.monotonic_ns() // 1000
    one.reloading("reads")
    first, moment, status = told(manager)
    assert (first, status) == ("RELOADING=1", "STATUS=reads")
    name, _, value = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000
    one.status("fine")
    one.stopping()
    assert told(manager) == ["STATUS=fine"]
    assert told(manager) == ["STOPPING=1"]


def test_a_watchdog_is_fed_where_it_was_asked_for_and_nowhere_else(manager: socket.socket) -> None:
    address, pid = manager.getsockname(), str(os.getpid())
    for environ, wanted in (
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": pid}, 3.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ):
        one = Notifier({"NOTIFY_SOCKET": address, **environ})
        assert one.watchdog_s == wanted
        one.alive()
        one.status("end")
        assert told(manager) == (["WATCHDOG=1"] if wanted else ["STATUS=end"])
        if wanted:
            assert told(manager) == ["STATUS=end"]


def test_an_abstract_address_is_understood() -> None:
    name = f"ukihashi-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@" + name}).status("here")
        assert told(sock) == ["STATUS=here"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    one = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    one.ready("serves")
    one.alive()
    one.stopping()
    assert one.is_heard == address.startswith("/")


def test_a_manager_that_does_not_read_stops_nobody(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE_S", 0.02)
    one = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    began = time.monotonic()
    for _ in range(100):
        one.status("x" * 1000)
        if time.monotonic() - began > 0.2:
            break
    assert time.monotonic() - began < 5
    while told(manager) != ["STATUS=" + "x" * 1000]:
        pytest.fail("something else came")


def test_sockets_are_taken_by_the_process_they_are_meant_for_and_only_once() -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "https:https", "LISTEN_PID": "1", "OTHER": "stays"}
    assert listening(environ) == []
    assert environ == {"OTHER": "stays"}
    pid = os.fork()
    if pid == 0:  # in a child of its own, whose descriptors from 3 on are nobody's
        status = 1
        try:
            for fd in (3, 4):
                os.dup2(2, fd)
            environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
            first, second = listening(environ), listening(environ)
            good = (first, second) == ([3, 4], []) and not any(map(os.get_inheritable, first))
            status = 0 if good else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("count", ["", "many", "-1", "0", "²"])
def test_a_number_that_is_none_hands_nothing_over(count: str) -> None:
    assert listening({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())}) == []
