"""Broadcast storm control: a sender that is flooded too often is thinned out (protocol section 18.4)."""

from collections.abc import Callable
from typing import Final

SPAN_S: Final = 0.5  # a rate is looked at this often, at a frame's arrival
FREE: Final = 3  # below this discard value everything passes
SILENT: Final = 128  # from this one on nothing does
WORST: Final = 1024
FLOWS_MOST: Final = 1024  # of a port; what comes beyond shares one
CALM_S: Final = 10.0  # a flow silent that long is forgotten when room is wanted

Chance = Callable[[], float]  # 0 <= x < 1


class Flow:
    """Frames from one sender to one destination."""

    __slots__ = ("_chance", "_count", "_discard", "_threshold", "since")

    def __init__(self, now: float, threshold: int, chance: Chance) -> None:
        self._threshold = threshold  # frames a second
        self._chance = chance
        self._count = 0  # since `since`
        self._discard = 0
        self.since = now

    def passes(self, now: float) -> bool:
        """Count a frame; may it go on?"""
        self._count += 1
        elapsed = now - self.since
        if elapsed >= SPAN_S:
            rate, self._count, self.since = self._count / SPAN_S, 0, now
            if rate >= self._threshold:
                self._discard = min(max(self._discard, 1) * 2, WORST)
                return False
            self._discard //= max(2, int(elapsed / SPAN_S))
        discard = self._discard
        return discard < FREE or (discard < SILENT and self._chance() < 1 / discard)


class StormControl:
    """The flows of one port."""

    def __init__(self, threshold: int, chance: Chance) -> None:
        self.threshold = threshold
        self._chance = chance
        self._flows: dict[tuple[bytes, bytes], Flow] = {}
        self._others: Flow | None = None  # all that found no room
        self._cleaned = 0.0

    def __len__(self) -> int:
        return len(self._flows)

    def flow(self, station: bytes, addresses: bytes, now: float) -> Flow:
        """The flow of a sender. `addresses`: of IP, source and destination; b"" for anything else."""
        key = station, addresses
        found = self._flows.get(key)
        if found is not None:
            return found
        if len(self._flows) >= FLOWS_MOST and now - self._cleaned >= SPAN_S:
            self._cleaned = now
            self._flows = {key: flow for key, flow in self._flows.items() if now - flow.since < CALM_S}
        if len(self._flows) < FLOWS_MOST:
            made = self._flows[key] = Flow(now, self.threshold, self._chance)
            return made
        if self._others is None:
            self._others = Flow(now, self.threshold, self._chance)
        return self._others
