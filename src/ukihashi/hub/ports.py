"""Virtual hubs and what is plugged into their switches: bounded queues, written once per turn of the loop.

`Member` (a session's port) and `TapPort` (of the hub machine) are ports. A port never makes the switch wait: what
doesn't fit into its queue is dropped, newest first lost, and counted by reason (protocol section 12.2, D8).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol

from ukihashi.errors import EnvironmentLacks
from ukihashi.ether.offload import ALL, NONE, Kind
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import READ, Loop
from ukihashi.hub.messages import HubPut
from ukihashi.switch import loop_guard
from ukihashi.switch.forward import Switch
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import PortRules
from ukihashi.tap.device import Tap
from ukihashi.units import PortId
from ukihashi.wire.blocks import compress, encode_frames

if TYPE_CHECKING:
    from ukihashi.hub.guarding import HubGuard

SHARED_FRAMES: Final = 64  # longest run that is looked up for an encoding made for another port in this turn
HOST: Final = "host"  # name of a hub's own port in listings
FREE: Final = PortRules()  # of a port that may do everything

# A reason of drops at the way out, beside those of the queue; the switch's are in `switch.reasons`.
REFUSED: Final = "interface_refused"


class Encodings:
    """Batches of one turn of the loop: a broadcast is encoded once, not once a port."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, ...], tuple[list[bytes], bytes]] = {}

    def batch(self, frames: list[bytes], *, compressed: bool = False) -> bytes:
        """`encode_frames(frames)`, made anew only if no port had the very same frames since `clear`."""
        if len(frames) > SHARED_FRAMES:
            return _encoded(frames, compressed)
        # the frames are kept beside the result, so no id can come to mean another
        key = (compressed, *map(id, frames))
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = (frames, _encoded(frames, compressed))
        return known[1]

    def clear(self) -> None:
        """The turn is over."""
        self._made.clear()


def _encoded(frames: list[bytes], compressed: bool) -> bytes:
    return encode_frames([compress(frame) for frame in frames] if compressed else frames)


class Port(Protocol):
    """What is plugged into a switch."""

    name: str  # in listings
    queue: PortQueue

    def flush(self, encodings: Encodings) -> bool:
        """Write what waits, as far as it goes without blocking; True if more could be written at once."""


class Outbox:
    """The ports that got frames in this turn. Its `flush` is the loop's end of turn."""

    def __init__(self) -> None:
        self._dirty: dict[Port, None] = {}
        self._then: list[Callable[[], None]] = []
        self._encodings = Encodings()

    def mark(self, port: Port) -> None:
        """`port` has something to write, or can write again."""
        self._dirty[port] = None

    def then(self, call: Callable[[], None]) -> None:
        """Call when this turn's frames have been written, as far as they go."""
        self._then.append(call)

    def flush(self) -> bool:
        """Write for each marked port; True if some want the next turn at once."""
        if not self._dirty:
            return False
        dirty, self._dirty = self._dirty, {}
        for port in dirty:
            if port.flush(self._encodings):
                self._dirty[port] = None
        self._encodings.clear()
        if self._then:
            calls, self._then = self._then, []
            for call in calls:
                call()
        return bool(self._dirty)


