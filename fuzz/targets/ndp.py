"""Neighbour discovery of strangers; the checksum is put right, so that what is behind it is reached."""

import struct
from ipaddress import IPv6Address, IPv6Network

from ukihashi.errors import PeerViolation
from ukihashi.ether import ndp
from ukihashi.ether.datagram import checksum

ALLOWED = (PeerViolation,)
TOKENS = [
    b"\x03\x04\x40\xc0",
    b"\x19\x03\0\0",
    b"\x1f\x02\0\0",
    b"\x18\x01\x30\0",
    b"\x05\x01\0\0",
    b"\x01\x01",
    b"\x3a\xff",
]
A = b"\x02\0\0\0\0\x01"


def seeds() -> list[bytes]:
    """One of each message."""
    own, target = ndp.link_local(A), IPv6Address("fd00::1")
    said = ndp.RouterAdvertisement(
        A,
        own,
        mtu=1400,
        prefixes=(ndp.Prefix(IPv6Network("fd00::/64")),),
        routes=(ndp.Route(IPv6Network("fd01::/48"), 60),),
        dns=(target,),
        search=("lan.internal",),
        names_s=900,
    )
    asked = ndp.NeighbourSolicitation(A, own, target)
    return [
        ndp.router_advertisement(said),
        ndp.router_solicitation(A, own),
        ndp.neighbour_solicitation(A, own, target),
        ndp.neighbour_advertisement(asked, A),
    ]


def run(data: bytes) -> object:
    """Read; an advertisement is written and read again."""
    found = ndp.parse(_summed(data))
    if isinstance(found, ndp.RouterAdvertisement):
        try:
            frame = ndp.router_advertisement(found)
        except ValueError:  # names with empty labels can be read, never written
            return "names"
        again = ndp.parse(frame)
        assert isinstance(again, ndp.RouterAdvertisement)
        assert (again.prefixes, again.routes, again.dns) == (found.prefixes, found.routes, found.dns)
        return len(found.prefixes), len(found.routes), len(found.dns), len(found.search), found.mtu > 0
    return type(found).__name__


def _summed(frame: bytes) -> bytes:
    if len(frame) < 62:
        return frame
    length = int.from_bytes(frame[18:20], "big")
    body = frame[54 : 54 + length]
    pseudo = frame[22:54] + struct.pack("!II", length, 58)
    check = checksum(pseudo + body[:2] + b"\0\0" + body[4:])
    return frame[:56] + check.to_bytes(2, "big") + frame[58:]
