from collections.abc import Iterator

import pytest

from ukihashi.errors import EnvironmentLacks
from ukihashi.tap import frame_pipe as module
from ukihashi.tap.frame_pipe import PACKET, FramePipe, frame_pipe

Pair = tuple[FramePipe, FramePipe]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = [FramePipe(end.detach(), name) for end, name in zip(frame_pipe(), ("hub", "card"), strict=True)]
    yield made[0], made[1]
    for end in made:
        end.close()


def numbered(count: int, size: int = 60) -> list[bytes]:
    return [number.to_bytes(4, "big") + bytes(size - 4) for number in range(count)]


def test_batches_arrive_whole_and_in_order_in_both_directions(pair: Pair) -> None:
    for here, there in (pair, pair[::-1]):
        frames = [*numbered(200), *numbered(30, 1514), b""]
        assert here.offer(frames) == len(frames)
        assert there.read_frames(1 << 20) == frames
        assert there.read_frames() == []


def test_an_empty_batch_is_nothing(pair: Pair) -> None:
    assert pair[0].offer([]) == pair[0].write_frames([]) == 0
    assert pair[1].read_frames() == []


def test_a_read_ends_at_its_limit_and_the_rest_waits(pair: Pair) -> None:
    frames = numbered(4 * PACKET // 1514, 1514)
    assert pair[0].offer(frames) == len(frames)
    first = pair[1].read_frames(PACKET)
    assert 0 < len(first) < len(frames)
    rest = pair[1].read_frames(1 << 20)
    assert first + rest == frames


def test_a_full_pipe_takes_the_first_frames_and_says_how_many(pair: Pair) -> None:
    frames = numbered(20_000, 1514)
    went = pair[0].offer(frames)
    assert 0 < went < len(frames)
    assert pair[0].dropped == 0
    got: list[bytes] = []
    while part := pair[1].read_frames():
        got += part
    assert got == frames[:went]


def test_who_waits_in_vain_drops_the_newest_and_counts_them(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    frames = numbered(20_000, 1514)
    went = pair[1].write_frames(frames)
    assert pair[1].dropped == len(frames) - went > 0
    assert pair[0].read_frames(1 << 30) == frames[:went]
    assert pair[1].write_frames(frames[:3]) == 3


def test_the_end_of_the_other_side_is_told_after_what_it_sent(pair: Pair) -> None:
    pair[0].offer(numbered(3))
    pair[0].close()
    pair[0].close()
    assert pair[1].read_frames() == numbered(3)
    with pytest.raises(EnvironmentLacks, match="card"):
        pair[1].read_frames()
    with pytest.raises(EnvironmentLacks):
        pair[1].write_frames(numbered(1))
    with pytest.raises(EnvironmentLacks):
        pair[1].offer(numbered(1))


@pytest.mark.parametrize("packet", [b"\x00", b"\x00\x05abc", b"\x00\x01ab"])
def test_what_no_pipe_sends_breaks_it(packet: bytes) -> None:
    ours, theirs = frame_pipe()
    with ours:
        pipe = FramePipe(theirs.detach(), "card")
        ours.send(packet)
        with pytest.raises(EnvironmentLacks, match="cut short"):
            pipe.read_frames()
        pipe.close()
