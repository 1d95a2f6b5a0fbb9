"""Which port each station was last heard on (IEEE 802.1Q, clause 8.8; protocol section 18.2)."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ukihashi.switch.shares import Shares
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
    key: int  # names the entry as long as it lives


class Station(NamedTuple):
    """One station of a port."""

    key: bytes
    created: float
    seen: float


class MacTable:
    """Stations by key, and the port of each.

    A key is the MAC's 6 bytes, in a VLAN followed by the VLAN id's 2 bytes: the same MAC in two VLANs is two stations.
    Invariant: `_seen` is in the order of last frames, oldest first, so ageing looks only at stations that have aged;
    what another table has heard (`hear`) may stand a few seconds too far back in it.
    """

    def __init__(self, *, ageing: float = AGEING_S, limit: int = TABLE_LIMIT) -> None:
        self._ageing = ageing  # seconds
        self._limit = limit  # stations; a flood of forged sources stops here
        self._seen: dict[bytes, tuple[PortId, float, float, int]] = {}  # key -> port, created, seen, number
        self._shares = Shares()
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._seen)

    def set_ageing(self, seconds: float) -> None:
        """Another ageing time, from now on and for what was learned before."""
        self._ageing = seconds

    def learn(self, key: bytes, port: PortId, now: float) -> bool:
        """Note a frame from station `key` on `port`. A move takes over at once. False: the table is full.

        Full means of others' stations, too: a port that has less than its share of the table gets room in it.
        Cost: O(1) over time.
        """
        known = self._seen.pop(key, None)  # taken out and put back: keeps the order of age
        if known is not None and known[0] == port and now - known[2] < self._ageing:
            self._seen[key] = (port, known[1], now, known[3])
            return True
        if known is not None:
            self._shares.discard(known[0], key)
        else:
            self.expire(now)
            if len(self._seen) >= self._limit:
                victim = self._shares.victim(port, self._limit)
                if victim is None:
                    return False
                self._remove(victim)
        self._put(key, port, now, now)
        return True

    def find(self, key: bytes, now: float) -> PortId | None:
        """The port of station `key`, unless it was silent for the ageing time."""
        known = self._seen.get(key)
        if known is None or now - known[2] >= self._ageing:
            return None
        return known[0]

    def silent_s(self, key: bytes, now: float) -> float:
        """Since when station `key` was not heard."""
        known = self._seen.get(key)
        return now - known[2] if known is not None else self._ageing

    def count(self, port: PortId) -> int:
        """Stations on `port`, aged ones that were not yet removed included."""
        return self._shares.count(port)

    def expire(self, now: float) -> None:
        """Remove the stations that were silent for the ageing time."""
        aged = []
        for key, (_port, _created, seen, _number) in self._seen.items():
            if now - seen < self._ageing:
                break
            aged.append(key)
        for key in aged:
            self._remove(key)

    def forget(self, number: int) -> bool:
        """Remove the station whose row has that `key`; False if there is none."""
        for key, known in self._seen.items():
            if known[3] == number:
                self._remove(key)
                return True
        return False

    def forget_port(self, port: PortId) -> None:
        """Remove all stations of `port`."""
        for key in self._shares.drop(port):
            del self._seen[key]

    def stations(self, port: PortId) -> list[Station]:
        """What was learned on `port`."""
        return [Station(key, *self._seen[key][1:3]) for key in self._shares.of(port)]

    def hear(self, port: PortId, stations: Iterable[Station]) -> bool:
        """Another table has heard these, on what is `port` to us; heard later here, they stay. True: some are new."""
        moved = False
        for key, created, seen in stations:
            known = self._seen.get(key)
            if known is not None and known[0] == port:
                del self._seen[key]
                self._seen[key] = (port, created, max(seen, known[2]), known[3])
            elif known is None or known[2] < seen:
                if known is not None:
                    self._remove(key)
                elif len(self._seen) >= self._limit:
                    continue
                self._put(key, port, created, seen)
                moved = True
        return moved

    def lose(self, port: PortId, keys: Iterable[bytes]) -> None:
        """Forget those of these stations that are on `port`."""
        for key in keys:
            known = self._seen.get(key)
            if known is not None and known[0] == port:
                self._remove(key)

    def recent(self, since: float) -> Iterator[tuple[PortId, Station]]:
        """Stations heard after `since`, and on which port."""
        for key, (port, created, seen, _number) in reversed(self._seen.items()):
            if seen <= since:
                return
            yield port, Station(key, created, seen)

    def put_back(self, port: PortId, stations: Iterable[Station]) -> None:
        """Stations learned earlier are behind `port` again, with the age they have; one that moved since stays away."""
        for key, created, seen in stations:
            if key not in self._seen and len(self._seen) < self._limit:
                self._put(key, port, created, seen)
        self._seen = dict(sorted(self._seen.items(), key=lambda item: item[1][2]))

    def rows(self, now: float) -> list[Row]:
        """All stations that have not aged, the one silent longest first."""
        return [
            Row(key[:6], int.from_bytes(key[6:], "big"), port, created, seen, number)
            for key, (port, created, seen, number) in self._seen.items()
            if now - seen < self._ageing
        ]

    def _put(self, key: bytes, port: PortId, created: float, seen: float) -> None:
        self._last_number = self._last_number % 0xFFFFFFFF + 1  # fits into the field that tools of others have for it
        self._seen[key] = (port, created, seen, self._last_number)
        self._shares.add(port, key)

    def _remove(self, key: bytes) -> None:
        self._shares.discard(self._seen.pop(key)[0], key)
