"""What holds at a virtual hub's switch, for the whole and for one port (protocol section 18)."""

from typing import Final

import msgspec

from ukihashi.wire.policy import DEFAULT, Policy

LEAST_STATIONS: Final = 3  # a lower limit counts as this one; also the limit of who may not bridge
LEAST_IPV4: Final = 4  # the same for IPv4 addresses, and who may not route
LEAST_IPV6: Final = 5
IPV6_WITHOUT_ROUTING: Final = 15


class HubRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rules of one virtual hub. The defaults are a new hub's."""

    storm_threshold: int = 32  # flooded frames a second of one sender, from which on they are thinned out (18.4)
    vlans_apart: bool = True  # the same MAC in two VLANs is two stations (18.2)
    bridges_by_id: bool = True  # BPDUs are learned under the bridge's id (18.2)
    private_ipv4_only: bool = True  # the IP table learns these only (18.5)
    local_ipv6_only: bool = True
    privacy_drops_broadcasts: bool = True  # between two members with the privacy filter (18.3)
    privacy_drops_arp: bool = True
    least_client_build: int = 0  # official clients older than that are refused (section 8.3)
    required_client_id: int = 0


class GuardRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guards of a hub (`switch.guards`) go by."""

    on: bool = False
    trusted: tuple[str, ...] = ()  # users, cascades and local bridges that they leave alone, by name
    relay: bool = False  # what asks for a DHCP server goes to trusted ports only
    serve: bool = False  # the same, and the hub itself is the server: behind local bridges is none
    addresses: tuple[bytes, ...] = ()  # the hub's own and its gateway's: nobody who is not trusted may have them
    stations: tuple[bytes, ...] = ()  # MACs, the same


class PortRules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of one port. The defaults are those of a port that may do everything."""

    policy: Policy = DEFAULT
    user: str = ""
    group: str = ""
    bridge: bool = False
    monitor: bool = False  # hears everything and sends nothing
    over_ipv6: bool = False  # the member's connection
    confined: bool = False  # neither bridges nor routes, whatever the policy says (18.6)
    is_hub_port: bool = False  # the hub machine's own place
    is_local_bridge: bool = False  # an Ethernet of the hub machine (`hub bridge`)
    is_trunk: bool = False  # to another switch of the same hub, which asks its own ports' rules
    is_trusted: bool = False  # of a trunk: what comes in now entered by a port that the guards trust


def most_stations(rules: PortRules) -> int:
    """Source MACs that the port may use (18.2); 0 = any number."""
    return _most(
        rules.policy.max_mac, LEAST_STATIONS if rules.confined or rules.policy.no_bridge else 0, LEAST_STATIONS
    )


def most_ipv4(rules: PortRules) -> int:
    """IPv4 addresses (18.5)."""
    implied = LEAST_IPV4 if rules.confined or rules.policy.no_routing else 0
    return _most(rules.policy.max_ip, implied, LEAST_IPV4)


def most_ipv6(rules: PortRules) -> int:
    """IPv6 addresses (18.5)."""
    return _most(rules.policy.max_ipv6, IPV6_WITHOUT_ROUTING if rules.policy.no_routing_v6 else 0, LEAST_IPV6)


def _most(given: int, implied: int, least: int) -> int:
    limits = [limit for limit in (given, implied) if limit]
    return max(min(limits), least) if limits else 0
