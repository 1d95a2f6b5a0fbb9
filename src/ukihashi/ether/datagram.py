"""UDP over IPv4 and IPv6 (RFC 768, 791, 8200) as whole Ethernet frames, for the few protocols we speak ourselves."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from ukihashi.errors import N_, PeerViolation
from ukihashi.ether import frame as ether
from ukihashi.ether.frame import HEADER, IPV4, IPV6
from ukihashi.ether.packet import UDP

Address = IPv4Address | IPv6Address

_IPV4_HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6_HEADER: Final = struct.Struct("!IHBB16s16s")
_UDP_HEADER: Final = struct.Struct("!HHHH")
_DO_NOT_FRAGMENT: Final = 0x4000
HOPS: Final = 64


class Datagram(NamedTuple):
    """One UDP datagram and the stations between which it goes."""

    source_mac: bytes
    destination_mac: bytes
    source: Address
    destination: Address
    source_port: int
    destination_port: int
    payload: bytes


def parse(frame: bytes) -> Datagram | None:
    """The datagram in a finished frame with at most one tag; None if there is something else in it.

    Raises: PeerViolation: it is UDP, but cut short, a fragment, or its checksum is wrong.
    """
    if len(frame) < HEADER:
        return None
    kind, at = ether.payload(frame)
    if kind == IPV4:
        if len(frame) < at + 20 or frame[at] >> 4 != 4 or frame[at + 9] != UDP:
            return None
        (start, end), fields = _ipv4(frame, at), slice(at + 12, at + 20)
    elif kind == IPV6:
        if len(frame) < at + 40 or frame[at] >> 4 != 6 or frame[at + 6] != UDP:
            return None
        start, end, fields = at + 40, at + 40 + int.from_bytes(frame[at + 4 : at + 6], "big"), slice(at + 8, at + 40)
    else:
        return None
    if start + 8 > min(end, len(frame)):
        raise PeerViolation(N_("a UDP datagram that is cut short or in pieces"))
    source_port, destination_port, length, check = _UDP_HEADER.unpack_from(frame, start)
    if length < 8 or start + length > min(end, len(frame)):
        raise PeerViolation(N_("a UDP datagram that is cut short or in pieces"))
    addresses, udp = frame[fields], frame[start : start + length]
    if (check or kind == IPV6) and checksum(addresses + struct.pack("!II", length, UDP) + udp):
        raise PeerViolation(N_("a UDP datagram whose checksum is wrong"))
    address, half = (IPv4Address, 4) if kind == IPV4 else (IPv6Address, 16)
    source, destination = address(addresses[:half]), address(addresses[half:])
    return Datagram(frame[6:12], frame[:6], source, destination, source_port, destination_port, udp[8:])


def _ipv4(frame: bytes, at: int) -> tuple[int, int]:
    """Where the payload of the packet starts and ends; (0, 0): in pieces."""
    if int.from_bytes(frame[at + 6 : at + 8], "big") & ~_DO_NOT_FRAGMENT:
        return 0, 0
    return at + max(20, (frame[at] & 0x0F) * 4), at + int.from_bytes(frame[at + 2 : at + 4], "big")


def encode(datagram: Datagram) -> bytes:
    """The whole frame, with every checksum."""
    length = 8 + len(datagram.payload)
    source, destination = datagram.source.packed, datagram.destination.packed
    bare = _UDP_HEADER.pack(datagram.source_port, datagram.destination_port, length, 0) + datagram.payload
    check = checksum(source + destination + struct.pack("!II", length, UDP) + bare) or 0xFFFF
    udp = bare[:6] + check.to_bytes(2, "big") + datagram.payload
    if datagram.source.version == 4:
        return _ethernet(datagram, IPV4) + _ipv4_header(length, source, destination) + udp
    header = _IPV6_HEADER.pack(6 << 28, length, UDP, HOPS, source, destination)
    return _ethernet(datagram, IPV6) + header + udp


def _ethernet(datagram: Datagram, kind: int) -> bytes:
    return datagram.destination_mac + datagram.source_mac + kind.to_bytes(2, "big")


def _ipv4_header(length: int, source: bytes, destination: bytes) -> bytes:
    bare = _IPV4_HEADER.pack(0x45, 0, 20 + length, 0, _DO_NOT_FRAGMENT, HOPS, UDP, 0, source, destination)
    return bare[:10] + checksum(bare).to_bytes(2, "big") + bare[12:]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of any number of bytes; 0 over data that holds its own right checksum."""
    total = int.from_bytes(data + b"\0" if len(data) & 1 else data, "big") % 0xFFFF
    return (0xFFFF - total) % 0xFFFF
