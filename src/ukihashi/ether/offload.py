"""Super-frames: Ethernet frames whose checksum, and maybe the cutting into packets, is left to whoever delivers them.

Such a frame is followed by ten bytes that say what is left to do, Linux's `struct virtio_net_hdr` (virtio 1.3, section
5.1.6) in little-endian order, which is what a TAP with IFF_VNET_HDR gives and takes. They stand behind the frame and
not before it so that whatever looks at its head (addresses, type, VLAN) needs to know nothing of them.

    u8 flags | u8 gso_type | u16 hdr_len | u16 gso_size | u16 csum_start | u16 csum_offset

Strangers fill in these fields: `flaw` must have found nothing before the kernel or `segment.finish` gets the frame.
"""

import struct
from collections.abc import Sequence
from enum import IntFlag
from typing import Final

from ukihashi.ether.frame import HEADER, IPV4, IPV6, MAX_FRAME, TAG, VLAN
from ukihashi.ether.packet import PROVIDER_TAG, TCP, UDP

OFFLOAD: Final = struct.Struct("<BBHHHH")
TRAILER: Final = OFFLOAD.size  # 10 bytes
MAX_SUPER_FRAME: Final = 65_664  # bytes of frame and trailer: an IP packet of 65,535, a tagged header, and some room
MAX_SEGMENTS: Final = 128  # frames that one may be split into

NEEDS_CHECKSUM: Final = 1  # the only flag a super-frame has; it must be there
NO_SPLIT: Final = 0  # gso_type: only the checksum is missing
TCP_IPV4: Final = 1
TCP_IPV6: Final = 4
UDP_SPLIT: Final = 5  # of either IP version
ECN: Final = 0x80  # beside TCP_IPV4 or TCP_IPV6: CWR goes into the first segment only
TCP_CHECKSUM: Final = 16  # where the checksum stands in the TCP header
UDP_CHECKSUM: Final = 6


class Kind(IntFlag):
    """What may be left to do in a frame that somebody takes. The values go over the wire (docs/protocol.md)."""

    CHECKSUM = 1
    TSO4 = 2
    TSO6 = 4
    TSO_ECN = 8
    USO4 = 16
    USO6 = 32


NONE: Final = Kind(0)
ALL: Final = Kind(63)


class SuperFrame(bytes):
    """A frame and its trailer. A frame that is plain `bytes` is finished; a slice of this one is plain `bytes` too."""

    __slots__ = ()


def common(ours: int, theirs: int) -> Kind:
    """The kinds that two ends share. Without CHECKSUM none, for every kind lacks it; no ECN without TCP."""
    both = ours & theirs & ALL.value
    if not both & Kind.CHECKSUM.value:
        return NONE
    if not both & (Kind.TSO4.value | Kind.TSO6.value):
        both &= ~Kind.TSO_ECN.value
    return Kind(both)


def names(kinds: int) -> str:
    """For people: `checksum, TSO4, TSO6`."""
    return ", ".join(str(kind.name) if kind is not Kind.CHECKSUM else "checksum" for kind in Kind if kind & kinds)


def kind_of(frame: bytes) -> Kind:
    """What a taker of `frame` must be able to do; NONE for a plain one. Not for a frame with a flaw."""
    if frame.__class__ is not SuperFrame:
        return NONE
    return _KINDS.get(frame[-9]) or (_USO4 if network(frame)[0] == IPV4 else _USO6)


def fits(frame: bytes, kinds: Kind) -> bool:
    """Whether a taker of `kinds` gets `frame` as it is."""
    # not `kind_of(frame) in kinds`: the operators of an IntFlag cost a microsecond
    return frame.__class__ is not SuperFrame or not kind_of(frame)._value_ & ~kinds._value_


def network(frame: bytes) -> tuple[int, int]:
    """The type behind at most one tag, a customer's or a provider's, and where the network header starts.

    The kernel never leaves the splitting of a frame with more tags to a device.
    """
    kind = frame[12] << 8 | frame[13]
    if kind in (VLAN, PROVIDER_TAG) and len(frame) >= HEADER + TAG:
        return frame[16] << 8 | frame[17], HEADER + TAG
    return kind, HEADER


def flaw(frame: SuperFrame, granted: Kind) -> str:
    """Why `frame` must be dropped, in a word or two; "" if nothing is wrong. Any bytes may be asked about.

    A frame that lacks nothing but a checksum is judged as the kernel does: the fields must lie behind its headers and
    within it, whatever protocol it is. Of a frame to be split the headers must be what the kind says.
    """
    size, trailer = len(frame), frame[-TRAILER:]
    if size > _LONGEST_WHOLE:
        known = size <= _MOST.get((trailer, granted._value_, *_USUAL.unpack_from(frame)), 0)
    else:
        least = _LEAST.get(trailer)
        known = least is not None and least <= size and bool(granted._value_ & _CHECKSUM)
    return "" if known else _flaw(frame, granted._value_)


def sound(frames: Sequence[bytes], granted: Kind) -> list[bytes]:
    """`frames` without those that have a flaw; a run of short ones costs less so."""
    least, trailer = _LEAST.get, _AT_END
    longest = _LONGEST_WHOLE if granted._value_ & _CHECKSUM else 0
    unknown = longest + 1
    return [
        frame
        for frame in frames
        if frame.__class__ is not SuperFrame
        or least(frame[trailer], unknown) <= len(frame) <= longest
        or not flaw(frame, granted)
    ]


