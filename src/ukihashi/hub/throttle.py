"""Soft brake on guessing passwords: after many failures of one peer for one user, each further answer is late.

Soft, because a hard lock would let anyone lock a user out. `now` is monotonic seconds.
"""

from collections import deque
from typing import Final

FAILURES: Final = 10  # in ...
WINDOW_S: Final = 60.0  # ... this time
DELAY_S: Final = 1.0  # then each answer waits this long
MAX_PAIRS: Final = 4096  # (peer, user) pairs remembered; the one that failed longest ago is forgotten first


class Throttle:
    """Failures by (peer address, user). Bounded memory."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], deque[float]] = {}  # longest ago first

    def delay(self, peer: str, user: str, now: float) -> float:
        """Seconds to wait before this peer's next attempt as this user is looked at."""
        times = self._failed.get((peer, user))
        return DELAY_S if times is not None and len(times) == FAILURES and now - times[0] < WINDOW_S else 0.0

    def failed(self, peer: str, user: str, now: float) -> None:
        """Note a refused attempt."""
        times = self._failed.pop((peer, user), None) or deque(maxlen=FAILURES)
        times.append(now)
        while len(self._failed) >= MAX_PAIRS:
            del self._failed[next(iter(self._failed))]
        self._failed[(peer, user)] = times

    def succeeded(self, peer: str, user: str) -> None:
        """Forget what went wrong before."""
        self._failed.pop((peer, user), None)
