"""The counter of frames can fail: a bridge that drops, doubles, swaps or spoils is seen, each by its own figure."""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab.net import LabError, Net
from lab.numbered import BROADCAST, ETHERTYPE, End, Numbered
from lab.raw import Wire
from lab.wait import TimeOver

pytestmark = [pytest.mark.netns, pytest.mark.slow]

Bridge = Callable[[int, bytes], list[bytes]]  # the count of a numbered frame and the frame -> what goes on


@contextmanager
def bridged(net: Net, bridge: Bridge) -> Iterator[tuple[End, End]]:
    """a ---- m ---- b, where m hands the frames of a through `bridge` and those of b as they are."""
    a, m, b = net.host("a"), net.host("m"), net.host("b")
    net.link(a, m)
    net.link(m, b)
    over = threading.Event()
    with Wire(m, "to-a") as left, Wire(m, "to-b") as right:

        def carry(source: Wire, sink: Wire, change: Bridge) -> None:
            count = 0
            while not over.is_set():
                for frame in source.frames(seconds=0.1):
                    numbered = frame[12:14] == ETHERTYPE.to_bytes(2, "big") and frame[:6] != BROADCAST
                    for each in change(count, frame) if numbered else [frame]:
                        sink.send(each)
                    count += numbered

        threads = [
            threading.Thread(target=carry, args=(left, right, bridge)),
            threading.Thread(target=carry, args=(right, left, lambda _count, frame: [frame])),
        ]
        for thread in threads:
            thread.start()
        try:
            yield End(a, "to-m"), End(b, "to-m")
        finally:
            over.set()
            for thread in threads:
                thread.join(5.0)


def run(net: Net, bridge: Bridge, *, seconds: float = 1.0) -> Numbered:
    with bridged(net, bridge) as (one, other), Numbered(one, other, rate=400, seed=7) as frames:
        select.select([], [], [], seconds)
        frames.finish(quiet_s=0.3)
        return frames


def test_a_whole_line_loses_nothing_both_ways(net: Net) -> None:
    result = run(net, lambda _count, frame: [frame]).result()
    assert result.up.exact
    assert result.down.exact
    assert min(result.up.sent, result.down.sent) > 200
    assert (result.up.received, result.up.refused) == (result.up.sent, 0)
    assert result.total("received") == result.up.received + result.down.received


def test_each_lost_frame_is_counted_in_its_direction(net: Net) -> None:
    result = run(net, lambda count, frame: [] if count % 10 == 3 else [frame]).result()
    assert result.up.lost == (result.up.sent + 6) // 10
    assert (result.up.doubled, result.up.reordered, result.up.exact) == (0, 0, False)
    assert result.down.exact


def test_each_doubled_frame_is_counted_and_none_is_lost(net: Net) -> None:
    result = run(net, lambda count, frame: [frame, frame] if count % 10 == 0 else [frame]).result()
    assert result.up.doubled == (result.up.sent + 9) // 10
    assert (result.up.lost, result.up.reordered, result.up.received) == (0, 0, result.up.sent)


def test_a_frame_that_was_overtaken_is_counted_as_reordered(net: Net) -> None:
    held: list[bytes] = []

    def swap(count: int, frame: bytes) -> list[bytes]:
        if count in (20, 40):
            held.append(frame)
            return []
        return [frame, held.pop()] if held else [frame]

    result = run(net, swap).result()
    assert (result.up.reordered, result.up.lost, result.up.doubled) == (2, 0, 0)
    assert result.down.exact


def test_a_spoiled_or_shortened_frame_is_damaged_and_lost(net: Net) -> None:
    def spoil(count: int, frame: bytes) -> list[bytes]:
        if count == 10:
            return [frame[:-1] + bytes([frame[-1] ^ 1])]
        return [frame[:-1]] if count == 20 else [frame]

    result = run(net, spoil).result()
    assert (result.up.damaged, result.up.lost) == (2, 2)


def test_the_longest_gap_and_the_way_back_are_told(net: Net) -> None:
    frames = run(net, lambda count, frame: [] if 160 < count < 360 else [frame], seconds=1.6)  # half a second's worth
    result = frames.result()
    assert result.up.longest_gap_s > 0.3
    assert result.up.lost > 0
    assert frames.up.flowed_again(frames.began) is not None
    assert frames.up.flowed_again(time.monotonic()) is None


def test_an_interface_made_anew_is_used_again_and_what_it_refused_counts_as_lost(net: Net) -> None:
    a, b = net.host("a"), net.host("b")
    net.link(a, b)
    with Numbered(End(a, "to-b"), End(b, "to-a"), rate=200, seed=3) as frames:
        a.ip("link set to-b down")
        with pytest.raises(TimeOver):
            frames.flows_again(time.monotonic(), seconds=0.5)
        a.ip("link set to-b up")
        assert frames.flows_again(time.monotonic(), seconds=5.0) < 5.0
        a.ip("link del to-b")
        net.link(a, b)
        assert frames.flows_again(time.monotonic(), seconds=5.0) < 5.0
        result = frames.finish(quiet_s=0.3)
    assert result.up.refused > 0
    assert result.up.lost >= result.up.refused
    assert result.up.doubled == result.up.reordered == 0


def test_ends_that_never_hear_each_other_are_told_at_once(net: Net) -> None:
    a, m, b = net.host("a"), net.host("m"), net.host("b")
    net.link(a, m)
    net.link(m, b)
    with pytest.raises(TimeOver), Numbered(End(a, "to-m"), End(b, "to-m"), rate=10, seed=1, prime_s=0.5):
        pass
    with pytest.raises(LabError):
        Numbered(End(a, "to-m"), End(b, "to-m"), rate=10, seed=1, sizes=(20, 1514))
