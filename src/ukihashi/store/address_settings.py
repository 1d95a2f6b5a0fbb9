"""What an administrator decides about the addresses and names in a virtual hub."""

from typing import Final, Literal

import msgspec

Dhcp = Literal["serve", "relay", "off"]
Forward = Literal["auto", "on", "off"]

LEASE_S: Final = 86_400  # of a new hub
SHORTEST_LEASE_S: Final = 60
LONGEST_LEASE_S: Final = 365 * 86_400


class AddressSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of one virtual hub. The defaults are a new hub's."""

    dhcp: Dhcp = "serve"  # relay: clients are heard by a DHCP server behind a trusted port
    lease_s: int = LEASE_S
    router: str = "auto"  # "auto": the host port if the hub has an uplink; "none"; or an IPv4 address
    routes: tuple[tuple[str, str], ...] = ()  # network, gateway; "" = the host port
    dns: bool = True  # names of users and stations are answered
    domain: str = ""  # "" = the hub's name and `.internal`
    name_servers: tuple[str, ...] = ()  # told to members in place of the hub's own
    forward: Forward = "auto"  # other names are asked of the hub machine's resolvers; auto: if the hub has an uplink
    ra: bool = True  # IPv6 router advertisements with the hub's prefix
    guard: bool = True  # members that play DHCP server or router, or forge ARP, are heard by nobody
    trusted: tuple[str, ...] = ()  # but these are: users, cascades, and as in "bridge eth1", bridges


SILENT: Final = AddressSettings(dhcp="off", dns=False, ra=False, guard=False)  # a switch, and no more
