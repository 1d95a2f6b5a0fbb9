"""Why a frame was dropped at a port of the switch: short words for counters, and what people read."""

from collections.abc import Mapping
from typing import Final

from ukihashi.errors import N_

SIZE: Final = "size"  # shorter than an Ethernet header or longer than the protocol allows
SOURCE: Final = "source"  # sender all zeros, all ones, equal to the receiver, or the hub's own address
ARP_SHORT: Final = "arp_short"
OWN_PORT: Final = "own_port"  # the receiver is on the port the frame came from
TABLE_FULL: Final = "table_full"
PORT_FULL: Final = "port_full"  # the port has all the stations it may have
MONITOR: Final = "monitor"  # sent by a port that only listens
STATION_TAKEN: Final = "station_taken"  # the sender's MAC was heard on another port a moment ago
ADDRESS_TAKEN: Final = "address_taken"  # its IP address was
ADDRESSES_FULL: Final = "addresses_full"  # the port has all the IP addresses it may have
NO_LEASE: Final = "no_lease"  # an address that no DHCP server gave it
STORM: Final = "storm"  # flooded too often
UPLOAD: Final = "upload_limit"
DOWNLOAD: Final = "download_limit"
ACCESS: Final = "access_list"
PRIVACY: Final = "privacy"  # both ends have the privacy filter
VLAN: Final = "vlan"  # the receiver is in another VLAN
TRUNK: Final = "trunk"  # came from another switch of the hub and would go to a third
DHCP: Final = "dhcp_filter"
DHCP_SERVER: Final = "dhcp_server"  # it plays DHCP server
TCP_SERVER: Final = "tcp_server"  # it accepts a TCP connection
ROUTER: Final = "router_filter"  # router advertisement or solicitation
BROADCAST: Final = "broadcast_filter"  # a broadcast other than ARP, DHCP, ICMPv6
IPV4: Final = "ipv4_filter"
IPV6: Final = "ipv6_filter"
NON_IP: Final = "non_ip_filter"
ROGUE_DHCP: Final = "rogue_dhcp"  # the guards (`guards`): it plays DHCP server on a port that is not trusted
ROGUE_ROUTER: Final = "rogue_router"  # the same for router advertisements and redirects
FORGED: Final = "forged_address"  # says that it has an address which is somebody else's
FORGED_STATION: Final = "forged_station"  # uses a MAC which is the hub's own, or that of a station on a trusted port
HIDDEN: Final = "hidden_headers"  # may be one of these, and we can't see

GUARDS: Final = frozenset((ROGUE_DHCP, ROGUE_ROUTER, FORGED, FORGED_STATION, HIDDEN))

WORDS: Final[Mapping[str, str]] = {
    SIZE: N_("too long or too short"),
    SOURCE: N_("impossible sender"),
    ARP_SHORT: N_("ARP cut short"),
    OWN_PORT: N_("receiver beside the sender"),
    TABLE_FULL: N_("MAC table full"),
    PORT_FULL: N_("too many stations"),
    MONITOR: N_("sent by a member that only listens"),
    STATION_TAKEN: N_("MAC address of another member"),
    ADDRESS_TAKEN: N_("IP address of another member"),
    ADDRESSES_FULL: N_("too many IP addresses"),
    NO_LEASE: N_("IP address not from DHCP"),
    STORM: N_("broadcast storm"),
    UPLOAD: N_("upload limit"),
    DOWNLOAD: N_("download limit"),
    ACCESS: N_("access list"),
    PRIVACY: N_("privacy filter"),
    VLAN: N_("receiver in another VLAN"),
    TRUNK: N_("receiver is with another worker"),
    DHCP: N_("DHCP not allowed"),
    DHCP_SERVER: N_("DHCP server not allowed"),
    TCP_SERVER: N_("TCP server not allowed"),
    ROUTER: N_("IPv6 router messages not allowed"),
    BROADCAST: N_("broadcast not allowed"),
    IPV4: N_("IPv4 not allowed"),
    IPV6: N_("IPv6 not allowed"),
    NON_IP: N_("only IP allowed"),
    ROGUE_DHCP: N_("DHCP server on a port that is not trusted"),
    ROGUE_ROUTER: N_("IPv6 router on a port that is not trusted"),
    FORGED: N_("forged IP address"),
    FORGED_STATION: N_("forged MAC address"),
    HIDDEN: N_("headers hidden from the guards"),
}
