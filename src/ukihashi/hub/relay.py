"""Pages: requests that are not the protocol's go to the page server on its Unix socket, one connection each.

Both ways the HTTP is parsed and written anew, so nothing that a browser sends reaches the page server unparsed, and no
header about who asks can be forged. The page server is an unprivileged process of ours; its answers are bounded too.
"""

import errno
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from ukihashi.errors import PeerViolation
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import READ, WRITE, Deadlines, Loop
from ukihashi.wire.constants import PROBE_TAG
from ukihashi.wire.http import ClientSide, Request, Response

Answer = Callable[[int, list[tuple[str, str]], bytes], None]

READ_SIZE: Final = 65536
MAX_ANSWER: Final = 1 << 20  # bytes of a page's body
# RFC 9110, 7.6.1: what belongs to one connection; lengths are made anew; and what only we may say
DROPPED: Final = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"),
        *("proxy-authenticate", "proxy-authorization", "content-length", "host", "expect"),
        *("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"),
    }
)
NO_PAGE: Final = (
    b"<!doctype html><!-- " + PROBE_TAG + b" -->"
    b'<meta charset="utf-8"><title>ukihashi</title><p>The page server does not answer. / '
    + "ページサーバーが応答しません。".encode()
)


class Relay:
    """Asks the page server. At most `limits.relays` at once; more get 503 from us."""

    def __init__(self, loop: Loop, path: Path | None, limits: Limits) -> None:
        self._loop = loop
        self._path = path  # None: there is no page server
        self._limits = limits
        self._running: Deadlines[_Exchange] = Deadlines(limits.relay_s)
        self._tick()

    def ask(self, request: Request, peer: str, answer: Answer) -> None:
        """`answer(status, headers, body)` is called once, within `relay_s`; never from inside this call."""
        if self._path is not None and len(self._running) < self._limits.relays:
            exchange = _Exchange(
                self._loop, self._path, request, peer, lambda *page: self._done(exchange, answer, *page)
            )
            self._running.restart(exchange, self._loop.now)
        else:
            self._loop.at(self._loop.now, lambda: answer(*_none(HTTPStatus.SERVICE_UNAVAILABLE)))

    def _done(
        self, exchange: "_Exchange", answer: Answer, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self._running.drop(exchange)
        answer(status, headers, body)

    def _tick(self) -> None:
        for exchange in self._running.pop_expired(self._loop.now):
            exchange.fail(HTTPStatus.GATEWAY_TIMEOUT)
        self._loop.at(self._loop.now + self._limits.relay_s / 8, self._tick)


class _Exchange:
    """One request on its way to the page server and back."""

    def __init__(self, loop: Loop, path: Path, request: Request, peer: str, answer: Answer) -> None:
        self._loop = loop
        self._answer = answer
        host = (request.header(b"host") or b"localhost").decode("latin-1")
        self._http = ClientSide(host, max_body=MAX_ANSWER)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        headers = [(name, value) for name, value in headers if name not in DROPPED]
        headers += [
            ("X-Forwarded-For", peer.rpartition(":")[0].strip("[]")),
            ("X-Forwarded-Proto", "https"),
            ("Connection", "close"),
        ]
        # HEAD asks for the length of what GET would bring; the front door leaves the body out again
        method = "GET" if request.method == "HEAD" else request.method
        self._outgoing = memoryview(self._http.request(method, request.target, headers, request.body))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._fd = self._socket.fileno()
        if self._socket.connect_ex(str(path)) in {0, errno.EINPROGRESS}:  # EAGAIN: its queue is full
            loop.watch(self._fd, READ | WRITE, self._on_events)
        else:
            loop.at(loop.now, lambda: self.fail(HTTPStatus.SERVICE_UNAVAILABLE))

    def fail(self, status: HTTPStatus) -> None:
        """End it with a page of ours."""
        self._finish(*_none(status))

    def _on_events(self, events: int) -> None:
        try:
            if events & WRITE and self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing, socket.MSG_NOSIGNAL) :]
                if not self._outgoing:
                    self._loop.change(self._fd, READ)
            if events & ~WRITE:
                data = self._socket.recv(READ_SIZE)
                response = self._http.receive(data) if data else self._http.end()
                if response is not None:
                    self._finish(response.status, _headers(response), response.body)
                elif not data:
                    self.fail(HTTPStatus.BAD_GATEWAY)
        except BlockingIOError:
            pass
        except (OSError, PeerViolation):
            self.fail(HTTPStatus.BAD_GATEWAY)

    def _finish(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            self._fd = -1
            self._socket.close()
            self._answer(status, headers, body)


def _headers(response: Response) -> list[tuple[str, str]]:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
    return [(name, value) for name, value in headers if name not in DROPPED]


def _none(status: HTTPStatus) -> tuple[int, list[tuple[str, str]], bytes]:
    return status, [("Content-Type", "text/html; charset=utf-8"), ("Retry-After", "5")], NO_PAGE
