"""Neighbour discovery for IPv6: router and neighbour messages (RFC 4861), names in advertisements (RFC 8106), routes
(RFC 4191)."""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final, NamedTuple

from ukihashi.errors import N_, PeerViolation
from ukihashi.ether import dns
from ukihashi.ether.datagram import checksum
from ukihashi.ether.frame import HEADER, IPV6
from ukihashi.ether.packet import (
    ICMPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
)

ALL_NODES: Final = IPv6Address("ff02::1")
ALL_ROUTERS: Final = IPv6Address("ff02::2")
NOWHERE: Final = IPv6Address(0)
FOREVER: Final = 0xFFFFFFFF  # seconds
HOP_LIMIT: Final = 255  # of all these messages: nobody beyond a router can send one

# options
SOURCE_MAC: Final = 1
TARGET_MAC: Final = 2
PREFIX: Final = 3
MTU: Final = 5
ROUTE: Final = 24
RDNSS: Final = 25
DNSSL: Final = 31

_IPV6_HEADER: Final = struct.Struct("!IHBB16s16s")
_START: Final = HEADER + _IPV6_HEADER.size  # of the ICMPv6 message: extension headers are not for these messages
_ROUTER: Final = struct.Struct("!BBHBBHII")
_NEIGHBOUR: Final = struct.Struct("!BBHI16s")
_PREFIX: Final = struct.Struct("!BBBBIII16s")
_ON_LINK: Final = 0x80
_AUTONOMOUS: Final = 0x40
_IS_ROUTER: Final = 0x80000000
_SOLICITED: Final = 0x40000000
_OVERRIDE: Final = 0x20000000
_MANAGED: Final = 0x80
_OTHER: Final = 0x40


class Prefix(NamedTuple):
    """A prefix of the link."""

    network: IPv6Network
    on_link: bool = True
    autonomous: bool = True  # stations make themselves addresses in it
    valid_s: int = 86_400
    preferred_s: int = 14_400


