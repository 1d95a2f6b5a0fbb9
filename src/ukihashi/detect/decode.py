"""TCP segments as values, for those who look at single ones or change them; `detect.kernel` reads packets itself."""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from ukihashi.detect.layers import RAW, Buffer, locate

Segment = tuple[float, bytes, int, int, int, int, int, int, int]
"""(time s, key, sequence, acknowledgement, TCP flags, payload bytes on the wire, offset of the TCP header,
offset of the payload, end of what was captured).

`key` is source address, destination address, source port, destination port as they stand on the wire: 12 bytes for
IPv4, 36 for IPv6; `reverse` gives the key of the other direction.
"""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_TCP: Final = Struct("!IIBB")
_IPV4: Final = Struct("!BBHIBBH")
_IPV6: Final = Struct("!IHBB")


def reverse(key: bytes) -> bytes:
    """The key of the same connection's other direction."""
    if len(key) == 12:
        return key[4:8] + key[:4] + key[10:] + key[8:10]
    return key[16:32] + key[:16] + key[34:] + key[32:34]


def segments(link_type: int, buffer: Buffer, packets: Iterable[tuple[float, int, int, int]]) -> list[Segment]:
    """The TCP segments among `packets` (time, offset, captured, length), in order; all else is left out.

    Never raises on hostile bytes: what does not parse is no segment. Cost: O(1) a packet.
    """
    found: list[Segment] = []
    for time, start, captured, length in packets:
        tcp, addresses, version, payload = locate(buffer, link_type, start, start + captured, start + length)
        if version:
            size = 8 if version == 4 else 32
            key = bytes(buffer[addresses : addresses + size]) + bytes(buffer[tcp : tcp + 4])
            sequence, acknowledged, header, flags = _TCP.unpack_from(buffer, tcp + 4)
            data = tcp + (header >> 4 << 2)
            found.append((time, key, sequence, acknowledged, flags, payload, tcp, data, start + captured))
    return found


def as_packets(found: Sequence[Segment], buffer: Buffer) -> tuple[int, bytes, list[tuple[float, int, int, int]]]:
    """Packets that hold these segments, whose offsets point into `buffer`: link type, a buffer of theirs, packets."""
    parts, made, at = list[bytes](), list[tuple[float, int, int, int]](), 0
    for time, key, sequence, acknowledged, flags, length, tcp, data, end in found:
        rest = bytes(buffer[tcp + 14 : max(end, tcp + 14)])
        size = data - tcp + length
        if len(key) == 12:
            total = size + 20 if size < 0xFF00 else 0
            header = _IPV4.pack(0x45, 0, total, 0, 64, 6, 0) + key[:8]
        else:
            header = _IPV6.pack(6 << 28, size if size < 0xFF00 else 0, 6, 64) + key[:32]
        packet = header + key[-4:] + _TCP.pack(sequence, acknowledged, data - tcp << 2, flags) + rest
        made.append((time, at, len(packet), len(header) + size))
        parts.append(packet)
        at += len(packet)
    return RAW, b"".join(parts), made
