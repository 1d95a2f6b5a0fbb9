"""Addresses, routes, MTU and state of network interfaces, by rtnetlink (Linux).

Synchronous: call it from a thread where an event loop runs. pyroute2 is imported at the first call, because a process
that only moves frames never needs it. Every function that changes something says whether it changed anything, so that
a caller undoes exactly what it did and nothing of the admin's.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ukihashi.errors import N_, EnvironmentLacks, UsageError

IFA_F_NODAD: Final = 0x02  # linux/if_addr.h
FIB_RULE_INVERT: Final = 0x02  # linux/fib_rules.h
MAIN: Final = 254  # the routing table in which everybody else's routes are
PROTOCOL: Final = 75  # what our routes and rules carry in their `proto` field, to be told from the admin's

_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_METRIC: Final = {4: 0, 6: 1024}  # what a route has that was added without one


class Link(NamedTuple):
    """What an interface is."""

    number: int  # what the kernel calls its index
    name: str
    kind: str  # "bridge", "veth", "tun", ...; "" for a card of the machine
    type: int  # of its frames: 1 = Ethernet (linux/if_arp.h)
    flags: int
    mtu: int  # bytes of payload
    mac: str
    master: int  # index of the bridge, bond, ... that it is a part of; 0: none


class LinkCounters(NamedTuple):
    """What the kernel counted on one interface. On a TAP `tx` is what left the system, so what we read."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int  # the TAP's ring was full: we read too slowly, on purpose or not


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `destination` is a network ("10.0.0.0/8", "default" or "default6")."""

    destination: str
    interface: str
    via: str = ""
    metric: int = 0  # 0: the kernel's default
    table: int = MAIN

    def __str__(self) -> str:
        return f"{self.destination} via {self.via}" if self.via else f"{self.destination} dev {self.interface}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the routing policy: which packets look into which table (ip-rule(8))."""

    version: int  # 4 or 6
    priority: int  # lower ones are asked first; main stands at 32766
    table: int
    unless_mark: int = 0  # holds for packets without this firewall mark; 0: for all
    no_default: bool = False  # what the table's default route says does not count

    def __str__(self) -> str:
        words = [f"IPv{self.version} rule {self.priority}:"]
        if self.unless_mark:
            words.append(f"not fwmark {self.unless_mark:#x}")
        words.append(f"table {self.table}")
        if self.no_default:
            words.append("suppress_prefixlength 0")
        return " ".join(words)


def exists(interface: str) -> bool:
    """Does an interface of this name exist here?"""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def set_up(
    interface: str,
    mtu: int = 1500,
    txqueuelen: int | None = None,
    gso_max_segs: int | None = None,
    group: int | None = None,
) -> None:
    """Set MTU (bytes of payload), queue length (frames), segments of a super-frame, group; switch the interface on."""
    settings: dict[str, Any] = {"mtu": mtu, "state": "up"}
    if txqueuelen is not None:
        settings["txqlen"] = txqueuelen
    if gso_max_segs is not None:
        settings["gso_max_segs"] = gso_max_segs
    if group is not None:
        settings["group"] = group
    with _netlink(interface) as (netlink, index):
        netlink.link("set", index=index, **settings)


def set_down(interface: str) -> None:
    """Switch the interface off."""
    with _netlink(interface) as (netlink, index):
        netlink.link("set", index=index, state="down")


def set_mac(interface: str, mac: bytes) -> None:
    """Give the interface the MAC address `mac` (6 bytes)."""
    with _netlink(interface) as (netlink, index):
        netlink.link("set", index=index, address=mac.hex(":"))


def mac_of(interface: str) -> bytes:
    """The interface's MAC address, 6 bytes."""
    with _netlink(interface) as (netlink, index):
        text: str = netlink.get_links(index)[0].get_attr("IFLA_ADDRESS")
    return bytes.fromhex(text.replace(":", ""))


