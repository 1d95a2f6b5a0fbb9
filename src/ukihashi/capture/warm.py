"""Compile what reads packets ahead of time, so that the first start is quick: `python -m ukihashi.capture.warm`."""

import sys

from ukihashi.capture import blocks, walk
from ukihashi.detect import compiled
from ukihashi.detect.packets import Packets


def warm() -> None:
    """Call each compiled function once."""
    buffer, found = compiled.array(bytearray(64)), [*map(compiled.array, Packets(1).columns)]
    functions = compiled.functions(walk)
    functions["walk_pcap"](buffer, 0, 0, True, 1e-6, *found)
    interfaces = [compiled.array(bytearray()).astype(kind) for kind in ("i8", "i8", "f8", "f8")]
    functions["walk_pcapng"](buffer, 0, 0, True, 0.0, *interfaces, 0, *found)
    compiled.functions(blocks)["walk_columns"](buffer, 0, *found)
    compiled.engine()


if __name__ == "__main__":
    if not compiled.is_possible():
        sys.exit("numba is not installed")
    warm()