class Route(NamedTuple):
    """A network behind the advertising router (RFC 4191)."""

    network: IPv6Network
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class RouterAdvertisement:
    """What a router says of itself and the link."""

    mac: bytes  # of the sending station
    source: IPv6Address
    router_lifetime_s: int = 0  # 0 = no default router
    hop_limit: int = 0  # 0 = unspecified
    managed: bool = False  # addresses come by DHCPv6
    other: bool = False  # other settings come by DHCPv6
    mtu: int = 0  # 0 = not said
    prefixes: tuple[Prefix, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: tuple[IPv6Address, ...] = ()
    search: tuple[str, ...] = ()
    names_s: int = 0  # seconds that servers and domains may be used
    sender: bytes = b""  # station that says it for `mac`; b"" = itself


@dataclass(frozen=True, slots=True)
class RouterSolicitation:
    """Somebody wants an advertisement now."""

    mac: bytes
    source: IPv6Address  # :: while it has none


@dataclass(frozen=True, slots=True)
class NeighbourSolicitation:
    """Somebody asks who has `target`; from :: to see that nobody has."""

    mac: bytes
    source: IPv6Address
    target: IPv6Address


@dataclass(frozen=True, slots=True)
class NeighbourAdvertisement:
    """Somebody says who has `target`."""

    mac: bytes  # of the sending station
    source: IPv6Address
    target: IPv6Address
    target_mac: bytes  # b"" = not said
    router: bool
    solicited: bool
    override: bool


Neighbourly = RouterAdvertisement | RouterSolicitation | NeighbourSolicitation | NeighbourAdvertisement


def parse(frame: bytes) -> Neighbourly | None:
    """The message in an untagged, finished frame; None if there is something else in it.

    Raises: PeerViolation: one that every receiver must drop (RFC 4861, sections 6.1 and 7.1).
    """
    size = len(frame)
    if size < _START + 8 or frame[12:14] != b"\x86\xdd" or frame[14] >> 4 != 6 or frame[20] != ICMPV6:
        return None
    kind = frame[_START]
    if kind not in (ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        return None
    _first, length, _next, hops, packed_source, packed_destination = _IPV6_HEADER.unpack_from(frame, HEADER)
    body = frame[_START : _START + length]
    if hops != HOP_LIMIT or not 8 <= length == len(body) or body[1]:
        raise PeerViolation(N_("a neighbour discovery message that comes from elsewhere or is cut short"))
    if checksum(packed_source + packed_destination + struct.pack("!II", length, ICMPV6) + body):
        raise PeerViolation(N_("a neighbour discovery message whose checksum is wrong"))
    mac, source = frame[6:12], IPv6Address(packed_source)
    if kind == ROUTER_SOLICITATION:
        _options(body, 8)
        return RouterSolicitation(mac, source)
    if kind == ROUTER_ADVERTISEMENT:
        return _advertisement(mac, source, body)
    if len(body) < _NEIGHBOUR.size:
        raise PeerViolation(N_("a neighbour discovery message that comes from elsewhere or is cut short"))
    _kind, _code, _sum, flags, packed_target = _NEIGHBOUR.unpack_from(body)
    options, target = _options(body, _NEIGHBOUR.size), IPv6Address(packed_target)
    if target.is_multicast:
        raise PeerViolation(N_("a neighbour discovery message about a group"))
    if kind == NEIGHBOUR_SOLICITATION:
        return NeighbourSolicitation(mac, source, target)
    target_mac = next((value[2:8] for code, value in options if code == TARGET_MAC), b"")
    override = bool(flags & _OVERRIDE)
    return NeighbourAdvertisement(
        mac, source, target, target_mac, bool(flags & _IS_ROUTER), bool(flags & _SOLICITED), override
    )


def _options(body: bytes, at: int) -> list[tuple[int, bytes]]:
    """Each option's code and all its bytes, the first two included."""
    options: list[tuple[int, bytes]] = []
    while at < len(body):
        length = body[at + 1] * 8 if at + 1 < len(body) else 0
        if not length or at + length > len(body):
            raise PeerViolation(N_("a neighbour discovery option that is cut short"))
        options.append((body[at], body[at : at + length]))
        at += length
    return options


def _advertisement(mac: bytes, source: IPv6Address, body: bytes) -> RouterAdvertisement:
    if len(body) < _ROUTER.size or not source.is_link_local:
        raise PeerViolation(N_("a neighbour discovery message that comes from elsewhere or is cut short"))
    _kind, _code, _sum, hop_limit, flags, lifetime, _reachable, _retransmit = _ROUTER.unpack_from(body)
    mtu, lifetimes = 0, list[int]()
    prefixes, routes, servers, search = list[Prefix](), list[Route](), list[IPv6Address](), list[str]()
    for code, value in _options(body, _ROUTER.size):
        if code == MTU and len(value) == 8:
            mtu = int.from_bytes(value[4:8], "big")
        elif code == PREFIX and len(value) == 32 and value[2] <= 128:
            _code, _length, bits, marks, valid, preferred, _reserved, packed = _PREFIX.unpack(value)
            network = IPv6Network((packed, bits), strict=False)
            on_link, autonomous = bool(marks & _ON_LINK), bool(marks & _AUTONOMOUS)
            prefixes.append(Prefix(network, on_link, autonomous, valid, preferred))
        elif code == ROUTE and value[2] <= min(128, (len(value) - 8) * 8):
            network = IPv6Network((value[8:].ljust(16, b"\0")[:16], value[2]), strict=False)
            routes.append(Route(network, int.from_bytes(value[4:8], "big")))
        elif code == RDNSS and len(value) >= 24:
            lifetimes.append(int.from_bytes(value[4:8], "big"))
            servers += [IPv6Address(value[at : at + 16]) for at in range(8, len(value) - 15, 16)]
        elif code == DNSSL and len(value) >= 16:
            lifetimes.append(int.from_bytes(value[4:8], "big"))
            search += dns.read_names(value[8:])
    return RouterAdvertisement(
        mac,
        source,
        lifetime,
        hop_limit,
        bool(flags & _MANAGED),
        bool(flags & _OTHER),
        mtu,
        tuple(prefixes),
        tuple(routes),
        tuple(servers),
        tuple(search),
        min(lifetimes, default=0),
    )


def router_advertisement(
    said: RouterAdvertisement, *, destination: IPv6Address = ALL_NODES, destination_mac: bytes = b""
) -> bytes:
    """The whole frame; `destination_mac` only for a single station."""
    flags = (_MANAGED if said.managed else 0) | (_OTHER if said.other else 0)
    parts = [
        _ROUTER.pack(ROUTER_ADVERTISEMENT, 0, 0, said.hop_limit, flags, said.router_lifetime_s, 0, 0),
        bytes((SOURCE_MAC, 1)) + said.mac,
    ]
    if said.mtu:
        parts.append(struct.pack("!BBHI", MTU, 1, 0, said.mtu))
    for prefix in said.prefixes:
        marks = (_ON_LINK if prefix.on_link else 0) | (_AUTONOMOUS if prefix.autonomous else 0)
        network = prefix.network
        base = network.network_address.packed
        parts.append(_PREFIX.pack(PREFIX, 4, network.prefixlen, marks, prefix.valid_s, prefix.preferred_s, 0, base))
    for route in said.routes:
        size = (route.network.prefixlen + 63) // 64
        head = struct.pack("!BBBBI", ROUTE, 1 + size, route.network.prefixlen, 0, route.lifetime_s)
        parts.append(head + route.network.network_address.packed[: size * 8])
    if said.dns:
        head = struct.pack("!BBHI", RDNSS, 1 + 2 * len(said.dns), 0, said.names_s)
        parts.append(head + b"".join(one.packed for one in said.dns))
    if said.search:
        names = _padded(dns.write_names(said.search))
        parts.append(struct.pack("!BBHI", DNSSL, 1 + len(names) // 8, 0, said.names_s) + names)
    sender = said.sender or said.mac
    return _frame(sender, destination_mac or group_mac(destination), said.source, destination, b"".join(parts))


def router_solicitation(mac: bytes, source: IPv6Address = NOWHERE) -> bytes:
    """The whole frame; a source address goes with the station's own."""
    option = bytes((SOURCE_MAC, 1)) + mac if source != NOWHERE else b""
    body = bytes((ROUTER_SOLICITATION,)).ljust(8, b"\0") + option
    return _frame(mac, group_mac(ALL_ROUTERS), source, ALL_ROUTERS, body)


def neighbour_solicitation(mac: bytes, source: IPv6Address, target: IPv6Address) -> bytes:
    """The whole frame that asks the stations that may have `target`; from :: without an own address."""
    option = bytes((SOURCE_MAC, 1)) + mac if source != NOWHERE else b""
    group = solicited_node(target)
    body = _NEIGHBOUR.pack(NEIGHBOUR_SOLICITATION, 0, 0, 0, target.packed) + option
    return _frame(mac, group_mac(group), source, group, body)


def neighbour_advertisement(asked: NeighbourSolicitation, mac: bytes, *, router: bool = False) -> bytes:
    """The whole frame that answers `asked`: `mac` has its target."""
    solicited = asked.source != NOWHERE
    flags = _OVERRIDE | (_IS_ROUTER if router else 0) | (_SOLICITED if solicited else 0)
    body = _NEIGHBOUR.pack(NEIGHBOUR_ADVERTISEMENT, 0, 0, flags, asked.target.packed) + bytes((TARGET_MAC, 1)) + mac
    destination = asked.source if solicited else ALL_NODES
    return _frame(mac, asked.mac if solicited else group_mac(ALL_NODES), asked.target, destination, body)


def link_local(mac: bytes) -> IPv6Address:
    """The link-local address made of a station's own (RFC 4291, appendix A)."""
    return interface_address(IPv6Network("fe80::/64"), mac)


def interface_address(network: IPv6Network, mac: bytes) -> IPv6Address:
    """The address in a /64 that a station makes itself of its own (RFC 4862), if it makes no random one."""
    suffix = bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return IPv6Address(network.network_address.packed[:8] + suffix)


def solicited_node(address: IPv6Address) -> IPv6Address:
    """The group in which stations with `address` listen (RFC 4291, 2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def group_mac(group: IPv6Address) -> bytes:
    """Where frames to a group go (RFC 2464, section 7)."""
    return b"\x33\x33" + group.packed[12:]


def _padded(names: bytes) -> bytes:
    return names + bytes(-len(names) % 8)


def _frame(mac: bytes, to: bytes, source: IPv6Address, destination: IPv6Address, body: bytes) -> bytes:
    pseudo = source.packed + destination.packed + struct.pack("!II", len(body), ICMPV6)
    check = checksum(pseudo + body)
    header = _IPV6_HEADER.pack(6 << 28, len(body), ICMPV6, HOP_LIMIT, source.packed, destination.packed)
    return to + mac + IPV6.to_bytes(2, "big") + header + body[:2] + check.to_bytes(2, "big") + body[4:]
