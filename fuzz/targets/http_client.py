"""HTTP from whatever answers the card: a hub, a proxy, any web server."""

from fuzz.targets import pieces
from fuzz.targets import vectors as vectors_of
from ukihashi.errors import PeerViolation
from ukihashi.wire.http import ClientSide, read_pack, signature_request

ALLOWED = (PeerViolation,)
TOKENS = [
    b"\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.0 ",
    b"Content-Length: 5\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Content-Type: application/octet-stream\r\n",
]
MAX_BODY = 1 << 16


def seeds() -> list[bytes]:
    """Captured answers and other shapes. The first byte says how the stream is cut, the second what was asked."""
    packed = [
        vector["http_header"].encode() + b"\r\n\r\n" + bytes.fromhex(vector["pack_hex"])
        for vector in vectors_of()
        if vector["id"] == "pack-hello"
    ]
    plain = [
        *packed,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
        b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03\x01tunnel",
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
    ]
    return [bytes([step, asked]) + stream for stream in plain for step in (1, 60, 255) for asked in (0, 1, 2)]


def run(data: bytes) -> object:
    """Ask, read the answer, take over what is behind it."""
    step, asked, stream = (data[0], data[1] % 3, data[2:]) if len(data) > 1 else (1, 0, b"")
    client = ClientSide("hub:443", max_body=MAX_BODY)
    if asked == 0:
        signature_request(client)
    else:
        client.request("CONNECT" if asked == 1 else "GET", "hub:443" if asked == 1 else "/")
    response = None
    for piece in pieces(stream, step):
        response = client.receive(piece)
        if response is not None:
            break
    if response is None:
        response = client.end()
    assert response is not None
    assert len(response.body) <= MAX_BODY
    client.take_over()
    return response.status // 100, read_pack(response) is None, min(len(response.body), 3), client.must_close
