"""Waiting for something to become true, with a deadline. The one place of the laboratory that sleeps."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

Found = TypeVar("Found")

STEP_S: Final = 0.02  # seconds between two looks


class TimeOver(Exception):
    """What was waited for did not happen in time."""


def until(look: Callable[[], Found | None], *, seconds: float, what: str, step_s: float = STEP_S) -> Found:
    """Call `look` until it gives something true, and return that.

    Args:
        look: asked at once, then every `step_s` seconds.
        seconds: the deadline; `look` is asked a last time when it has passed.
        what: the end of the sentence "... s passed without ".
    Raises:
        TimeOver: the deadline passed.
    """
    end = time.monotonic() + seconds
    while True:
        late = time.monotonic() >= end
        if found := look():
            return found
        if late:
            raise TimeOver(f"{seconds:g} s passed without {what}")
        time.sleep(step_s)


def pause(seconds: float) -> None:
    """Let so much time pass, where the passing itself is what a test is about."""
    time.sleep(max(0.0, seconds))
