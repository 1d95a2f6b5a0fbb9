"""Take from a packet what evidence must not hold: all payload in the clear but what the detector reads.

Kept are TLS records (what they carry is encrypted), the first line of a CONNECT request and of its answer, the fields
of SOCKS that are no user name or password, an SSH identification and the type of an SSH message. All else becomes "x"
or zero: Proxy-Authorization, the user name and password of SOCKS (RFC 1929), user names of SOCKS 4, cookies.
"""

from typing import Final

from ukihashi.detect.decode import segments
from ukihashi.detect.record import Packet

HEAD: Final = 96  # bytes of payload that stay
_TLS: Final = range(20, 25)  # types of records (RFC 8446, 5.1)
_SSH_HEAD: Final = 6  # length, padding, type of message (RFC 4253, 6)
_SOCKS4_HEAD: Final = 8
_CHECKSUM: Final = 16  # offset in the TCP header


def redact(packet: Packet) -> Packet:
    """The packet with its headers as they were and its payload cut to `HEAD` bytes and blanked.

    A changed packet has the checksum 0: the true one would tell something of what was there.
    """
    time, link_type, length, data = packet
    found = segments(link_type, data, [(time, 0, len(data), length)])
    if not found:
        return time, link_type, length, b""  # no TCP header in it: nothing that the detector needs
    tcp, start = found[0][6], found[0][7]
    payload = data[start : start + HEAD]
    kept = blank(payload, whole=found[0][5])
    head = bytearray(data[:start])
    if kept != payload and len(head) >= tcp + _CHECKSUM + 2:
        head[tcp + _CHECKSUM : tcp + _CHECKSUM + 2] = bytes(2)
    return time, link_type, length, bytes(head) + kept


def blank(payload: bytes, *, whole: int) -> bytes:
    """`payload` without its secrets, as long as before. `whole`: bytes of the segment on the wire."""
    keep, filler = _keep(payload, whole)
    return payload[:keep] + filler * (len(payload) - keep)


def _keep(payload: bytes, whole: int) -> tuple[int, bytes]:
    """How many bytes may stay, and what comes in place of the others."""
    size = len(payload)
    if size >= 3 and payload[0] in _TLS and payload[1] == 3 and payload[2] <= 4:
        return size, b"\0"
    if payload.startswith((b"CONNECT ", b"HTTP/1.")):
        return min(size, payload.find(b"\r\n") + 2 or size), b"x"
    if payload.startswith(b"SSH-"):
        return min(size, payload.find(b"\n") + 1 or size), b"\0"
    if payload.startswith(b"\0\0"):
        return min(size, _SSH_HEAD), b"\0"
    if payload[:1] == b"\5" and size >= 2:
        methods = whole == 2 + payload[1] or whole == 2
        request = size >= 4 and payload[2] == 0 and payload[3] in (1, 3, 4)
        return (size if methods or request else 0), b"\0"
    if payload[:2] in (b"\4\1", b"\4\2") or (size >= 2 and payload[0] == 0 and 0x5A <= payload[1] <= 0x5D):
        return min(size, _SOCKS4_HEAD), b"\0"
    return 0, b"\0"
