"""Syslog: the bytes of RFC 5424, over every kind of way; a server that is away loses nothing at once."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.alert.findings import ATTACHED, FINDING, LINE

from lab.wait import until
from ukihashi.alert import syslog
from ukihashi.alert.syslog import MAX_MESSAGE, MAX_WAITING, NOTICE, WARNING, Syslog, Target, message, target
from ukihashi.detect.record import Allowed, Verdict
from ukihashi.errors import UsageError

HEAD = re.compile(r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ ukihashi-alert \d+ (\w+) - (.*)")


@pytest.fixture(autouse=True)
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def open_one() -> Iterator[Callable[[Target], Syslog]]:
    with contextlib.ExitStack() as stack:

        def make(where: Target) -> Syslog:
            sink = Syslog(where)
            stack.callback(sink.close)
            return sink

        yield make


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/dev/log", Target("unix", "/dev/log", 0)),
        ("log.example.jp", Target("udp", "log.example.jp", 514)),
        ("log.example.jp:5514", Target("udp", "log.example.jp", 5514)),
        ("udp://10.0.0.1", Target("udp", "10.0.0.1", 514)),
        ("tcp://10.0.0.1", Target("tcp", "10.0.0.1", 601)),
        ("tcp://[fd00::1]:6514", Target("tcp", "fd00::1", 6514)),
        ("[fd00::1]", Target("udp", "fd00::1", 514)),
        ("fd00::1", Target("udp", "fd00::1", 514)),
    ],
)
def test_where_to(text: str, wanted: Target) -> None:
    assert target(text) == wanted


@pytest.mark.parametrize("text", ["", "tls://x", "udp://", "host:0", "host:99999", "host:x", ":514"])
def test_where_to_is_wrong(text: str) -> None:
    with pytest.raises(UsageError):
        target(text)


def test_the_message_is_that_of_the_standard() -> None:
    assert message("one\ntwo", WARNING, "alert", "sensor1", 42, 1_093_690_860.5) == (
        b"<132>1 2004-08-28T11:01:00.500000Z sensor1 ukihashi-alert 42 alert - one two"
    )
    long = message("長" * 2000, NOTICE, "alert", "sensor1", 42, 0.0)
    assert MAX_MESSAGE - 3 < len(long) <= MAX_MESSAGE
    long.decode()


def receiver(kind: int, address: Any) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
    sock.settimeout(10)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def check(data: bytes) -> None:
    found = HEAD.fullmatch(data.decode())
    assert found is not None, data
    assert (found[1], found[2]) == ("132", "alert")
    assert found[3].startswith(LINE + " sid=1904111 community_id=1:")


def test_the_machines_own_socket_gets_lines_only(tmp_path: Path, open_one: Callable[[Target], Syslog]) -> None:
    with receiver(socket.SOCK_DGRAM, str(tmp_path / "log")) as server:
        sink = open_one(target(str(tmp_path / "log")))
        for found in (ATTACHED, replace(FINDING, again=True), replace(FINDING, allowed=Allowed("a", "o", "r", "e"))):
            sink.take(found)
        sink.take(replace(FINDING, verdict=Verdict.PROBABLE))
        sink.take(FINDING)
        first = server.recv(4096)
        assert first.startswith(b"<133>1 ")
        assert b"verdict=PROBABLE sid=1904113" in first
        check(server.recv(4096))


def test_udp(open_one: Callable[[Target], Syslog]) -> None:
    with receiver(socket.SOCK_DGRAM, ("127.0.0.1", 0)) as server:
        sink = open_one(Target("udp", *server.getsockname()))
        sink.take(FINDING)
        check(server.recv(4096))
        sink.say("coverage 99.98 %")
        assert server.recv(4096).startswith(b"<134>1 ")


def frame(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    count = b""
    while not count.endswith(b" "):
        byte = connection.recv(1)
        assert byte, "the connection ended"
        count += byte
    return connection.recv(int(count), socket.MSG_WAITALL)


def test_tcp_counts_octets_and_comes_back_after_the_server_was_away(
    open_one: Callable[[Target], Syslog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "AGAIN_S", 0.05)
    with receiver(socket.SOCK_STREAM, ("127.0.0.1", 0)) as server:
        address = server.getsockname()
        server.listen()
        sink = open_one(Target("tcp", *address))
        sink.take(FINDING)
        with server.accept()[0] as connection:
            check(frame(connection))
    sink.take(FINDING)
    until(lambda: [*sink.tick()] != [], seconds=10, what="the sentence")
    assert sink.unwritten == 1
    with receiver(socket.SOCK_STREAM, address) as server:
        server.listen()
        with server.accept()[0] as connection:
            check(frame(connection))
            until(lambda: sink.unwritten == 0, seconds=10, what="all sent")
    assert [*sink.tick()] == []


def test_a_server_that_is_away_is_told_once_and_what_waits_is_bounded(
    tmp_path: Path, open_one: Callable[[Target], Syslog]
) -> None:
    sink = open_one(target(str(tmp_path / "nobody")))
    for _ in range(MAX_WAITING + 5):
        sink.take(FINDING)
    told = list[str]()

    def said() -> bool:
        told.extend(map(str, sink.tick()))
        return bool(told)

    until(said, seconds=10, what="the sentence")
    assert told[0].startswith(f"syslog messages can't be sent to {tmp_path / 'nobody'} (No such file or directory); ")
    assert f"{MAX_WAITING} wait, 5 were lost" in told[0]
    assert list(sink.tick()) == []


def test_close_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    with receiver(socket.SOCK_DGRAM, str(tmp_path / "log")) as server:
        sink = Syslog(target(str(tmp_path / "log")))
        sink.take(FINDING)
        sink.close()
        assert sink.unwritten == 0
        check(server.recv(4096))
    assert "syslog" not in {thread.name for thread in threading.enumerate()}
