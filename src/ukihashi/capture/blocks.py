"""Cut the packets out of one block of a ring (TPACKET_V3), each with its VLAN tag put back where it was on the wire.

The kernel leaves `ring.TAG_ROOM` bytes free before each packet, so the tag is put back in place.
"""

import mmap
import struct
from typing import Any, Final

from ukihashi.capture.batch import Packet

STATUS_VLAN_VALID, STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6  # linux/if_packet.h
_BLOCK_STATUS: Final = 8  # offset in struct tpacket_block_desc; then packets, offset of the first
_BLOCK: Final = struct.Struct("=III").unpack_from
_STATUS: Final = struct.Struct("=I")
# struct tpacket3_hdr: next, seconds, nanoseconds, captured, length, status, offset of the frame, tag, its type
_HEADER: Final = struct.Struct("=6IH6xIH").unpack_from
_TAG: Final = struct.Struct("!HH").pack_into
_PACKET_TYPE: Final = 48 + 10  # offset of sll_pkttype behind a packet's header


def _u32(memory: Any, at: int) -> int:
    return memory[at] | memory[at + 1] << 8 | memory[at + 2] << 16 | memory[at + 3] << 24  # type: ignore[no-any-return]


def walk(memory: mmap.mmap | bytearray, block: int) -> list[Packet]:
    """The packets of the block that begins at `block`."""
    _status, count, first = _BLOCK(memory, block + _BLOCK_STATUS)
    packets: list[Packet] = []
    at = block + first
    for _ in range(count):
        step, seconds, nanoseconds, captured, length, status, mac, tag, kind = _HEADER(memory, at)
        begin_ = at + mac
        if status & STATUS_VLAN_VALID and captured >= 14:
            begin_ -= 4
            memory[begin_ : begin_ + 12] = memory[begin_ + 4 : begin_ + 16]
            _TAG(memory, begin_ + 12, kind if status & STATUS_VLAN_TPID_VALID else 0x8100, tag & 0xFFFF)
            captured += 4
            length += 4
        packets.append((seconds + nanoseconds * 1e-9, begin_, captured, length))
        at += step
    return packets


def walk_columns(memory: Any, block: int, times: Any, offsets: Any, captured: Any, lengths: Any) -> int:
    """The same into columns: seconds, offset in `memory`, bytes captured, bytes on the wire. Returns how many.

    The columns have room for `ring.MAX_PACKETS`. Compiled, as `detect.layers` is.
    """
    count = _u32(memory, block + 12)
    at = block + _u32(memory, block + 16)
    for number in range(count):
        times[number] = _u32(memory, at + 4) + _u32(memory, at + 8) * 1e-9
        begin_ = at + (memory[at + 24] | memory[at + 25] << 8)
        size, length, status = _u32(memory, at + 12), _u32(memory, at + 16), _u32(memory, at + 20)
        if status & STATUS_VLAN_VALID and size >= 14:
            begin_ -= 4
            for place in range(12):
                memory[begin_ + place] = memory[begin_ + place + 4]
            has_type = status & STATUS_VLAN_TPID_VALID
            memory[begin_ + 12] = memory[at + 37] if has_type else 0x81
            memory[begin_ + 13] = memory[at + 36] if has_type else 0
            memory[begin_ + 14], memory[begin_ + 15] = memory[at + 33], memory[at + 32]
            size += 4
            length += 4
        offsets[number], captured[number], lengths[number] = begin_, size, length
        at += _u32(memory, at)
    return count


def packet_types(memory: mmap.mmap | bytearray, block: int) -> list[int]:
    """To whom each packet of a block was addressed: PACKET_HOST, ... PACKET_OUTGOING (linux/if_packet.h)."""
    _status, count, at = _BLOCK(memory, block + _BLOCK_STATUS)
    found, at = [], at + block
    for _ in range(count):
        found.append(memory[at + _PACKET_TYPE])
        at += _STATUS.unpack_from(memory, at)[0]
    return found
