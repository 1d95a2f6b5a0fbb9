"""Which routing table and which rules make a default route through the card hold, without cutting off the card itself.

    from all             table main, its default routes left out     what is nearer goes on as before
    not fwmark 0x2b75    table 75000                                 the rest goes through the card ...
    from all             table main                                  ... but for the card's own packets to the hub

The physical default route stays where it is, so whoever manages it (DHCP) may change it at any time. All cards of a
machine share the mark: otherwise each would send its packets through the other's tunnel.
"""

import ipaddress
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from ukihashi.config.card import Interface
from ukihashi.config.card import Route as Setting
from ukihashi.tap.netlink import MAIN, Route, Rule, check_route

MARK: Final = 0x2B75  # keeps clear of the bits that Kubernetes, Calico and Tailscale look at
TABLE: Final = 75_000  # the first card's; the next one's is one higher
PRIORITY: Final = 31_000  # the first card's pair of rules; after an admin's usual ones, before main (32766)

# A default route in disguise: 0.0.0.0/1 with 128.0.0.0/1, or 2000::/3, covers the hub's address all the same.
_WIDE: Final = {4: 1, 6: 3}


def wide_version(setting: Setting) -> int:
    """4 or 6 if this is a default route of that IP version or as good as one; 0 if not."""
    version, network = check_route(setting.to, setting.via)
    return version if ipaddress.ip_network(network).prefixlen <= _WIDE[version] else 0


def wide_versions(settings: Iterable[Setting]) -> list[int]:
    """The IP versions that have a default route among these."""
    return sorted({wide_version(setting) for setting in settings} - {0})


def mark_for(settings: Iterable[Setting]) -> int:
    """The mark which the packets that carry the tunnel need; 0 if they need none."""
    return MARK if wide_versions(settings) else 0


def mark_of(own: Interface) -> int:
    """The same, with what may come besides: an offered default route, a kill switch."""
    return MARK if "default" in own.accept or own.kill_switch else mark_for(own.routes)


def gateways(settings: Iterable[Setting]) -> list[str]:
    """Gateways of default routes."""
    return [setting.via for setting in settings if setting.via and wide_version(setting)]


def kernel_route(setting: Setting, interface: str, slot: int) -> Route:
    """The route as the kernel gets it."""
    table = TABLE + slot if wide_version(setting) else MAIN
    return Route(setting.to, interface, setting.via, setting.metric, table)


def rules(version: int, slot: int) -> tuple[Rule, Rule]:
    """The pair that sends all but marked packets into the card's table. To be added in this order."""
    first = PRIORITY + 2 * slot
    return (
        Rule(version, first, MAIN, no_default=True),
        Rule(version, first + 1, TABLE + slot, unless_mark=MARK),
    )


def table_of(rule: Rule) -> int:
    """The card's table that a rule of such a pair serves."""
    return rule.table if rule.table != MAIN else TABLE + (rule.priority - PRIORITY) // 2


def free_slot(tables: Iterable[int], present: Sequence[Rule]) -> int:
    """The lowest number whose table and rules nobody uses."""
    taken = {table - TABLE for table in tables} | {table_of(rule) - TABLE for rule in present}
    return next(slot for slot in itertools.count() if slot not in taken)


class Restores:
    """A vanished route is put back so often and no oftener: somebody may mean it. Time is an argument."""

    MOST: Final = 3
    WITHIN_S: Final = 600.0

    def __init__(self) -> None:
        self.total = 0
        self._times: deque[float] = deque(maxlen=self.MOST)

    def allowed(self, now: float) -> bool:
        """May it be put back once more?"""
        return len(self._times) < self.MOST or now - self._times[0] >= self.WITHIN_S

    def done(self, now: float) -> None:
        """It was put back."""
        self.total += 1
        self._times.append(now)
