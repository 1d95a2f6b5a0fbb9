"""From a captured packet to the TCP header in it: offsets and lengths, nothing more.

Read: Ethernet with any 802.1Q, QinQ or PPPoE tags, Linux cooked v1 and v2, loopback and raw IP; IPv4 (first fragments
too), IPv6 with its extension headers (RFC 8200, 4); and what mirrors wrap packets in: GRE (RFC 2784, 2890), also with
Ethernet inside, ERSPAN of all three types, VXLAN (RFC 7348) and its generic extension. Lengths come from the IP header,
so a short snap length changes nothing.

These functions are written in the part of Python that `detect.compiled` can compile: integers, one buffer, no objects.
They run the same without it. (A shifted byte would be an unsigned number there, which doesn't mix with others: so bytes
are multiplied.) No bound is left to the buffer: every read is checked against the packet's own end.
"""

from typing import Any, Final

NULL, ETHERNET, RAW, LOOP, COOKED, RAW4, RAW6, COOKED2 = 0, 1, 101, 108, 113, 228, 229, 276
LINK_TYPES: Final = frozenset((NULL, ETHERNET, RAW, LOOP, COOKED, RAW4, RAW6, COOKED2))

IPV4, IPV6 = 0x0800, 0x86DD
PPPOE_SESSION = 0x8864
GRE_ETHERNET, GRE_ERSPAN, GRE_ERSPAN3 = 0x6558, 0x88BE, 0x22EB
GRE_CHECKSUM, GRE_ROUTING, GRE_KEY, GRE_SEQUENCE = 0x8000, 0x4000, 0x2000, 0x1000
VXLAN_PORT, VXLAN_OLD_PORT, VXLAN_GPE_PORT = 4789, 8472, 4790  # 8472: Linux before the number was assigned
PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_GRE = 6, 17, 47

MAX_TAGS = 4
MAX_EXTENSIONS = 8  # IPv6 extension headers; more are somebody's trick
MAX_TUNNELS = 4  # one inside the other

Buffer = bytes | bytearray | memoryview
Place = tuple[int, int, int, int]
"""(offset of the TCP header, offset of the IP addresses, IP version, payload bytes on the wire); version 0 = no TCP."""


def u16(buffer: Buffer, at: int) -> int:
    """Big-endian."""
    return buffer[at] * 0x100 + buffer[at + 1]


def u32(buffer: Buffer, at: int) -> int:
    """Big-endian."""
    return buffer[at] * 0x1000000 + buffer[at + 1] * 0x10000 + buffer[at + 2] * 0x100 + buffer[at + 3]


def copy(target: Any, to: int, source: Any, at: int, size: int) -> None:
    """Bytes from one buffer to another."""
    target[to : to + size] = source[at : at + size]


def copy_singly(target: Any, to: int, source: Any, at: int, size: int) -> None:
    """The same, as compiled code does it best."""
    there, here = target[to : to + size], source[at : at + size]
    for place in range(min(len(here), len(there))):
        there[place] = here[place]


