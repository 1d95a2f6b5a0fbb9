"""The queue of one port: never above its bound, order kept, every drop counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.switch.queue import ALONE, QUEUE_FULL, TURN, FairQueue, PortQueue

sizes = st.lists(st.integers(0, 60), max_size=10)
KINDS = pytest.mark.parametrize("kind", [PortQueue, FairQueue])  # from one source both are the same


@KINDS
@given(st.lists(st.tuples(sizes, st.booleans()), max_size=10), st.integers(0, 200))
def test_nothing_is_lost_uncounted(kind: type[PortQueue], steps: list[tuple[list[int], bool]], limit: int) -> None:
    queue, given_, taken, number = kind(limit), list[bytes](), list[bytes](), 0
    for batch, take in steps:
        frames = []
        for size in batch:
            number += 1
            frames.append(bytes([number % 256]) * size)
        given_ += frames
        before = queue.dropped_frames
        assert queue.put(frames) == queue.dropped_frames - before
        assert queue.bytes <= limit
        if take:
            taken += queue.take()
            assert (queue.bytes, len(queue)) == (0, 0)
    taken += queue.take()
    assert len(taken) + queue.dropped_frames == len(given_)
    assert sum(map(len, taken)) + queue.dropped_bytes == sum(map(len, given_))
    left = iter(given_)
    assert all(frame in left for frame in taken)  # in order


@KINDS
def test_the_newest_is_dropped_and_a_smaller_one_may_fit(kind: type[PortQueue]) -> None:
    queue = kind(100)
    assert queue.put([b"a" * 60, b"b" * 60, b"c" * 40]) == 1
    assert queue.take() == [b"a" * 60, b"c" * 40]
    assert (queue.dropped_frames, queue.dropped_bytes) == (1, 60)


@KINDS
def test_a_part_can_be_taken(kind: type[PortQueue]) -> None:
    queue = kind(1000)
    queue.put([b"a" * 60, b"b" * 60, b"c" * 60])
    assert queue.take(130) == [b"a" * 60, b"b" * 60]
    assert (len(queue), queue.bytes) == (1, 60)
    assert queue.take(1) == [b"c" * 60]
    assert queue.take(1) == []


@KINDS
def test_what_waits_stays_when_the_bound_falls_and_drops_have_their_reason(kind: type[PortQueue]) -> None:
    queue = kind(100)
    queue.put([b"a" * 60])
    queue.bound(50, "no link")
    assert queue.put([b"b"]) == 1
    queue.bound(200)
    assert queue.put([b"c" * 140, b"d"]) == 1
    queue.clear("no memory")
    assert (len(queue), queue.bytes) == (0, 0)
    assert queue.dropped == {"no link": 1, "queue_full": 1, "no memory": 2}
    assert queue.dropped_bytes == 1 + 1 + 200


@KINDS
def test_another_queue_goes_on(kind: type[PortQueue]) -> None:
    queue, heir = kind(10), kind(5)
    queue.put([b"a" * 6, b"b" * 4, b"c"])
    heir.put_back(queue.frames, queue.dropped)
    assert heir.dropped_frames == 1
    assert heir.put([b"d"]) == 1
    assert heir.take() == [b"a" * 6, b"b" * 4]
    assert heir.bytes == 0


# -- several sources -----------------------------------------------------------------------------------------------

FLOOD, CALM = 1, 2


def flooded(limit: int = 1 << 19) -> FairQueue:
    """Full of what one source sends."""
    queue = FairQueue(limit)
    while not queue.put([b"f" * 1000] * 64, FLOOD):
        pass
    return queue


def test_who_sends_little_goes_ahead_of_a_flood_and_loses_nothing() -> None:
    queue = flooded()
    assert queue.put([b"c" * 2000], CALM) == 2  # of the flood, to make room
    assert queue.take(10_000)[0] == b"c" * 2000
    assert queue.bytes <= 1 << 19


def test_who_floods_gets_no_more_than_half_of_what_another_wants_too() -> None:
    queue = flooded()
    came = {b"f": 0, b"c": 0}
    for _ in range(40):
        queue.put([b"c" * 1000] * 150, CALM)  # more than a half of what is taken
        queue.put([b"f" * 1000] * 1000, FLOOD)
        for frame in queue.take(1 << 18):
            came[frame[:1]] += 1
        assert queue.bytes <= 1 << 19
    assert 0.9 < came[b"f"] / came[b"c"] < 1.1
    assert queue.dropped[QUEUE_FULL] == queue.dropped_frames


def test_a_flood_that_was_there_first_makes_room_for_another_stream() -> None:
    queue = flooded()
    for _ in range(5):
        queue.put([b"c" * 1000] * 100, CALM)
    shares = [sum(frame[:1] == name for frame in queue.frames) for name in (b"f", b"c")]
    assert abs(shares[0] - shares[1]) < 0.1 * sum(shares)


def test_what_is_long_waits_for_its_turn_though_it_comes_alone() -> None:
    queue = FairQueue(1 << 20)
    queue.put([b"a" * 1000] * 100, 1)
    queue.put([b"b" * (ALONE + 1)], 2)
    queue.put([b"c" * ALONE], 3)
    order = [frame[:1] for frame in queue.take()]
    assert order[0] == b"c"
    assert order.index(b"b") == 1 + -(-TURN // 1000)


def test_frames_that_have_waited_elsewhere_go_before_all_others() -> None:
    queue = FairQueue(10_000)
    queue.put([b"new"], 1)
    queue.put_back([b"a", b"b", b"c"], {})
    queue.put([b"new too"], 2)
    assert queue.take(2) == [b"a", b"b"]
    queue.put([b"d"])
    assert queue.frames[:2] == [b"c", b"d"]
    assert (len(queue), queue.bytes) == (4, 12)
    assert queue.take() == [b"c", b"d", b"new too", b"new"]
    assert (len(queue), queue.bytes) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 700), max_size=8), st.integers(0, 900)), max_size=30),
    st.integers(0, 2000),
)
def test_of_every_source_all_is_taken_or_counted_and_in_its_order(
    steps: list[tuple[int, list[int], int]], limit: int
) -> None:
    queue, given_, taken = FairQueue(limit), dict[int, list[bytes]](), list[bytes]()
    for source, lengths, part in steps:
        frames = [bytes([source]) + bytes(length) for length in lengths]
        given_.setdefault(source, []).extend(frames)
        before = queue.dropped_frames
        assert queue.put(frames, source) == queue.dropped_frames - before
        assert queue.bytes <= limit
        if part:
            waiting = len(queue)
            taken += (some := queue.take(part))
            assert bool(some) == bool(waiting)
            assert sum(map(len, some)) <= part or len(some) == 1
        assert len(queue) == len(queue.frames)
        assert queue.bytes == sum(map(len, queue.frames))
    taken += queue.take()
    assert (len(queue), queue.bytes, queue.take()) == (0, 0, [])
    everything = [frame for frames in given_.values() for frame in frames]
    assert len(taken) + queue.dropped_frames == len(everything)
    assert sum(map(len, taken)) + queue.dropped_bytes == sum(map(len, everything))
    for source, frames in given_.items():
        left = iter(frames)
        assert all(frame in left for frame in taken if frame[0] == source)
