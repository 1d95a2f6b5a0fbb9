"""Super-frames of a member: what is let through can be finished, and both ways to split give the same."""

from ukihashi.ether import segment
from ukihashi.ether.frame import MAX_FRAME
from ukihashi.ether.offload import (
    ALL,
    MAX_SEGMENTS,
    NO_SPLIT,
    NONE,
    OFFLOAD,
    TRAILER,
    Kind,
    SuperFrame,
    common,
    fits,
    flaw,
    kind_of,
    sound,
)

ALLOWED = ()
TOKENS = [
    *(b"\x81\0\0\5", b"\x88\xa8\0\5", b"\x08\0\x45\0", b"\x86\xdd\x60\0", b"\x40\x06", b"\x40\x11", b"\x50\x18"),
    *(OFFLOAD.pack(1, split, 54, 100, 34, offset) for split in (0, 1, 4, 5, 0x81) for offset in (6, 16)),
]
MACS = b"\2\0\0\0\0\2\2\0\0\0\0\1"
IPV4 = b"\x45\0\0\0\xff\xfe\x40\0\x40\6\0\0\x0a\0\0\1\x0a\0\0\2"
IPV6 = b"\x60\0\0\0\0\0\6\x40" + bytes(range(32))
TCP = b"\0\x50\x9c\x40\xff\xff\xff\0\0\0\0\1\x50\x99\1\0\x12\x34\0\0"
UDP = b"\0\x35\x9c\x40\3\xf0\x12\x34"


def seeds() -> list[bytes]:
    """A byte for what is granted, a frame, its trailer."""
    data = bytes(range(250)) * 4
    udp4, udp6 = IPV4[:9] + b"\x11" + IPV4[10:], IPV6[:6] + b"\x11" + IPV6[7:]
    made = [
        MACS + b"\x08\0" + IPV4 + TCP + data + OFFLOAD.pack(1, 1, 54, 100, 34, 16),
        MACS + b"\x08\0" + IPV4 + TCP + data[:99] + OFFLOAD.pack(1, 0, 0, 0, 34, 16),
        MACS + b"\x08\0" + b"\x46" + IPV4[1:] + b"\1\1\1\0" + TCP + data + OFFLOAD.pack(1, 0x81, 58, 99, 38, 16),
        MACS + b"\x86\xdd" + IPV6 + TCP + data + OFFLOAD.pack(1, 4, 74, 350, 54, 16),
        MACS + b"\x86\xdd" + IPV6[:6] + b"\x3c" + IPV6[7:] + b"\6\0" + bytes(6) + TCP + data
        + OFFLOAD.pack(1, 4, 82, 64, 62, 16),
        MACS + b"\x81\0\0\5\x08\0" + udp4 + UDP + data + OFFLOAD.pack(1, 5, 46, 120, 38, 6),
        MACS + b"\x88\xa8\0\5\x86\xdd" + udp6 + UDP + data + OFFLOAD.pack(1, 5, 66, 8, 58, 6),
        MACS + b"\x86\xdd" + udp6 + UDP + data[:77] + OFFLOAD.pack(1, 0, 0, 0, 54, 6),
    ]  # fmt: skip
    return [bytes([255]) + frame for frame in made] + [bytes([1]) + made[1], bytes([3]) + made[0]]


def run(data: bytes) -> object:
    """Nothing fails; what is let through becomes frames that fit a line and keep their addresses."""
    granted, frame = common(data[0] if data else 0, ALL), SuperFrame(data[1:])
    reason = flaw(frame, granted)
    assert flaw(frame, granted) == reason, "asked again, when it may be remembered"
    assert sound([frame], granted) == ([] if reason else [frame])
    if reason:
        return reason
    kinds = kind_of(frame)
    assert kinds & ~granted == NONE
    assert fits(frame, granted)
    assert segment.finish(frame, granted)[0] is frame
    finished = segment.finish(frame, Kind(data[0]) & ~kinds)
    assert 1 <= len(finished) <= MAX_SEGMENTS
    assert all(type(one) is bytes and one[:14] == frame[:14] and len(one) <= MAX_FRAME for one in finished)
    if frame[-9] == NO_SPLIT:
        assert len(finished) == 1
        assert len(finished[0]) == len(frame) - TRAILER
    else:
        cut = segment.cut_of(frame)
        assert b"".join(one[cut.begin :] for one in finished) == frame[cut.begin : -TRAILER]
        if len(finished) > 1:
            assert segment.split(cut) == finished
        if len(finished) > 1 and not cut.each % 2 and segment.preload():
            from ukihashi.ether import segment_fast

            assert segment_fast.split(cut) == finished
    return kinds, min(len(finished), 8), len(finished[-1]) == len(finished[0])
