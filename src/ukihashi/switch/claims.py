"""What the guards read in a frame: who says to have which address, and who speaks as a DHCP server.

For frames of strangers, of any length from 14 bytes on; tags and SNAP headers are looked through.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from ukihashi.ether.datagram import checksum
from ukihashi.ether.frame import HEADER, IPV4, IPV6, MAX_FRAME, NO_MAC, TAG, VLAN
from ukihashi.ether.offload import SuperFrame
from ukihashi.ether.packet import (
    DHCP_CLIENT,
    DHCP_SERVER,
    DHCPV6_SERVER,
    ICMPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    PROVIDER_TAG,
    ROUTER_SOLICITATION,
    TCP,
    UDP,
    Packet,
    parse,
)
from ukihashi.switch import reasons

Put = Callable[[bytes], None]

ASKER: Final = b"\x02\x75\x6b\x41\x53\x4b"  # sender of our questions; answers are flooded, and heard
ENDLESS: Final = -1
LLC: Final = 0x600  # below it the type field is a length (802.3)
TAGS: Final = frozenset((VLAN, PROVIDER_TAG, 0x9100, 0x9200, 0x9300))
ARP_BODY: Final = 28
ARP_IPV4: Final = b"\x08\0\x06\x04"  # behind the kind of hardware, of which receivers take several
NO_IPV6: Final = bytes(16)
_PROTOCOL: Final = {b"\x08\0": 23, b"\x86\xdd": 20}  # where it stands, by type
_TRANSPORTS: Final = (bytes([TCP]), bytes([UDP]))
_DHCPV6: Final = DHCPV6_SERVER >> 8  # the first byte of both its ports
_SOURCE_MAC, _TARGET_MAC = 1, 2  # options of ND
_TAGS_MOST: Final = 8
_SNAP: Final = (b"\xaa\xaa\x03\0\0\0", b"\xaa\xaa\x03\0\0\xf8")  # RFC 1042, and 802.1H, which bridges turn into it


def is_run(frames: Sequence[bytes], *, judged: bool) -> bool:
    """All have the same header, of IP for one station, and none is too long; `judged`: nor can any be of DHCP or ND.

    The first is of TCP or UDP at any rate.
    One pass without a call into Python: about as long as the switch would take for them one by one.
    """
    first = frames[0]
    head, kind, longest = first[:HEADER], first[12:14], MAX_FRAME
    if kind not in _PROTOCOL or first[0] & 1 or first[_PROTOCOL[kind] : _PROTOCOL[kind] + 1] not in _TRANSPORTS:
        return False
    if not (frames[-1].startswith(head) and frames[len(frames) // 2].startswith(head)):
        return False
    odd: object
    try:
        if not judged:
            odd = [
                one
                for one in frames
                if not one.startswith(head) or (len(one) > longest and one.__class__ is not SuperFrame)
            ]
        elif first[_PROTOCOL[kind]] == TCP:
            at = _PROTOCOL[kind]
            odd = [
                one
                for one in frames
                if one[at] != TCP
                or not one.startswith(head)
                or (len(one) > longest and one.__class__ is not SuperFrame)
            ]
        elif kind == b"\x08\0":  # UDP between ports above those of DHCP, right behind a header without options
            odd = [
                one
                for one in frames
                if one[23] != UDP
                or one[14] != 0x45
                or not (one[34] and one[36])
                or not one.startswith(head)
                or one.__class__ is not bytes
                or len(one) > longest
            ]
        else:  # the same of DHCPv6
            odd = [
                one
                for one in frames
                if one[20] != UDP
                or one[54] == _DHCPV6
                or one[56] == _DHCPV6
                or not one.startswith(head)
                or one.__class__ is not bytes
                or len(one) > longest
            ]
    except IndexError:
        return False
    return not odd


def relayed(to_servers: Put, to_all: Put) -> Put:
    """What hands on flooded frames where those of DHCP clients go to `to_servers`."""

    def put(frame: bytes) -> None:
        (to_servers if asks_server(frame) else to_all)(frame)

    return put


def asks_server(frame: bytes) -> bool:
    """What a client of DHCP or DHCPv6 says to whoever serves."""
    kind, at = network(frame)
    if kind == IPV4 and len(frame) >= at + 20:
        udp = at + (frame[at] & 0x0F) * 4
        return frame[at + 9] == UDP and int.from_bytes(frame[udp + 2 : udp + 4], "big") == DHCP_SERVER
    return kind == IPV6 and read6(frame, at).destination_port == DHCPV6_SERVER


def network(frame: bytes) -> tuple[int, int]:
    """The type behind all tags and SNAP headers, and where its data starts; (-1, 0) if there are too many."""
    kind, at = frame[12] << 8 | frame[13], HEADER
    for _ in range(_TAGS_MOST + 1):
        if kind in TAGS and len(frame) >= at + TAG:
            kind, at = frame[at + 2] << 8 | frame[at + 3], at + TAG
        elif kind < LLC and len(frame) >= at + 8 and frame.startswith(_SNAP, at):
            kind, at = frame[at + 6] << 8 | frame[at + 7], at + 8
        else:
            return kind, at
    return ENDLESS, 0


def question(address: bytes, mac: bytes, vlan: bytes) -> bytes:
    """A frame to the station that shall say that it has `address`: as one that would like to have it would ask."""
    head = mac + ASKER + (b"\x81\0" + vlan if vlan else b"")
    if len(address) == 4:
        body = b"\x08\x06\0\x01\x08\0\x06\x04\0\x01" + ASKER + bytes(4) + NO_MAC + address
        return (head + body).ljust(60, b"\0")
    to = b"\xff\x02" + bytes(9) + b"\x01\xff" + address[13:]
    message = b"\x87\0\0\0\0\0\0\0" + address
    check = checksum(NO_IPV6 + to + struct.pack("!II", len(message), ICMPV6) + message)
    message = message[:2] + check.to_bytes(2, "big") + message[4:]
    return head + b"\x86\xdd\x60\0\0\0" + len(message).to_bytes(2, "big") + b"\x3a\xff" + NO_IPV6 + to + message


def dhcp4(frame: bytes, at: int) -> str:
    """Why the IPv4 packet at `at` may not come from just anybody: DHCP servers' do not. "" if it may.

    Lengths in the header are not believed: clients read raw frames, each in its own way.
    """
    size = len(frame)
    if size < at + 20 or frame[at + 9] != UDP or frame[at + 6] & 0x1F or frame[at + 7]:  # a later fragment has no ports
        return ""
    head = (frame[at] & 0x0F) * 4
    udp = at + head
    if head < 20 or size < udp + 8:
        return reasons.HIDDEN
    ports = int.from_bytes(frame[udp : udp + 2], "big"), int.from_bytes(frame[udp + 2 : udp + 4], "big")
    if ports[1] == DHCP_CLIENT:
        return reasons.ROGUE_DHCP
    if DHCP_SERVER in ports:
        if frame[udp + 8 : udp + 9] == b"\x02":  # BOOTREPLY
            return reasons.ROGUE_DHCP
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
        if frame[at + 6] & 0x20 and min(size, end) < udp + 9:
            return reasons.HIDDEN
    return ""


def read6(frame: bytes, at: int) -> Packet:
    """The IPv6 packet at `at`, as if there were no tags before it."""
    return parse(frame if at == HEADER else frame[:12] + b"\x86\xdd" + frame[at:])


def target(packet: Packet) -> bytes:
    """The address that an ND message is about, or what there is of it."""
    return packet.frame[packet.start + 8 : packet.start + 24]


def arp_claims(frame: bytes, at: int) -> list[tuple[bytes, bytes]]:
    """Address and MAC that the ARP at `at` claims; none if it is not for Ethernet and IPv4."""
    if len(frame) < at + ARP_BODY or not frame.startswith(ARP_IPV4, at + 2):
        return []
    return [(frame[at + 14 : at + 18], frame[at + 8 : at + 14])]


def nd_claims(packet: Packet) -> list[tuple[bytes, bytes]]:
    """Address and MAC of each claim in an ND message; none if it is cut short or asks from ::."""
    frame, start = packet.frame, packet.start
    end = min(len(frame), HEADER + 40 + int.from_bytes(frame[18:20], "big"))
    if packet.message == NEIGHBOUR_ADVERTISEMENT:
        address, at, wanted = target(packet), start + 24, _TARGET_MAC
    elif packet.message in (NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION):
        address, wanted = packet.source, _SOURCE_MAC
        at = start + (24 if packet.message == NEIGHBOUR_SOLICITATION else 8)
    else:
        return []
    if len(address) != 16 or at > end or address == NO_IPV6:
        return []
    claims = []
    while at + 8 <= end and frame[at + 1]:
        if frame[at] == wanted:
            claims.append((address, frame[at + 2 : at + 8]))
        at += frame[at + 1] * 8
    return claims or [(address, frame[6:12])]
