"""The slow line: what its core does to frames, by a clock of the test; and that real packets meet it."""

import random
import re

import pytest

from lab.line import Line, Quality, Way
from lab.net import Net

FRAME = bytes(1250)  # 10,000 bits: 1 ms at 10 Mbit/s
SLOW = Quality(mbit=10, delay_s=0.02, loss=0.0, queue=10 * len(FRAME) + 100)


def arrivals(way: Way, until: float = 10.0) -> list[float]:
    """When each frame that is on the way arrives, to the microsecond."""
    found = []
    while way.next_at is not None and way.next_at <= until:
        at = way.next_at
        found += [round(at, 6)] * len(way.arrived(at))
    return found


def test_a_frame_takes_its_time_at_the_rate_and_then_the_delay() -> None:
    way = Way(SLOW, random.Random(1))
    way.take(FRAME, 5.0)
    assert way.arrived(5.020) == []
    assert way.arrived(5.0211) == [FRAME]
    assert way.arrived(6.0) == []
    assert way.next_at is None


def test_frames_that_come_together_leave_one_behind_the_other_and_a_pause_is_no_credit() -> None:
    way = Way(SLOW, random.Random(1))
    for at in (1.0, 1.0, 1.0, 2.0, 2.0):
        way.take(FRAME, at)
    assert arrivals(way) == [1.021, 1.022, 1.023, 2.021, 2.022]


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted_and_the_queue_drains() -> None:
    way = Way(SLOW, random.Random(1))
    for _ in range(15):
        way.take(FRAME, 0.0)
    assert (way.carried, way.overflowed) == (10, 5)
    way.take(FRAME, 0.0011)  # one has left
    way.take(FRAME, 0.0012)
    assert (way.carried, way.overflowed) == (11, 6)
    assert arrivals(way) == [round(0.021 + number / 1000, 6) for number in range(11)]


def test_lost_frames_take_their_time_too_and_the_same_seed_loses_the_same_ones() -> None:
    way, again = (Way(SLOW._replace(loss=0.25, queue=1 << 30), random.Random(7)) for _ in range(2))
    for _ in range(10_000):
        way.take(FRAME, 0.0)
        again.take(FRAME, 0.0)
    came = arrivals(way, until=100.0)
    assert came == arrivals(again, until=100.0)
    assert way.carried + way.lost == 10_000
    assert 2_300 < way.lost < 2_700
    assert max(came) > 9.9  # as long as if all had come


@pytest.mark.netns
@pytest.mark.slow
def test_real_packets_meet_delay_and_loss(net: Net) -> None:
    a, h = net.host("a"), net.host("h")
    line = Line(net, Quality(mbit=100, delay_s=0.015, loss=0.2), seed=3)
    assert net.link(h, a, lay=line) == ("to-a", "to-h")
    assert a.pings(h.ipv4) >= 30.0
    out = a.run(["ping", "-n", "-c", "100", "-i", "0.01", "-W", "2", h.ipv4], check=False)
    received = re.search(r"(\d+) received", out)
    assert received is not None
    assert 30 <= int(received[1]) <= 95  # each way loses a fifth
    counts = line.stop()
    assert counts["carried"] > 100
    assert counts["lost"] > 5
