"""The part of HTTP/1.1 that opens a tunnel (protocol sections 3, 4, 6), without I/O; h11 does the parsing.

Bytes in, whole requests or responses out, every size bounded. After the exchange `take_over` hands over the bytes that
came behind it: they are the tunnel's first ones and may arrive in the same read (trap T13).
"""

import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import h11

from ukihashi.errors import N_, PeerViolation
from ukihashi.wire.constants import (
    BLOB_LENGTH,
    BLOB_MAGIC,
    BLOB_TRAILER_MAX,
    MAX_REQUEST_PACK,
    MAX_REQUESTS,
    PACK_TARGET,
    PACK_TYPE,
    SHORT_SIGNATURE,
    SIGNATURE_TARGET,
    SIGNATURE_TYPE,
)
from ukihashi.wire.pack import MAX_PACK, Pack

Field = tuple[bytes | str, bytes | str]  # what we send: name, value
Headers = tuple[tuple[bytes, bytes], ...]  # names in lower case
_KEEP_ALIVE: Final = ("Keep-Alive", "timeout=15; max=19")
MAX_HEADER: Final = 16384  # bytes of a request's or response's first line and headers
MAX_BEHIND: Final = 1 << 18  # bytes that may wait unread behind a message


class HttpViolation(PeerViolation):
    """The peer's HTTP can't be used. `status` (400, 413 or 431) is what a server answers before it closes."""

    def __init__(self, template: str, *, status: int = 400, **values: object) -> None:
        super().__init__(template, **values)
        self.status: Final = status


class Request(NamedTuple):
    """One whole request."""

    method: str
    target: str
    headers: Headers
    body: bytes
    http_version: str  # "1.1"

    def header(self, name: bytes) -> bytes | None:
        """The first value of header `name` (lower case), or None."""
        return _header(self.headers, name)


class Response(NamedTuple):
    """One whole response."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of header `name` (lower case), or None."""
        return _header(self.headers, name)


class Part(NamedTuple):
    """What one read brought of a response that is passed on while it comes."""

    head: Response | None  # once, without its body
    body: bytes
    over: bool


class _Side:
    """What both ends share: an h11 connection, a body being gathered, and bounds.

    After a violation every later call raises the same error again.
    """

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], max_header: int, max_body: int) -> None:
        self._http = h11.Connection(role, max_incomplete_event_size=max_header)
        self._max_header = max_header
        self._max_body = max_body
        self._body = bytearray()
        self._whole = False  # a message was given out and the next exchange has not begun
        self._behind = bytearray()  # what came since then
        self._broken: HttpViolation | None = None

    @property
    def pending(self) -> int:
        """Bytes held: of a message that is not whole, and unread ones behind it."""
        return len(self._body) + len(self._http.trailing_data[0]) + len(self._behind)

    @property
    def must_close(self) -> bool:
        """No further exchange can follow on this connection."""
        return self._broken is not None or self._http.our_state in _ENDED or self._http.their_state in _ENDED

    def take_over(self) -> bytes:
        """The unread bytes after the last message; call once, when the connection leaves HTTP."""
        return bytes(self._http.trailing_data[0]) + bytes(self._behind)

    def _put(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        if self._whole:
            if len(self._behind) + len(data) > MAX_BEHIND:
                raise self._violation(N_("more bytes came unasked than are taken ({limit})"), 413, limit=MAX_BEHIND)
            self._behind += data
        elif data:
            self._http.receive_data(data)

    def _begin_next(self) -> None:
        """Both directions are through: the next exchange may begin."""
        states = (self._http.our_state, self._http.their_state)
        if states == (h11.DONE, h11.DONE):
            self._http.start_next_cycle()
            self._whole = False
            if self._behind:
                self._http.receive_data(bytes(self._behind))
                self._behind.clear()

    def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise self._violation(
                N_("not HTTP as we know it: {reason}"), error.error_status_hint, reason=str(error)[:200]
            ) from None
        if isinstance(event, (h11.Request, h11.Response, h11.InformationalResponse)):
            self._check_head(event)
        if isinstance(event, h11.Data):
            if len(self._body) + len(event.data) > self._max_body:
                raise self._violation(N_("an HTTP body above {limit} bytes"), 413, limit=self._max_body)
            self._body += event.data
        return event

    def _check_head(self, event: h11.Request | h11.Response | h11.InformationalResponse) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in event.headers)
        size += len(event.target) if isinstance(event, h11.Request) else len(event.reason)
        if size > self._max_header:
            raise self._violation(N_("an HTTP head above {limit} bytes"), 431, limit=self._max_header)
        for name, value in event.headers:
            if name == b"content-length" and int(value) > self._max_body:
                raise self._violation(N_("an HTTP body above {limit} bytes"), 413, limit=self._max_body)

    def _violation(self, template: str, status: int = 400, **values: object) -> HttpViolation:
        self._broken = HttpViolation(template, status=status, **values)
        self._body.clear()
        return self._broken

    def _take_body(self) -> bytes:
        body = bytes(self._body)
        self._body.clear()
        return body


