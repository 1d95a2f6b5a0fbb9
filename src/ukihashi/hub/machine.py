"""What the hub has on this machine, beside its doors: host ports, the way out through them, bridges. All of it is the
supervisor's, which alone has the rights; all of it is undone at the end, and left as it is for `hub upgrade`.
"""

import select
from collections.abc import Callable, Iterable
from typing import Final

from ukihashi.config.hub import HubConfig
from ukihashi.hub.bridges import Bridges, House, wanted_bridges
from ukihashi.hub.hostports import HostPorts
from ukihashi.hub.start import Supervisor
from ukihashi.hub.upgrade import Inherited
from ukihashi.hub.uplink import Uplinks


class Machine:
    """See the module."""

    def __init__(
        self,
        house: House,
        settings: Supervisor,
        poll: select.poll,
        endpoints: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        """`endpoints`: where the hub listens."""
        self._house = house
        self._settings = settings
        self.uplinks: Final = Uplinks(settings.runtime_dir, poll, endpoints, house.tell)
        self.host_ports: Final = HostPorts(self.uplinks.put_places)
        self.bridges: Final = Bridges(house, settings.runtime_dir, poll)

    def open(self) -> None:
        """Undo what a hub left behind that was killed, and begin."""
        self.uplinks.open(self._settings.uplinks)
        self.bridges.open(self._settings.bridges)

    def adopt(self, left: Inherited) -> None:
        """Go on as the program that was here before."""
        self.uplinks.adopt(left.uplink, self._settings.uplinks)
        self.host_ports.adopt(left.host_ports)
        self.bridges.adopt(left.bridges, self._settings.bridges)

    def heed(self, before: HubConfig, now: HubConfig) -> None:
        """hub.toml was read again."""
        if now.uplink != before.uplink:
            self.uplinks.want(now.uplinks())
        if wanted_bridges(now) != wanted_bridges(before):
            self.bridges.want(wanted_bridges(now))

    def give_ports(self) -> None:
        """To a new worker."""
        for host_port in self.host_ports.all():
            self._house.send("worker", *host_port)
        self.bridges.give()

    @property
    def patience_s(self) -> float | None:
        """When to `look` again, if nothing happens."""
        dues = (self.uplinks.patience_s, self.bridges.patience_s)
        return min((due for due in dues if due is not None), default=None)

    def look(self, ready: set[int]) -> None:
        """Has the network of this machine changed?"""
        self.uplinks.look(ready)
        self.bridges.look(ready)

    def close(self) -> None:
        """Undo everything."""
        self.uplinks.close()
        self.bridges.close()
        self.host_ports.close()

    def forget(self) -> None:
        """In a child: the descriptors are the parent's business."""
        self.host_ports.forget()
        self.uplinks.forget()
        self.bridges.forget()
