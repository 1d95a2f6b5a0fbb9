"""HTTP from a stranger to the hub."""

from fuzz.targets import overheard, pieces, vectors
from ukihashi.errors import PeerViolation
from ukihashi.wire.constants import MAX_REQUEST_PACK
from ukihashi.wire.http import MAX_BEHIND, MAX_HEADER, HttpViolation, ServerSide, is_pack, is_signature

ALLOWED = (PeerViolation,)
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b": ",
    b"Host: x\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Connection: close\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"HTTP/1.0",
    b"0\r\n\r\n",
]


def seeds() -> list[bytes]:
    """Captured requests, chunked ones, several in a row. The first byte says how the stream is cut."""
    streams = [
        vector["request_head"].encode() + bytes.fromhex(vector.get("body_hex", ""))
        for vector in vectors()
        if "request_head" in vector
    ]
    streams.append(b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: y\r\n\r\n")
    streams.append(b"".join(streams[:3]) * 2)
    return [*overheard("http_server"), *(bytes([step]) + stream for stream in streams for step in (1, 50, 255))]


def run(data: bytes) -> object:
    """Answer every request; after a violation one last answer goes out."""
    step, stream = (data[0], data[1:]) if data else (1, b"")
    server, told = ServerSide(), list[object]()
    try:
        for piece in pieces(stream, step):
            for request in server.receive(piece):
                assert len(request.body) <= MAX_REQUEST_PACK
                told.append((request.method[:8], is_pack(request), is_signature(request)))
                assert server.respond(200 if request.target == "/" else 404, [("X", "y")], b"body")
            assert server.pending <= MAX_HEADER + MAX_REQUEST_PACK + MAX_BEHIND + 256
    except HttpViolation as violation:
        answer = server.respond(violation.status, [], b"no")
        if not (answer == b"" or answer[:13] in _ANSWERS) or not server.must_close:
            raise AssertionError(answer) from violation
        raise
    server.take_over()
    return tuple(told[:3]), server.must_close


_ANSWERS = tuple(b"HTTP/1.1 %d " % status for status in (400, 413, 431, 501, 505))
