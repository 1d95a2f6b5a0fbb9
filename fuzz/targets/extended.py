"""The block stream of an extended session: cut anywhere it gives the same records, controls and errors.

With super-frames granted or not, as the first byte says; those without a flaw can be finished.
"""

from fuzz.targets import pieces, vectors
from ukihashi.errors import PeerViolation
from ukihashi.ether.offload import ALL, MAX_SUPER_FRAME, SuperFrame, flaw
from ukihashi.ether.segment import finish
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import MAX_BLOCK
from ukihashi.wire.extension import MAX_INTERVAL_MS, MAX_NUMBER, Bye, Have, PeerOptions, encode_have

ALLOWED = (PeerViolation,)
GRANTED = 0x80  # in the first byte
TOKENS = [
    b"\0\0\0\1",
    b"\xff\xff\xff\xff",
    b"\x40\0\0\x09\1",
    b"\x40\0\0\1\2",
    b"\x40\0\2\0",
    b"\x80\0\0\x10",
    b"\x80\0\0\x40",
    b"\x80\1\0\x80",
    b"\1\1\x36\0\x08\0\x22\0\x10\0",
    b"\xc0\0\0\1",
    b"\0\0\0\x08",
    b"keepalive_ms",
]


def seeds() -> list[bytes]:
    """The streams of the vectors, refused ones too, and longer ones. The first byte says how the stream is cut, its
    highest bit that super-frames are granted."""
    streams = [bytes.fromhex(vector["hex"]) for vector in vectors("extension") if "stream" in vector["kind"]]
    streams.append(encode_frames([bytes([1]) * 60] * 20) + encode_have(20) + encode_frames([bytes([2]) * 1514] * 9))
    streams.append(b"".join(streams[:12]))
    streams.append(encode_frames([SuperFrame(bytes([3]) * 76)] * 20 + [SuperFrame(bytes(5000)), b"plain"]))
    return [bytes([step | grant]) + stream for stream in streams for step in (1, 7, 100) for grant in (0, GRANTED)]


def run(data: bytes) -> object:
    """Compare the decoder fed in pieces with the decoder fed at once."""
    step, stream = (data[0] & ~GRANTED, data[1:]) if data else (1, b"")
    granted = bool(data and data[0] & GRANTED)
    single, whole = (BlockDecoder(extended=True, super_frames=granted) for _ in range(2))
    frames: list[bytes] = []
    failed: PeerViolation | None = None
    for piece in pieces(stream, step):
        try:
            frames += single.feed(piece)
        except PeerViolation as violation:
            failed = violation
            break
        assert single.pending <= (MAX_SUPER_FRAME if granted else MAX_BLOCK) + 3
    again = _feed(whole, stream)
    assert single.controls == whole.controls
    for control in whole.controls:
        match control:
            case Have(number):
                assert 0 <= number <= MAX_NUMBER
            case Bye(_, text):
                assert len(text) <= 255
            case PeerOptions(interval):
                assert 0 < interval <= MAX_INTERVAL_MS
    if failed is not None:
        assert isinstance(again, PeerViolation)
        assert again.template == failed.template
        raise failed
    assert not isinstance(again, PeerViolation)
    assert list(zip(frames, map(type, frames), strict=True)) == list(zip(again, map(type, again), strict=True))
    assert all(frames)
    assert (single.keepalives, single.pending) == (whole.keepalives, whole.pending)
    supers = [frame for frame in frames if isinstance(frame, SuperFrame)]
    assert len(supers) == single.super_frames == whole.super_frames
    assert granted or not supers
    sound = [frame for frame in supers if not flaw(frame, ALL)]
    assert all(finish(frame) for frame in sound)
    kinds = frozenset(type(control).__name__ for control in whole.controls)
    found = min(len(supers), 3), min(len(sound), 3)
    return min(len(frames), 4), min(single.keepalives, 3), min(single.pending, 5), kinds, found


def _feed(decoder: BlockDecoder, stream: bytes) -> list[bytes] | PeerViolation:
    try:
        return decoder.feed(stream)
    except PeerViolation as violation:
        return violation
