"""What the guards drop at a worker's ports, told to control: the first at once, then once a minute for each port."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from ukihashi.hub.loop import Loop, Timer
from ukihashi.hub.messages import Caught
from ukihashi.switch.reasons import FORGED, GUARDS
from ukihashi.units import PortId

if TYPE_CHECKING:
    from ukihashi.hub.ports import VirtualHub

PERIOD_S: Final = 60.0


class GuardReports:
    """Of all virtual hubs of a worker."""

    def __init__(self, loop: Loop, tell: Callable[[Caught], bool], *, period_s: float = PERIOD_S) -> None:
        """`tell`: sends to control; False: it can't be told now."""
        self._loop = loop
        self._tell = tell
        self._period_s = period_s
        self._told: dict[tuple[VirtualHub, PortId], tuple[float, dict[str, int]]] = {}  # when, and all drops so far
        self._waiting: dict[tuple[VirtualHub, PortId], tuple[str, str]] = {}
        self._timer: Timer | None = None

    def look(self, hub: "VirtualHub") -> None:
        """Its guards have caught something."""
        caught, hub.switch.guards.caught = hub.switch.guards.caught, {}
        for port, last in caught.items():
            self._waiting[hub, port] = last
        if self._timer is None or any((hub, port) not in self._told for port in caught):
            self._report()

    def _report(self) -> None:
        """Tell what may be told now, and come again for the rest."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, now = None, self._loop.now
        for key, (at, _drops) in list(self._told.items()):
            if now - at >= self._period_s and key[1] not in key[0].ports:
                del self._told[key]
        for (hub, port), last in list(self._waiting.items()):
            at = self._told[hub, port][0] if (hub, port) in self._told else -self._period_s
            if port not in hub.ports or (now - at >= self._period_s and self._tell_one(hub, port, *last)):
                del self._waiting[hub, port]
        if self._waiting:
            due = min(self._told[key][0] + self._period_s if key in self._told else now for key in self._waiting)
            self._timer = self._loop.at(max(due, now + 1.0), self._report)

    def _tell_one(self, hub: "VirtualHub", port: PortId, reason: str, detail: str) -> bool:
        _at, before = self._told.get((hub, port), (0.0, dict[str, int]()))
        drops = {one: count for one, count in hub.switch.drops[port].items() if one in GUARDS}
        dropped = {one: count - before.get(one, 0) for one, count in drops.items() if count > before.get(one, 0)}
        user = hub.switch.rules_of(port).user
        if reason == FORGED:
            detail = str(ip_address(bytes.fromhex(detail)))
        if dropped and not self._tell(Caught(hub.name, hub.ports[port].name, user, dropped, detail, time.time())):
            return False
        self._told[hub, port] = self._loop.now, drops
        return True
