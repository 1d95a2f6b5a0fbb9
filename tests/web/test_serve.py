"""The application on a real socket: keep-alive, HEAD, limits, orderly end."""

import asyncio
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from ukihashi.web.app import build_app
from ukihashi.web.serve import serve

if TYPE_CHECKING:
    from tests.web.conftest import FakeHub

T = TypeVar("T")


class UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("hub.example", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self.path))


@pytest.fixture
def during(hub: "FakeHub", tmp_path: Path) -> Callable[[Callable[[Path], T]], T]:
    """Run a blocking conversation while the application serves; the server is cancelled afterwards."""

    def run(talk: Callable[[Path], T], *, max_connections: int = 16) -> T:
        path = tmp_path / "web.sock"

        async def both() -> T:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
                listener.listen()
                app = build_app(hub, page_dir=None, version="9.9.9-test")
                server = asyncio.create_task(serve(listener, app, max_connections=max_connections))
                try:
                    return await asyncio.to_thread(talk, path)
                finally:
                    server.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await server

        return asyncio.run(asyncio.wait_for(both(), 30))

    return run


def assert_unchanged(answer: HTTPResponse) -> None:
    assert (answer.status, answer.read()) == (304, b"")


def test_one_connection_carries_many_requests(during: Callable[..., None]) -> None:
    def talk(path: Path) -> None:
        connection = UnixConnection(path)
        for method in ("GET", "HEAD", "GET"):
            connection.request(method, "/", headers={"Accept-Language": "ja"})
            own_end = connection.sock
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200
            assert connection.sock is own_end  # not closed in between
            assert bool(body) == (method == "GET")
            assert int(answer.headers["Content-Length"]) > 1000
            assert "Server" not in answer.headers
            tag = answer.headers["ETag"]
            connection.request("GET", "/", headers={"Accept-Language": "ja", "If-None-Match": tag})
            assert_unchanged(connection.getresponse())
        connection.close()

    during(talk)


def test_it_ends_though_a_browser_keeps_its_connection(during: Callable[..., UnixConnection]) -> None:
    def talk(path: Path) -> UnixConnection:
        connection = UnixConnection(path)
        connection.request("GET", "/")
        connection.getresponse().read()
        return connection

    connection = during(talk)
    assert connection.sock.recv(1) == b""
    connection.close()


def test_too_many_connections_are_told_so(during: Callable[..., None]) -> None:
    def talk(path: Path) -> None:
        connections = [UnixConnection(path) for _ in range(4)]
        seen = []
        for connection in connections:
            connection.request("GET", "/ukihashi/mark.svg")
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.status)
        for connection in connections:
            connection.close()
        assert seen[0] == 200
        assert seen[-1] == 503

    during(talk, max_connections=3)


def test_a_head_without_end_is_cut(during: Callable[..., None]) -> None:
    def talk(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(10)
            end.connect(str(path))
            end.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            end.sendall(b"X-Long: " + b"a" * 60_000)
            assert end.recv(100).startswith(b"HTTP/1.1 400")

    during(talk)
