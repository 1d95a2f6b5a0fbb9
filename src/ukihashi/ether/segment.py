"""Super-frames finished in our own code: the checksum put in, or split as the kernel would have done it.

For whoever gets a super-frame but takes plain frames only: ports of official clients, rules that look at every packet,
a TAP without the ability. Splitting a large one is a loop over its segments in plain Python, or some operations on a
table of them in `segment_fast`, if numpy is there to be imported; both give the same bytes.

Sums are Internet checksums (RFC 1071) before they are inverted. Reckoned modulo 65,535 they may be added in any order,
words of any even size may be taken for those of two bytes, and little-endian words have 256 times the sum.
"""

import struct
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from ukihashi.ether.frame import IPV4
from ukihashi.ether.offload import NO_SPLIT, NONE, OFFLOAD, TRAILER, UDP_SPLIT, Kind, SuperFrame, fits, network

FIN: Final = 0x01
PSH: Final = 0x08
CWR: Final = 0x80

# offsets in the headers of IP, TCP and UDP
TOTAL_LENGTH: Final = 2
IDENTIFICATION: Final = 4
IP_CHECKSUM: Final = 10
PAYLOAD_LENGTH: Final = 4  # of IPv6, which counts what follows its header
IPV6_HEADER: Final = 40
UDP_LENGTH: Final = 4
SEQUENCE: Final = 4
FLAGS: Final = 13

_CHECKSUM: Final = Kind.CHECKSUM.value
_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_PLACE: Final = struct.Struct("<HH")  # the end of the trailer: csum_start, csum_offset
_FAST_FROM: Final = 10  # segments; below it the table costs more than the loop
_LONG: Final = 1000  # bytes; from here on a number is cheaper to divide in four parts


class Cut(NamedTuple):
    """Where a super-frame is to be cut."""

    frame: SuperFrame
    version: int  # of IP
    at: int  # of the IP header
    start: int  # of the TCP or UDP header
    begin: int  # of what is split
    end: int
    each: int  # bytes of a segment
    check: int  # of the checksum's field
    is_udp: bool


class Head(NamedTuple):
    """What the headers of segments of one size share; what differs between segments counts as 0 in the sums."""

    template: bytearray
    ip_sum: int
    sum: int  # of the transport header and its pseudo-header
    identification: int  # of the first segment
    sequence: int
    flags: int


def finish(frame: bytes, kinds: Kind = NONE) -> list[bytes]:
    """What a receiver that takes `kinds` gets in place of `frame`: itself, if it is plain or fits, or finished frames.

    The first finished frame is what the sender wrote, the following ones count IP's identification and TCP's sequence
    on; PSH and FIN are in the last only, CWR in the first. A `SuperFrame` must have no flaw.
    """
    if frame.__class__ is not SuperFrame:
        return [frame]
    if frame[-9] == NO_SPLIT:  # most of them
        return [frame] if kinds._value_ & _CHECKSUM else [_completed(frame)]
    if fits(frame, kinds):
        return [frame]
    cut = cut_of(frame)
    size, each = cut.end - cut.begin, cut.each
    if size <= each:
        return [_completed(frame)]
    if size >= _FAST_FROM * each and not each & 1:
        fast = _fast()
        if fast is not None:
            return fast(cut)
    return split(cut)


def finish_all(frames: list[bytes], kinds: Kind = NONE) -> list[bytes]:
    """`finish` for a run; `frames` itself if nothing has to be done."""
    if SuperFrame not in map(type, frames):
        return frames
    finished: list[bytes] = []
    for frame in frames:
        if frame.__class__ is SuperFrame:
            finished += finish(frame, kinds)
        else:
            finished.append(frame)
    return finished


def preload() -> bool:
    """Import numpy now and not at the first large frame (a quarter of a second); False if it can't be."""
    return _fast() is not None


def cut_of(frame: SuperFrame) -> Cut:
    """Where a frame that is to be split, and has no flaw, is cut."""
    end = len(frame) - TRAILER
    _, split_as, _, each, start, offset = OFFLOAD.unpack_from(frame, end)
    kind, at = network(frame)
    is_udp = split_as == UDP_SPLIT
    begin = start + (8 if is_udp else (frame[start + 12] >> 4) * 4)
    return Cut(frame, 4 if kind == IPV4 else 6, at, start, begin, end, each, start + offset, is_udp)


