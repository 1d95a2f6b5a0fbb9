"""Whether the terminal that this process was started in is still there.

SIGHUP says two things: "read your configuration again", and, from the kernel, "your terminal is gone".
"""

import os


class Terminal:
    """Made at the start, asked at each SIGHUP."""

    def __init__(self) -> None:
        self._had_one = _can_open()

    def is_gone(self) -> bool:
        """There was one, and it has hung up. Never true for a daemon."""
        return self._had_one and not _can_open()


def _can_open() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:  # ENXIO: no controlling terminal
        return False
    return True
