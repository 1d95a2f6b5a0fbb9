"""Cards in, findings out: the loop of a live detector, and what it says of its own losses."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ukihashi.capture import ring
from ukihashi.capture.health import TELL_S, Coverage, Meter
from ukihashi.capture.live import LiveCapture, Statistics
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError

if TYPE_CHECKING:
    from ukihashi.alert.service import Alert

WAIT_S: Final = 0.25
MEASURE_S: Final = 1.0
LAST_S: Final = 3 * ring.RETIRE_MS / 1000  # what waits in the kernel at the end comes within so long, or there is none


Measured = Callable[[Coverage, Coverage], None]
"""Told each second what was seen and lost since the begin, and in that second."""


def listen(
    alert: "Alert", capture: LiveCapture, stop: Callable[[], bool], measured: Measured | None = None
) -> Statistics:
    """Until `stop()`; then the kernel's counters.

    Args:
        measured: is told of the losses instead of `alert` and the user.
    Raises:
        EnvironmentLacks: a card went away.
    """
    meter, losses = Meter(time.time()), None if measured else Losses(alert.tell)
    measured = measured or alert.measured

    def measure(statistics: Statistics) -> None:
        period = meter.period(time.time(), statistics, tcp_bytes=alert.tcp_bytes, missing=alert.missing)
        measured(meter.total(), period)
        if losses is not None:
            losses.note(period, time.monotonic())

    due = time.monotonic() + MEASURE_S
    while not stop():
        _read(alert, capture, WAIT_S)
        if time.monotonic() >= due:
            due = time.monotonic() + MEASURE_S
            measure(capture.statistics())
            capture.check()
    statistics = _drain(alert, capture)
    measure(statistics)
    if losses is not None:
        losses.end()
    return statistics


def _read(alert: "Alert", capture: LiveCapture, timeout_s: float) -> int:
    batch = capture.read(timeout_s)
    if batch.packets:
        alert.take(batch)
    alert.idle(batch.packets[-1][0] if batch.packets else time.time())  # the kernel stamps packets with this clock
    return len(batch.packets)


def _drain(alert: "Alert", capture: LiveCapture) -> Statistics:
    """Read what the kernel had counted when the end came, so that nothing sent is neither seen nor told as lost."""
    statistics = capture.statistics()
    left = statistics.packets - alert.packets
    while left > 0 and (count := _read(alert, capture, LAST_S)):
        left -= count
    return statistics


class Losses:
    """Says that packets were lost: at once, and then at most every `TELL_S`."""

    def __init__(self, tell: Callable[[UkihashiError], None]) -> None:
        self._tell = tell
        self._dropped = self._card_lost = 0
        self._since = self._now = 0.0  # seconds of a clock that never goes back; when the first untold loss was noted
        self._quiet_until = 0.0

    def note(self, period: Coverage, now: float) -> None:
        """One more period. `now`: seconds of a clock that never goes back."""
        self._now = now
        if period.lost and not self._dropped + self._card_lost:
            self._since = now - (period.end - period.begin)
        self._dropped += period.dropped
        self._card_lost += period.card_lost
        if now >= self._quiet_until:
            self.end()

    def end(self) -> None:
        """Say what was not said yet."""
        seconds = max(1, round(self._now - self._since))
        if self._dropped:
            self._tell(
                EnvironmentLacks(
                    N_("{dropped} packets were lost for lack of time in the last {seconds:g} s"),
                    dropped=self._dropped,
                    seconds=seconds,
                )
            )
        if self._card_lost:
            self._tell(
                EnvironmentLacks(
                    N_("{lost} packets were lost by the card in the last {seconds:g} s; see ukihashi alert doctor"),
                    lost=self._card_lost,
                    seconds=seconds,
                )
            )
        if self._dropped or self._card_lost:
            self._quiet_until = self._now + TELL_S
            self._dropped = self._card_lost = 0