_ENDED: Final = (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)


class ServerSide(_Side):
    """The hub's end: requests one by one, a response to each before the next is read.

    The response to request number `max_requests` says `Connection: close`; the protocol allows 19.
    """

    def __init__(
        self, max_header: int = MAX_HEADER, max_body: int = MAX_REQUEST_PACK, max_requests: int = MAX_REQUESTS
    ) -> None:
        super().__init__(h11.SERVER, max_header, max_body)
        self._max_requests = max_requests
        self._requests = 0
        self._head: h11.Request | None = None
        self._to_head = False

    def receive(self, data: bytes) -> list[Request]:
        """Take what one read returned; give the request it completed, if any, in a list.

        A request that was sent before the answer to an earlier one is kept: after `respond`, call `receive(b"")`.

        Raises:
            HttpViolation: malformed or too large. Answer `violation.status` with `respond`, then close.
        """
        self._put(data)
        while True:
            event = self._next()
            if isinstance(event, h11.Request):
                self._head = event
                self._to_head = event.method == b"HEAD"
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                self._requests += 1
                self._whole = True
                head, self._head = self._head, None
                return [
                    Request(
                        head.method.decode("latin-1"),
                        head.target.decode("latin-1"),
                        tuple((bytes(name), bytes(value)) for name, value in head.headers),
                        self._take_body(),
                        head.http_version.decode("latin-1"),
                    )
                ]
            elif not isinstance(event, h11.Data):
                return []

    def respond(self, status: int, headers: Sequence[Field] = (), body: bytes = b"") -> bytes:
        """The bytes of a response; Content-Length is added, headers with an empty value are left out (trap T4).

        After a violation any status may be sent, once. To a HEAD request the body is left out and a Content-Length
        among `headers` is kept; in other cases our own replaces it.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        last = self._requests >= self._max_requests or self._broken is not None
        ours = (b"transfer-encoding", b"connection", b"keep-alive") if last else (b"transfer-encoding",)
        bodiless = status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        fields = [(name, value) for name, value in _fields(headers) if name.lower() not in ours]
        if bodiless or not (self._to_head and any(name.lower() == b"content-length" for name, _ in fields)):
            fields = [(name, value) for name, value in fields if name.lower() != b"content-length"]
            fields += [] if bodiless else [(b"Content-Length", b"%d" % len(body))]
        if last:
            fields.append((b"Connection", b"close"))
        reason = _reason(status)  # real clients require one (section 3)
        parts = [self._http.send(h11.Response(status_code=status, headers=fields, reason=reason))]
        if body and not (self._to_head or bodiless):
            parts.append(self._http.send(h11.Data(data=body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._to_head = False
        self._begin_next()
        return b"".join(part for part in parts if part)

    @property
    def answers_head(self) -> bool:
        """The request under way is a HEAD: its response has no body."""
        return self._to_head

    def begin(self, status: int, headers: Sequence[Field]) -> bytes:
        """As `respond`, for a body that follows by `more`, and `finish` at its end.

        A Content-Length among `headers` is kept and must be true; without one the body is chunked.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        last = self._requests >= self._max_requests
        ours = (b"transfer-encoding", b"connection", b"keep-alive") if last else (b"transfer-encoding",)
        fields = [(name, value) for name, value in _fields(headers) if name.lower() not in ours]
        fields += [(b"Connection", b"close")] if last else []
        return self._http.send(h11.Response(status_code=status, headers=fields, reason=_reason(status))) or b""

    def more(self, body: bytes) -> bytes:
        """The bytes of a piece of the body that was begun."""
        return self._http.send(h11.Data(data=body)) or b""

    def finish(self) -> bytes:
        """The bytes of its end; then the next exchange may begin."""
        end = self._http.send(h11.EndOfMessage()) or b""
        self._to_head = False
        self._begin_next()
        return end


