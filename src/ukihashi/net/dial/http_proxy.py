"""The client's side of HTTP CONNECT (RFC 9110, section 9.3.6), over a plain or an encrypted connection to the proxy.

A proxy that says 200 and closes at once can't be told here from a hub that does: the tunnel is open, and what is above
sees an end of stream before any byte of TLS. `doctor` tells them apart if another path leads to the hub.
"""

import contextlib
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import h11

from ukihashi import __version__
from ukihashi.errors import N_
from ukihashi.net.dial import socks
from ukihashi.net.dial.direct import location
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.proxy_auth import Challenge, Proof, as_bytes, as_text, choose, parse_challenges, scheme_name
from ukihashi.net.dial.stream import AnswerTooLong, Stream, StreamEnded
from ukihashi.net.dial.via import Via

ROUNDS_MAX: Final = 6  # requests until the proxy is content; Negotiate needs the most

_HEAD_MAX: Final = 60 * 1024  # bytes
_NO_WAY: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_SQUID: Final = re.compile(r"\bERR_[A-Z_]{1,40}\b")  # Squid tells more than its status, which is 500 for many things
_SQUID_NO_WAY: Final = frozenset({"ERR_DNS_FAIL", "ERR_CONNECT_FAIL", "ERR_CANNOT_FORWARD"})
_LOGIN_PAGE: Final = N_(
    "{via} answers with a page for browsers instead of a tunnel ({answer}); this network wants a login first: open any"
    " http:// page in a browser"
)


class Answer(NamedTuple):
    """What the proxy said, its body read away."""

    status: int
    reason: str
    headers: list[tuple[bytes, bytes]]  # names in lower case
    stays: bool  # the connection can take another request

    def all(self, name: bytes) -> list[str]:
        """Every value of a header."""
        return [as_text(value) for found, value in self.headers if found == name]

    def __str__(self) -> str:
        return f"{self.status} {self.reason}".strip()


class Talk:
    """The talk with one proxy about one target, over as many connections as the proxy wants."""

    def __init__(self, via: Via, host: str, port: int, secret: str | None) -> None:
        """Raises: PathRefused: a name that can't be asked for."""
        target = location(host, port)
        plain = socks.name_bytes(host, via, target).decode("ascii")
        self._via, self._shown, self._target = via, target, location(plain, port)
        self._secret = secret
        self._proof: Proof | None = None
        self._rounds = 0

    async def connect(self, stream: Stream) -> bool:
        """True: the tunnel is open, the next byte is its first. False: go on over a new connection.

        Raises: PathRefused, and what a stream raises.
        """
        while True:
            self._rounds += 1
            answer = await self._ask(stream)
            if answer.status == HTTPStatus.UNAUTHORIZED and self._proof is not None:  # so does tinyproxy
                raise self._refused(self._proof)
            if answer.status != HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                self._judge(answer)
                return True
            self._prove(parse_challenges(answer.all(b"proxy-authenticate")), answer)
            if not answer.stays:
                return False

    def _prove(self, challenges: Sequence[Challenge], answer: Answer) -> None:
        """Choose a proof, or its next step. Raises: PathRefused."""
        proof = self._proof
        if proof is None:
            self._proof = choose(challenges, self._via, self._secret)
        elif self._rounds >= ROUNDS_MAX or not proof.goes_on(challenges) or (proof.bound and not answer.stays):
            raise self._refused(proof)

    def _refused(self, proof: Proof) -> PathRefused:
        return PathRefused(
            Failure.CREDENTIALS_REFUSED,
            N_("the proxy {via} did not take the user's name or the password ({scheme}); are both right?"),
            via=self._via,
            scheme=scheme_name(proof.scheme),
        )

    async def _ask(self, stream: Stream) -> Answer:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_MAX)
        headers = [(b"Host", self._target.encode()), (b"User-Agent", f"ukihashi/{__version__}".encode())]
        if self._proof is not None:
            headers.append((b"Proxy-Authorization", as_bytes(self._proof.header(self._target))))
        request = h11.Request(method="CONNECT", target=self._target, headers=headers)
        await stream.send(http.send(request) + http.send(h11.EndOfMessage()))
        try:
            while True:
                http.receive_data(await self._head(stream))
                match http.next_event():
                    case h11.Response() as event:
                        return await _whole(http, event, stream)
                    case h11.InformationalResponse():
                        continue
        except h11.RemoteProtocolError as error:
            raise socks.not_a_proxy(self._via, b"HTTP") from error

    async def _head(self, stream: Stream) -> bytes:
        """All through the empty line, whatever ends lines there."""
        lines: list[bytes] = []
        try:
            while not lines or lines[-1] not in {b"\r\n", b"\n"}:
                lines.append(await stream.line())
                if not lines[0].startswith(b"HTTP/"):
                    raise socks.not_a_proxy(self._via, lines[0])
        except (StreamEnded, AnswerTooLong) as ended:
            if not lines and ended.so_far and not ended.so_far.startswith(b"HTTP/"):
                raise socks.not_a_proxy(self._via, ended.so_far) from ended
            raise
        return b"".join(lines)

    def _judge(self, answer: Answer) -> None:
        """Raises: PathRefused unless the tunnel is open."""
        via, target, status = self._via, self._shown, answer.status
        page = any("html" in kind.lower() for kind in answer.all(b"content-type"))
        if 200 <= status < 300 and not page:
            return
        if status < 400 or status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED:
            raise PathRefused(Failure.CAPTIVE_PORTAL, _LOGIN_PAGE, via=via, answer=answer)
        said = next(iter(_SQUID.findall(" ".join(answer.all(b"x-squid-error")))), "")
        code = f"{answer}, {said}" if said else str(answer)
        if status in {HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNAUTHORIZED}:
            raise PathRefused(
                Failure.FORBIDDEN,
                N_(
                    "the proxy {via} does not allow CONNECT to {target} (its answer: {code}); ask its administrator to"
                    " allow that port, or let the hub listen at port 443"
                ),
                via=via,
                target=target,
                code=code,
            )
        if status in _NO_WAY or said in _SQUID_NO_WAY:
            raise PathRefused(
                Failure.TARGET_UNREACHABLE,
                N_(
                    "the proxy {via} can't reach {target} (its answer: {code}); is the name right, as that machine sees"
                    " it, and is the hub on?"
                ),
                via=via,
                target=target,
                code=code,
            )
        raise PathRefused(
            Failure.PROXY_BROKEN,
            N_("the proxy {via} opens no tunnel to {target} (its answer: {code}); is it a proxy that knows CONNECT?"),
            via=via,
            target=target,
            code=code,
        )


async def _whole(http: h11.Connection, event: h11.Response, stream: Stream) -> Answer:
    """The answer; a body is read away only where another request may follow."""
    headers = list(event.headers)
    words = b",".join(value for name, value in headers if name in {b"connection", b"proxy-connection"}).lower()
    stays = b"keep-alive" in words if event.http_version == b"1.0" else b"close" not in words
    answer = Answer(event.status_code, event.reason.decode("ascii", "replace"), headers, stays)
    if answer.status != HTTPStatus.PROXY_AUTHENTICATION_REQUIRED or not stays:
        return answer
    with contextlib.suppress(StreamEnded):
        while True:
            match http.next_event():
                case h11.NEED_DATA:
                    http.receive_data(await stream.some())
                case h11.EndOfMessage():
                    return answer
                case h11.ConnectionClosed():
                    break
    return answer._replace(stays=False)
