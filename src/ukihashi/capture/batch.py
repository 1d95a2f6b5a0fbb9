"""What every source of packets hands on: one buffer and where the packets lie in it."""

from typing import Final, NamedTuple

from ukihashi.detect.packets import Packets

# Link types (the numbers of the LINKTYPE_ registry; a raw socket's cards give ETHERNET).
NULL: Final = 0
ETHERNET: Final = 1
RAW_IP: Final = 101

Packet = tuple[float, int, int, int]
"""(time in seconds since 1970 UTC, offset in the buffer, bytes captured, bytes on the wire).

A plain tuple, not a class: one is made for each packet, and a NamedTuple costs four times as much.
"""


class Batch(NamedTuple):
    """Packets of one read. `buffer` may be used again by the source once the next batch is asked for."""

    link_type: int
    buffer: bytes | bytearray | memoryview
    packets: list[Packet] | Packets