def locate(buffer: Buffer, link: int, at: int, end: int, wire_end: int) -> Place:
    """Where the TCP segment of the packet at `at` lies; its bytes are captured up to `end`, real up to `wire_end`.

    Never raises on hostile bytes: what does not parse is no segment. Cost: O(1).
    """
    for tunnel in range(MAX_TUNNELS + 1):
        # The link layer: `kind` is an EtherType.
        if link == ETHERNET:
            if end - at < 14:
                return 0, 0, 0, 0
            kind = buffer[at + 12] * 0x100 + buffer[at + 13]
            at += 14
        elif link == COOKED:
            if end - at < 16:
                return 0, 0, 0, 0
            kind = u16(buffer, at + 14)
            at += 16
        elif link == COOKED2:
            if end - at < 20:
                return 0, 0, 0, 0
            kind = u16(buffer, at)
            at += 20
        elif link in (RAW, RAW4, RAW6, NULL, LOOP):
            if link in (NULL, LOOP):
                at += 4  # an address family whose number differs from system to system: the IP version says more
            if end - at < 1:
                return 0, 0, 0, 0
            kind = buffer[at] // 16
            kind = IPV4 if kind == 4 else IPV6 if kind == 6 else 0
        else:
            return 0, 0, 0, 0
        if kind not in (IPV4, IPV6):
            for _ in range(MAX_TAGS):
                if kind not in (0x8100, 0x88A8, 0x9100, 0x9200):
                    break
                if end - at < 4:
                    return 0, 0, 0, 0
                kind = u16(buffer, at + 2)
                at += 4
            if kind == PPPOE_SESSION and end - at >= 8:
                kind = u16(buffer, at + 6)
                kind = IPV4 if kind == 0x0021 else IPV6 if kind == 0x0057 else 0
                at += 8
        # The network layer.
        whole = True
        if kind == IPV4:
            if end - at < 20 or buffer[at] // 16 != 4:
                return 0, 0, 0, 0
            header = buffer[at] % 16 * 4
            total = buffer[at + 2] * 0x100 + buffer[at + 3]
            fragment = buffer[at + 6] * 0x100 + buffer[at + 7]
            if header < 20 or fragment & 0x1FFF:
                return 0, 0, 0, 0
            whole = fragment & 0x2000 == 0
            protocol = buffer[at + 9] * 1
            version, addresses = 4, at + 12
            stop = at + total if total else wire_end
            at += header
        elif kind == IPV6:
            if end - at < 40 or buffer[at] // 16 != 6:
                return 0, 0, 0, 0
            total = u16(buffer, at + 4)
            protocol = buffer[at + 6] * 1
            version, addresses = 6, at + 8
            stop = at + 40 + total if total else wire_end
            at += 40
            for _ in range(MAX_EXTENSIONS):
                if protocol in (0, 43, 60, 135):  # hop-by-hop, routing, destination options, mobility
                    if end - at < 8:
                        return 0, 0, 0, 0
                    size = (buffer[at + 1] + 1) * 8
                elif protocol == 44:  # fragment: only the first one has the header we look for
                    if end - at < 8 or u16(buffer, at + 2) & 0xFFF8:
                        return 0, 0, 0, 0
                    whole = u16(buffer, at + 2) & 1 == 0
                    size = 8
                elif protocol == 51:  # authentication header (RFC 4302, 2.2)
                    if end - at < 8:
                        return 0, 0, 0, 0
                    size = (buffer[at + 1] + 2) * 4
                else:
                    break
                protocol = buffer[at] * 1
                at += size
        else:
            return 0, 0, 0, 0
        stop = min(stop, wire_end)
        if protocol == PROTOCOL_TCP:
            if end - at < 14:
                return 0, 0, 0, 0
            header = buffer[at + 12] // 16 * 4
            length = stop - at - header
            if header < 20 or length < 0:
                return 0, 0, 0, 0
            return at, addresses, version, length
        if tunnel == MAX_TUNNELS:
            break
        # A mirror's tunnel. Of a tunnel packet that was cut in two, the inner IP header knows the length.
        link = -1
        if protocol == PROTOCOL_GRE:
            if end - at < 4:
                return 0, 0, 0, 0
            flags, kind = u16(buffer, at), u16(buffer, at + 2)
            if flags & (GRE_ROUTING | 7):
                return 0, 0, 0, 0
            at += 4
            for bit in (GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE):
                if flags & bit:
                    at += 4
            if kind == GRE_ETHERNET:
                link = ETHERNET
            elif kind in (IPV4, IPV6):
                link = RAW
            elif kind == GRE_ERSPAN:  # type I has neither number nor header, type II has both
                link = ETHERNET
                at += 8 if flags & GRE_SEQUENCE else 0
            elif kind == GRE_ERSPAN3 and end - at >= 12:
                word = u16(buffer, at + 10)
                frame_type = word >> 10 & 31
                link = ETHERNET if frame_type == 0 else RAW if frame_type == 2 else -1
                at += 20 if word & 1 else 12
        elif protocol == PROTOCOL_UDP:
            if end - at < 16:
                return 0, 0, 0, 0
            port = u16(buffer, at + 2)
            if port in (VXLAN_PORT, VXLAN_OLD_PORT, VXLAN_GPE_PORT) and buffer[at + 8] & 0x08:
                link = ETHERNET
                if port == VXLAN_GPE_PORT and buffer[at + 8] & 0x04:
                    inner = buffer[at + 11] * 1
                    link = RAW if inner in (1, 2) else ETHERNET if inner == 3 else -1
                at += 16
        if link < 0:
            break
        if whole:
            end, wire_end = min(end, stop), stop
        else:
            wire_end = at + 0x10000
    return 0, 0, 0, 0
