"""What `doctor` asks of this machine's network: the port, addresses that clash, routes, MTU, bridges, names."""

import contextlib
import ipaddress
import sqlite3
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from ukihashi.config import places
from ukihashi.config.hub import parse_listen
from ukihashi.errors import N_, UkihashiError
from ukihashi.net.control_socket import Client
from ukihashi.ops.doctor import Answer, Check, Look, fail, ok, skip, warn
from ukihashi.ops.doctor_state import ASK_S, open_readonly

Network = IPv4Network | IPv6Network

LISTENS: Final = "0A"  # net/tcp_states.h
SMALL_MTU: Final = 1280  # RFC 8200, 5: less carries no IPv6
FULL_MTU: Final = 1500
OTHERS: Final = ("tun", "wg", "tailscale", "zt", "ppp", "vpn_", "tap", "nebula", "ipsec", "gre", "utun")
OWN: Final = "uk"  # interfaces of ours begin with it
STRICT: Final = 1


class Way(NamedTuple):
    """One route of the main tables."""

    interface: str
    network: Network


def ways(look: Look) -> list[Way]:
    """All routes, with interface; link-local ones, loopback and multicast left out."""
    found: list[Way] = []
    for line in look.text(look.proc / "net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            address, mask = (int.from_bytes(bytes.fromhex(fields[at]), "little") for at in (1, 7))
            found.append(Way(fields[0], IPv4Network((address, mask.bit_count()))))
    for line in look.text(look.proc / "net/ipv6_route").splitlines():
        fields = line.split()
        if len(fields) > 9:
            found.append(Way(fields[9], IPv6Network((bytes.fromhex(fields[0]), int(fields[1], 16)))))
    return [
        way for way in found if way.interface != "lo" and not (way.network.is_link_local or way.network.is_multicast)
    ]


class VirtualHub(NamedTuple):
    """What the database says of one."""

    name: str
    networks: list[Network]
    host_port: str


def virtual_hubs(look: Look) -> list[VirtualHub]:
    """Those of this machine; none where they can't be read, which the check of the database tells."""
    try:
        if not look.database.exists():
            return []
        with contextlib.closing(open_readonly(look.database)) as connection:
            rows = connection.execute("SELECT name, subnet4, subnet6, host_port FROM hubs").fetchall()
    except (sqlite3.Error, OSError):
        return []
    return [
        VirtualHub(name, [ipaddress.ip_network(one) for one in subnets if one], port) for name, *subnets, port in rows
    ]


def port(look: Look) -> Iterator[Answer]:
    """Who has the ports where the hub listens, or would."""
    wanted = sorted({endpoint.port for endpoint in look.hub_config.endpoints()})
    holders, answering = _holders(look), _hub_listens()
    for number in wanted:
        inodes = holders.get(number)
        if inodes is None:
            yield ok(N_("TCP port {port} is free"), port=number)
            continue
        if number in answering:
            yield ok(N_("TCP port {port} is ours"), port=number)
            continue
        names = _programs(look, inodes)
        values = {"port": number, "names": ", ".join(sorted(names)) or "?"}
        if any("ukihashi" in name for name in names):
            yield ok(N_("TCP port {port} is ours"), **values)
        elif not names:
            yield skip(N_("TCP port {port} is taken; only root may see by whom"), **values)
        elif look.is_hub:
            yield fail(
                N_("TCP port {port} is taken by {names}; stop that, or let the hub listen elsewhere (listen)"), **values
            )
        else:
            yield warn(N_("TCP port {port} is taken by {names}; a hub here would have to listen elsewhere"), **values)


def _hub_listens() -> set[int]:
    """The ports of the hub that runs here."""
    if not places.hub_socket().exists():
        return set()
    try:
        (row, *_others) = Client(places.hub_socket(), ASK_S).ask("status")
        return {endpoint.port for endpoint in parse_listen(row["listen"])}
    except (UkihashiError, ValueError, KeyError):
        return set()


def _holders(look: Look) -> dict[int, set[str]]:
    """Port -> inodes of the sockets that listen on it."""
    found: dict[int, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for line in look.text(look.proc / "net" / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == LISTENS:
                found.setdefault(int(fields[1].rpartition(":")[2], 16), set()).add(fields[9])
    return found


def _programs(look: Look, inodes: set[str]) -> set[str]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found: set[str] = set()
    for folder in look.proc.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or not ours to see
            if any(str(path.readlink()) in wanted for path in (folder / "fd").iterdir()):
                words = look.text(folder / "cmdline").split("\0")
                ours = any("ukihashi" in word for word in words)
                name = "ukihashi" if ours else look.text(folder / "comm")
                found.add(f"{name} (pid {folder.name})")
    return found


def subnets(look: Look) -> Iterator[Answer]:
    """Virtual LANs whose addresses are used elsewhere, too."""
    routes, clashes = ways(look), 0
    hubs = virtual_hubs(look)
    joined: list[tuple[str, str, Network]] = []  # what, its interface, its network
    for hub in hubs:
        joined += [(f"hub {hub.name}", hub.host_port, network) for network in hub.networks]
    for name, card in look.cards.items():
        joined += [
            (f"card {name}", card.interface.name, ipaddress.ip_interface(text).network)
            for text in card.interface.addresses
        ]
    for number, (what, interface, network) in enumerate(joined):
        for way in routes:
            if way.network.prefixlen and way.interface != interface and overlap(way.network, network):
                clashes += 1
                yield warn(
                    N_(
                        "{what} has {network}, and {interface} of this machine leads to {other}: packets will go the"
                        " wrong way; give one of them other addresses"
                    ),
                    what=what,
                    network=network,
                    interface=way.interface,
                    other=way.network,
                )
        for other, _interface, theirs in joined[:number]:
            if overlap(network, theirs):
                clashes += 1
                yield warn(
                    N_("{what} and {other} both have {network}; this machine can't tell them apart"),
                    what=what,
                    other=other,
                    network=network,
                )
    if not joined:
        yield skip(N_("neither virtual hub nor account has addresses here yet"))
    elif not clashes:
        yield ok(
            N_("the addresses of {names} clash with nothing here"),
            names=", ".join(dict.fromkeys(one[0] for one in joined)),
        )


def overlap(one: Network, other: Network) -> bool:
    """Do two networks, of whatever family, share an address?"""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def forwarding(look: Look) -> Iterator[Answer]:
    """Whether this machine passes packets on, and whether it is meant to."""
    on = look.number(look.proc / "sys/net/ipv4/ip_forward") == 1
    uplinks = look.hub_config.uplink
    ports = [hub.host_port for hub in virtual_hubs(look) if hub.host_port]
    alive = [name for name in ports if (look.sys / "class/net" / name).exists()]
    passing = on or any(look.number(look.proc / "sys/net/ipv4/conf" / name / "forwarding") == 1 for name in alive)
    if uplinks and not passing and alive:
        yield fail(
            N_("members of {hubs} shall have a way out and this machine passes no packets on; ukihashi hub reload"),
            hubs=", ".join(uplinks),
        )
    elif uplinks:
        yield ok(N_("members of {hubs} have a way out through this machine"), hubs=", ".join(uplinks))
    elif on and ports:
        yield warn(
            N_(
                "this machine passes packets on (net.ipv4.ip_forward=1) and its firewall alone decides what members"
                " of a hub reach through it"
            )
        )
    else:
        yield ok(N_("this machine passes no packets on for members"))


def reverse_path(look: Look) -> Iterator[Answer]:
    """The strict check of where packets come from, which a default route through a card would meet."""
    folder = look.proc / "sys/net/ipv4/conf"
    every = look.number(folder / "all/rp_filter")
    outside = sorted(
        {way.interface for way in ways(look) if not way.network.prefixlen and not way.interface.startswith(OWN)}
    )
    strict = [name for name in outside if max(every, look.number(folder / name / "rp_filter")) == STRICT]
    full = sorted(
        name
        for name, card in look.cards.items()
        if any(route.to.startswith("default") for route in card.interface.routes)
    )
    if strict and full and not look.root:
        yield skip(
            N_("rp_filter is strict on {names}; a card with the default route loosens it while it is up"),
            names=", ".join(strict),
        )
    elif strict and full:
        yield ok(
            N_("rp_filter is strict on {names}; a card with the default route loosens it while it is up"),
            names=", ".join(strict),
        )
    else:
        yield ok(N_("rp_filter stands in no card's way"))


def mtu(look: Look) -> Iterator[Answer]:
    """Of the interfaces that lead outside."""
    outside = sorted({way.interface for way in ways(look) if not way.network.prefixlen})
    sizes = {name: look.number(look.sys / "class/net" / name / "mtu", FULL_MTU) for name in outside}
    small = {name: size for name, size in sizes.items() if size < SMALL_MTU}
    if not sizes:
        yield warn(N_("this machine has no default route: only hubs of its own networks can be reached"))
    elif small:
        yield warn(
            N_("the MTU of {names} is below 1280: IPv6 and much else will not pass"),
            names=", ".join(f"{name} {size}" for name, size in small.items()),
        )
    else:
        yield ok(N_("MTU toward outside: {names}"), names=", ".join(f"{name} {size}" for name, size in sizes.items()))


def bridged(look: Look) -> Iterator[Answer]:
    """Interfaces that `hub bridge` or `card bridge` joins with a virtual LAN."""
    joined = look.bridges
    if not joined:
        yield skip(N_("no LAN of this machine is joined with a virtual LAN"))
        return
    for what, name in joined:
        folder = look.sys / "class/net" / name
        values = {"what": what, "interface": name}
        if not folder.exists():
            yield fail(N_("{what} is to be joined with {interface}, which does not exist"), **values)
        elif (folder / "phy80211").exists() or (folder / "wireless").exists():
            yield fail(
                N_("{what}: {interface} is a wireless client, which carries no other machines' frames; use a cable"),
                **values,
            )
        elif look.text(folder / "operstate") == "down":
            yield warn(N_("{what}: {interface} is down, or its cable is out"), **values)
        elif look.number(folder / "mtu", FULL_MTU) > FULL_MTU:
            yield warn(N_("{what}: the MTU of {interface} is above 1500; longer frames do not cross"), **values)
        else:
            yield ok(N_("{what} is joined with {interface}"), **values)


def others(look: Look) -> Iterator[Answer]:
    """Other VPNs, which may carry ours inside."""
    names = (
        sorted(path.name for path in (look.sys / "class/net").iterdir()) if (look.sys / "class/net").is_dir() else []
    )
    found = [name for name in names if name.startswith(OTHERS)]
    defaults = {way.interface for way in ways(look) if not way.network.prefixlen}
    if inside := [name for name in found if name in defaults]:
        yield warn(
            N_("the default route goes by {names}, another VPN: the tunnel to a hub runs inside it"),
            names=", ".join(inside),
        )
    elif found:
        yield ok(N_("other VPNs: {names}; the default route goes beside them"), names=", ".join(found))
    else:
        yield ok(N_("no other VPN is up"))


def resolver(look: Look) -> Iterator[Answer]:
    """Who answers names here: a card that takes the hub's DNS has to know."""
    path = look.etc / "resolv.conf"
    text = look.text(path)
    servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver") and len(line.split()) > 1]
    target = str(path.resolve()) if path.is_symlink() else ""
    kind = "systemd-resolved" if "systemd/resolve" in target else "resolvconf" if "resolvconf" in target else str(path)
    if not servers:
        yield warn(N_("{path} names no DNS server: hubs can be reached by address only"), path=path)
    elif kind == "systemd-resolved" and not (look.run / "systemd/resolve").is_dir():
        yield fail(
            N_("{path} leads to systemd-resolved, which does not run; systemctl start systemd-resolved"), path=path
        )
    else:
        yield ok(N_("names are asked of {servers} ({kind})"), servers=", ".join(servers), kind=kind)


CHECKS: Final[dict[str, Check]] = {
    "port": port,
    "subnets": subnets,
    "forwarding": forwarding,
    "reverse-path": reverse_path,
    "mtu": mtu,
    "bridged": bridged,
    "others": others,
    "resolver": resolver,
}
