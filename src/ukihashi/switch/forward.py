"""Which port a frame leaves by: the virtual hub as a learning switch (protocol sections 18.1 to 18.3).

Works on batches: what one read brought in on one port. Frames that follow each other mostly have the same header, so a
decision is kept for the batch and reused while nothing that it rests on has changed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ukihashi.ether import arp
from ukihashi.ether.frame import BROADCAST, NO_MAC, vlan_id
from ukihashi.switch.mac_table import AGEING_S, TABLE_LIMIT, MacTable, Row, Station
from ukihashi.units import PortId
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME

# Reasons of drops, as they appear in counters and listings.
SIZE: Final = "size"  # shorter than an Ethernet header or longer than the protocol allows
SOURCE: Final = "source"  # sender all zeros, all ones, equal to the receiver, or the hub's own address
ARP_SHORT: Final = "arp_short"
OWN_PORT: Final = "own_port"  # the receiver is on the port the frame came from
TABLE_FULL: Final = "table_full"
PORT_FULL: Final = "port_full"  # the port has all the stations it may have

_VLAN_TYPE: Final = b"\x81\x00"
_ARP_TYPE: Final = b"\x08\x06"


class Switch:
    """The ports of one virtual hub and what they learned. Knows nothing of sessions, queues or sockets."""

    def __init__(self, *, ageing: float = AGEING_S, limit: int = TABLE_LIMIT, own_mac: bytes | None = None) -> None:
        """`own_mac`: a sender address that only the hub itself may use."""
        self._table = MacTable(ageing=ageing, limit=limit)
        self._own_mac = own_mac
        self._limits: dict[PortId, int] = {}  # port -> stations it may have, 0 = any number
        self.drops: dict[PortId, Counter[str]] = {}  # by port of entry, then by reason

    @property
    def ports(self) -> tuple[PortId, ...]:
        """All ports in the order they were added."""
        return tuple(self._limits)

    def set_ageing(self, seconds: float) -> None:
        """Another ageing time, from now on and for what was learned before."""
        self._table.set_ageing(seconds)

    def add_port(self, port: PortId, *, max_stations: int = 0) -> None:
        """A session or host port comes up. `max_stations`: source addresses it may use, 0 = any number.

        Raises: ValueError if the port exists.
        """
        if port in self._limits:
            raise ValueError(f"port {port} exists")
        self._limits[port] = max_stations
        self.drops[port] = Counter()

    def remove_port(self, port: PortId) -> None:
        """It goes down: its stations and counters are forgotten. An unknown port is no error."""
        if self._limits.pop(port, None) is not None:
            self._table.forget_port(port)
            del self.drops[port]

    def forward(self, frames: Sequence[bytes], port: PortId, now: float) -> dict[PortId, list[bytes]]:
        """Learn from `frames`, which came in on `port`, and say where each goes.

        Returns: for each port that gets something its frames, in order.
        Raises: KeyError if `port` does not exist.
        Cost: a dictionary look-up a frame while headers repeat; O(ports) for a flooded one.
        """
        drops = self.drops[port]
        out: dict[PortId, list[bytes]] = {}
        known: dict[bytes, Callable[[bytes], None]] = {}  # header -> what hands its frames on
        last: bytes | None = None  # header of the frame before, if `put` is right for it
        put: Callable[[bytes], None] = _nowhere
        for frame in frames:
            head = frame[:14]
            if head != last or len(frame) > MAX_FRAME:
                decided = known.get(head)
                if decided is None or len(frame) > MAX_FRAME:
                    reason, target, moved = self._decide(frame, port, now)
                    if moved:
                        known.clear()
                    last = None
                    if reason:
                        drops[reason] += 1
                        continue
                    put = self._way(out, port, target)
                    if head[12:] in _UNCACHED:
                        put(frame)
                        continue
                    known[head] = put
                else:
                    put = decided
                last = head
            put(frame)
        return out

    def stations(self, port: PortId) -> list[Station]:
        """What was learned on `port`, to be put back in another process."""
        return self._table.stations(port)

    def put_back(self, port: PortId, stations: Iterable[Station]) -> None:
        """See `MacTable.put_back`."""
        self._table.put_back(port, stations)

    def rows(self, now: float) -> list[Row]:
        """The MAC table, the station silent longest first."""
        return self._table.rows(now)

    def _decide(self, frame: bytes, port: PortId, now: float) -> tuple[str, PortId | None, bool]:
        """Reason of a drop or "", port to leave by (None = all others), and whether the table was changed."""
        if not MIN_FRAME <= len(frame) <= MAX_FRAME:
            return SIZE, None, False
        destination, source = frame[:6], frame[6:12]
        if source in (NO_MAC, BROADCAST, destination, self._own_mac):
            return SOURCE, None, False
        suffix = b""
        if frame[12:14] in _UNCACHED:
            if arp.is_cut_short(frame):
                return ARP_SHORT, None, False
            vlan = vlan_id(frame)
            suffix = vlan.to_bytes(2, "big") if vlan else b""
        moved = False
        if not source[0] & 1:  # a group address is no station (802.1Q, 8.7), though such frames pass
            station = source + suffix
            moved = self._table.find(station, now) != port
            limit = self._limits[port]
            if moved and limit and self._stations(port, now) >= limit:
                return PORT_FULL, None, False
            if not self._table.learn(station, port, now):
                return TABLE_FULL, None, False
        if destination[0] & 1:
            return "", None, moved
        target = self._table.find(destination + suffix, now)
        return (OWN_PORT if target == port else ""), target, moved

    def _stations(self, port: PortId, now: float) -> int:
        self._table.expire(now)
        return self._table.count(port)

    def _way(self, out: dict[PortId, list[bytes]], port: PortId, target: PortId | None) -> Callable[[bytes], None]:
        """What puts a frame into the lists of all ports that it goes to."""
        if target is not None:
            return out.setdefault(target, []).append
        lists = [out.setdefault(other, []) for other in self._limits if other != port]
        if not lists:
            return _nowhere

        def flood(frame: bytes) -> None:
            for frames in lists:
                frames.append(frame)

        return flood


def _nowhere(frame: bytes) -> None:
    """A frame for everybody, and nobody else is there."""


_UNCACHED: Final = frozenset((_VLAN_TYPE, _ARP_TYPE))  # what decides lies behind the 14 bytes of the header
