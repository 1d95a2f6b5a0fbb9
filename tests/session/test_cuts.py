"""A thousand cuts of every kind under load, with a bounded buffer: nothing is lost while it suffices, and else counted.

Sizes are a 32nd of the real ones, so that a thousand cuts take seconds.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.session.world import ALL, CARRYING, End, Link, World

from ukihashi.session import machine
from ukihashi.session.machine import State
from ukihashi.session.replay import OVERHEAD

SCALE = 32
BOUND = 8192 * 1024 // SCALE  # bytes each end keeps
BATCH = 4096  # bytes of frames at most
ONLINE_TICK = 0.01  # seconds between two turns of both loops while all is well
TICKS = 8  # turns during an outage


@dataclass
class Line:
    """A session under load from both ends, and somebody who breaks its links."""

    seed: int
    world: World = field(init=False)
    budget: dict[int, float] = field(default_factory=lambda: {0: 0.0, 1: 0.0})  # bytes that the applications still have
    rates: tuple[float, float] = (0.0, 0.0)  # bytes a second, from the card and from the hub, with the batches' cost

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.world = World(bound=BOUND)

    @property
    def link(self) -> Link:
        return self.world.links[next(reversed(self.world.links))]  # the newest

    def turn(self, seconds: float) -> None:
        """Both ends take what their applications have, and write what they may."""
        self.world.now += seconds
        for at, end in enumerate((self.world.card, self.world.hub)):
            self.budget[at] += self.rates[at] * seconds
            while self.budget[at] > OVERHEAD + 64:
                self.budget[at] -= self.offer(end, self.budget[at])
            self.world.write_all(end)
            self.world.ack(end)
            assert end.machine.out.bytes <= BOUND + OVERHEAD

    def offer(self, end: End, most: float) -> float:
        """One batch; gives what it costs to keep."""
        sizes, room = list[int](), min(most - OVERHEAD - 4, BATCH)
        while room > 9 and len(sizes) < 40:
            size = min(self.random.choice((60, 200, 576, 1514, 3000)), int(room) - 4)
            if size < 5:
                break
            sizes.append(size)
            room -= size + 4
        if not sizes:
            return most
        self.world.offer(end, sizes)
        return sum(sizes) + 4 * len(sizes) + 4 + OVERHEAD

    def online(self) -> None:
        """All is well for a moment."""
        for _ in range(self.random.randrange(2, 6)):
            self.turn(ONLINE_TICK)
            self.world.hub_reads(self.link)
            self.world.card_reads(self.link)

    def outage(self, seconds: float) -> None:
        """Nothing gets through, and both ends go on."""
        for _ in range(TICKS):
            self.turn(seconds / TICKS)

    def lost(self, *ends: End) -> None:
        for end in ends:
            if end.machine.link is not None:
                assert end.machine.lost(end.machine.link)

    def resume(self) -> None:
        link = self.world.greeted()
        assert link is not None
        self.world.hub_reads(link)
        self.world.card_reads(link)
        assert self.world.card.machine.state is self.world.hub.machine.state is State.ONLINE


def reset(line: Line, seconds: float) -> None:
    line.link.cut()
    line.lost(line.world.card, line.world.hub)
    line.outage(seconds)
    line.resume()


def seen_by_the_card(line: Line, seconds: float) -> None:
    line.link.cut()
    line.lost(line.world.card)
    line.outage(seconds)
    line.resume()


def seen_by_the_hub(line: Line, seconds: float) -> None:
    line.link.cut()
    line.lost(line.world.hub)
    line.outage(seconds)
    line.world.card.machine.silent()
    line.resume()


def black_hole(line: Line, seconds: float) -> None:
    """Nobody is told; the card notices the silence."""
    line.link.cut()
    line.outage(seconds)
    assert line.world.card.machine.silent()
    line.resume()


def half_black_hole(line: Line, seconds: float) -> None:
    """One way only; the end that hears nothing gives up."""
    to_hub = line.random.random() < 0.5
    (line.link.to_hub if to_hub else line.link.to_card).cut()
    for _ in range(TICKS):
        line.turn(seconds / TICKS)
        line.world.hub_reads(line.link)
        line.world.card_reads(line.link)
    line.lost(line.world.hub if to_hub else line.world.card)
    line.lost(line.world.card)
    line.resume()


def inside_a_record(line: Line, seconds: float) -> None:
    line.turn(ONLINE_TICK)
    line.world.hub_reads(line.link, line.random.randrange(2 * BATCH))
    line.world.card_reads(line.link, line.random.randrange(2 * BATCH))
    reset(line, seconds)


def the_request_is_lost(line: Line, seconds: float) -> None:
    line.link.cut()
    line.lost(line.world.card)
    line.outage(seconds / 2)
    link = line.world.greeted()
    assert link is not None
    line.world.hub_reads(link, line.random.randrange(1, len(link.to_hub.data)))
    link.cut()
    line.outage(seconds / 2)
    line.lost(line.world.card)
    line.resume()


def the_answer_is_lost(line: Line, seconds: float) -> None:
    """The hub believes it goes on, and sends into nothing."""
    line.link.cut()
    line.lost(line.world.card)
    line.outage(seconds / 2)
    link = line.world.greeted()
    assert link is not None
    line.world.hub_reads(link)
    line.world.write_all(line.world.hub)
    line.world.card_reads(link, line.random.randrange(1, 60))
    link.cut()
    line.outage(seconds / 2)
    line.resume()


def the_old_link_comes_back(line: Line, seconds: float) -> None:
    old = line.link
    line.turn(ONLINE_TICK)
    line.world.card.machine.silent()
    line.outage(seconds)
    line.resume()
    line.world.hub_reads(old)
    line.world.card_reads(old)


def a_slow_dial(line: Line, seconds: float) -> None:
    """Its request comes after a newer one's."""
    line.link.cut()
    line.lost(line.world.card)
    slow = line.world.greeted()
    assert slow is not None
    line.outage(seconds)
    line.resume()
    line.world.hub_reads(slow)
    line.world.card_reads(slow)