def split(cut: Cut, first: int = 0) -> list[bytes]:
    """The segments from number `first` on, in a loop."""
    frame, version, at, start, begin, end, each, check, is_udp = cut
    frames: list[bytes] = []
    put_u16, put_u32 = _U16.pack_into, _U32.pack_into
    begin += first * each
    common = min(each, end - begin)
    shared = head_of(cut, common)
    for number, place in enumerate(range(begin, end, each), first):
        size = min(each, end - place)
        if size != common:  # the last
            shared = head_of(cut, size)
        head = shared.template
        total = shared.sum + 256 * _sum(frame, place, place + size)
        if version == 4:
            identification = (shared.identification + number) & 0xFFFF
            put_u16(head, at + IDENTIFICATION, identification)
            put_u16(head, at + IP_CHECKSUM, -(shared.ip_sum + identification) % 65535)
        if is_udp:
            put_u16(head, check, -total % 65535 or 65535)  # 0 would mean that there is none
        else:
            sequence = (shared.sequence + number * each) & 0xFFFFFFFF
            flags = flags_of(shared.flags, is_first=number == 0, is_last=place + size == end)
            put_u32(head, start + SEQUENCE, sequence)
            head[start + FLAGS] = flags
            put_u16(head, check, -(total + sequence + flags) % 65535)
        frames.append(bytes(head) + frame[place : place + size])
    return frames


def head_of(cut: Cut, size: int) -> Head:
    """The headers of segments of `size` bytes."""
    frame, version, at, start, begin, end, _each, _check, is_udp = cut
    head = bytearray(frame[:begin])
    identification = ip_sum = sequence = flags = 0
    if version == 4:
        (identification,) = _U16.unpack_from(frame, at + IDENTIFICATION)
        _U16.pack_into(head, at + TOTAL_LENGTH, begin - at + size)
        head[at + IDENTIFICATION : at + IDENTIFICATION + 2] = head[at + IP_CHECKSUM : at + IP_CHECKSUM + 2] = bytes(2)
        ip_sum = int.from_bytes(head[at:start], "big") % 65535
    else:
        _U16.pack_into(head, at + PAYLOAD_LENGTH, begin - at - IPV6_HEADER + size)
    if is_udp:
        (before,) = _U16.unpack_from(frame, start + UDP_LENGTH)
        _U16.pack_into(head, start + UDP_LENGTH, begin - start + size)
    else:
        before = end - start
        (sequence,) = _U32.unpack_from(frame, start + SEQUENCE)
        flags = frame[start + FLAGS]
        head[start + SEQUENCE : start + SEQUENCE + 4] = bytes(4)
        head[start + FLAGS] = 0
    # The field holds the sum of the pseudo-header, in which the length is that of the whole super-frame.
    total = int.from_bytes(head[start:begin], "big") - before + begin - start + size
    return Head(head, ip_sum, total % 65535, identification, sequence, flags)


def flags_of(flags: int, *, is_first: bool, is_last: bool) -> int:
    """TCP's flags in one of the segments."""
    if not is_first:
        flags &= ~CWR
    return flags if is_last else flags & ~(FIN | PSH)


def _completed(frame: SuperFrame) -> bytes:
    """The frame with its checksum. 0 becomes 65,535, the same number, for UDP means "no checksum" by 0."""
    end = len(frame) - TRAILER
    start, offset = _PLACE.unpack_from(frame, end + 6)
    # most are short: the call is saved
    total = int.from_bytes(frame[start:end], "little") % 65535 if end - start < _LONG else _sum(frame, start, end)
    at = start + offset
    return frame[:at] + (65535 - total).to_bytes(2, "little") + frame[at + 2 : end]


def _sum(frame: bytes, start: int, end: int) -> int:
    """Of little-endian words, modulo 65,535."""
    number, step = int.from_bytes, (end - start) // 8 * 2
    if end - start < _LONG:
        return number(frame[start:end], "little") % 65535
    one, two, three = start + step, start + 2 * step, start + 3 * step
    return (
        number(frame[start:one], "little")
        + number(frame[one:two], "little")
        + number(frame[two:three], "little")
        + number(frame[three:end], "little")
    ) % 65535


@cache
def _fast() -> Callable[[Cut], list[bytes]] | None:
    try:
        from ukihashi.ether import segment_fast
    except (ImportError, OSError):  # not installed, or not to be read by the user a worker runs as
        return None
    return segment_fast.split