def link(interface: str) -> Link:
    """What it is. Raises: EnvironmentLacks: there is none of that name."""
    with _netlink(interface) as (netlink, index):
        return _link(netlink.get_links(index)[0])


def links() -> dict[int, Link]:
    """Every interface, by its index."""
    with _kernel() as netlink:
        return {row["index"]: _link(row) for row in netlink.get_links()}


def _link(row: Any) -> Link:
    info = row.get_attr("IFLA_LINKINFO")
    return Link(
        row["index"],
        row.get_attr("IFLA_IFNAME"),
        (info.get_attr("IFLA_INFO_KIND") if info is not None else "") or "",
        row["ifi_type"],
        row["flags"],
        row.get_attr("IFLA_MTU") or 0,
        row.get_attr("IFLA_ADDRESS") or "",
        row.get_attr("IFLA_MASTER") or 0,
    )


def add_bridge(name: str, mac: bytes = b"") -> None:
    """Make a bridge, off, that takes no part in a spanning tree and passes every group address on.

    Without `mac` its address is the lowest of its members', whoever they are. Raises: EnvironmentLacks.
    """
    fields: dict[str, Any] = {"address": mac.hex(":")} if mac else {}
    with _kernel(name) as netlink:
        netlink.link("add", ifname=name, kind="bridge", br_stp_state=0, br_mcast_snooping=0, **fields)


def set_master(interface: str, bridge: str) -> None:
    """Make it a member of `bridge`; "": of none."""
    with _netlink(interface) as (netlink, index):
        netlink.link("set", index=index, master=socket.if_nametoindex(bridge) if bridge else 0)


def remove_interface(interface: str) -> bool:
    """Remove a (persistent TAP, bridge, ...) interface; False if there was none."""
    if not exists(interface):
        return False
    with _netlink(interface) as (netlink, index):
        netlink.link("del", index=index)
    return True


def counters(interface: str) -> LinkCounters:
    """What the kernel has counted on the interface since it was made."""
    with _netlink(interface) as (netlink, index):
        stats: Mapping[str, int] = netlink.get_links(index)[0].get_attr("IFLA_STATS64")
    return LinkCounters(*(stats[name] for name in LinkCounters._fields))


def addresses(interface: str) -> list[str]:
    """Its IPv4 and IPv6 addresses with prefix length, link-local ones left out."""
    found: list[str] = []
    with _netlink(interface) as (netlink, index):
        for row in netlink.get_addr(index=index):
            address = ipaddress.ip_interface(f"{row.get_attr('IFA_ADDRESS')}/{row['prefixlen']}")
            if not address.ip.is_link_local:
                found.append(str(address))
    return found


def add_address(interface: str, cidr: str) -> bool:
    """Put an address with prefix length ("10.1.2.1/24", "fd00::1/64") on the interface; False if it was there already.

    IPv6 without duplicate address detection (RFC 4862, 5.4): the hub assigns each address to one member, and the probe
    would go out before any connection exists and then hold the address back for a second.
    """
    address = _address(cidr)
    flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    with _netlink(interface, cidr) as (netlink, index), _unless(errno.EEXIST) as outcome:
        netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)
    return not outcome


def remove_address(interface: str, cidr: str) -> bool:
    """Take an address off; False if it was not there."""
    address = _address(cidr)
    if not exists(interface):
        return False
    with _netlink(interface, cidr) as (netlink, index), _unless(errno.EADDRNOTAVAIL) as outcome:
        netlink.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    return not outcome


def add_route(route: Route) -> bool:
    """Add a route; False if the same one was there already."""
    with _netlink(route.interface, route.destination) as (netlink, index), _unless(errno.EEXIST) as outcome:
        netlink.route("add", **_route_fields(route, index))
    return not outcome


def remove_route(route: Route) -> bool:
    """Remove a route; False if it was not there (an interface takes its routes along when it goes)."""
    if not exists(route.interface):
        return False
    with _netlink(route.interface, route.destination) as (netlink, index), _unless(errno.ESRCH) as outcome:
        netlink.route("del", **_route_fields(route, index))
    return not outcome


