"""What is inside an Ethernet frame, as far as a switch asks: addresses, ports, flags, who plays router or DHCP server.

For frames of strangers: whatever cannot be read is "unknown" (0, b"" or -1), never an exception. What a receiver might
read and we can't (endless tags, a cut chain of IPv6 headers) is `hidden`, so that a filter can refuse it (RFC 7113).
"""

from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from ukihashi.ether.frame import ARP, HEADER, IPV4, IPV6, TAG, VLAN

TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
NEIGHBOUR_SOLICITATION: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136

DHCP_SERVER: Final = 67
DHCP_CLIENT: Final = 68
DHCPV6_CLIENT: Final = 546
DHCPV6_SERVER: Final = 547
DHCP_ACK: Final = 5

PROVIDER_TAG: Final = 0x88A8  # 802.1ad
_TAGS_MOST: Final = 8
_LLC: Final = 0x600  # below it the type field is a length (802.3)
_SNAP: Final = b"\xaa\xaa\x03\0\0\0"
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset((0, 43, 60, 135, 139, 140, _FRAGMENT, _AUTHENTICATION))  # of IPv6 (RFC 7045)
_COOKIE: Final = b"\x63\x82\x53\x63"
_ARP_IPV4: Final = b"\0\x01\x08\0\x06\x04"


class Packet(NamedTuple):
    """One frame, read."""

    frame: bytes
    kind: int = 0  # EtherType behind all tags; below 0x600 a length
    version: int = 0  # of IP: 4, 6; 0 = no IP
    source: bytes = b""  # IP address; of an ARP the sender's
    destination: bytes = b""  # of an ARP the target's
    protocol: int = -1  # behind IPv6's extension headers
    start: int = 0  # of the header of TCP, UDP or ICMP; 0 = not in this frame
    source_port: int = 0
    destination_port: int = 0
    flags: int = -1  # of TCP
    message: int = -1  # ICMPv6's type
    hidden: bool = False  # see the module

    @property
    def is_group(self) -> bool:
        """To many stations."""
        return len(self.frame) > 0 and bool(self.frame[0] & 1)


def parse(frame: bytes) -> Packet:
    """Read `frame`, of any length."""
    size = len(frame)
    if size < HEADER:
        return Packet(frame)
    kind, at = frame[12] << 8 | frame[13], HEADER
    for _ in range(_TAGS_MOST):  # receivers take off stacked tags, SNAP headers too (VU#855201)
        if kind in (VLAN, PROVIDER_TAG) and size >= at + TAG:
            kind = frame[at + 2] << 8 | frame[at + 3]
            at += TAG
        elif kind < _LLC and size >= at + 8 and frame.startswith(_SNAP, at):
            kind = frame[at + 6] << 8 | frame[at + 7]
            at += 8
        else:
            break
    else:
        return Packet(frame, kind, hidden=True)
    if kind == IPV4:
        return _ipv4(frame, at, size)
    if kind == IPV6:
        return _ipv6(frame, at, size)
    if kind == ARP and size >= at + 28 and frame.startswith(_ARP_IPV4, at):
        return Packet(frame, kind, 0, frame[at + 14 : at + 18], frame[at + 24 : at + 28])
    return Packet(frame, kind)


def _ipv4(frame: bytes, at: int, size: int) -> Packet:
    if size < at + 20 or frame[at] >> 4 != 4:
        return Packet(frame, IPV4)
    head = (frame[at] & 0x0F) * 4
    end = min(size, at + (frame[at + 2] << 8 | frame[at + 3]))
    if head < 20 or at + head > end:
        return Packet(frame, IPV4)
    source, destination = frame[at + 12 : at + 16], frame[at + 16 : at + 20]
    offset = (frame[at + 6] & 0x1F) << 8 | frame[at + 7]
    if offset:
        # A second fragment that begins inside TCP's header could turn its flags around (RFC 3128).
        return Packet(frame, IPV4, 4, source, destination, frame[at + 9], hidden=frame[at + 9] == TCP and offset < 3)
    return _transport(frame, IPV4, 4, source, destination, frame[at + 9], at + head, end)


def _ipv6(frame: bytes, at: int, size: int) -> Packet:
    if size < at + 40 or frame[at] >> 4 != 6:
        return Packet(frame, IPV6)
    source, destination = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    end = min(size, at + 40 + (frame[at + 4] << 8 | frame[at + 5]))
    following, at = frame[at + 6], at + 40
    while following in _EXTENSIONS:
        if at + 8 > end:
            return Packet(frame, IPV6, 6, source, destination, hidden=True)
        length = frame[at + 1]
        if following == _FRAGMENT and (frame[at + 2] << 8 | frame[at + 3]) & 0xFFF8:
            return Packet(frame, IPV6, 6, source, destination, frame[at])
        if following == _FRAGMENT:
            step = 8
        elif following == _AUTHENTICATION:
            step = (length + 2) * 4
        else:
            step = (length + 1) * 8
        following, at = frame[at], at + step
    if at > end:
        return Packet(frame, IPV6, 6, source, destination, hidden=True)
    return _transport(frame, IPV6, 6, source, destination, following, at, end)


