"""The detector sends nothing on a card that it captures on: what it tells others must leave by another one."""

import socket
from collections.abc import Collection
from ipaddress import ip_address

from ukihashi.errors import N_, UsageError


def check_way(host: str, cards: Collection[str], what: object) -> None:
    """Messages to `host` (a name or an address) must not leave by one of `cards`.

    Args:
        what: how the user wrote it, for the error.
    Raises:
        UsageError: they would.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError:
        return  # not known now; sending will say so
    for card in {way_out(str(address[0])) for *_kinds, address in found} & set(cards):
        raise UsageError(
            N_(
                "{what} is reached by {card}, a card that is captured on, where the detector must not send; use another"
                " way, or --send-on-capture-card"
            ),
            what=what,
            card=card,
        )


def check_listen(host: str, cards: Collection[str], what: object) -> None:
    """A port opened on `host`, "" = every address, must not answer on one of `cards`. Raises: UsageError."""
    wide = not host or ip_address(host).is_unspecified
    used = (
        sorted(set(cards) - {"lo"}) if wide else [card for card in cards if card != "lo" and host in _addresses(card)]
    )
    if used:
        raise UsageError(
            N_(
                "{what} would answer on {card}, a card that is captured on; give another address, or"
                " --send-on-capture-card"
            ),
            what=what,
            card=", ".join(used),
        )


def way_out(address: str) -> str:
    """The card by which packets to `address` leave; "" if there is no way."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with IPRoute() as kernel:
            for route in kernel.route("get", dst=address.partition("%")[0], family=family):
                return socket.if_indextoname(route.get_attr("RTA_OIF"))
    except (NetlinkError, OSError):
        return ""
    return ""


def _addresses(card: str) -> set[str]:
    from ukihashi.tap.netlink import addresses

    return {str(ip_address(address.partition("/")[0])) for address in addresses(card)}