def own_routes(interface: str) -> set[Route]:
    """Our routes through the interface in all tables, as `normal` spells them."""
    found: set[Route] = set()
    with _netlink(interface) as (netlink, index):
        for row in netlink.get_routes(oif=index, proto=PROTOCOL):
            version = 6 if row["family"] == socket.AF_INET6 else 4
            address = row.get_attr("RTA_DST") or ("::" if version == 6 else "0.0.0.0")  # noqa: S104 - no socket
            found.add(
                Route(
                    f"{address}/{row['dst_len']}",
                    interface,
                    row.get_attr("RTA_GATEWAY") or "",
                    row.get_attr("RTA_PRIORITY") or 0,
                    row.get_attr("RTA_TABLE"),
                )
            )
    return found


def normal(route: Route) -> Route:
    """The route as the kernel tells it."""
    version, network = check_route(route.destination, route.via)
    via = str(ipaddress.ip_address(route.via)) if route.via else ""
    return replace(route, destination=network, via=via, metric=route.metric or _METRIC[version])


def default_interfaces(version: int) -> set[str]:
    """Through which interfaces the main table's default routes lead."""
    found: set[str] = set()
    with _kernel() as netlink:
        for row in netlink.get_default_routes(family=_FAMILY[version], table=MAIN):
            hops = row.get_attr("RTA_MULTIPATH") or ()
            indexes = [row.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops)]
            for index in filter(None, indexes):
                with suppress(OSError):  # gone meanwhile
                    found.add(socket.if_indextoname(index))
    return found


def add_rule(rule: Rule) -> bool:
    """Add a rule; False if the same one was there already."""
    with _kernel(str(rule)) as netlink, _unless(errno.EEXIST) as outcome:
        netlink.rule("add", **_rule_fields(rule))
    return not outcome


def remove_rule(rule: Rule) -> bool:
    """Remove a rule; False if it was not there."""
    with _kernel(str(rule)) as netlink, _unless(errno.ENOENT, errno.EAFNOSUPPORT) as outcome:
        netlink.rule("del", **_rule_fields(rule))
    return not outcome


def own_rules() -> set[Rule]:
    """All our rules, whichever card made them."""
    return {rule for rule, protocol in _rules() if protocol == PROTOCOL}


def all_rules() -> list[Rule]:
    """Everybody's rules, as far as `Rule` can tell them."""
    return [rule for rule, _protocol in _rules()]


def tables_with_routes() -> set[int]:
    """Numbers of the routing tables that hold anything."""
    with _kernel() as netlink:
        return {int(row.get_attr("RTA_TABLE")) for row in netlink.get_routes()}


def _rules() -> Iterator[tuple[Rule, int]]:
    with _kernel() as netlink:
        for version, family in _FAMILY.items():
            for row in netlink.get_rules(family=family):
                inverted = row["flags"] & FIB_RULE_INVERT
                yield (
                    Rule(
                        version,
                        row.get_attr("FRA_PRIORITY") or 0,
                        row.get_attr("FRA_TABLE") or row["table"],
                        (row.get_attr("FRA_FWMARK") or 0) if inverted else 0,
                        row.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0,
                    ),
                    row.get_attr("FRA_PROTOCOL") or 0,
                )


def _rule_fields(rule: Rule) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "family": _FAMILY[rule.version],
        "priority": rule.priority,
        "table": rule.table,
        "protocol": PROTOCOL,
    }
    if rule.unless_mark:
        fields |= {"fwmark": rule.unless_mark, "flags": FIB_RULE_INVERT}
    if rule.no_default:
        fields["suppress_prefixlen"] = 0
    return fields


