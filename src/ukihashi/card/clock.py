"""The card's clock: seconds that never go back, and go on while the machine sleeps.

So a laptop that wakes up finds its link silent for as long as it slept, and does not believe in it for 15 s more.
"""

import time


def clock() -> float:
    """Now (time_namespaces(7), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
