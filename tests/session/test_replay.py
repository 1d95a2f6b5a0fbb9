"""The replay buffer: what is owed, from the first record not acknowledged on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.ether.offload import SuperFrame
from ukihashi.session.replay import OVERHEAD, Batch, Kept, ReplayBuffer
from ukihashi.wire.blocks import BlockDecoder, encode_frames

ALL = 1 << 30


def batch(*frames: bytes) -> Batch:
    return Batch(encode_frames(frames), len(frames))


def holding(*batches: Batch) -> ReplayBuffer:
    buffer = ReplayBuffer()
    for one in batches:
        buffer.append(*one)
    return buffer


def frames_of(data: bytes) -> list[bytes]:
    """And the batch is whole: nothing is left to come."""
    decoder = BlockDecoder(extended=True, super_frames=True)
    frames = decoder.feed(data)
    assert decoder.pending == 0
    assert decoder.feed(encode_frames([b"end"])) == [b"end"]
    return frames


def numbers(buffer: ReplayBuffer) -> tuple[int, int, int, int]:
    return buffer.first, buffer.cursor, buffer.high, buffer.end


FIRST, SECOND, THIRD = batch(b"a", b"bb", b"ccc"), batch(b"d"), batch(b"ee", b"f")


def test_an_empty_one_gives_nothing_and_holds_where_it_stands() -> None:
    buffer = ReplayBuffer()
    assert (numbers(buffer), buffer.bytes, buffer.waiting) == ((0, 0, 0, 0), 0, 0)
    assert buffer.take(ALL) == b""
    assert buffer.acknowledge(0) == buffer.rewind(0) == buffer.clear() == 0
    assert buffer.holds(0)
    assert not buffer.holds(1)
    assert buffer.never_sent() == ()
    assert buffer.keep() == Kept(0, 0, ())


def test_what_is_kept_counts_with_its_cost_until_it_is_acknowledged() -> None:
    buffer = holding(FIRST, SECOND)
    assert buffer.bytes == len(FIRST.data) + len(SECOND.data) + 2 * OVERHEAD
    buffer.take(ALL)
    assert buffer.bytes == len(FIRST.data) + len(SECOND.data) + 2 * OVERHEAD
    assert buffer.acknowledge(2) == 2
    assert buffer.bytes == len(FIRST.data) + len(SECOND.data) + 2 * OVERHEAD, "a batch is let go of as a whole"
    assert buffer.acknowledge(3) == 1
    assert buffer.bytes == len(SECOND.data) + OVERHEAD
    assert buffer.acknowledge(4) == 1
    assert (buffer.bytes, numbers(buffer)) == (0, (4, 4, 4, 4))


def test_the_batch_itself_is_what_is_written() -> None:
    buffer = holding(FIRST)
    assert buffer.take(ALL) is FIRST.data


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        (1, [FIRST]),
        (len(FIRST.data), [FIRST]),
        (len(FIRST.data + SECOND.data) - 1, [FIRST]),
        (len(FIRST.data + SECOND.data), [FIRST, SECOND]),
        (len(FIRST.data + SECOND.data + THIRD.data), [FIRST, SECOND, THIRD]),
        (ALL, [FIRST, SECOND, THIRD]),
    ],
)
def test_whole_batches_are_taken_within_the_limit_but_at_least_one(limit: int, taken: list[Batch]) -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    assert buffer.take(limit) == b"".join(one.data for one in taken)
    count = sum(one.records for one in taken)
    assert (numbers(buffer), buffer.waiting) == ((0, count, count, 6), 6 - count)


def test_taking_goes_on_where_it_stopped() -> None:
    buffer = holding(FIRST, SECOND)
    assert [buffer.take(1), buffer.take(1), buffer.take(1)] == [FIRST.data, SECOND.data, b""]
    buffer.append(*THIRD)
    assert [buffer.take(1), buffer.take(1)] == [THIRD.data, b""]


def test_an_acknowledgement_twice_is_no_news() -> None:
    buffer = holding(FIRST)
    buffer.take(ALL)
    assert [buffer.acknowledge(2), buffer.acknowledge(2)] == [2, 0]


@pytest.mark.parametrize("have", [1, 4, 6, 1 << 61])
def test_what_was_not_under_way_cannot_be_acknowledged(have: int) -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    buffer.take(1)
    buffer.acknowledge(2)
    before = numbers(buffer)
    with pytest.raises(PeerViolation, match=f"acknowledges record {have}, but 2 to 3 are under way"):
        buffer.acknowledge(have)
    assert numbers(buffer) == before


def test_a_new_link_does_not_acknowledge_what_only_the_old_one_was_given() -> None:
    buffer = holding(FIRST, SECOND)
    buffer.take(ALL)
    buffer.rewind(1)
    with pytest.raises(PeerViolation):
        buffer.acknowledge(2)


@pytest.mark.parametrize("have", range(5))
def test_a_new_link_gets_exactly_what_is_missing(have: int) -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    buffer.take(1)
    buffer.take(1)
    assert buffer.rewind(have) == 4 - have
    assert numbers(buffer) == (have, have, 4, 6)
    every = [b"a", b"bb", b"ccc", b"d", b"ee", b"f"]
    assert frames_of(buffer.take(ALL)) == every[have:]
    assert numbers(buffer) == (have, 6, 6, 6)


def test_a_batch_begun_inside_is_finished_before_the_next() -> None:
    buffer = holding(FIRST, SECOND)
    buffer.take(ALL)
    buffer.rewind(1)
    assert frames_of(buffer.take(1)) == [b"bb", b"ccc"]
    assert buffer.take(1) == SECOND.data
    assert buffer.acknowledge(2) == 1
    assert buffer.rewind(2) == 2
    assert frames_of(buffer.take(ALL)) == [b"ccc", b"d"]


@pytest.mark.parametrize("have", [0, 1, 5, 6, 7])
def test_what_is_not_held_cannot_be_gone_on_from(have: int) -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    buffer.take(1)
    buffer.take(1)
    buffer.acknowledge(2)
    assert not buffer.holds(have)
    with pytest.raises(ValueError, match="not within 2 to 4"):
        buffer.rewind(have)
    assert [number for number in range(8) if buffer.holds(number)] == [2, 3, 4]


def test_going_on_twice_from_the_same_place_gives_the_same() -> None:
    buffer = holding(FIRST, SECOND)
    first = [buffer.take(1), buffer.take(1)]
    buffer.rewind(0)
    again = buffer.take(1)
    buffer.rewind(0)
    assert [buffer.take(1), buffer.take(1)] == first
    assert again == first[0]


def test_going_on_beyond_what_the_last_link_was_given_again() -> None:
    """The peer had all, but its acknowledgement was lost; the replay had only begun."""
    buffer = holding(FIRST, SECOND, THIRD)
    buffer.take(ALL)
    buffer.rewind(0)
    buffer.take(1)
    assert buffer.rewind(6) == 0
    assert (numbers(buffer), buffer.bytes, buffer.take(ALL)) == ((6, 6, 6, 6), 0, b"")


def test_a_batch_begun_inside_goes_on_behind_a_super_frame() -> None:
    mixed = [
        b"a",
        SuperFrame(bytes([1]) * 65_000),
        b"b",
        SuperFrame(bytes([2]) * 24),
        SuperFrame(bytes([3]) * 24),
        b"c",
    ]
    for have in range(len(mixed)):
        buffer = holding(batch(*mixed))
        buffer.take(ALL)
        buffer.rewind(have)
        kept = ReplayBuffer(buffer.keep())
        for one in (buffer, kept):
            taken = frames_of(one.take(ALL))
            assert taken == mixed[have:]
            assert list(map(type, taken)) == list(map(type, mixed[have:]))


def test_what_was_never_sent_is_told_apart() -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    assert buffer.never_sent() == (FIRST, SECOND, THIRD)
    buffer.take(1)
    buffer.acknowledge(1)
    assert buffer.never_sent() == (SECOND, THIRD)
    buffer.rewind(2)
    assert buffer.never_sent() == (SECOND, THIRD), "the first was sent once"
    buffer.take(ALL)
    assert buffer.never_sent() == ()


@pytest.mark.parametrize("have", range(4))
def test_another_process_goes_on_from_the_value(have: int) -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    buffer.take(1)
    buffer.take(1)
    buffer.acknowledge(have)
    kept = buffer.keep()
    assert kept.batches[-1].data is THIRD.data
    other = ReplayBuffer(kept)
    assert (numbers(other), other.keep()) == ((have, have, 4, 6), kept)
    assert other.bytes == sum(len(one.data) + OVERHEAD for one in kept.batches) <= buffer.bytes
    assert [other.holds(number) for number in range(7)] == [have <= number <= 4 for number in range(7)]
    assert other.rewind(max(have, 2)) == 4 - max(have, 2)
    assert frames_of(other.take(ALL)) == [b"a", b"bb", b"ccc", b"d", b"ee", b"f"][max(have, 2) :]
    assert numbers(buffer) == (have, 4, 4, 6), "the first is as it was"


def test_cleared_it_holds_only_where_it_ends() -> None:
    buffer = holding(FIRST, SECOND, THIRD)
    buffer.take(1)
    buffer.acknowledge(1)
    assert buffer.clear() == 5
    assert (numbers(buffer), buffer.bytes) == ((6, 6, 6, 6), 0)
    assert [buffer.holds(number) for number in (1, 3, 5, 6, 7)] == [False, False, False, True, False]
    buffer.append(*SECOND)
    assert (buffer.take(ALL), numbers(buffer)) == (SECOND.data, (6, 7, 7, 7))


class Obvious:
    """The same, slowly: a list of all records ever."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.ends = [0]  # where batches end
        self.first = self.cursor = self.high = 0