def check_route(destination: str, via: str = "") -> tuple[int, str]:
    """The IP version and the normal spelling of a route's destination. Raises: UsageError."""
    try:
        if destination in {"default", "default6"}:
            version = 6 if destination == "default6" or (via and ipaddress.ip_address(via).version == 6) else 4
            network = ipaddress.ip_network("::/0" if version == 6 else "0.0.0.0/0")
        else:
            network = ipaddress.ip_network(destination)
            version = network.version
        fits = not via or ipaddress.ip_address(via).version == version
    except ValueError as error:
        raise _no_route(destination, via) from error
    if not fits:
        raise _no_route(destination, via)
    return version, str(network)


def _no_route(destination: str, via: str) -> UsageError:
    return UsageError(
        N_(
            "{text!r} is no route: write a network such as 10.8.0.0/16 or fd00:8::/48, and a gateway of the same family"
        ),
        text=f"{destination} via {via}" if via else destination,
    )


def _route_fields(route: Route, index: int) -> dict[str, Any]:
    version, network = check_route(route.destination, route.via)
    fields: dict[str, Any] = {
        "family": socket.AF_INET6 if version == 6 else socket.AF_INET,
        "dst": network,
        "oif": index,
        "table": route.table,
        "proto": PROTOCOL,
    }
    if route.via:
        fields["gateway"] = route.via
    if route.metric:
        fields["priority"] = route.metric
    return fields


def _address(cidr: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        return ipaddress.ip_interface(cidr)
    except ValueError as error:
        raise UsageError(
            N_("{text!r} is no address with prefix length; write for example 10.8.0.2/24 or fd00:8::2/64"), text=cidr
        ) from error


@contextmanager
def _unless(*tolerated: int) -> Iterator[list[int]]:
    """Let the error numbers in `tolerated` pass; the list then holds the one that came."""
    from pyroute2.netlink.exceptions import NetlinkError

    seen: list[int] = []
    try:
        yield seen
    except NetlinkError as error:
        if error.code not in tolerated:
            raise
        seen.append(error.code)


@contextmanager
def _netlink(interface: str, subject: str = "") -> Iterator[tuple[Any, int]]:
    """A netlink socket and the interface's index; whatever the kernel refuses becomes a sentence."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        index = socket.if_nametoindex(interface)
    except OSError as error:
        raise EnvironmentLacks(N_("there is no network interface {interface}"), interface=interface) from error
    try:
        with IPRoute() as netlink:
            yield netlink, index
    except NetlinkError as error:
        raise _refused(interface, subject, error.code) from error


@contextmanager
def _kernel(subject: str = "") -> Iterator[Any]:
    """A netlink socket for what belongs to no interface."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        if error.code in {errno.EPERM, errno.EACCES}:
            raise EnvironmentLacks(
                N_("changing the routing rules needs root (or the capability CAP_NET_ADMIN); try again with sudo")
            ) from error
        raise EnvironmentLacks(
            N_("the kernel refused the {subject}: {reason}"), subject=subject, reason=os.strerror(error.code)
        ) from error


def _refused(interface: str, subject: str, code: int) -> EnvironmentLacks:
    if code in {errno.EPERM, errno.EACCES} and ":" in subject and os.geteuid() == 0:
        return EnvironmentLacks(
            N_(
                "{subject} can't be set on {interface}: IPv6 is switched off there "
                "(sysctl net.ipv6.conf.{interface}.disable_ipv6)"
            ),
            subject=subject,
            interface=interface,
        )
    if code in {errno.EPERM, errno.EACCES}:
        return EnvironmentLacks(
            N_(
                "changing the network interface {interface} needs root (or the capability CAP_NET_ADMIN); "
                "try again with sudo"
            ),
            interface=interface,
        )
    if not subject:
        return EnvironmentLacks(
            N_("the kernel refused the settings of {interface}: {reason}"),
            interface=interface,
            reason=os.strerror(code),
        )
    return EnvironmentLacks(
        N_("the kernel refused {subject} on {interface}: {reason}"),
        subject=subject,
        interface=interface,
        reason=os.strerror(code),
    )
