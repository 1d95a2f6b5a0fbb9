"""Pages: requests that are not the protocol's go to the page server on its Unix socket, one connection each.

Both ways the HTTP is parsed and written anew, so nothing that a browser sends reaches the page server unparsed, and no
header about who asks can be forged. The page server is an unprivileged process of ours. A short answer is gathered and
passed on whole; of a long one the next piece is read when the browser has taken the one before, so nothing piles up.
"""

import errno
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

from ukihashi.errors import PeerViolation
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import READ, WRITE, Deadlines, Loop
from ukihashi.wire.constants import PROBE_TAG
from ukihashi.wire.http import ClientStream, Headers, Request, Response

READ_SIZE: Final = 65536  # bytes; of a longer answer this is a piece
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


class Rest(Protocol):
    """The rest of a long answer, piece by piece."""

    def next(self, then: Callable[[bytes | None, bool], None]) -> None:
        """`then(piece, over)` is called once, within `relay_s` and never from inside this call; None: it broke off."""

    def cancel(self) -> None:
        """Nobody wants it any more. Harmless when it is over."""


Answer = Callable[[int, list[tuple[str, str]], bytes, Rest | None], None]


class Relay:
    """Asks the page server. At most `limits.relays` at once; more get 503 from us."""

    def __init__(self, loop: Loop, path: Path | None, limits: Limits) -> None:
        self._loop = loop
        self._path = path  # None: there is no page server
        self._limits = limits
        self._open: set[_Exchange] = set()
        self._running: Deadlines[_Exchange] = Deadlines(limits.relay_s)  # of those, who wait for the page server
        self._tick()

    def ask(self, request: Request, peer: str, answer: Answer) -> None:
        """`answer(status, headers, body, rest)` is called once, within `relay_s`; never from inside this call."""
        if self._path is not None and len(self._open) < self._limits.relays:
            exchange = _Exchange(self._loop, self._path, request, peer, answer, self._moved)
            self._open.add(exchange)
            self._running.restart(exchange, self._loop.now)
        else:
            self._loop.at(self._loop.now, lambda: answer(*_none(HTTPStatus.SERVICE_UNAVAILABLE)))

    def _moved(self, exchange: "_Exchange") -> None:
        """It is over, waits for its reader, or waits for the page server again."""
        if exchange.waits:
            self._running.restart(exchange, self._loop.now)
        else:
            self._running.drop(exchange)
        if exchange.is_over:
            self._open.discard(exchange)

    def _tick(self) -> None:
        for exchange in self._running.pop_expired(self._loop.now):
            exchange.fail(HTTPStatus.GATEWAY_TIMEOUT)
        self._loop.at(self._loop.now + self._limits.relay_s / 8, self._tick)


class _Exchange:
    """One request on its way to the page server and back."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        request: Request,
        peer: str,
        answer: Answer,
        moved: Callable[["_Exchange"], None],
    ) -> None:
        self._loop = loop
        self._answer: Answer | None = answer  # until it has been given
        self._then: Callable[[bytes | None, bool], None] | None = None  # who waits for the next piece
        self._moved = moved
        self._head: Response | None = None
        self._gathered = b""
        self.is_over = False
        host = (request.header(b"host") or b"localhost").decode("latin-1")
        self._http = ClientStream(host)
        headers = [
            *_passed_on(request.headers),
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

    @property
    def waits(self) -> bool:
        """For the page server; else for its reader, or for nobody."""
        return not self.is_over and (self._answer is not None or self._then is not None)

    def next(self, then: Callable[[bytes | None, bool], None]) -> None:
        """As `Rest`."""
        self._then = then
        if self.is_over:  # it was cancelled
            self._loop.at(self._loop.now, lambda: then(None, True))
            return
        self._loop.watch(self._fd, READ, self._on_events)
        self._moved(self)

    def cancel(self) -> None:
        """As `Rest`."""
        self._answer = self._then = None
        self._end()

    def fail(self, status: HTTPStatus) -> None:
        """End it: with a page of ours, if nothing was said yet."""
        answer, then = self._answer, self._then
        self.cancel()
        if answer is not None:
            answer(*_none(status))
        elif then is not None:
            then(None, True)

    def _on_events(self, events: int) -> None:
        try:
            if events & WRITE and self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing, socket.MSG_NOSIGNAL) :]
                if not self._outgoing:
                    self._loop.change(self._fd, READ)
            if events & ~WRITE:
                part = self._http.part(self._socket.recv(READ_SIZE))
                self._head = self._head or part.head
                self._gathered += part.body
                if part.over and self._head is None:
                    self.fail(HTTPStatus.BAD_GATEWAY)
                elif part.over or self._then is not None or len(self._gathered) >= READ_SIZE:
                    self._give(over=part.over)
        except BlockingIOError:
            pass
        except (OSError, PeerViolation):
            self.fail(HTTPStatus.BAD_GATEWAY)

    def _give(self, *, over: bool) -> None:
        """What was gathered to who waits for it; nothing more is read until it is asked for."""
        answer, then, body = self._answer, self._then, self._gathered
        self._answer, self._then, self._gathered = None, None, b""
        if over:
            self._end()
        else:
            self._loop.forget(self._fd)
            self._moved(self)
        if then is not None:
            then(body, over)
        elif answer is not None and self._head is not None:
            headers = _passed_on(self._head.headers)
            length = self._head.header(b"content-length")
            if length is not None and not over:
                headers.append(("Content-Length", length.decode("latin-1")))
            answer(self._head.status, headers, body, None if over else self)

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._loop.forget(self._fd)
            self._socket.close()
            self._moved(self)


def _passed_on(fields: Headers) -> list[tuple[str, str]]:
    """Without what belongs to one connection: the usual ones, and those that `Connection` names."""
    named = {
        word.strip().lower()
        for name, value in fields
        if name == b"connection"
        for word in value.decode("latin-1").split(",")
    }
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
    return [(name, value) for name, value in headers if name not in DROPPED and name not in named]


def _none(status: HTTPStatus) -> tuple[int, list[tuple[str, str]], bytes, None]:
    return status, [("Content-Type", "text/html; charset=utf-8"), ("Retry-After", "5")], NO_PAGE, None
