"""What one user may do: the policy of a session (protocol appendix B), as values and as elements of a PACK.

A user has the policy of the user, else of the group, else a new user's (`DEFAULT`).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ukihashi.errors import N_, UsageError

MIN_TIMEOUT_S: Final = 5
MAX_TIMEOUT_S: Final = 60
MAX_VLAN: Final = 4094
MAX_VALUE: Final = 0xFFFFFFFF


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """See the module. Field names are ours; `WIRE` has those of the wire. bit/s; s; 0 = no limit."""

    access: bool = True  # False: logins are refused
    dhcp_filter: bool = False  # no DHCPv4 from and to it
    dhcpv6_filter: bool = False
    dhcp_no_server: bool = False  # no DHCP replies from it
    dhcpv6_no_server: bool = False
    dhcp_force: bool = False  # only IPv4 addresses that a DHCP server gave it
    no_bridge: bool = False  # at most 3 stations
    no_routing: bool = False  # at most 4 IPv4 addresses
    no_routing_v6: bool = False  # at most 15 IPv6 addresses
    privacy_filter: bool = False  # nothing between two members that both have it
    no_server: bool = False  # no TCP over IPv4 is accepted at it
    no_server_v6: bool = False
    check_mac: bool = False  # no station of another session is taken over within 13 s
    check_ip: bool = False
    check_ipv6: bool = False
    arp_dhcp_only: bool = False  # of broadcasts only ARP, DHCP and neighbour discovery
    monitor_port: bool = False  # may listen to everything
    no_broadcast_limiter: bool = False  # no storm control
    fix_password: bool = False  # may not change the password
    no_qos: bool = False
    rs_and_ra_filter: bool = False  # no router solicitation and advertisement
    ra_filter: bool = False
    no_save_password: bool = False
    filter_ipv4: bool = False  # ARP too
    filter_ipv6: bool = False
    filter_non_ip: bool = False
    no_ipv6_default_router_in_ra: bool = False
    no_ipv6_default_router_in_ra_when_ipv6: bool = False  # if it came over IPv6
    max_connection: int = 32
    timeout_s: int = 20
    max_mac: int = 0
    max_ip: int = 0
    max_ipv6: int = 0
    max_upload: int = 0
    max_download: int = 0
    multi_logins: int = 0
    auto_disconnect_s: int = 0  # the client ends the session itself
    vlan_id: int = 0  # 1..4094: untagged at the member, tagged in the hub

    @classmethod
    def from_wire(cls, values: Mapping[str, int]) -> "Policy":
        """From wire names without `policy:`, in any case; what is missing is 0, unknown names are ignored.

        Raises:
            UsageError: a value out of range.
        """
        given = {name.casefold(): value for name, value in values.items()}
        found: dict[str, int | bool] = {}
        for field, wire in WIRE.items():
            value = given.get(wire.casefold(), 0)
            found[field] = bool(value) if field in FLAGS else value
        return checked(cls(**found))  # type: ignore[arg-type]  # by name, from our own table

    def to_wire(self) -> dict[str, int]:
        """All of it, by wire names without `policy:`, with the mark of the form that has these names."""
        return {wire: int(getattr(self, field)) for field, wire in WIRE.items()} | {"Ver3": 1}


WIRE: Final[Mapping[str, str]] = {
    "access": "Access",
    "dhcp_filter": "DHCPFilter",
    "dhcpv6_filter": "DHCPv6Filter",
    "dhcp_no_server": "DHCPNoServer",
    "dhcpv6_no_server": "DHCPv6NoServer",
    "dhcp_force": "DHCPForce",
    "no_bridge": "NoBridge",
    "no_routing": "NoRouting",
    "no_routing_v6": "NoRoutingV6",
    "privacy_filter": "PrivacyFilter",
    "no_server": "NoServer",
    "no_server_v6": "NoServerV6",
    "check_mac": "CheckMac",
    "check_ip": "CheckIP",
    "check_ipv6": "CheckIPv6",
    "arp_dhcp_only": "ArpDhcpOnly",
    "monitor_port": "MonitorPort",
    "no_broadcast_limiter": "NoBroadcastLimiter",
    "fix_password": "FixPassword",
    "no_qos": "NoQoS",
    "rs_and_ra_filter": "RSandRAFilter",
    "ra_filter": "RAFilter",
    "no_save_password": "NoSavePassword",
    "filter_ipv4": "FilterIPv4",
    "filter_ipv6": "FilterIPv6",
    "filter_non_ip": "FilterNonIP",
    "no_ipv6_default_router_in_ra": "NoIPv6DefaultRouterInRA",
    "no_ipv6_default_router_in_ra_when_ipv6": "NoIPv6DefaultRouterInRAWhenIPv6",
    "max_connection": "MaxConnection",
    "timeout_s": "TimeOut",
    "max_mac": "MaxMac",
    "max_ip": "MaxIP",
    "max_ipv6": "MaxIPv6",
    "max_upload": "MaxUpload",
    "max_download": "MaxDownload",
    "multi_logins": "MultiLogins",
    "auto_disconnect_s": "AutoDisconnect",
    "vlan_id": "VLanId",
}
FLAGS: Final = frozenset(field.name for field in msgspec.structs.fields(Policy) if field.type is bool)
DEFAULT: Final = Policy()
ADMINISTRATOR: Final = Policy(monitor_port=True, no_broadcast_limiter=True)  # of a login as `administrator`


def checked(policy: Policy) -> Policy:
    """The policy, or UsageError naming the value that is out of range."""
    for field, wire in WIRE.items():
        value = int(getattr(policy, field))
        least, most = RANGES.get(field, (0, MAX_VALUE))
        if value and not least <= value <= most:
            raise UsageError(
                N_("policy {name}: {value} is out of range; use {least} to {most}, or 0"),
                name=wire,
                value=value,
                least=least,
                most=most,
            )
    return policy


RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "max_connection": (1, 32),
    "timeout_s": (MIN_TIMEOUT_S, MAX_TIMEOUT_S),
    "vlan_id": (1, MAX_VLAN),
}
