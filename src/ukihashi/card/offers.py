"""What a hub offers beside an address: router, routes, name servers, domain. What of it may be applied, and why not.

An offer is a stranger's word. It is shown to whoever owns the card and applied only by consent (`interface.accept`);
and even then not where it would take away this machine's own networks, or the way to the hub.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal, NamedTuple

import msgspec

from ukihashi.card import routes
from ukihashi.config.card import Route, is_domain
from ukihashi.errors import N_, EnvironmentLacks, PeerViolation, UkihashiError
from ukihashi.ether import dhcp, dns
from ukihashi.tap.netlink import check_route

MOST_ROUTES: Final = 64
MOST_SERVERS: Final = 4
MOST_DOMAINS: Final = 8
DEFAULT: Final = "0.0.0.0/0"
DEFAULT6: Final = "::/0"

_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")

Kind = Literal["dns", "routes", "default"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Offer(msgspec.Struct, frozen=True):
    """What came, as far as it makes sense."""

    server: str = ""
    routes: tuple[Route, ...] = ()  # default routes among them
    name_servers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()

    @property
    def router(self) -> str:
        """The gateway of its default route, "" without one."""
        return next((one.via for one in self.routes if routes.wide_version(one) == 4), "")

    @property
    def kinds(self) -> list[Kind]:
        """What there is to accept."""
        wide = [bool(routes.wide_version(one)) for one in self.routes]
        found: list[Kind] = ["dns"] if self.name_servers else []
        return found + (["routes"] if False in wide else []) + (["default"] if True in wide else [])


class Taken(NamedTuple):
    """A network that somebody else on this machine has."""

    network: Network
    interface: str


class Machine(NamedTuple):
    """What an offer may not take away."""

    outer: Collection[str] = ()  # addresses of the hub, or of whatever the way to it begins with
    networks: Sequence[Taken] = ()  # of other interfaces
    default_by: Mapping[int, str] = {}  # IP version -> another card that has the default route


class Refusal(NamedTuple):
    """A part that is accepted in principle, but not applied."""

    about: str  # the route's network, or the address
    reason: UkihashiError


def read(options: Mapping[int, bytes], server: str = "") -> Offer:
    """The offer in a DHCP answer's options; what makes no sense is left out."""
    found: list[Route] = []
    if dhcp.ROUTES in options:  # then the router option is not to be heeded (RFC 3442)
        try:
            for network, gateway in dhcp.read_routes(options[dhcp.ROUTES]):
                _add_route(found, str(network), gateway)
        except PeerViolation:
            found = []
    elif len(options.get(dhcp.ROUTER, b"")) >= 4:
        _add_route(found, DEFAULT, IPv4Address(options[dhcp.ROUTER][:4]))
    servers = options.get(dhcp.DNS, b"")
    listed = [IPv4Address(servers[at : at + 4]) for at in range(0, len(servers) - 3, 4)]
    domain = options.get(dhcp.DOMAIN, b"").rstrip(b"\0").decode("ascii", "replace").rstrip(".")
    return Offer(
        server,
        tuple(found[:MOST_ROUTES]),
        tuple(dict.fromkeys(str(one) for one in listed if _is_station(one)))[:MOST_SERVERS],
        domain if is_domain(domain) else "",
        tuple(_search(options.get(dhcp.SEARCH, b"")))[:MOST_DOMAINS],
    )


def with_router6(offer: Offer, gateway: str) -> Offer:
    """The offer and a default route of IPv6 from a router advertisement ("": none)."""
    if not gateway:
        return offer
    return msgspec.structs.replace(offer, routes=(*offer.routes, Route(to=DEFAULT6, via=gateway)))


def judged(
    offer: Offer, accept: Collection[str], machine: Machine, fixed: Iterable[Route] = ()
) -> tuple[list[Route], list[Refusal]]:
    """The routes to set, and those that are accepted but not possible. `fixed`: the account's own, which come first."""
    wanted, refused = list[Route](), list[Refusal]()
    known = {_network(one.to) for one in fixed}
    for route in offer.routes:
        version = routes.wide_version(route)
        if ("default" if version else "routes") not in accept or _network(route.to) in known:
            continue
        reason = _default_refused(version, machine) if version else overlap(route.to, machine)
        if reason is None:
            wanted.append(route)
            known.add(_network(route.to))
        else:
            refused.append(Refusal(route.to, reason))
    return wanted, refused


def overlap(network: str, machine: Machine) -> UkihashiError | None:
    """Why this network can't be reached through the card; None if it can."""
    own = _network(network)
    for address in machine.outer:
        outer = ip_address(address)
        if outer.version == own.version and outer in own:
            return EnvironmentLacks(N_("the way to the hub itself ({address}) would lead through it"), address=address)
    for taken in machine.networks:
        if taken.network.version == own.version and taken.network.overlaps(own):
            return EnvironmentLacks(
                N_("it overlaps {network}, which {interface} has already"),
                network=str(taken.network),
                interface=taken.interface,
            )
    return None


def _default_refused(version: int, machine: Machine) -> UkihashiError | None:
    other = machine.default_by.get(version)
    if other is None:
        return None
    return EnvironmentLacks(N_("another card, {interface}, has the default route already"), interface=other)


def domains(offer: Offer, own: Iterable[str]) -> tuple[list[str], list[str]]:
    """Domains that short names are completed with, and all whose names the offered servers are asked for."""
    offered = (offer.domain, *offer.search)
    search = list(dict.fromkeys(name.rstrip(".").lower() for name in offered if name))
    return search, list(dict.fromkeys([*search, *(name.rstrip(".").lower() for name in own)]))


def _search(value: bytes) -> list[str]:
    try:
        names = [name.rstrip(".") for name in dns.read_names(value)]
    except PeerViolation:
        return []
    return [name for name in dict.fromkeys(names) if is_domain(name)]


def _add_route(found: list[Route], network: str, gateway: IPv4Address) -> None:
    """A route that a member may have: not to a group, not to this machine itself."""
    to = ip_network(network)
    narrow = to.prefixlen > 1
    if narrow and (to.is_multicast or to.is_loopback or to.is_link_local or to.network_address in _THIS_NETWORK):
        return
    if int(gateway) and not _is_station(gateway):
        return
    route = Route(to=str(to), via=str(gateway) if int(gateway) else "")
    if all(one.to != route.to for one in found):
        found.append(route)


def _is_station(address: IPv4Address | IPv6Address) -> bool:
    odd = address.is_multicast or address.is_unspecified or address.is_loopback
    return not odd and not (address.version == 4 and address.is_reserved)


def _network(text: str) -> Network:
    return ip_network(check_route(text)[1])