def an_upgrade(line: Line, seconds: float) -> None:
    line.link.cut()
    line.world.upgrade()
    line.lost(line.world.card)
    line.outage(seconds)
    line.resume()


KINDS: tuple[Callable[[Line, float], None], ...] = (
    reset,
    seen_by_the_card,
    seen_by_the_hub,
    black_hole,
    half_black_hole,
    inside_a_record,
    the_request_is_lost,
    the_answer_is_lost,
    the_old_link_comes_back,
    a_slow_dial,
    an_upgrade,
)


def cut_often(line: Line, cuts: int, fullest: tuple[float, float]) -> Counter[str]:
    """Cut; each time rate and outage are drawn so that their product is between `fullest` parts of the buffer."""
    kinds, products, seconds = Counter[str](), list[float](), list[float]()
    for at in range(cuts):
        kind = KINDS[at] if at < len(KINDS) else line.random.choice(KINDS)
        outage = line.random.uniform(0.1, 60.0)
        parts = [line.random.uniform(*fullest) for _ in range(2)]
        line.rates = parts[0] * BOUND / outage, parts[1] * BOUND / outage
        line.online()
        kind(line, outage)
        line.world.check()
        line.rates = 0.0, 0.0
        line.online()
        kinds[kind.__name__] += 1
        products += parts
        seconds.append(outage)
    line.world.settle()
    line.world.check_all_arrived()
    assert line.world.card.machine.ledger.resumes == cuts
    assert set(kinds) == {kind.__name__ for kind in KINDS}
    print(
        f"{cuts} cuts, outages {min(seconds):.1f} to {max(seconds):.1f} s,"
        f" rate x outage {min(products):.0%} to {max(products):.0%} of the buffer; {dict(kinds)}"
    )
    for name, end, peer in (("card", line.world.card, line.world.hub), ("hub", line.world.hub, line.world.card)):
        print(
            f"{name}: offered {end.offered}, delivered {len(peer.got)}, no room {end.full}, {end.machine.ledger.row(0)}"
        )
    return kinds


@pytest.fixture(autouse=True)
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ACK_BYTES", machine.ACK_BYTES // SCALE)


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [300, pytest.param(3000, marks=pytest.mark.soak)])
def test_hundreds_of_cuts_lose_double_and_reorder_nothing(cuts: int) -> None:
    line = Line(seed=1)
    cut_often(line, cuts, (0.01, 0.8))
    for end, peer in ((line.world.card, line.world.hub), (line.world.hub, line.world.card)):
        assert end.full == 0
        assert peer.got == list(range(end.offered))
        assert end.machine.ledger.sent == end.machine.ledger.acknowledged == peer.machine.ledger.received == end.offered


def test_what_finds_no_room_is_counted_and_nothing_else_is_missing() -> None:
    line = Line(seed=2)
    cut_often(line, 60, (1.2, 3.0))
    for end, peer in ((line.world.card, line.world.hub), (line.world.hub, line.world.card)):
        assert end.full > 1000
        assert end.offered == len(peer.got) + end.full
        assert end.machine.ledger.sent == peer.machine.ledger.received == len(peer.got)


def test_both_ends_say_what_carries() -> None:
    """The model itself: a line that is let alone delivers."""
    line = Line(seed=3, rates=(50_000.0, 80_000.0))
    line.online()
    assert line.world.card.machine.state in CARRYING
    assert line.world.hub.got
    assert line.world.card.got
    line.world.hub_reads(line.link, ALL)
    line.world.settle()
    line.world.check_all_arrived()
