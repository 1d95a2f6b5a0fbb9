"""Which port each station was last heard on (IEEE 802.1Q, clause 8.8; protocol section 18.2)."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from ukihashi.units import PortId

AGEING_S: Final = 600.0
TABLE_LIMIT: Final = 65536  # stations


class Row(NamedTuple):
    """One station, for a listing."""

    mac: bytes
    vlan: int  # 0 = untagged
    port: PortId
    created: float  # `now` of its first frame on this port
    seen: float  # `now` of its last frame


class Station(NamedTuple):
    """One station of a port."""

    key: bytes
    created: float
    seen: float


class MacTable:
    """Stations by key, and the port of each.

    A key is the MAC's 6 bytes, in a VLAN followed by the VLAN id's 2 bytes: the same MAC in two VLANs is two stations.
    Invariant: `_seen` is in the order of last frames, oldest first, so ageing looks only at stations that have aged.
    """

    def __init__(self, *, ageing: float = AGEING_S, limit: int = TABLE_LIMIT) -> None:
        self._ageing = ageing  # seconds
        self._limit = limit  # stations; a flood of forged sources stops here
        self._seen: dict[bytes, tuple[PortId, float, float]] = {}  # key -> port, created, seen
        self._of_port: dict[PortId, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def set_ageing(self, seconds: float) -> None:
        """Another ageing time, from now on and for what was learned before."""
        self._ageing = seconds

    def learn(self, key: bytes, port: PortId, now: float) -> bool:
        """Note a frame from station `key` on `port`. A move takes over at once. False: the table is full.

        Cost: O(1) over time.
        """
        known = self._seen.pop(key, None)  # taken out and put back: keeps the order of age
        if known is not None and known[0] == port and now - known[2] < self._ageing:
            self._seen[key] = (port, known[1], now)
            return True
        if known is not None:
            self._of_port[known[0]].discard(key)
        else:
            self.expire(now)
            if len(self._seen) >= self._limit:
                return False
        self._seen[key] = (port, now, now)
        self._of_port.setdefault(port, set()).add(key)
        return True

    def find(self, key: bytes, now: float) -> PortId | None:
        """The port of station `key`, unless it was silent for the ageing time."""
        known = self._seen.get(key)
        if known is None or now - known[2] >= self._ageing:
            return None
        return known[0]

    def count(self, port: PortId) -> int:
        """Stations on `port`, aged ones that were not yet removed included."""
        return len(self._of_port.get(port, ()))

    def expire(self, now: float) -> None:
        """Remove the stations that were silent for the ageing time."""
        aged = []
        for key, (_port, _created, seen) in self._seen.items():
            if now - seen < self._ageing:
                break
            aged.append(key)
        for key in aged:
            self._of_port[self._seen.pop(key)[0]].discard(key)

    def forget_port(self, port: PortId) -> None:
        """Remove all stations of `port`."""
        for key in self._of_port.pop(port, ()):
            del self._seen[key]

    def stations(self, port: PortId) -> list[Station]:
        """What was learned on `port`."""
        return [Station(key, *self._seen[key][1:]) for key in self._of_port.get(port, ())]

    def put_back(self, port: PortId, stations: Iterable[Station]) -> None:
        """Stations learned earlier are behind `port` again, with the age they have; one that moved since stays away."""
        for key, created, seen in stations:
            if key not in self._seen and len(self._seen) < self._limit:
                self._seen[key] = (port, created, seen)
                self._of_port.setdefault(port, set()).add(key)
        self._seen = dict(sorted(self._seen.items(), key=lambda item: item[1][2]))

    def rows(self, now: float) -> list[Row]:
        """All stations that have not aged, the one silent longest first."""
        return [
            Row(key[:6], int.from_bytes(key[6:], "big"), port, created, seen)
            for key, (port, created, seen) in self._seen.items()
            if now - seen < self._ageing
        ]
