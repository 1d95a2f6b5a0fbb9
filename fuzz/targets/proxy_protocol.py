"""The PROXY protocol's header before a client's bytes, whatever the split: one header, one error, or more to come."""

import ipaddress
import struct

from fuzz.targets import pieces
from ukihashi.errors import PeerViolation
from ukihashi.net.proxy_protocol import MAX_HEADER, MAX_LINE, SIGNATURE, Header, read_header

ALLOWED = (PeerViolation,)
TOKENS = [
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b"192.0.2.7 ",
    b"2001:db8::7 ",
    b"::ffff:192.0.2.7 ",
    b"65535\r\n",
    SIGNATURE,
    b"\x21\x11\0\x0c",
    b"\x21\x21\0\x24",
    b"\x20\0\0\0",
    b"\x16\x03\x01",
]


def seeds() -> list[bytes]:
    """The first byte says how the stream is cut."""
    v4 = bytes([192, 0, 2, 7, 192, 0, 2, 1]) + struct.pack("!HH", 40000, 443)
    v6 = ipaddress.IPv6Address("2001:db8::7").packed * 2 + struct.pack("!HH", 40000, 443)
    tlv = b"\x03\0\x04abcd" + b"\x20\0\x05\x01\0\0\0\0"
    headers = [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n",
        b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n",
        b"PROXY UNKNOWN\r\n",
        SIGNATURE + b"\x21\x11\0\x0c" + v4,
        SIGNATURE + b"\x21\x11" + struct.pack("!H", len(v4 + tlv)) + v4 + tlv,
        SIGNATURE + b"\x21\x21\0\x24" + v6,
        SIGNATURE + b"\x21\x31\0\xd8" + bytes(216),
        SIGNATURE + b"\x20\0\0\0",
    ]
    return [bytes([step]) + header + b"\x16\x03\x01 behind" for header in headers for step in (1, 7, 200)]


def run(data: bytes) -> object:
    """Read it as it comes, and at once: the same must be found."""
    step, stream = (data[0], data[1:]) if data else (1, b"")
    came, found = b"", None
    for piece in pieces(stream, step):
        came += piece
        found = read_header(came)
        if found is not None:
            break
    whole = read_header(stream)
    assert whole == found
    if whole is None:
        assert len(stream) < (MAX_LINE if stream.startswith(b"P") else MAX_HEADER)
        return "waits", stream[:1]
    assert isinstance(whole, Header)
    assert 0 < whole.length <= min(len(stream), MAX_HEADER)
    if whole.source is not None:
        address, port = whole.source
        assert str(ipaddress.ip_address(address)) == address
        assert 0 <= port < 65536
    return whole.source is not None, stream[0], whole.length > 60
