"""Bridges in the worker: each is a port of its virtual hub, a TAP that the supervisor has joined to an Ethernet of this
machine (`bridges`). As all that has a descriptor of the supervisor's, they are the first worker's.
"""

from typing import Any, Final

from ukihashi.errors import EnvironmentLacks
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.messages import BridgePut
from ukihashi.hub.ports import Encodings, TapPort, VirtualHub
from ukihashi.hub.sessions import Sessions
from ukihashi.switch.rules import PortRules
from ukihashi.tap.device import Tap, adopt_tap

OFFLINE: Final = "hub_offline"  # reason of drops: the virtual hub is offline, so nobody hears anybody


class BridgePort(TapPort):
    """An Ethernet's place in a virtual hub."""

    def __init__(self, hub: VirtualHub, put: BridgePut, tap: Tap, loop: Loop, limits: Limits) -> None:
        self.put = put
        rules = PortRules(user=f"bridge {put.interface}", bridge=True, is_local_bridge=True)
        super().__init__(hub, tap, loop, limits, f"bridge {put.interface}", rules)
        self.closed = False

    @property
    def hub(self) -> VirtualHub:
        """Into which it is plugged."""
        return self._hub

    def flush(self, encodings: Encodings) -> bool:
        """See `TapPort.flush`."""
        if not self._hub.settings.online:
            self.queue.clear(OFFLINE)
        return super().flush(encodings)

    def _on_readable(self, events: int) -> None:
        if self._hub.settings.online:
            super()._on_readable(events)
            return
        try:
            self._tap.read_frames()
        except EnvironmentLacks:
            self.close()

    def row(self) -> dict[str, Any]:
        """For listings."""
        return {**super().row(), "bridged": self.put.interface}

    def close(self) -> None:
        """Pull the plug. A second call does nothing."""
        if not self.closed:
            self.closed = True
            super().close()


class BridgePorts:
    """All of a worker."""

    def __init__(self, loop: Loop, sessions: Sessions) -> None:
        self._loop = loop
        self._sessions = sessions
        self._ports: dict[str, BridgePort] = {}  # by the Ethernet's interface
        self._waiting: dict[str, tuple[BridgePut, Tap]] = {}  # for their virtual hubs

    def plug(self, put: BridgePut, fd: int) -> None:
        """The supervisor has made it, or we are new; the descriptor is ours."""
        self.unplug(put.interface)
        self._waiting[put.interface] = put, adopt_tap(fd, put.tap)
        self.hub_came(put.hub)

    def hub_came(self, name: str) -> None:
        """A virtual hub exists, perhaps newly: plug in what waits for it."""
        hub = self._sessions.hubs.get(name.casefold())
        if hub is None:
            return
        for interface, (put, tap) in list(self._waiting.items()):
            if put.hub.casefold() == name.casefold():
                del self._waiting[interface]
                self._ports[interface] = BridgePort(hub, put, tap, self._loop, self._sessions.limits)

    def hub_goes(self, name: str) -> None:
        """A virtual hub is to be forgotten: what is plugged into it waits for another of that name."""
        for interface, port in list(self._ports.items()):
            if port.put.hub.casefold() == name.casefold() and not port.closed:
                del self._ports[interface]
                self._waiting[interface] = port.put, port.unplug()

    def unplug(self, interface: str) -> None:
        """It is not wanted any more."""
        port = self._ports.pop(interface, None)
        if port is not None:
            port.close()
        _put, tap = self._waiting.pop(interface, (None, None))
        if tap is not None:
            tap.close()

    def rows(self) -> list[dict[str, Any]]:
        """Every one, for listings."""
        return [port.row() for port in self._ports.values() if not port.closed]

    def pause(self) -> None:
        """What comes from now on waits in the kernel."""
        for port in self._ports.values():
            if not port.closed:
                port.pause()

    def close(self) -> None:
        """Let go of all."""
        for interface in [*self._ports, *self._waiting]:
            self.unplug(interface)
