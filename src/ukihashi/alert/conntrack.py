"""The TCP connections that the kernel's connection tracking knows: what a block would hit besides the tunnel."""

import itertools
import threading
from ipaddress import ip_address
from typing import Any, Final

from ukihashi.alert.nftables import Match

MAX_READ: Final = 262_144  # entries
LONGEST_S: Final = 3.0
_TCP: Final = 6


def connections() -> list[Match] | None:
    """All of them, from the client's side; None where nothing is tracked, nobody may ask, or it takes too long."""
    found: list[list[Match]] = []
    thread = threading.Thread(target=_read, args=(found,), daemon=True)  # the library can't run inside asyncio's loop
    thread.start()
    thread.join(LONGEST_S)
    return found[0] if found and found[0] else None


def _read(found: list[list[Match]]) -> None:
    try:
        from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

        with NFCTSocket() as tracking:
            some = itertools.islice(tracking.dump(), MAX_READ)
            found.append([match for entry in some if (match := _match(entry)) is not None])
    except Exception:  # noqa: BLE001 - a preview only: whatever is missing, the answer is that nobody knows
        return


def others(match: Match, own: set[int], known: list[Match]) -> list[Match]:
    """Connections among `known` that `match` hits, but for those from the tunnel's `own` ports."""
    if match.client_port:
        return []
    return [
        one
        for one in known
        if (one.client, one.server, one.port) == (match.client, match.server, match.port) and one.client_port not in own
    ]


def _match(entry: Any) -> Match | None:
    original = entry.get_attr("CTA_TUPLE_ORIG")
    addresses, ports = original.get_attr("CTA_TUPLE_IP"), original.get_attr("CTA_TUPLE_PROTO")
    if addresses is None or ports is None or ports.get_attr("CTA_PROTO_NUM") != _TCP:
        return None
    source = addresses.get_attr("CTA_IP_V4_SRC") or addresses.get_attr("CTA_IP_V6_SRC")
    target = addresses.get_attr("CTA_IP_V4_DST") or addresses.get_attr("CTA_IP_V6_DST")
    return Match(
        str(ip_address(source)),
        ports.get_attr("CTA_PROTO_SRC_PORT"),
        str(ip_address(target)),
        ports.get_attr("CTA_PROTO_DST_PORT"),
    )
