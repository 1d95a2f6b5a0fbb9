"""Find the packets in a piece of a capture file. Compiled, as `detect.layers` is.

Nothing is believed of a length before it was held against the end of the piece.
"""

from typing import Any

from ukihashi.detect.layers import Buffer

MAX_CAPTURED = 1 << 18  # bytes of one packet; the limit of the tools that write these files
MAX_BLOCK = 1 << 22  # bytes of one pcapng block

INTERFACE_BLOCK, OLD_PACKET_BLOCK, SIMPLE_PACKET_BLOCK, ENHANCED_PACKET_BLOCK = 1, 2, 3, 6
SECTION_BLOCK = 0x0A0D0D0A  # the same in both byte orders

# Why a walk ended: the piece is used up (or there is no room for more packets), what comes can't be true, another link
# type begins, a block that a walker doesn't read.
USED_UP, DAMAGED, OTHER_LINK, OTHER_BLOCK = range(4)


def number(buffer: Buffer, at: int, big: bool) -> int:
    """32 bits in either byte order."""
    if big:
        return buffer[at] * 0x1000000 + buffer[at + 1] * 0x10000 + buffer[at + 2] * 0x100 + buffer[at + 3]
    return buffer[at + 3] * 0x1000000 + buffer[at + 2] * 0x10000 + buffer[at + 1] * 0x100 + buffer[at]


def half_number(buffer: Buffer, at: int, big: bool) -> int:
    """16 bits in either byte order."""
    return buffer[at] * 0x100 + buffer[at + 1] if big else buffer[at + 1] * 0x100 + buffer[at]


def walk_pcap(
    buffer: Buffer, at: int, end: int, big: bool, tick: float, times: Any, offsets: Any, captured: Any, lengths: Any
) -> tuple[int, int, int]:
    """The packets from `at` on: where the walk ended, how many there were, and why it ended.

    Args:
        tick: seconds of one unit of the times' second part.
        times, offsets, captured, lengths: are filled.
    """
    count, room = 0, len(times)
    while at + 16 <= end and count < room:
        size = number(buffer, at + 8, big)
        if size > MAX_CAPTURED:
            return at, count, DAMAGED
        if at + 16 + size > end:
            break
        times[count] = number(buffer, at, big) + number(buffer, at + 4, big) * tick
        offsets[count], captured[count], lengths[count] = at + 16, size, number(buffer, at + 12, big)
        count += 1
        at += 16 + size
    return at, count, USED_UP


def walk_pcapng(
    buffer: Buffer,
    at: int,
    end: int,
    big: bool,
    now: float,
    links: Any,
    snaps: Any,
    ticks: Any,
    shifts: Any,
    known: int,
    times: Any,
    offsets: Any,
    captured: Any,
    lengths: Any,
) -> tuple[int, int, int, int]:
    """As `walk_pcap`; and the number of the interface that the packets came from (its link type is that of all).

    Args:
        now: time for a packet without one of its own: that of the packet before it.
        links, snaps, ticks, shifts: of each interface: link type, snap length (0 = no limit), seconds of one unit of
            time, seconds to add.
        known: number of interfaces.
    """
    count, room, source = 0, len(times), -1
    while at + 12 <= end:
        kind, size = number(buffer, at, big), number(buffer, at + 4, big)
        if kind in (SECTION_BLOCK, INTERFACE_BLOCK):
            return at, count, OTHER_BLOCK, source
        if size < 12 or size % 4 or size > MAX_BLOCK:
            return at, count, DAMAGED, source
        if at + size > end or count >= room:
            break
        body, stop = at + 8, at + size - 4
        if kind == SIMPLE_PACKET_BLOCK:
            if stop - body < 4 or known == 0:
                return at, count, DAMAGED, source
            which, start, length = 0, body + 4, number(buffer, body, big)
            snap = snaps[0] or MAX_CAPTURED
            taken = min(length, stop - start, snap, MAX_CAPTURED)
            time = now
        elif kind in (ENHANCED_PACKET_BLOCK, OLD_PACKET_BLOCK):
            if stop - body < 20:
                return at, count, DAMAGED, source
            # in the old block 16 bits of interface, then 16 bits of drop count
            which = half_number(buffer, body, big) if kind == OLD_PACKET_BLOCK else number(buffer, body, big)
            taken, length, start = number(buffer, body + 12, big), number(buffer, body + 16, big), body + 20
            if taken > min(stop - start, MAX_CAPTURED) or which >= known:
                return at, count, DAMAGED, source
            units = number(buffer, body + 4, big) * 4294967296.0 + number(buffer, body + 8, big)
            time = units * ticks[which] + shifts[which]
        else:
            at += size
            continue
        if source >= 0 and links[which] != links[source]:
            return at, count, OTHER_LINK, source
        source = which
        times[count], offsets[count], captured[count], lengths[count] = time, start, taken, length
        now = time
        count += 1
        at += size
    return at, count, USED_UP, source
