"""A web server behind the hub: it answers what browsers ask for and the hub does not know, on the hub's own port.

One connection a request. Nothing of a body is gathered: the next piece is read when the one before is on its way. What
went wrong stands in the log; a stranger hears only that there is no answer.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ukihashi.errors import PeerViolation
from ukihashi.wire.http import ClientStream, Part

HEAD_S: Final = 8.0  # for the connection and the head of the answer; the worker waits 10 s
PIECE_S: Final = 8.0  # for each further piece
READ_SIZE: Final = 65536  # bytes
QUIET_S: Final = 10.0  # between two complaints in the log
AS_IS: Final = "ukihashi.as_is"  # in a request's scope: the answer's headers are not ours to add to

# RFC 9110, 7.6.1: what belongs to one connection; Host and lengths are made anew.
OF_ONE_CONNECTION: Final = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"),
        *("proxy-authenticate", "proxy-authorization"),
    }
)
NEW: Final = frozenset(
    {"date", "alt-svc"}
)  # of an answer: the date is made anew, and no other port is offered for ours
NOT_ASKED: Final = OF_ONE_CONNECTION | {"host", "content-length", "expect"}
OURS: Final = re.compile(r"__Secure-ukihashi-|x-vpnadmin-", re.IGNORECASE)  # cookies and headers of our administration

_log = structlog.get_logger()


class Upstream:
    """The endpoint for everything that is not the hub's, whatever the method."""

    def __init__(self, host: str, port: int, *, kept: tuple[str, ...]) -> None:
        """`kept`: what begins with one of these is the hub's, also where it has no such page."""
        self._host, self._port = host, port
        self._kept = kept
        self._quiet_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises: HTTPException, 501 for a WebSocket, 502 or 504 if the web server doesn't answer."""
        if f"{scope['path']}/".startswith(self._kept):
            raise HTTPException(404)
        passage = await self._ask(Request(scope, receive))
        scope[AS_IS] = True
        try:
            await passage(scope, receive, send)
        except (OSError, PeerViolation) as error:  # in the middle; the server closes the connection
            self._complain(error)

    async def _ask(self, request: Request) -> Response:
        target = request.scope["raw_path"].decode("latin-1")
        if request.method in {"CONNECT", "TRACE"} or not target.startswith("/"):
            raise HTTPException(405)
        if "sec-websocket-key" in request.headers:
            raise HTTPException(501)
        if query := request.scope["query_string"].decode("latin-1"):
            target += f"?{query}"
        fields, body = asked_fields(request.headers), await request.body()
        http = ClientStream(request.headers.get("host", self._host))
        try:
            async with asyncio.timeout(HEAD_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writer.write(http.request(request.method, target, fields, body))
                    first = await _head(http, reader)
                except BaseException:
                    writer.close()
                    raise
        except TimeoutError:
            self._complain("no answer in time")
            raise HTTPException(504) from None
        except (OSError, PeerViolation) as error:
            self._complain(error)
            raise HTTPException(502) from None
        return _Passage(http, first, reader, writer)

    def _complain(self, reason: object) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_S
            _log.warning("upstream_failed", host=self._host, port=self._port, reason=str(reason) or repr(reason))


class _Passage(StreamingResponse):
    """An answer that has begun. Its connection ends with it, whatever happens."""

    def __init__(
        self, http: ClientStream, first: Part, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert first.head is not None
        super().__init__(_pieces(http, first, reader), first.head.status)
        self.raw_headers = answered_fields(first.head.headers)
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()


async def _head(http: ClientStream, reader: asyncio.StreamReader) -> Part:
    while True:
        part = http.part(await reader.read(READ_SIZE))
        if part.head is not None:
            return part


async def _pieces(http: ClientStream, first: Part, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    part = first
    while True:
        if part.body:
            yield part.body
        if part.over:
            return
        async with asyncio.timeout(PIECE_S):
            part = http.part(await reader.read(READ_SIZE))


def asked_fields(headers: Headers) -> list[tuple[str, str]]:
    """Headers of the request to the web server: the browser's, without what is only between it and us."""
    fields = [("Connection", "close")]
    for name, value in headers.items():
        if name in NOT_ASKED or OURS.match(name):
            continue
        if name == "cookie":
            kept = "; ".join(one for one in re.split(r";\s*", value) if not OURS.match(one))
            if not kept:
                continue
            fields.append((name, kept))
        else:
            fields.append((name, value))
    return fields


def answered_fields(headers: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    """Headers of the answer, without what is only between the web server and us."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.decode("latin-1").split(",")
    }
    dropped = OF_ONE_CONNECTION | NEW | named
    return [(name, value) for name, value in headers if name.decode("latin-1") not in dropped]
