"""Which networks the other interfaces of this machine have (rtnetlink)."""

import ipaddress
import socket
from typing import NamedTuple

from ukihashi.tap.netlink import MAIN, PROTOCOL


class Held(NamedTuple):
    """A network that some interface has: by an address, or by a route of a card's."""

    network: str
    interface: str
    is_wide: bool  # a card's default route, in a table of its own


def held_elsewhere(interface: str) -> list[Held]:
    """Of all interfaces but this one and the loopback."""
    from pyroute2 import IPRoute

    found: list[Held] = []
    with IPRoute() as netlink:
        for row in netlink.get_addr():
            address = ipaddress.ip_interface(f"{row.get_attr('IFA_ADDRESS')}/{row['prefixlen']}")
            if not address.ip.is_link_local and not address.ip.is_loopback:
                found.append(Held(str(address.network), _name(row["index"]), is_wide=False))
        for row in netlink.get_routes(proto=PROTOCOL):
            nowhere = "::" if row["family"] == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - no socket
            network = f"{row.get_attr('RTA_DST') or nowhere}/{row['dst_len']}"
            found.append(Held(network, _name(row.get_attr("RTA_OIF") or 0), is_wide=row.get_attr("RTA_TABLE") != MAIN))
    return [one for one in found if one.interface not in ("", interface)]


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # gone meanwhile
        return ""
