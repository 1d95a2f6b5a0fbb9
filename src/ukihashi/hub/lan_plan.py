"""What a virtual hub's address service says: made by control of the hub's settings, followed by each worker."""

import hashlib
import unicodedata
from collections.abc import Collection
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

import msgspec

from ukihashi.auth.names import name_key
from ukihashi.ether import ndp
from ukihashi.ether.dns import MAX_LABEL
from ukihashi.hub.addresses import FIRST_NUMBER, HOST_PORT_NUMBER, LAST_NUMBER, addresses, host_port_mac
from ukihashi.store.hubs import Hub

TOP: Final = "internal"  # the domain that ICANN keeps for private use (2024-07-29)
SERVICE_NAME: Final = "hub"  # in every hub's domain: the hub itself


class LanService(msgspec.Struct, frozen=True, dict=True):
    """Of one virtual hub. Addresses and networks are texts, resolved: nothing is left to find out."""

    mac: bytes  # of the service's own station
    subnet4: str
    subnet6: str
    number: int  # last part of the service's own addresses
    router: str = ""  # "" = none
    dhcp: str = "serve"  # see `AddressSettings`
    lease_s: int = 86_400
    routes: tuple[tuple[str, str], ...] = ()  # network, gateway
    dns: bool = True
    domain: str = ""
    name_servers: tuple[str, ...] = ()  # told in place of the service's own
    ra: bool = True
    router6: bytes = b""  # station of the IPv6 way out, the hub machine's own; b"" = none

    @cached_property
    def network4(self) -> IPv4Network:
        """The hub's IPv4 subnet."""
        return IPv4Network(self.subnet4)

    @cached_property
    def network6(self) -> IPv6Network:
        """The hub's IPv6 subnet."""
        return IPv6Network(self.subnet6)

    @cached_property
    def address4(self) -> IPv4Address:
        """The service's own."""
        return self.network4.network_address + self.number

    @cached_property
    def address6(self) -> IPv6Address:
        """The service's own."""
        return self.network6.network_address + self.number

    @cached_property
    def link_local(self) -> IPv6Address:
        """From which it advertises."""
        return ndp.link_local(self.mac)

    @cached_property
    def router4(self) -> IPv4Address | None:
        """The way out."""
        return IPv4Address(self.router) if self.router else None

    @cached_property
    def servers4(self) -> tuple[IPv4Address, ...]:
        """DNS servers that are told to members."""
        given = tuple(IPv4Address(one) for one in self.name_servers if ":" not in one)
        return given or ((self.address4,) if self.dns and not self.name_servers else ())

    @cached_property
    def servers6(self) -> tuple[IPv6Address, ...]:
        """The same over IPv6."""
        given = tuple(IPv6Address(one) for one in self.name_servers if ":" in one)
        return given or ((self.address6,) if self.dns and not self.name_servers else ())

    @cached_property
    def routes4(self) -> tuple[tuple[IPv4Network, IPv4Address], ...]:
        """Networks behind members, with the gateways to them."""
        return tuple((IPv4Network(network), IPv4Address(gateway)) for network, gateway in self.routes)


def numbers(subnet: str) -> range:
    """Numbers that stations of a subnet may have."""
    return range(FIRST_NUMBER, min(LAST_NUMBER, IPv4Network(subnet).num_addresses - 2) + 1)


def plan(hub: Hub, uplinks: Collection[str]) -> LanService | None:
    """What holds for `hub`; None while it has no place for the service.

    Args:
        uplinks: virtual hubs whose members get out by the hub machine, by `name_key`.
    """
    if not hub.service_number:
        return None
    settings, host = hub.addresses, str(IPv4Network(hub.subnet4).network_address + HOST_PORT_NUMBER)
    leads_out = name_key(hub.name) in uplinks
    router = {"auto": host if leads_out else "", "none": ""}.get(settings.router, settings.router)
    return LanService(
        service_mac(hub),
        hub.subnet4,
        hub.subnet6,
        hub.service_number,
        router,
        settings.dhcp,
        settings.lease_s,
        tuple((network, gateway or host) for network, gateway in settings.routes),
        settings.dns,
        settings.domain or default_domain(hub.name),
        settings.name_servers,
        settings.ra,
        host_port_mac(hub.name, addresses(hub, HOST_PORT_NUMBER)) if router == host and leads_out else b"",
    )


def forwards(hub: Hub, uplinks: Collection[str]) -> bool:
    """Names outside the hub's domain are asked of the hub machine's own resolvers."""
    forward = hub.addresses.forward
    return hub.addresses.dns and (forward == "on" or (forward == "auto" and name_key(hub.name) in uplinks))


def service_mac(hub: Hub) -> bytes:
    """Always the same, made of what is drawn once per virtual hub; locally administered (IEEE 802)."""
    digest = hashlib.sha256("\0".join(("service", name_key(hub.name), hub.subnet4, hub.subnet6)).encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02]) + digest[1:6]


def default_domain(hub: str) -> str:
    """Of a virtual hub of that name."""
    return f"{label(hub) or SERVICE_NAME}.{TOP}"


def label(name: str) -> str:
    """A name of a person or a machine as one label of the DNS; "" if nothing is left of it."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(letter if letter.isalnum() else "-" for letter in plain).strip("-")
    if not text.isascii():
        text = "xn--" + text.encode("punycode").decode("ascii")
    return text if len(text) <= MAX_LABEL else ""