class ClientSide(_Side):
    """The card's end: one request, wait for its response, and so on; also speaks CONNECT to a proxy."""

    def __init__(self, host: str, max_header: int = MAX_HEADER, max_body: int = MAX_PACK) -> None:
        super().__init__(h11.CLIENT, max_header, max_body)
        self._host = host  # as it goes into the Host header: an IPv6 address needs its brackets
        self._head: h11.Response | None = None

    def request(self, method: str, target: str, headers: Sequence[Field] = (), body: bytes = b"") -> bytes:
        """The bytes of a request; Host and Content-Length are added. One at a time: RuntimeError before the answer."""
        if self._http.our_state is not h11.IDLE:
            raise RuntimeError("a request is sent only after the answer to the one before")
        fields = _fields([("Host", self._host), *headers])
        if body or method == "POST":
            fields.append((b"Content-Length", b"%d" % len(body)))
        head = self._http.send(h11.Request(method=method, target=target, headers=fields)) or b""
        data = self._http.send(h11.Data(data=body)) or b"" if body else b""
        return head + data + (self._http.send(h11.EndOfMessage()) or b"")

    def receive(self, data: bytes) -> Response | None:
        """Take what one read returned; give the response once it is whole. Interim (1xx) responses are skipped.

        Raises:
            HttpViolation: not HTTP, or too large; close the connection.
        """
        if self._http.our_state is h11.IDLE:
            raise RuntimeError("nothing was asked")
        self._put(data)
        return self._advance()

    def end(self) -> Response | None:
        """The peer closed: that completes a response without a length; otherwise HttpViolation."""
        if self._broken is not None:
            raise self._broken
        if self._http.our_state is h11.IDLE:
            return None
        self._http.receive_data(b"")
        try:
            return self._advance()
        except HttpViolation:
            raise self._violation(N_("the connection was closed before a whole answer had come")) from None

    def _advance(self) -> Response | None:
        while True:
            event = self._next()
            if isinstance(event, h11.Response):
                self._head = event
                if self._http.their_state is h11.SWITCHED_PROTOCOL:  # the answer to CONNECT has no body
                    return self._finish()
            elif isinstance(event, h11.EndOfMessage):
                response = self._finish()
                self._begin_next()
                return response
            elif not isinstance(event, (h11.Data, h11.InformationalResponse)):
                return None

    def _finish(self) -> Response | None:
        head, self._head = self._head, None
        if head is None:
            return None
        self._whole = True
        headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
        return Response(head.status_code, headers, self._take_body())


class ClientStream(ClientSide):
    """A client that asks one thing and passes the answer on while it comes: any length, nothing of the body is kept."""

    def __init__(self, host: str, max_header: int = MAX_HEADER) -> None:
        super().__init__(host, max_header, max_body=sys.maxsize)

    def part(self, data: bytes) -> Part:
        """Take what one read returned, b"" when the peer has closed; give what it brought.

        Raises:
            HttpViolation: not HTTP, a head that is too large, or the end before the answer was whole.
        """
        self._put(data)  # raises what was wrong before
        if not data:
            self._http.receive_data(b"")
        head: Response | None = None
        while True:
            event = self._next()
            if isinstance(event, h11.Response):
                headers = tuple((bytes(name), bytes(value)) for name, value in event.headers)
                head = Response(event.status_code, headers, b"")
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                self._whole = True
                return Part(head, self._take_body(), over=True)
            elif not isinstance(event, (h11.Data, h11.InformationalResponse)):
                return Part(head, self._take_body(), over=False)


# -- what goes over it --------------------------------------------------------------------------------------------


def signature_request(client: ClientSide) -> bytes:
    """The request that opens the protocol, in its short form (4.2)."""
    headers = [("Content-Type", SIGNATURE_TYPE), ("Connection", "Keep-Alive")]
    return client.request("POST", SIGNATURE_TARGET, headers, SHORT_SIGNATURE)


def is_signature_target(request: Request) -> bool:
    """POST to the signature's target, whatever the body."""
    return request.method == "POST" and request.target.lower() == SIGNATURE_TARGET


def is_signature(request: Request) -> bool:
    """A signature that opens the protocol: the short form, or a real client's picture with its random trailer."""
    body = request.body
    return is_signature_target(request) and (
        body == SHORT_SIGNATURE
        or (BLOB_LENGTH <= len(body) <= BLOB_LENGTH + BLOB_TRAILER_MAX and body.startswith(BLOB_MAGIC))
    )


def pack_request(client: ClientSide, pack: Pack, date: str = "") -> bytes:
    """A PACK to the server (6). `date`: RFC 9110 text, for the header of that name."""
    headers = [("Date", date), _KEEP_ALIVE, ("Connection", "Keep-Alive"), ("Content-Type", PACK_TYPE)]
    return client.request("POST", PACK_TARGET, headers, pack.encode())


def is_pack(request: Request) -> bool:
    """A request that carries a PACK: method, target, type and version as section 6 wants them."""
    return (
        request.method == "POST"
        and request.http_version == "1.1"
        and request.target.lower() == PACK_TARGET
        and (request.header(b"content-type") or b"").lower() == PACK_TYPE.encode()
    )


def pack_response(server: ServerSide, pack: Pack, date: str = "") -> bytes:
    """A PACK to the client (6)."""
    headers = [("Date", date), _KEEP_ALIVE, ("Connection", "Keep-Alive"), ("Content-Type", PACK_TYPE)]
    return server.respond(HTTPStatus.OK, headers, pack.encode())


def read_pack(response: Response, max_bytes: int = MAX_PACK) -> Pack | None:
    """The PACK in a server's response; None if the response is not one (no VPN server answers there).

    Raises:
        PeerViolation: it claims to be a PACK but is damaged.
    """
    if response.status != HTTPStatus.OK or (response.header(b"content-type") or b"").lower() != PACK_TYPE.encode():
        return None
    return Pack.decode(response.body, max_bytes=max_bytes)


def _header(headers: Headers, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)


def _fields(headers: Sequence[Field]) -> list[tuple[bytes, bytes]]:
    """As bytes, without those that have an empty value (trap T4)."""
    return [(_octets(name), _octets(value)) for name, value in headers if value]


def _octets(text: bytes | str) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
