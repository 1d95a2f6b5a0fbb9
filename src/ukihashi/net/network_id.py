"""A name for the network that this machine is in, so that what worked there can be found again."""

import hashlib
import ipaddress
from typing import Any, Final

RT_TABLE_MAIN: Final = 254  # linux/rtnetlink.h


def network_id(but: str = "") -> str:
    """The same for the same network, "" if there is none or the kernel does not say. Call it in a thread.

    It goes by the default gateways and by the prefixes of this machine's addresses. So two networks that number their
    machines alike are taken for one. `but`: an interface that does not count, the card's own.
    """
    from pyroute2 import IPRoute  # here: a card with one path does without
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            names = {row["index"]: row.get_attr("IFLA_IFNAME") for row in netlink.get_links()}
            parts = _gateways(netlink, names, but) | _prefixes(netlink, names, but)
    except (NetlinkError, OSError):
        return ""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:32] if parts else ""


def _gateways(netlink: Any, names: dict[int, str], but: str) -> set[str]:
    rows = [row for row in netlink.get_default_routes(table=RT_TABLE_MAIN) if names.get(row.get_attr("RTA_OIF")) != but]
    return {gateway for row in rows if (gateway := row.get_attr("RTA_GATEWAY")) is not None}


def _prefixes(netlink: Any, names: dict[int, str], but: str) -> set[str]:
    rows = [row for row in netlink.get_addr() if names.get(row["index"]) != but]
    networks = [ipaddress.ip_interface(f"{row.get_attr('IFA_ADDRESS')}/{row['prefixlen']}").network for row in rows]
    return {str(network) for network in networks if not network.is_loopback and not network.is_link_local}
