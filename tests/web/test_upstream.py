"""A web server behind the hub: it gets what is not the hub's and none of its secrets; its answers pass as they are."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from structlog.testing import capture_logs
from tests.web.conftest import VERSION, FakeHub, Visitor

from ukihashi.web.admin import SESSION_COOKIE
from ukihashi.web.app import SAFE_HEADERS, build_app

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nHello"


class Site:
    """Answers each connection with `answer`, then ends it; keeps what it was asked."""

    def __init__(self) -> None:
        self.answer = PAGE
        self.asked: list[bytes] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._sock.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            with peer, suppress(ConnectionError):
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += peer.recv(65536)
                head, _, body = asked.partition(b"\r\n\r\n")
                _, has_body, length = head.lower().partition(b"content-length: ")
                while has_body and len(body) < int(length.split(b"\r\n")[0]):
                    body += peer.recv(65536)
                self.asked.append(head + b"\r\n\r\n" + body)
                peer.sendall(self.answer)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()

    @property
    def last(self) -> list[str]:
        return self.asked[-1].decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def visitor(site: Site, hub: FakeHub) -> Visitor:
    return Visitor(build_app(hub, page_dir=None, version=VERSION, upstream=site.address))


def test_what_is_not_the_hubs_is_the_web_servers_the_front_page_included(site: Site, visitor: Visitor) -> None:
    for target in ("/", "/favicon.ico", "/shop/a%2Fb?x=%20&y", "/administration", "/..;/%2e%2e/etc/passwd"):
        answer = visitor.get(target)
        assert (answer.status, answer.body) == (200, b"Hello")
        assert site.last[0] == f"GET {target} HTTP/1.1"


def test_its_answer_passes_as_it_is(site: Site, visitor: Visitor) -> None:
    answer = visitor.get("/")
    assert [value for name, value in answer.fields if name == "set-cookie"] == ["a=1", "b=2"]
    assert answer["content-length"] == "5"
    assert not [name for name in SAFE_HEADERS if name in answer]
    site.answer = (
        b"HTTP/1.1 418 Teapot\r\nTransfer-Encoding: chunked\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Stays: 1\r\n\r\n2\r\nHe\r\n3\r\nllo\r\n0\r\n\r\n"
    )
    answer = visitor.get("/")
    assert (answer.status, answer.body, answer.fields) == (418, b"Hello", [("x-stays", "1")])


def test_a_request_passes_with_method_and_body_and_without_what_is_between_us(site: Site, visitor: Visitor) -> None:
    fields = {
        "content-type": "text/plain",
        "x-forwarded-for": "192.0.2.7",
        "x-forwarded-proto": "https",
        "cookie": f"theme=dark; {SESSION_COOKIE}=secret; __Secure-ukihashi-form=secret; z=1",
        "x-vpnadmin-password": "secret",
        "te": "trailers",
        "upgrade": "h2c",
    }
    site.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
        assert visitor.ask(method, "/form", b"a body", fields).status == 204
        assert site.last[0] == f"{method} /form HTTP/1.1"
        assert site.asked[-1].endswith(b"\r\n\r\na body")
        said = {name.lower(): value for name, _, value in (line.partition(": ") for line in site.last[1:])}
        assert said == {
            "host": "hub.example:8443",
            "connection": "close",
            "content-length": "6",
            "content-type": "text/plain",
            "x-forwarded-for": "192.0.2.7",
            "x-forwarded-proto": "https",
            "cookie": "theme=dark; z=1",
        }


def test_the_hubs_own_addresses_stay_its_own(site: Site, visitor: Visitor) -> None:
    front = visitor.get("/ukihashi/")
    assert front.status == 200
    assert 'href="/ukihashi/?lang=ja"' in front.text
    assert visitor.get("/admin").status == 200
    for method, target in [
        ("GET", "/admin/nothing"),
        ("POST", "/admin/nothing"),
        ("PUT", "/admin"),
        ("GET", "/api/x/y"),
    ]:
        answer = visitor.ask(method, target)
        assert answer.status == 404
        assert 'href="/ukihashi/"' in answer.text
        assert SAFE_HEADERS.keys() <= {name for name in SAFE_HEADERS if name in answer}
    assert site.asked == []


def test_a_websocket_is_refused(site: Site, visitor: Visitor) -> None:
    answer = visitor.get("/ws", upgrade="websocket", sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==")
    assert (answer.status, site.asked) == (501, [])
    assert "WebSocket" in answer.text
    for method in ("TRACE", "CONNECT"):
        assert visitor.ask(method, "/").status == 405


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nX: " + bytes(20_000)])
def test_a_web_server_that_fails_is_told_to_the_log_and_not_to_strangers(
    site: Site, visitor: Visitor, said: bytes
) -> None:
    site.answer = said
    with capture_logs() as told:
        for _ in range(3):
            answer = visitor.get("/")
            assert answer.status == 502
            assert "127.0.0.1" not in answer.text
            assert str(site.address[1]) not in answer.text
            assert "does not answer" in answer.text
    assert [(one["event"], one["port"]) for one in told] == [("upstream_failed", site.address[1])]


def test_a_web_server_that_is_down(hub: FakeHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    visitor = Visitor(build_app(hub, page_dir=None, version=VERSION, upstream=address))
    with capture_logs() as told:
        assert visitor.get("/").status == 502
    assert told[0]["reason"]
    assert visitor.get("/ukihashi/").status == 200


def test_a_web_server_that_says_nothing(visitor: Visitor, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ukihashi.web.upstream.HEAD_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = build_app(FakeHub(), page_dir=None, version=VERSION, upstream=silent.getsockname())
        with capture_logs():
            assert Visitor(app).get("/").status == 504


def test_an_answer_that_breaks_off_is_not_completed(site: Site, visitor: Visitor) -> None:
    site.answer = PAGE.replace(b"Length: 5", b"Length: 6")
    with capture_logs() as told:
        answer = visitor.get("/")
    assert answer.body == b"Hello"
    assert [one["event"] for one in told] == ["upstream_failed"]
