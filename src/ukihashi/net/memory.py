"""What the C library does with memory that was freed (mallopt(3)).

A process that carries frames frees in each turn what it takes again in the next, in pieces of 64 KiB and more. Left to
itself glibc gives such pieces back to the kernel and gets them as new pages, tens of thousands of them in a second.
That costs about as much as to copy the frames.
"""

import ctypes
from typing import Final

KEPT: Final = 8 << 20  # bytes at the end of the heap that may be free
_LARGE: Final = 1 << 20  # bytes of a piece that gets a mapping of its own

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3


def keep_freed() -> None:
    """From now on this process keeps up to `KEPT` bytes; nothing happens with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