def _transport(
    frame: bytes, kind: int, version: int, source: bytes, destination: bytes, protocol: int, at: int, end: int
) -> Packet:
    need = _NEED.get(protocol)
    if need is None:
        return Packet(frame, kind, version, source, destination, protocol, at)
    if at + need > end:  # the rest may come in another fragment
        return Packet(frame, kind, version, source, destination, protocol, hidden=True)
    if protocol == ICMPV6:
        return Packet(frame, kind, version, source, destination, protocol, at, message=frame[at])
    one, other = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
    flags = frame[at + 13] if protocol == TCP else -1
    return Packet(frame, kind, version, source, destination, protocol, at, one, other, flags)


_NEED: Final = {TCP: 14, UDP: 8, ICMPV6: 4}  # bytes of the header that we ask for


def target(packet: Packet) -> bytes:
    """The address that a neighbour solicitation or advertisement is about; b"" for anything else."""
    if packet.message not in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        return b""
    found = packet.frame[packet.start + 8 : packet.start + 24]
    return found if len(found) == 16 else b""


def dhcp_message(packet: Packet) -> int:
    """Kind of a DHCPv4 message (RFC 2132, option 53: 1 discover .. 8 inform); 0 for anything else."""
    if packet.version != 4 or not _ports(packet) & {DHCP_SERVER, DHCP_CLIENT}:
        return 0
    frame, at = packet.frame, packet.start + 8 + 240
    if frame[at - 4 : at] != _COOKIE:
        return 0
    while at + 2 < len(frame) and frame[at] != 255:
        if frame[at] == 53:
            return frame[at + 2] if frame[at + 1] == 1 else 0
        at += 2 + frame[at + 1] if frame[at] else 1  # 0 fills
    return 0


def dhcpv6_message(packet: Packet) -> int:
    """Kind of a DHCPv6 message (RFC 8415, 1 solicit .. 13 relay-reply); 0 for anything else."""
    if packet.version != 6 or not _ports(packet) & {DHCPV6_SERVER, DHCPV6_CLIENT}:
        return 0
    body = packet.frame[packet.start + 8 : packet.start + 9]
    return body[0] if body else 0


def is_dhcp(packet: Packet) -> bool:
    """Between ports of DHCPv4, whatever it says."""
    return packet.version == 4 and bool(_ports(packet) & {DHCP_SERVER, DHCP_CLIENT})


def is_dhcp_pair(packet: Packet) -> bool:
    """From a port of DHCPv4 to another."""
    return packet.version == 4 and packet.protocol == UDP and _ports(packet) <= {DHCP_SERVER, DHCP_CLIENT}


def is_dhcpv6(packet: Packet) -> bool:
    """Between ports of DHCPv6, whatever it says."""
    return packet.version == 6 and bool(_ports(packet) & {DHCPV6_SERVER, DHCPV6_CLIENT})


def is_dhcp_reply(packet: Packet) -> bool:
    """Speaks as a DHCPv4 server: to a client's port, or as BOOTREPLY to a relay."""
    if packet.version != 4 or packet.protocol != UDP:
        return False
    reply = packet.frame[packet.start + 8 : packet.start + 9] == b"\x02"
    return packet.destination_port == DHCP_CLIENT or (packet.destination_port == DHCP_SERVER and reply)


def is_dhcpv6_reply(packet: Packet) -> bool:
    """Speaks as a DHCPv6 server: to a client's port, or back to a relay."""
    if packet.version != 6 or packet.protocol != UDP:
        return False
    return packet.destination_port == DHCPV6_CLIENT or dhcpv6_message(packet) in _DHCPV6_REPLIES


_DHCPV6_REPLIES: Final = frozenset((2, 7, 10, 13))  # advertise, reply, reconfigure, relay-reply


def lease(packet: Packet) -> tuple[bytes, bytes] | None:
    """IPv4 address and station (MAC) to which a DHCP ACK gives it; None for anything else."""
    if packet.source_port != DHCP_SERVER or dhcp_message(packet) != DHCP_ACK:
        return None
    body = packet.start + 8
    address = packet.frame[body + 16 : body + 20]
    if packet.frame[body] != 2 or not any(address):
        return None
    return address, packet.frame[body + 28 : body + 34]


def without_router(packet: Packet) -> bytes:
    """The frame of a router advertisement, saying that its sender is no default router (RFC 4861, 4.2: lifetime 0)."""
    frame, at = packet.frame, packet.start
    lifetime = frame[at + 6 : at + 8]
    if len(lifetime) < 2 or not any(lifetime):
        return frame
    total = (~int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFFF) + (~int.from_bytes(lifetime, "big") & 0xFFFF)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF  # RFC 1624: only the difference
    return frame[: at + 2] + check.to_bytes(2, "big") + frame[at + 4 : at + 6] + b"\0\0" + frame[at + 8 :]


def is_urgent(frame: bytes) -> bool:
    """Of the class that goes first (protocol section 12.6): IPv4 with a ToS other than 0 and 8, or a short ICMP."""
    if frame[12:14] != b"\x08\0" or len(frame) < 34:
        return False
    return frame[15] not in (0, 8) or (frame[23] == 1 and len(frame) <= 128)


def _ports(packet: Packet) -> AbstractSet[int]:
    return {packet.source_port, packet.destination_port} if packet.protocol == UDP else frozenset()