records = st.one_of(
    st.binary(min_size=1, max_size=5), st.integers(24, 5000).map(lambda size: SuperFrame(bytes([size % 251]) * size))
)
steps = st.one_of(
    st.tuples(st.just("append"), st.lists(records, min_size=1, max_size=4)),
    st.tuples(st.just("take"), st.integers(1, 80)),
    st.tuples(st.just("acknowledge"), st.integers(0, 6)),
    st.tuples(st.just("rewind"), st.integers(0, 6)),
    st.tuples(st.just("keep"), st.none()),
)


@given(st.lists(steps, max_size=40))
def test_it_does_what_a_slow_obvious_one_does(script: list[tuple[str, object]]) -> None:
    buffer, model = ReplayBuffer(), Obvious()
    for step, value in script:
        if step == "append":
            assert isinstance(value, list)
            buffer.append(*batch(*value))
            model.records += value
            model.ends.append(len(model.records))
        elif step == "take":
            assert isinstance(value, int)
            data = buffer.take(value)
            taken = frames_of(data) if data else []
            assert taken == (wanted := model.records[model.cursor : model.cursor + len(taken)])
            assert list(map(type, taken)) == list(map(type, wanted))
            assert bool(taken) == (model.cursor < len(model.records))
            model.cursor += len(taken)
            model.high = max(model.high, model.cursor)
            assert model.cursor in model.ends or not taken
        elif step == "acknowledge":
            assert isinstance(value, int)
            have = min(model.first + value, model.cursor)
            assert buffer.acknowledge(have) == have - model.first
            model.first = have
        elif step == "rewind":
            assert isinstance(value, int)
            have = min(model.first + value, model.high)
            assert buffer.rewind(have) == model.high - have
            model.first = model.cursor = have
        else:
            buffer = ReplayBuffer(buffer.keep())
            model.cursor = model.first
        assert numbers(buffer) == (model.first, model.cursor, model.high, len(model.records))
        held = next((end for end in reversed(model.ends) if end <= model.first), 0)
        assert (buffer.bytes > 0) == (len(model.records) > held)
