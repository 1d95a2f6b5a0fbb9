"""The card's clock: seconds that never go back, and go on while the machine sleeps.

So a laptop that wakes up finds its link silent for as long as it slept, and does not believe in it for 15 s more.
"""

import contextlib
import ctypes
import errno
import math
import os
import time
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME


def clock() -> float:
    """Now (time_namespaces(7), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _TimerSpec(ctypes.Structure):
    """struct itimerspec of 64-bit Linux: period, then the moment."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Alarm:
    """A descriptor that is readable from a moment of `clock` on (timerfd_create(2)).

    A poll's own timeout stands still while the machine sleeps; this wakes as soon as the machine does.
    """

    def __init__(self) -> None:
        """Raises: OSError."""
        self.fd: Final = _checked(_libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC))
        self.at = math.inf  # when it will ring; infinite once it has rung

    def set(self, at: float) -> None:
        """Ring at `at` instead."""
        seconds = max(at, 1e-9)  # zero would mean never
        spec = _TimerSpec(0, 0, int(seconds), int(seconds % 1 * 1e9))
        _checked(_libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(spec), None))
        self.at = at

    def rang(self) -> None:
        """Take note, so that the descriptor is quiet again."""
        self.at = math.inf
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number))
    return result
