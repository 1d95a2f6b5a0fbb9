"""The block stream: whatever the split, the same frames; hostile bytes end it with one error."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.wire.blocks import BlockDecoder, compress, decompress, encode_frames, encode_keepalive
from ukihashi.wire.constants import MAX_BLOCK, MAX_FRAME, MAX_KEEPALIVE

frames_of_a_batch = st.lists(
    st.one_of(st.binary(max_size=80), st.builds(bytes, st.sampled_from([0, 1, 60, 60, 60, 1514]))), max_size=40
)
Item = tuple[bytes, list[bytes], int]  # bytes of the stream, its frames, its keep-alives
items: st.SearchStrategy[Item] = st.one_of(
    frames_of_a_batch.map(lambda frames: (encode_frames(frames), frames, 0)),
    st.binary(max_size=MAX_KEEPALIVE).map(lambda body: (encode_keepalive(body), [], 1)),
    st.just((bytes(4), list[bytes](), 0)),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(places)]


def feed_all(decoder: BlockDecoder, pieces: list[bytes]) -> list[bytes]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@given(st.lists(items, max_size=5), st.lists(st.integers(0), max_size=12))
def test_any_frames_survive_any_split(stream: list[Item], cuts: list[int]) -> None:
    data = b"".join(part for part, _, _ in stream)
    decoder, got = BlockDecoder(), list[bytes]()
    for piece in split(data, cuts):
        got += decoder.feed(piece)
        assert decoder.pending <= MAX_BLOCK + 3
    assert got == [frame for _, frames, _ in stream for frame in frames if frame]
    assert decoder.keepalives == sum(count for _, _, count in stream)
    assert decoder.pending == 0


@given(st.lists(items, max_size=4))
def test_byte_by_byte_gives_what_all_at_once_gives(stream: list[Item]) -> None:
    data = b"".join(part for part, _, _ in stream)
    whole, single = BlockDecoder(), BlockDecoder()
    at_once = whole.feed(data)
    assert [frame for at in range(len(data)) for frame in single.feed(data[at : at + 1])] == at_once
    assert (whole.keepalives, whole.pending) == (single.keepalives, single.pending)


@given(st.lists(st.binary(max_size=60), max_size=8), st.lists(st.integers(0), max_size=8))
def test_hostile_bytes_give_frames_or_one_violation(pieces: list[bytes], cuts: list[int]) -> None:
    data, errors = b"\0\0\0\x09".join(pieces), list[PeerViolation]()
    decoder = BlockDecoder()
    for piece in split(data, cuts):
        try:
            decoder.feed(piece)
        except PeerViolation as violation:
            errors.append(violation)
        assert decoder.pending <= MAX_BLOCK + 3
    assert len(set(map(id, errors))) <= 1
    if errors:
        assert "taken" in str(errors[0])


def test_a_frame_is_given_before_its_batch_is_complete() -> None:
    decoder = BlockDecoder()
    data = encode_frames([b"first", b"second"])
    assert decoder.feed(data[:13]) == [b"first"]
    assert decoder.feed(data[13:]) == [b"second"]


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (b"\0\0\0\1" + (MAX_BLOCK).to_bytes(4, "big"), True),
        (b"\0\0\0\1" + (MAX_BLOCK + 1).to_bytes(4, "big"), False),
        (b"\xff\xff\xff\xff" + (MAX_KEEPALIVE).to_bytes(4, "big"), True),
        (b"\xff\xff\xff\xff" + (MAX_KEEPALIVE + 1).to_bytes(4, "big"), False),
        (b"\xff\xff\xff\xfe" + bytes(4), True),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_limits(data: bytes, good: bool, step: int) -> None:
    decoder = BlockDecoder()
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    if good:
        assert [decoder.feed(piece) for piece in pieces] == [[] for _ in pieces]
        return
    with pytest.raises(PeerViolation):
        feed_all(decoder, pieces)
    with pytest.raises(PeerViolation):
        decoder.feed(b"")
    assert decoder.pending == 0


def test_runs_of_one_size_and_mixed_ones_give_the_same() -> None:
    frames = [bytes([n % 251]) * size for n, size in enumerate([60] * 30 + [60, 61] * 9 + [1514] * 17 + [60] * 7)]
    assert BlockDecoder().feed(encode_frames(frames)) == frames
    assert BlockDecoder().feed(memoryview(encode_frames(frames))) == frames


def test_many_small_feeds_hold_little_memory() -> None:
    decoder = BlockDecoder()
    data = encode_frames([bytes(MAX_BLOCK)] * 4)
    for at in range(0, len(data), 7):  # warms the caches
        decoder.feed(data[at : at + 7])
    tracemalloc.start()
    try:
        for _ in range(3):
            for at in range(0, len(data), 7):
                decoder.feed(data[at : at + 7])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_too_much_of_our_own_is_our_bug() -> None:
    with pytest.raises(ValueError, match="longer"):
        encode_frames([bytes(MAX_BLOCK + 1)])
    with pytest.raises(ValueError, match="at most"):
        encode_keepalive(bytes(MAX_KEEPALIVE + 1))


@given(st.binary(max_size=MAX_FRAME))
def test_compressed_frames_survive(frame: bytes) -> None:
    assert decompress(compress(frame)) == frame


@given(st.binary(max_size=200))
def test_a_block_that_is_no_zlib_is_dropped(block: bytes) -> None:
    frame = decompress(block)
    assert frame is None or len(frame) <= MAX_FRAME


def test_a_bomb_is_dropped_without_being_blown_up() -> None:
    bomb = compress(bytes(50_000_000))[:MAX_BLOCK]
    tracemalloc.start()
    try:
        assert decompress(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert decompress(compress(bytes(MAX_FRAME + 1))) is None
    assert decompress(compress(b"whole")[:-1]) is None