_CHECKSUM: Final = Kind.CHECKSUM.value
_USO4: Final = Kind.CHECKSUM | Kind.USO4
_USO6: Final = Kind.CHECKSUM | Kind.USO6
_KINDS: Final = {
    NO_SPLIT: Kind.CHECKSUM,
    TCP_IPV4: Kind.CHECKSUM | Kind.TSO4,
    TCP_IPV6: Kind.CHECKSUM | Kind.TSO6,
    TCP_IPV4 | ECN: Kind.CHECKSUM | Kind.TSO4 | Kind.TSO_ECN,
    TCP_IPV6 | ECN: Kind.CHECKSUM | Kind.TSO6 | Kind.TSO_ECN,
}
_LONGEST_WHOLE: Final = MAX_FRAME + TRAILER  # of a frame that is not to be split
_AT_END: Final = slice(-TRAILER, None)
_FIRST: Final = HEADER + 20  # bytes of Ethernet and IP headers; no checksum of a super-frame covers them
_EXTENSIONS: Final = frozenset((0, 43, 60))  # of IPv6, which the kernel's splitter steps over too
_MEMO_MOST: Final = 1024  # trailers; those of one host are a handful
_LEAST: Final[dict[bytes, int]] = {}  # trailer that is right for a frame with nothing to split -> its least length
# What decides about TCP to be split over IPv4 without options: type, version and length of the header, fragment,
# protocol, length of TCP's header. With the trailer and what was granted before it -> greatest length of such a frame.
_USUAL: Final = struct.Struct("!12xHB5xHxB22xB")
_MOST: Final[dict[tuple[bytes, int, int, int, int, int, int], int]] = {}


def _flaw(frame: SuperFrame, granted: int) -> str:
    size = len(frame) - TRAILER
    if size < HEADER:
        return "cut short"
    trailer = frame[-TRAILER:]
    flags, split, head, each, start, offset = OFFLOAD.unpack(trailer)
    if flags != NEEDS_CHECKSUM:
        return "flags"
    if not granted & _CHECKSUM:
        return "not granted"
    if start < _FIRST:
        return "checksum start"
    if split != NO_SPLIT:
        return _split_flaw(frame, granted, size)
    least = max(start + offset + 2, head)
    if size < least:
        return "beyond the end"
    if size > MAX_FRAME:
        return "too long"
    if each:
        return "segment size"
    if len(_LEAST) < _MEMO_MOST:
        _LEAST[trailer] = least + TRAILER
    return ""


def _split_flaw(frame: SuperFrame, granted: int, size: int) -> str:
    """Of a frame to be split; `size` without its trailer."""
    _, split, head, each, start, offset = OFFLOAD.unpack_from(frame, size)
    kind, at = network(frame)
    protocol, least, place = (UDP, 8, UDP_CHECKSUM) if split == UDP_SPLIT else (TCP, 20, TCP_CHECKSUM)
    if split not in _KINDS and split != UDP_SPLIT:
        return "kind"
    if kind_of(frame)._value_ & ~granted:
        return "not granted"
    if size + TRAILER > MAX_SUPER_FRAME:
        return "too long"
    if max(start + least, head) > size:
        return "beyond the end"
    if offset != place:
        return "checksum offset"
    if protocol == TCP and kind != (IPV4 if split & ~ECN == TCP_IPV4 else IPV6):
        return "IP version"
    wrong = _ip_flaw(frame, kind, at, start, protocol)
    if wrong:
        return wrong
    if protocol == TCP:
        least = (frame[start + 12] >> 4) * 4
        if least < 20 or start + least > size:
            return "TCP header"
    begin = start + least  # of what is split
    if not each or begin + each > MAX_FRAME:
        return "segment size"
    if size - begin > MAX_SEGMENTS * each:
        return "too many segments"
    is_usual = (kind, at, start) == (IPV4, HEADER, _FIRST) and split != UDP_SPLIT
    if is_usual and size > MAX_FRAME >= head and len(_MOST) < _MEMO_MOST:
        most = min(MAX_SUPER_FRAME, begin + MAX_SEGMENTS * each + TRAILER)
        _MOST[(frame[-TRAILER:], granted, *_USUAL.unpack_from(frame))] = most
    return ""


def _ip_flaw(frame: bytes, kind: int, at: int, start: int, protocol: int) -> str:
    """Of the IP header at `at`, when that of `protocol` shall start at `start`, which lies within the frame."""
    if kind == IPV4 and start >= at + 20:
        if frame[at] >> 4 != 4:
            return "IP version"
        if start != at + (frame[at] & 0x0F) * 4:
            return "checksum start"
        if frame[at + 6] & 0x3F or frame[at + 7]:
            return "fragment"
        return "" if frame[at + 9] == protocol else "protocol"
    if kind == IPV6 and start >= at + 40:
        if frame[at] >> 4 != 6:
            return "IP version"
        following, place = frame[at + 6], at + 40
        while following in _EXTENSIONS and place < start:
            following, place = frame[place], place + 8 * (frame[place + 1] + 1)
        if place != start:
            return "checksum start"
        return "" if following == protocol else "protocol"
    return "IP version" if kind not in (IPV4, IPV6) else "checksum start"
