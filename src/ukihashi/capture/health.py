"""How much of the traffic was really seen: what silence is worth (requirements B30 and B31)."""

from dataclasses import dataclass, fields
from typing import Final

from ukihashi.capture.live import Statistics

TELL_S: Final = 10.0  # losses are told at most this often


@dataclass(frozen=True, slots=True)
class Coverage:
    """One period, or all of the time, of a capture."""

    begin: float  # seconds since 1970 UTC
    end: float
    packets: int = 0  # handed to us
    dropped: int = 0  # by the kernel, for lack of room: this program was too slow
    freezes: int = 0  # times the kernel's ring was full
    card_lost: int = 0  # by the cards, before the kernel saw them
    tcp_bytes: int = 0  # of connections that are followed: bytes that were sent, by their sequence numbers
    missing: int = 0  # of those, never seen: lost here, or before (a mirror port that was too slow)

    @property
    def lost(self) -> int:
        """Packets lost by card or kernel."""
        return self.dropped + self.card_lost

    @property
    def share(self) -> float:
        """0..1: share of the traffic that was seen, by packets or by TCP bytes, whichever is worse. 1 if none came."""
        by_packets = self.packets / (self.packets + self.lost) if self.lost else 1.0
        by_bytes = 1.0 - self.missing / self.tcp_bytes if self.missing and self.tcp_bytes else 1.0
        return max(0.0, min(by_packets, by_bytes))


class Meter:
    """Makes periods out of counters that only grow."""

    def __init__(self, now: float) -> None:
        self._begin = now
        self._total = Coverage(now, now)

    def total(self) -> Coverage:
        """Since the begin, as of the last `period`."""
        return self._total

    def period(self, now: float, statistics: Statistics, *, tcp_bytes: int = 0, missing: int = 0) -> Coverage:
        """What came since the last call. The arguments are counts since the begin."""
        before, (packets, dropped, freezes, card_lost) = self._total, statistics
        self._total = Coverage(self._begin, now, packets, dropped, freezes, card_lost, tcp_bytes, missing)
        return between(before, self._total)


def between(earlier: Coverage, later: Coverage) -> Coverage:
    """What came between two moments of one capture, from what had come until then."""
    names = [field.name for field in fields(Coverage)[2:]]
    return Coverage(earlier.end, later.end, *(max(0, getattr(later, name) - getattr(earlier, name)) for name in names))