class VirtualHub:
    """One virtual hub: a switch, its ports, its settings."""

    def __init__(self, settings: HubPut, outbox: Outbox) -> None:
        self.outbox = outbox
        self.switch = Switch(chance=random.random)
        self.ports: dict[PortId, Port] = {}
        self.host: HostPort | None = None
        self.guard: HubGuard | None = None  # against loops
        self.sessions_so_far = 0
        self.entry = PortId(0)  # where the frames came in that are on their way
        self._last_port = 0
        self.on_caught: Callable[[VirtualHub], None] = _unheard  # the guards have dropped something
        self.settings = settings

    @property
    def settings(self) -> HubPut:
        """As control sent them."""
        return self._settings

    @settings.setter
    def settings(self, settings: HubPut) -> None:
        self._settings = settings
        self.switch.set_ageing(settings.ageing_s)
        self.switch.set_rules(settings.rules, settings.access, settings.guard)

    @property
    def name(self) -> str:
        """As it is spelled."""
        return self.settings.hub

    def plug(self, port: Port, rules: PortRules = FREE, *, max_stations: int = 0, kinds: Kind = NONE) -> PortId:
        """Give `port` a place in the switch. `max_stations`, `kinds`: see `Switch.add_port`."""
        self._last_port += 1
        number = PortId(self._last_port)
        self.ports[number] = port
        self.switch.add_port(number, rules, max_stations=max_stations, kinds=kinds)
        if rules.is_local_bridge and self.guard is not None:
            self.guard.guard(number, loop_guard.Kind.BRIDGE, number)
        return number

    def unplug(self, number: PortId) -> None:
        """Take the port out, with all that was learned behind it."""
        if self.guard is not None:
            self.guard.unguard(number)
        if self.ports.pop(number, None) is not None:
            self.switch.remove_port(number)

    def next_session(self) -> int:
        """The n of the next SID-USER-n."""
        self.sessions_so_far += 1
        return self.sessions_so_far

    def forward(self, frames: Sequence[bytes], source: PortId, now: float) -> PortQueue | None:
        """Send frames that came in at `source` on their way: into queues now, onto the wire at the turn's end.

        Gives a queue in which much waits now, if there is one.
        """
        ports, mark, line, crowded = self.ports, self.outbox.mark, self.line(source), None
        self.entry = source
        for number, run in self.switch.forward(frames, source, now).items():
            port = ports[number]
            port.queue.put(run, line)
            if port.queue.is_crowded:
                crowded = port.queue
            mark(port)
        if self.switch.guards.caught:
            self.on_caught(self)
        return crowded

    def line(self, source: PortId) -> int:
        """In which line of a queue (`FairQueue`) frames wait that came in at `source`; 0: in none of their own."""
        return source

    def mac_rows(self, now: float) -> Iterator[dict[str, Any]]:
        """The MAC table as plain rows; seconds are ages. `key` is for `forget_station`."""
        for row in self.switch.rows(now):
            yield {
                "key": row.key,
                "mac": row.mac.hex(":"),
                "vlan": row.vlan,
                "session": self._port_name(row.port),
                "created_s": round(now - row.created, 1),
                "age_s": round(now - row.seen, 1),
            }

    def ip_rows(self, now: float) -> Iterator[dict[str, Any]]:
        """The IP table as plain rows; seconds are ages. `key` is for `forget_address`."""
        for row in self.switch.address_rows(now):
            yield {
                "key": row.key,
                "ip": str(ip_address(row.address)),
                "session": self._port_name(row.port),
                "dhcp": row.leased,
                "created_s": round(now - row.created, 1),
                "age_s": round(now - row.seen, 1),
            }

    def forget_station(self, key: int) -> bool:
        """Remove a row of the MAC table; False if there is none with that key."""
        return self.switch.forget_station(key)

    def forget_stations(self, number: PortId) -> None:
        """Those on a port are behind it no more."""
        self.switch.lose(number, [station.key for station in self.switch.stations(number)])

    def forget_address(self, key: int) -> bool:
        """Remove a row of the IP table; False if there is none with that key."""
        return self.switch.forget_address(key)

    def _port_name(self, number: PortId) -> str:
        port = self.ports.get(number)
        return port.name if port else ""


def _unheard(_hub: VirtualHub) -> None:
    """Nobody wants to know."""


class TapPort:
    """A TAP that the supervisor made, plugged into a virtual hub. What it is for, subclasses say."""

    def __init__(self, hub: VirtualHub, tap: Tap, loop: Loop, limits: Limits, name: str, rules: PortRules) -> None:
        self._hub = hub
        self._tap = tap
        self._loop = loop
        self.name = name
        self.queue = PortQueue(limits.queue_bytes)
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        kinds = tap.set_offload(ALL if limits.super_frames else NONE) if tap.offload else NONE
        self.port = hub.plug(self, rules, kinds=kinds)
        loop.watch(tap.fileno(), READ, self._on_readable)

    @property
    def interface(self) -> str:
        """The TAP's name."""
        return self._tap.name

    @property
    def drops(self) -> Counter[str]:
        """Frames dropped at this port, by reason."""
        drops = Counter(self._hub.switch.drops.get(self.port, {}))
        drops.update(self.queue.dropped)
        drops[REFUSED] += self._tap.dropped
        return +drops

    def flush(self, encodings: Encodings) -> bool:  # noqa: ARG002 - a TAP takes frames, not batches
        """Hand everything to the kernel; it takes or refuses at once."""
        size = self.queue.bytes
        frames = self.queue.take()
        try:
            self.frames_out += self._tap.write_frames(frames)
        except EnvironmentLacks:  # somebody removed the interface
            self.close()
            return False
        self.bytes_out += size
        return False

    def row(self) -> dict[str, Any]:
        """For listings."""
        return {
            "hub": self._hub.name,
            "interface": self.interface,
            "frames_in": self.frames_in,
            "bytes_in": self.bytes_in,
            "frames_out": self.frames_out,
            "bytes_out": self.bytes_out,
            "drops": dict(self.drops),
        }

    def pause(self) -> None:
        """What comes from now on waits in the kernel."""
        self._loop.change(self._tap.fileno(), 0)

    def close(self) -> None:
        """Pull the plug. The interface itself belongs to the supervisor."""
        self.unplug().close()

    def unplug(self) -> Tap:
        """Pull the plug and keep what it was in."""
        self._loop.forget(self._tap.fileno())
        self._hub.unplug(self.port)
        return self._tap

    def _on_readable(self, _events: int) -> None:
        try:
            frames = self._tap.read_frames()
        except EnvironmentLacks:
            self.close()
            return
        self.frames_in += len(frames)
        self.bytes_in += sum(map(len, frames))
        self._hub.forward(frames, self.port, self._loop.now)


class HostPort(TapPort):
    """The hub machine's own place in a virtual hub."""

    def __init__(self, hub: VirtualHub, tap: Tap, loop: Loop, limits: Limits) -> None:
        super().__init__(hub, tap, loop, limits, HOST, PortRules(is_hub_port=True))

    def close(self) -> None:
        """See `TapPort.close`."""
        super().close()
        if self._hub.host is self:
            self._hub.host = None
