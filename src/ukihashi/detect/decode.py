"""From a captured packet to the TCP segment in it: addresses, ports, numbers and payload length, nothing more.

Read: Ethernet with any 802.1Q, QinQ or PPPoE tags, Linux cooked v1 and v2, loopback and raw IP; IPv4 (first fragments
too), IPv6 with its extension headers (RFC 8200, 4). Lengths come from the IP header, so a short snap length changes
nothing.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final

Segment = tuple[float, bytes, int, int, int, int, int, int, int]
"""(time s, key, sequence, acknowledgement, TCP flags, payload bytes on the wire, offset of the TCP header,
offset of the payload, end of what was captured). A plain tuple, because one is made for each packet.

`key` is source address, destination address, source port, destination port as they stand on the wire: 12 bytes for
IPv4, 36 for IPv6; `reverse` gives the key of the other direction.
"""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_NULL, _ETHERNET, _RAW, _LOOP, _COOKED, _RAW4, _RAW6, _COOKED2 = 0, 1, 101, 108, 113, 228, 229, 276
LINK_TYPES: Final = frozenset((_NULL, _ETHERNET, _RAW, _LOOP, _COOKED, _RAW4, _RAW6, _COOKED2))

_IPV4, _IPV6, _PPPOE = 0x0800, 0x86DD, 0x8864
_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
MAX_TAGS: Final = 4
MAX_EXTENSIONS: Final = 8  # IPv6 extension headers; more are somebody's trick

# The usual packet in one go: Ethernet, IPv4 without options, TCP. Type, version and header length, total length,
# fragment, protocol, ports, sequence, acknowledgement, data offset, flags.
_PLAIN: Final = Struct("!12xHBxHxxHxBxx8xxxxxIIBB").unpack_from
_PLAIN_SIZE: Final = 14 + 20 + 14
_TCP: Final = Struct("!IIBB").unpack_from
_U16: Final = Struct("!H").unpack_from


def reverse(key: bytes) -> bytes:
    """The key of the same connection's other direction."""
    if len(key) == 12:
        return key[4:8] + key[:4] + key[10:] + key[8:10]
    return key[16:32] + key[:16] + key[34:] + key[32:34]


def segments(
    link_type: int, buffer: bytes | bytearray | memoryview, packets: Iterable[tuple[float, int, int, int]]
) -> list[Segment]:
    """The TCP segments among `packets` (time, offset, captured, length), in order; all else is left out.

    Never raises on hostile bytes: what does not parse is no segment. Cost: O(1) a packet.
    """
    found: list[Segment] = []
    add = found.append
    plain = link_type == _ETHERNET
    for time, start, captured, length in packets:
        if plain and captured >= _PLAIN_SIZE:
            kind, version, total, fragment, protocol, sequence, acknowledged, size, flags = _PLAIN(buffer, start)
            if kind == _IPV4 and version == 0x45 and protocol == 6 and not fragment & 0x1FFF:
                header = size >> 4 << 2
                if not total or total > length - 14:  # 0: over 64 KiB, put together by the capturing card's driver
                    total = length - 14
                payload = total - 20 - header
                if header >= 20 and payload >= 0:
                    at = start + 34
                    key = bytes(buffer[start + 26 : start + 38])
                    add((time, key, sequence, acknowledged, flags, payload, at, at + header, start + captured))
                continue
        network = _network(link_type, buffer, start, start + captured)
        if network is not None:
            segment = _ip(buffer, time, *network, start + captured, start + length)
            if segment is not None:
                add(segment)
    return found


def _network(link_type: int, buffer: bytes | bytearray | memoryview, at: int, end: int) -> tuple[int, int] | None:
    """Offset and type (EtherType) of the network layer; None if there is none that we read."""
    if link_type == _ETHERNET:
        if end - at < 14:
            return None
        kind = _U16(buffer, at + 12)[0]
        at += 14
    elif link_type == _COOKED:
        if end - at < 16:
            return None
        kind = _U16(buffer, at + 14)[0]
        at += 16
    elif link_type == _COOKED2:
        if end - at < 20:
            return None
        kind = _U16(buffer, at)[0]
        at += 20
    elif link_type in LINK_TYPES:
        if link_type in (_NULL, _LOOP):
            at += 4  # an address family whose number differs from system to system: the IP version says more
        if end - at < 1:
            return None
        kind = {4: _IPV4, 6: _IPV6}.get(buffer[at] >> 4, 0)
    else:
        return None
    for _ in range(MAX_TAGS):
        if kind not in _TAGS:
            break
        if end - at < 4:
            return None
        kind = _U16(buffer, at + 2)[0]
        at += 4
    if kind == _PPPOE and end - at >= 8:
        kind = {0x0021: _IPV4, 0x0057: _IPV6}.get(_U16(buffer, at + 6)[0], 0)
        at += 8
    return (at, kind) if kind in (_IPV4, _IPV6) else None


def _ip(
    buffer: bytes | bytearray | memoryview, time: float, at: int, kind: int, end: int, wire_end: int
) -> Segment | None:
    """The TCP segment of an IP packet at `at`. `end` = end of the captured bytes, `wire_end` = of the real ones."""
    if kind == _IPV4:
        if end - at < 20 or buffer[at] >> 4 != 4:
            return None
        header, total = (buffer[at] & 15) << 2, _U16(buffer, at + 2)[0]
        if header < 20 or buffer[at + 9] != 6 or _U16(buffer, at + 6)[0] & 0x1FFF:
            return None
        addresses = bytes(buffer[at + 12 : at + 20])
        stop = at + total if total else wire_end
        at += header
    else:
        if end - at < 40 or buffer[at] >> 4 != 6:
            return None
        total, following = _U16(buffer, at + 4)[0], buffer[at + 6]
        addresses = bytes(buffer[at + 8 : at + 40])
        stop = at + 40 + total if total else wire_end
        tcp = _after_extensions(buffer, at + 40, end, following)
        if tcp is None:
            return None
        at = tcp
    if end - at < 14:
        return None
    sequence, acknowledged, size, flags = _TCP(buffer, at + 4)
    header = size >> 4 << 2
    payload = min(stop, wire_end) - at - header
    if header < 20 or payload < 0:
        return None
    key = addresses + bytes(buffer[at : at + 4])
    return time, key, sequence, acknowledged, flags, payload, at, at + header, end


def _after_extensions(buffer: bytes | bytearray | memoryview, at: int, end: int, kind: int) -> int | None:
    """Offset of the TCP header behind IPv6 extension headers; None if something else lies there."""
    for _ in range(MAX_EXTENSIONS):
        if kind == 6:
            return at
        if end - at < 8:
            return None
        if kind in (0, 43, 60, 135):  # hop-by-hop, routing, destination options, mobility
            size = (buffer[at + 1] + 1) * 8
        elif kind == 44:  # fragment: only the first one has the TCP header
            if _U16(buffer, at + 2)[0] & 0xFFF8:
                return None
            size = 8
        elif kind == 51:  # authentication header (RFC 4302, 2.2)
            size = (buffer[at + 1] + 2) * 4
        else:
            return None
        kind, at = buffer[at], at + size
    return at if kind == 6 and at <= end else None
