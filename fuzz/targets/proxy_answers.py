"""What a proxy answers: a tunnel or one typed error, nothing taken that belongs to the tunnel, bounded memory."""

from collections.abc import Coroutine
from typing import Any, Final

from ukihashi.net.dial import http_proxy, socks
from ukihashi.net.dial.failures import PathRefused
from ukihashi.net.dial.stream import ANSWER_MAX, AnswerTooLong, StreamEnded
from ukihashi.net.dial.via import Kind, Via

ALLOWED = (PathRefused, StreamEnded, AnswerTooLong)
TOKENS = [
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.0 407 x\r\n",
    b"Proxy-Authenticate: ",
    b'Digest realm="r", nonce="n", qop="auth"',
    b"algorithm=SHA-256-sess",
    b'stale="true"',
    b"Basic realm=x",
    b"NTLM TlRMTVNTUAACAAAA",
    b"Proxy-Connection: keep-alive\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: ",
    b"\r\n\r\n",
    b"\x05\x02\x01\x00",
    b"\x05\x00\x00\x03",
]
TUNNEL: Final = b"\x16tunnel"


class MemoryStream:
    """A proxy that has said everything already."""

    def __init__(self, data: bytes) -> None:
        self.data, self.sent, self._left = data, b"", ANSWER_MAX

    async def send(self, data: bytes) -> None:
        """Keep it."""
        self.sent += data

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        return self._take(count)

    async def line(self) -> bytes:
        """All through the next line feed."""
        return self._take(self.data.find(b"\n") + 1 or len(self.data) + 1)

    async def some(self) -> bytes:
        """All there is."""
        return self._take(max(1, len(self.data)))

    def _take(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise AnswerTooLong(self.data)
        if count > len(self.data):
            raise StreamEnded(self.data)
        piece, self.data = self.data[:count], self.data[count:]
        return piece


def at_once(talk: Coroutine[Any, Any, Any]) -> Any:
    """Run a talk that never has to wait."""
    try:
        talk.send(None)
    except StopIteration as done:
        return done.value
    talk.close()
    raise AssertionError("it waits")


def seeds() -> list[bytes]:
    """The first byte says who is asked."""
    digest = b'Proxy-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256\r\n'
    ok = b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n" + TUNNEL
    return [
        b"\0" + ok,
        b"\0HTTP/1.1 407 no\r\n" + digest + b"Content-Length: 3\r\n\r\nabc" + ok,
        b"\0HTTP/1.0 407 no\nProxy-Authenticate: Basic realm=x, NTLM\nProxy-Connection: keep-alive\n\n",
        b"\0HTTP/1.1 407 no\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + ok,
        b"\0HTTP/1.1 407 no\r\n" + digest.replace(b'"r"', b'"\xe7\xa4\xbe\xb2"') + b"Content-Length: 0\r\n\r\n" + ok,
        b"\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>",
        b"\1\0\x5a" + bytes(6) + TUNNEL,
        b"\1\0\x5b" + bytes(6),
        b"\2\5\2\1\0\5\0\0\1" + bytes(6) + TUNNEL,
        b"\2\5\0\5\0\0\3\4name\0\0" + TUNNEL,
        b"\2\5\0\5\5\0\4" + bytes(18),
    ]


def run(data: bytes) -> object:
    """One talk."""
    kind = (Kind.HTTP, Kind.SOCKS4A, Kind.SOCKS5H)[data[0] % 3] if data else Kind.HTTP
    via, stream = Via(kind, "proxy.example", 1080, "taro"), MemoryStream(data[1:])
    said = len(stream.data)
    if kind is Kind.HTTP:
        opened = at_once(http_proxy.Talk(via, "hub.example", 443, "secret").connect(stream))
    elif kind is Kind.SOCKS4A:
        opened = at_once(socks.connect4(stream, via, "hub.example", 443, remote_names=True))
    else:
        opened = at_once(socks.connect5(stream, via, "hub.example", 443, "secret"))
    assert data.endswith(stream.data)
    assert said - len(stream.data) <= ANSWER_MAX
    assert b"secret" not in stream.sent or kind is Kind.SOCKS5H
    return kind, opened, stream.data == TUNNEL, stream.sent.count(b"CONNECT")
