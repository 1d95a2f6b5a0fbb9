"""The block stream: cut anywhere it gives the same frames, and never holds more than one block."""

from fuzz.targets import overheard, pieces, vectors
from ukihashi.errors import PeerViolation
from ukihashi.wire.blocks import BlockDecoder, decompress, encode_frames, encode_keepalive
from ukihashi.wire.constants import MAX_BLOCK, MAX_FRAME

ALLOWED = (PeerViolation,)
TOKENS = [b"\0\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe", b"\0\0\x0c\x80", b"\0\0\x02\0"]


def seeds() -> list[bytes]:
    """Captured streams, runs of one size, mixed sizes, keep-alives. The first byte says how the stream is cut."""
    streams = [bytes.fromhex(vector["stream_hex"]) for vector in vectors() if "stream_hex" in vector]
    streams.append(encode_frames([bytes(60)] * 20) + encode_keepalive(bytes(100)) + encode_frames([bytes(1514)] * 9))
    streams.append(encode_frames([b"", b"a", bytes(MAX_BLOCK)]) + bytes(4) + encode_keepalive(b""))
    return [*overheard("blocks"), *(bytes([step]) + stream for stream in streams for step in (1, 7, 100))]


def run(data: bytes) -> object:
    """Compare the decoder fed in pieces with the decoder fed at once."""
    step, stream = (data[0], data[1:]) if data else (1, b"")
    single, whole = BlockDecoder(), BlockDecoder()
    frames: list[bytes] = []
    failed: PeerViolation | None = None
    for piece in pieces(stream, step):
        try:
            frames += single.feed(piece)
        except PeerViolation as violation:
            failed = violation
            break
        assert single.pending <= MAX_BLOCK + 3
    if failed is not None:
        again = _violation(whole, stream)
        assert again is not None
        assert again.template == failed.template
        raise failed
    assert frames == whole.feed(stream)
    assert (single.keepalives, single.pending) == (whole.keepalives, whole.pending)
    for frame in frames[:4]:
        plain = decompress(frame)
        assert plain is None or len(plain) <= MAX_FRAME
    return min(len(frames), 4), min(single.keepalives, 3), min(single.pending, 5)


def _violation(decoder: BlockDecoder, stream: bytes) -> PeerViolation | None:
    try:
        decoder.feed(stream)
    except PeerViolation as violation:
        return violation
    return None
