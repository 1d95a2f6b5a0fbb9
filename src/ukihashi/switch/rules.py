"""What holds for a whole virtual hub's switch, set by its administrator (protocol section 18)."""

import msgspec


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
