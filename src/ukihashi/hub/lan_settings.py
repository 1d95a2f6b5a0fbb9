"""What an administrator can set about addresses and names: checked, put on top of what holds, and told as rows."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any, Final, Literal, TypedDict, cast

from msgspec.structs import replace

from ukihashi.errors import N_, UsageError
from ukihashi.ether import dns
from ukihashi.hub.addresses import HOST_PORT_NUMBER
from ukihashi.hub.lan_plan import LanService, default_domain, numbers
from ukihashi.net.control_socket import Row
from ukihashi.store.address_settings import (
    LONGEST_LEASE_S,
    SHORTEST_LEASE_S,
    AddressSettings,
    Dhcp,
    Forward,
)
from ukihashi.store.hubs import Hub
from ukihashi.store.leases import Lease

MOST_ROUTES: Final = 32
MOST_SERVERS: Final = 3

_MAC: Final = re.compile(r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2}){4}")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")


class AddressFields(TypedDict, total=False):
    """What is left out stays."""

    dhcp: str  # serve, relay, off
    lease_s: int
    router: str  # auto, none, or an address
    routes: list[str]  # "NETWORK" or "NETWORK,GATEWAY"; all of them
    dns: bool
    domain: str  # "" = made of the hub's name
    name_servers: list[str]  # [] = the hub itself
    forward: str  # auto, on, off
    ra: bool
    guard: bool  # members that play DHCP server or router, or forge ARP, are heard by nobody
    trust: list[str]  # users, cascades and bridges that the guards leave alone from now on
    no_trust: list[str]  # or no more
    trusted: list[str]  # all of them


def changed(hub: Hub, fields: AddressFields) -> AddressSettings:
    """The settings as they are to be kept. Raises UsageError for what can't be."""
    new: dict[str, Any] = dict(fields)
    if "dhcp" in fields:
        new["dhcp"] = cast("Dhcp", _choice("--dhcp", fields["dhcp"], ("serve", "relay", "off")))
    if "forward" in fields:
        new["forward"] = cast("Forward", _choice("--forward", fields["forward"], ("auto", "on", "off")))
    if "lease_s" in fields and not SHORTEST_LEASE_S <= fields["lease_s"] <= LONGEST_LEASE_S:
        raise UsageError(N_("a lease lasts {least} to {most} seconds"), least=SHORTEST_LEASE_S, most=LONGEST_LEASE_S)
    if fields.get("router", "auto") not in ("auto", "none"):
        new["router"] = str(_inside(hub, fields["router"]))
    if "routes" in fields:
        new["routes"] = tuple(_route(hub, text) for text in _few("--route", fields["routes"], MOST_ROUTES))
    if "domain" in fields:
        new["domain"] = _domain(fields["domain"])
    if "name_servers" in fields:
        servers = _few("--name-server", fields["name_servers"], MOST_SERVERS)
        new["name_servers"] = tuple(_address(text) for text in servers)
    if "trusted" in fields:
        new["trusted"] = tuple(fields["trusted"])
    if hub.addresses.dhcp == "off" != new.get("dhcp", "off"):  # a hub that begins to serve is guarded, if nobody minds
        new.setdefault("guard", True)
    return replace(hub.addresses, **new)


def _choice(option: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise UsageError(
            N_("{option}: “{text}” is none of: {choices}"), option=option, text=text, choices=", ".join(choices)
        )
    return text


def _few(option: str, texts: Sequence[str], most: int) -> Sequence[str]:
    if len(texts) > most:
        raise UsageError(N_("{option}: at most {most} can be given"), option=option, most=most)
    return texts


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise UsageError(N_("“{text}” is no address"), text=text) from None


def _inside(hub: Hub, text: str) -> IPv4Address:
    """An address that a station of the hub can have."""
    address, network = ip_address(_address(text)), IPv4Network(hub.subnet4)
    if not isinstance(address, IPv4Address) or address not in network:
        raise UsageError(
            N_("{address} is not in the subnet of hub {hub}, {subnet}"), address=text, hub=hub.name, subnet=hub.subnet4
        )
    return address


def _route(hub: Hub, text: str) -> tuple[str, str]:
    network, _, gateway = text.partition(",")
    try:
        checked = IPv4Network(network.strip())
    except ValueError:
        raise UsageError(N_("“{text}” is no IPv4 network as in 192.168.7.0/24"), text=network) from None
    if not gateway.strip():
        if not hub.host_port:
            raise UsageError(
                N_("hub {hub} has no host port to route {network}; name a gateway: {network},ADDRESS"),
                hub=hub.name,
                network=checked,
            )
        return str(checked), ""
    return str(checked), str(_inside(hub, gateway.strip()))


def _domain(text: str) -> str:
    name = text.strip().rstrip(".").lower()
    if name in ("", "auto"):
        return ""
    try:
        dns.write_name(name)
        good = all(_LABEL.fullmatch(label) for label in name.split("."))
    except ValueError:
        good = False
    if not good:
        raise UsageError(N_("“{text}” is no domain name"), text=text)
    return name


def number_of(hub: Hub, text: str) -> int:
    """The number of an address that a station of the hub can have. Raises UsageError."""
    number = int(_inside(hub, text)) - int(IPv4Network(hub.subnet4).network_address)
    if number == hub.service_number or number not in numbers(hub.subnet4):
        raise UsageError(N_("{address} is the hub's own or nobody's"), address=text)
    return number


def mac_of(text: str) -> bytes:
    """A station's MAC; b"" if the text is none."""
    return bytes.fromhex(text.replace("-", ":").replace(":", "")) if _MAC.fullmatch(text) else b""


def row(hub: Hub, said: LanService | None, *, forwards: bool) -> Row:
    """How a hub gives addresses and names: what is set, and what follows from it now."""
    settings = hub.addresses
    host = str(IPv4Network(hub.subnet4).network_address + HOST_PORT_NUMBER) if hub.host_port else ""
    return {
        "hub": hub.name,
        "subnet4": hub.subnet4,
        "subnet6": hub.subnet6,
        "host_port": host,
        "service4": str(said.address4) if said else "",
        "service6": str(said.address6) if said else "",
        "service_mac": said.mac.hex(":") if said else "",
        "dhcp": settings.dhcp,
        "lease_s": settings.lease_s,
        "router": settings.router,
        "router_now": said.router if said else "",
        "routes": [list(one) for one in (said.routes if said else settings.routes)],
        "dns": settings.dns,
        "domain": settings.domain or default_domain(hub.name),
        "name_servers": list(settings.name_servers),
        "forward": settings.forward,
        "forwards": forwards,
        "ra": settings.ra,
        "guard": settings.guard,
        "trusted": list(settings.trusted),
    }


def lease_row(
    hub: Hub,
    number: int,
    *,
    lease: Lease | None = None,
    fixed: Literal["", "user", "station"] = "",
    user: str = "",
    mac: bytes = b"",
    session: str = "",
) -> Row:
    """One address for listings; `state` is "kept" while nobody has it."""
    return {
        "hub": hub.name,
        "address": str(IPv4Network(hub.subnet4).network_address + number),
        "state": lease.kind if lease is not None else "kept",
        "fixed": fixed,
        "user": user,
        "mac": mac.hex(":") if mac else "",
        "host": lease.host if lease is not None else "",
        "since": lease.began_at if lease is not None else 0.0,
        "until": lease.ends_at if lease is not None else 0.0,
        "session": session,
    }
