"""How much a member may send or receive: bits in windows of a second, what is beyond is dropped (protocol 18.8)."""

from collections.abc import Sequence
from typing import Final

from ukihashi.ether.packet import is_urgent

WINDOW_S: Final = 1.0


class Limiter:
    """One direction of one port. Urgent frames count and always pass."""

    def __init__(self, bits_a_second: int) -> None:
        self._limit = int(bits_a_second * WINDOW_S)
        self._bits = 0  # passed in this window
        self._since: float | None = None  # when this window began

    def admit(self, frames: Sequence[bytes], now: float) -> Sequence[bytes]:
        """Those of `frames` that may pass."""
        if self._since is None or now - self._since >= WINDOW_S:
            self._since, self._bits = now, 0
        bits = 8 * sum(map(len, frames))
        if self._bits + bits <= self._limit:
            self._bits += bits
            return frames
        passed = []
        for frame in frames:
            bits = 8 * len(frame)
            if self._bits + bits <= self._limit or is_urgent(frame):
                self._bits += bits
                passed.append(frame)
        return passed
