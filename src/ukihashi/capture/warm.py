"""Compile what reads packets ahead of time, so that the first start is quick: `python -m ukihashi.capture.warm`."""

import struct
import sys

from ukihashi.capture import walk
from ukihashi.detect import compiled
from ukihashi.detect.flow import Flow, FlowTable, Half
from ukihashi.detect.layers import RAW
from ukihashi.detect.packets import Packets

_LIMIT = 8  # flows of the table that is tried out


class _Nobody:
    """A watcher that wants nothing."""

    def turned(self, flow: Flow, time: float) -> None:
        pass

    def joined(self, flow: Flow, time: float) -> None:
        pass

    def spoke(self, half: Half, time: float) -> None:
        pass

    def closed(self, flow: Flow, time: float) -> None:
        pass

    def tick(self, now: float) -> None:
        pass


def _packet(port: int, flags: int, size: int, *, back: bool = False) -> bytes:
    ends, ports = (b"\x0a\0\0\x02\x0a\0\0\x01", (443, port)) if back else (b"\x0a\0\0\x01\x0a\0\0\x02", (port, 443))
    tcp = struct.pack("!HHIIBBHHH", *ports, 1000, 1000, 0x50, flags, 0, 0, 0) + bytes(size)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends + tcp


def warm() -> None:
    """Call each compiled function once."""
    functions = compiled.functions(walk)
    buffer, found = compiled.array(bytearray(64)), [*map(compiled.array, Packets(1).columns)]
    functions["walk_pcap"](buffer, 0, 0, True, 1e-6, *found)
    interfaces = [compiled.array(bytearray()).astype(kind) for kind in ("i8", "i8", "f8", "f8")]
    functions["walk_pcapng"](buffer, 0, 0, True, 0.0, *interfaces, 0, *found)

    table = FlowTable(_Nobody(), limit=_LIMIT, engine=compiled.engine())
    frames = [_packet(1, 0x02, 0), _packet(1, 0x10, 8), _packet(1, 0x10, 8, back=True), _packet(1, 0x10, 8)]
    frames += [_packet(port, 0x02, 0) for port in (1, *range(2, _LIMIT + 4))]
    for place, frame in enumerate(frames):
        table.take(RAW, bytearray(frame), [(float(place), 0, len(frame), len(frame))])
    table.advance(1e9)


if __name__ == "__main__":
    if compiled.is_possible():
        warm()
    else:
        sys.exit("numba is not installed")
