"""What the kernel makes of IPv6 router advertisements on one interface (RFC 4861, 4862; sysctl net.ipv6.conf.*).

The settings are the interface's own and go with it. The default route of an advertisement gets the worst metric there
is: it tells who the router is, and nothing goes by it.
"""

import contextlib
import socket
from pathlib import Path
from typing import Final, NamedTuple

LAST_METRIC: Final = 0x7FFFFFFF  # behind every route that somebody set
LONGEST_ROUTE: Final = 64  # bits of a prefix that a route may have

PROTOCOL: Final = 9  # RTPROT_RA of linux/rtnetlink.h

_CONF: Final = Path("/proc/sys/net/ipv6/conf")


class Heed(NamedTuple):
    """What is heeded."""

    addresses: bool = False  # made of the prefixes
    default: bool = False  # a default route
    routes: bool = False  # others
    anything: bool = True


def heed(interface: str, wanted: Heed) -> None:
    """Set it. A kernel without IPv6, or without one of the settings, has nothing to heed there."""
    default = wanted.default and (_CONF / interface / "ra_defrtr_metric").exists()  # since Linux 5.12
    settings = {
        "autoconf": int(wanted.addresses),
        "ra_defrtr_metric": LAST_METRIC,
        "accept_ra_defrtr": int(default),
        "accept_ra_rt_info_max_plen": LONGEST_ROUTE if wanted.routes else 0,
        "accept_ra": 2 if wanted.anything else 0,  # 2: on a machine that forwards, too
    }
    for name, value in settings.items():
        with contextlib.suppress(OSError):
            (_CONF / interface / name).write_text(f"{value}\n")


def router(interface: str, *, forget: bool = False) -> str:
    """The gateway of the default route that an advertisement brought to the interface; "" if there is none.

    `forget`: take that route away.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        index = socket.if_nametoindex(interface)
        with IPRoute() as netlink:
            for row in netlink.get_default_routes(family=socket.AF_INET6):
                if row.get_attr("RTA_OIF") == index and row["proto"] == PROTOCOL:
                    gateway = str(row.get_attr("RTA_GATEWAY") or "")
                    if forget:
                        netlink.route("del", family=socket.AF_INET6, dst="::/0", gateway=gateway, oif=index)
                    return gateway
    except (OSError, NetlinkError):  # the interface goes just now
        pass
    return ""
