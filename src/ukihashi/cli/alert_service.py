"""A detector under a service manager, which is told what it counts and that it turns."""

import time
from typing import Final

from ukihashi.alert.eve import Stats
from ukihashi.alert.service import Alert
from ukihashi.detect.record import Found
from ukihashi.locale import _
from ukihashi.ops.notify import Notifier

COUNTERS_S: Final = 10.0  # between two lines with counters


class Watched:
    """Asks for the counters each second, and so knows that it turns. A sink that takes no finding."""

    def __init__(self, alert: Alert, notifier: Notifier) -> None:
        self._alert = alert
        self._notifier = notifier
        self._due = 0.0

    def take(self, found: Found) -> None:
        """See `Sink`."""

    def count(self, stats: Stats) -> None:
        """See `Gauge`."""
        if self._alert.turns:
            self._notifier.alive()
        if (now := time.monotonic()) >= self._due:
            self._due = now + COUNTERS_S
            told = _("{packets} packets seen, {dropped} lost, {detections} detections")
            values = {"packets": stats.packets, "dropped": stats.drops, "detections": self._alert.detections}
            self._notifier.status(told.format(**values))

    def close(self) -> None:
        """See `Sink`."""
        self._notifier.stopping()
