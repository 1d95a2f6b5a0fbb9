"""The block stream of an extended session: cut anywhere it gives the same records, controls and errors."""

from fuzz.targets import pieces, vectors
from ukihashi.errors import PeerViolation
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import MAX_BLOCK
from ukihashi.wire.extension import MAX_INTERVAL_MS, MAX_NUMBER, Bye, Have, PeerOptions, encode_have

ALLOWED = (PeerViolation,)
TOKENS = [
    b"\0\0\0\1",
    b"\xff\xff\xff\xff",
    b"\x40\0\0\x09\1",
    b"\x40\0\0\1\2",
    b"\x40\0\2\0",
    b"\x80\0\0\x10",
    b"\xc0\0\0\1",
    b"\0\0\0\x08",
    b"keepalive_ms",
]


def seeds() -> list[bytes]:
    """The streams of the vectors, refused ones too, and a longer one. The first byte says how the stream is cut."""
    streams = [bytes.fromhex(vector["hex"]) for vector in vectors("extension") if "stream" in vector["kind"]]
    streams.append(encode_frames([bytes([1]) * 60] * 20) + encode_have(20) + encode_frames([bytes([2]) * 1514] * 9))
    streams.append(b"".join(streams[:12]))
    return [bytes([step]) + stream for stream in streams for step in (1, 7, 100)]


def run(data: bytes) -> object:
    """Compare the decoder fed in pieces with the decoder fed at once."""
    step, stream = (data[0], data[1:]) if data else (1, b"")
    single, whole = BlockDecoder(extended=True), BlockDecoder(extended=True)
    frames: list[bytes] = []
    failed: PeerViolation | None = None
    for piece in pieces(stream, step):
        try:
            frames += single.feed(piece)
        except PeerViolation as violation:
            failed = violation
            break
        assert single.pending <= MAX_BLOCK + 3
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
    assert frames == again
    assert all(frames)
    assert (single.keepalives, single.pending) == (whole.keepalives, whole.pending)
    kinds = frozenset(type(control).__name__ for control in whole.controls)
    return min(len(frames), 4), min(single.keepalives, 3), min(single.pending, 5), kinds


def _feed(decoder: BlockDecoder, stream: bytes) -> list[bytes] | PeerViolation:
    try:
        return decoder.feed(stream)
    except PeerViolation as violation:
        return violation
