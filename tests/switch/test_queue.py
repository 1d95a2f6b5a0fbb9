"""The queue of one port: never above its bound, order kept, every drop counted."""

from hypothesis import given
from hypothesis import strategies as st

from ukihashi.switch.queue import PortQueue

sizes = st.lists(st.integers(0, 60), max_size=10)


@given(st.lists(st.tuples(sizes, st.booleans()), max_size=10), st.integers(0, 200))
def test_nothing_is_lost_uncounted(steps: list[tuple[list[int], bool]], limit: int) -> None:
    queue, given_, taken, number = PortQueue(limit), list[bytes](), list[bytes](), 0
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


def test_the_newest_is_dropped_and_a_smaller_one_may_fit() -> None:
    queue = PortQueue(100)
    assert queue.put([b"a" * 60, b"b" * 60, b"c" * 40]) == 1
    assert queue.take() == [b"a" * 60, b"c" * 40]
    assert (queue.dropped_frames, queue.dropped_bytes) == (1, 60)


def test_a_part_can_be_taken() -> None:
    queue = PortQueue(1000)
    queue.put([b"a" * 60, b"b" * 60, b"c" * 60])
    assert queue.take(130) == [b"a" * 60, b"b" * 60]
    assert (len(queue), queue.bytes) == (1, 60)
    assert queue.take(1) == [b"c" * 60]
    assert queue.take(1) == []


def test_what_waits_stays_when_the_bound_falls_and_drops_have_their_reason() -> None:
    queue = PortQueue(100)
    queue.put([b"a" * 60])
    queue.bound(50, "no link")
    assert queue.put([b"b"]) == 1
    queue.bound(200)
    assert queue.put([b"c" * 140, b"d"]) == 1
    queue.clear("no memory")
    assert (len(queue), queue.bytes) == (0, 0)
    assert queue.dropped == {"no link": 1, "queue_full": 1, "no memory": 2}
    assert queue.dropped_bytes == 1 + 1 + 200


def test_another_queue_goes_on() -> None:
    queue, heir = PortQueue(10), PortQueue(5)
    queue.put([b"a" * 6, b"b" * 4, b"c"])
    heir.put_back(queue.frames, queue.dropped)
    assert heir.dropped_frames == 1
    assert heir.put([b"d"]) == 1
    assert heir.take() == [b"a" * 6, b"b" * 4]
    assert heir.bytes == 0
