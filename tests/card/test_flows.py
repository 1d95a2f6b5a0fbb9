"""Frames of several flows that wait for one link."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.card.flows import OVERHEAD, QUANTUM, FlowQueue
from ukihashi.wire.blocks import BlockDecoder, encode_frames

MACS = bytes.fromhex("020000000001 020000000002")


def ipv4(protocol: int, ports: bytes, body: bytes, *, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, fragment, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return MACS + b"\x08\0" + head + ports + body


def tcp(flow: int, number: int, size: int = 1400) -> bytes:
    return ipv4(6, struct.pack("!HH", 1000 + flow, 80), number.to_bytes(4) + bytes(size))


def ping(number: int) -> bytes:
    return ipv4(1, number.to_bytes(4), bytes(60))


def ipv6(protocol: int, ports: bytes, body: bytes) -> bytes:
    return MACS + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + bytes(32) + ports + body


def all_of(queue: FlowQueue, limit: int = 60_000) -> list[bytes]:
    got: list[bytes] = []
    while queue.frames:
        data, count, long, unfit = queue.take(limit)
        frames = BlockDecoder().feed(data)
        assert (len(frames), 0, 0) == (count, long, unfit)
        assert frames
        got += frames
    assert (queue.bytes, queue.take(limit)) == (0, (b"", 0, 0, 0))
    return got


def test_one_flow_keeps_its_order_and_comes_in_batches_of_about_what_is_asked_for() -> None:
    queue = FlowQueue(1 << 20)
    frames = [tcp(1, number) for number in range(100)]
    queue.put(encode_frames(frames[:60]))
    queue.put(encode_frames(frames[60:]))
    assert (queue.frames, queue.bytes) == (100, sum(map(len, frames)) + 100 * (4 + OVERHEAD))
    data, count, _, _ = queue.take(30_000)
    assert 30_000 <= len(data) < 32_000
    assert BlockDecoder().feed(data) + all_of(queue) == frames
    assert count > 20


@pytest.mark.parametrize("whole", [tcp(1, 1), ping(1), ipv6(6, bytes(4), bytes(9))], ids=["tcp", "ping", "ipv6"])
def test_a_frame_may_end_anywhere(whole: bytes) -> None:
    """Whoever may send raw frames may send the begin of one, also as the last of a batch."""
    for length in range(14, len(whole)):
        queue = FlowQueue(1 << 20)
        queue.put(encode_frames([whole[:length]]))
        assert all_of(queue) == [whole[:length]]


def test_what_is_sparse_passes_what_fills() -> None:
    queue = FlowQueue(1 << 20)
    queue.put(encode_frames([tcp(1, number) for number in range(300)]))
    queue.take(3 * QUANTUM)
    queue.put(encode_frames([ping(1)]))
    assert BlockDecoder().feed(queue.take(1).data) == [ping(1)]
    queue.put(encode_frames([ping(2)]))  # right behind: it waits for one turn of the other
    assert ping(2) in BlockDecoder().feed(queue.take(2 * QUANTUM).data)


def test_two_that_fill_share_and_neither_starves() -> None:
    queue = FlowQueue(1 << 22)
    queue.put(encode_frames([tcp(1, number, 60) for number in range(3000)]))
    queue.put(encode_frames([tcp(2, number) for number in range(300)]))
    shares = [sum(map(len, BlockDecoder().feed(queue.take(QUANTUM).data))) for _ in range(8)]
    queue.put(encode_frames([ping(number) for number in range(50)]))
    assert min(shares) >= QUANTUM // 2
    seen = BlockDecoder().feed(queue.take(8 * QUANTUM).data)
    assert {frame[34:36] for frame in seen} >= {struct.pack("!H", 1001), struct.pack("!H", 1002)}


def test_when_there_is_no_room_the_longest_flow_loses_its_oldest() -> None:
    queue = FlowQueue(200_000)
    queue.put(encode_frames([ping(1), tcp(2, 0)]))
    queue.put(encode_frames([tcp(1, number) for number in range(400)]))
    assert queue.bytes <= 200_000
    left = all_of(queue)
    assert left.count(ping(1)) == left.count(tcp(2, 0)) == 1
    assert queue.dropped == 402 - len(left) > 200
    assert [frame for frame in left if frame[34:36] == struct.pack("!H", 1001)] == [
        tcp(1, number) for number in range(queue.dropped, 400)
    ]


def test_many_small_frames_are_bounded_too() -> None:
    queue = FlowQueue(100_000)
    for number in range(1000):  # each a flow of its own
        queue.put(encode_frames([tcp(number, number, 0)]))
    assert queue.frames < 100_000 // OVERHEAD
    assert queue.frames + queue.dropped == 1000
    assert len(all_of(queue)) == 1000 - queue.dropped


@pytest.mark.parametrize(
    "together",
    [
        [ipv4(17, b"\1\2\3\4", b"x", fragment=0x2000), ipv4(17, b"\4\3\2\1", b"y", fragment=0x0100)],
        [ping(1), ping(2)],
        [MACS + b"\x88\xb5" + b"1", MACS + b"\x88\xb5" + b"2"],
        [ipv6(58, b"\1\2\3\4", b"x"), ipv6(58, b"\1\2\3\5", b"x")],
    ],
    ids=["fragments", "pings", "others", "IPv6"],
)
def test_what_has_no_ports_is_told_apart_by_addresses_only(together: list[bytes]) -> None:
    queue = FlowQueue(1 << 20)
    queue.put(encode_frames([together[0]] * 20 + [together[1]]))
    assert all_of(queue, 1)[-1] == together[1]


def test_ports_of_ipv6_tell_flows_apart() -> None:
    queue = FlowQueue(1 << 20)
    bulk = [ipv6(6, b"\0\1\0\2", number.to_bytes(2) + bytes(1400)) for number in range(100)]
    queue.put(encode_frames(bulk))
    queue.take(QUANTUM)
    other = ipv6(6, b"\0\3\0\2", b"a word")
    queue.put(encode_frames([other]))
    assert BlockDecoder().feed(queue.take(1).data) == [other]


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 60, 1400])), min_size=1)),
        max_size=40,
    )
)
def test_every_frame_is_taken_once_in_the_order_of_its_flow_or_counted(
    steps: list[tuple[bool, list[tuple[int, int]]]],
) -> None:
    queue, sent, got = FlowQueue(12_000), dict[int, list[bytes]](), list[bytes]()
    total = 0
    for take, added in steps:
        if take:
            got += BlockDecoder().feed(queue.take(3000).data)
        frames = []
        for flow, size in added:
            frames.append(tcp(flow, total, size))
            sent.setdefault(flow, []).append(frames[-1])
            total += 1
        queue.put(encode_frames(frames))
        assert queue.bytes <= 12_000
    got += all_of(queue)
    assert len(got) + queue.dropped == total
    for flow, frames in sent.items():
        mine = [frame for frame in got if frame[34:36] == struct.pack("!H", 1000 + flow)]
        assert mine == [frame for frame in frames if frame in set(mine)]
