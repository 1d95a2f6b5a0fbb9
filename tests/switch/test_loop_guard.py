"""Hubs of a made-up world: each a switch that floods, joined by cascades; time jumps."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.switch import loop_guard
from ukihashi.switch.loop_guard import BLOCK_S, ETHERTYPE, LONGEST_S, PERIOD_S, LoopGuard, State

BROADCAST = b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x08\x06" + bytes(46)


def guard(number: int = 1) -> LoopGuard:
    return LoopGuard(hub_id=bytes([number]) * 8, key=b"secret of this start" + bytes([number]))


def probe(one: LoopGuard, port: int, now: float) -> bytes:
    return next(frame for at, frame in one.tick(now) if at == port)


@pytest.fixture
def two() -> LoopGuard:
    one = guard()
    one.add(1, age=1, now=0.0)
    one.add(2, age=2, now=0.0)
    return one


def test_each_port_sends_a_small_broadcast_at_once_and_then_every_period(two: LoopGuard) -> None:
    assert two.due_at == 0.0
    sent = two.tick(0.0)
    assert [port for port, _ in sent] == [1, 2]
    for _, frame in sent:
        assert (len(frame), frame[:6], frame[12:14]) == (60, b"\xff" * 6, ETHERTYPE)
        assert frame[6] & 3 == 2  # locally administered, of one station
    assert sent[0][1][6:12] != sent[1][1][6:12]
    assert two.due_at == PERIOD_S
    assert two.tick(PERIOD_S - 0.01) == []
    assert len(two.tick(PERIOD_S)) == 2


def test_without_a_loop_everything_passes(two: LoopGuard) -> None:
    two.tick(0.0)
    for port in (1, 2):
        assert two.inward([BROADCAST], port, 1.0) == [BROADCAST]
        assert two.outward([BROADCAST], port, 1.0) == [BROADCAST]
    assert two.found == []


@pytest.mark.parametrize(("sent", "back"), [(1, 2), (2, 1)])
def test_the_younger_of_two_ports_is_blocked_neither_way(two: LoopGuard, sent: int, back: int) -> None:
    frame = probe(two, sent, 0.0)
    other = [BROADCAST] if back == 1 else []  # what came with it, unless that very port was blocked by it
    assert list(two.inward([frame, BROADCAST], back, 0.1)) == other
    [found] = two.found
    assert two.stirred
    assert (found.sent, found.back, found.blocked, found.seconds) == (sent, back, 2, BLOCK_S)
    assert list(two.inward([BROADCAST], 2, 0.2)) == list(two.outward([BROADCAST], 2, 0.2)) == []
    assert list(two.inward([BROADCAST], 1, 0.2)) == [BROADCAST]
    assert two.dropped[2]["loop"] == 2 + (back == 2)
    assert two.row(2, 0.2, str) == {"loop": "blocked", "loop_with": "1", "loop_left_s": 29.9}
    assert two.row(1, 0.2, str) == {"loop": "open", "loop_with": "", "loop_left_s": 0.0}


def test_a_probe_that_comes_back_on_its_own_port_blocks_it(two: LoopGuard) -> None:
    assert list(two.inward([probe(two, 1, 0.0)], 1, 0.1)) == []
    [found] = two.found
    assert (found.blocked, found.back) == (1, 1)
    assert two.row(1, 0.2, str)["loop_with"] == ""


def test_a_probe_that_came_in_where_nobody_guards_is_seen_when_it_would_leave(two: LoopGuard) -> None:
    assert list(two.outward([probe(two, 1, 0.0)], 2, 0.1)) == []
    [found] = two.found
    assert (found.sent, found.back, found.blocked) == (1, None, 1)


def test_a_probe_that_somebody_tagged_is_known_too(two: LoopGuard) -> None:
    frame = probe(two, 1, 0.0)
    two.inward([frame[:12] + b"\x81\x00\x00\x07" + frame[12:]], 2, 0.1)
    assert two.found


def test_a_block_ends_by_listening_then_the_port_is_open(two: LoopGuard) -> None:
    two.inward([probe(two, 1, 0.0)], 2, 0.0)
    two.tick(BLOCK_S - 0.1)
    assert two.row(2, BLOCK_S - 0.1, str)["loop"] == "blocked"
    assert 2 in dict(two.tick(BLOCK_S))
    assert two.row(2, BLOCK_S, str)["loop"] == "listening"
    assert list(two.inward([BROADCAST], 2, BLOCK_S)) == []
    two.tick(BLOCK_S + loop_guard.LISTEN_S)
    assert list(two.inward([BROADCAST], 2, BLOCK_S + 5)) == [BROADCAST]


def test_a_loop_that_is_still_there_blocks_twice_as_long_each_time(two: LoopGuard) -> None:
    now, seen = 0.0, []
    for _ in range(7):
        frame = probe(two, 2, now)
        assert list(two.inward([frame], 1, now)) == []
        seen.append(two.found[-1].seconds)
        assert two.found[-1].blocked == 2
        now += seen[-1]
    assert seen == [30, 60, 120, 240, 480, LONGEST_S, LONGEST_S]


def test_only_the_port_that_is_tried_is_blocked_again_even_if_it_is_the_older(two: LoopGuard) -> None:
    two.remove(1, 0.0)
    two.inward([probe(two, 2, 0.0)], 2, 0.0)  # a loop behind port 2 alone
    two.add(3, age=1, now=1.0)  # an older one comes up
    two.tick(BLOCK_S)
    assert two.row(2, BLOCK_S, str)["loop"] == "listening"
    two.inward([probe(two, 3, BLOCK_S + PERIOD_S)], 2, BLOCK_S + PERIOD_S)
    assert two.found[-1].blocked == 2
    assert two.row(3, BLOCK_S, str)["loop"] == "open"


def test_after_a_long_time_without_a_loop_a_block_is_a_first_one_again(two: LoopGuard) -> None:
    two.inward([probe(two, 1, 0.0)], 2, 0.0)
    two.tick(BLOCK_S)
    two.tick(BLOCK_S + loop_guard.LISTEN_S)
    soon = BLOCK_S + 100
    two.inward([probe(two, 1, soon)], 2, soon)
    assert two.found[-1].seconds == 2 * BLOCK_S
    two.tick(soon + 2 * BLOCK_S)
    two.tick(soon + 2 * BLOCK_S + loop_guard.LISTEN_S)
    late = soon + 2 * BLOCK_S + loop_guard.LISTEN_S + LONGEST_S
    two.inward([probe(two, 1, late)], 2, late)
    assert two.found[-1].seconds == BLOCK_S


def test_when_the_other_port_of_the_loop_goes_the_blocked_one_listens_at_once(two: LoopGuard) -> None:
    two.inward([probe(two, 1, 0.0)], 2, 0.0)
    two.remove(1, 3.0)
    assert two.due_at == 3.0
    assert [port for port, _ in two.tick(3.0)] == [2]
    two.tick(3.0 + loop_guard.LISTEN_S)
    assert list(two.outward([BROADCAST], 2, 8.0)) == [BROADCAST]


def test_what_is_not_ours_passes_and_blocks_nothing(two: LoopGuard) -> None:
    mine, other = probe(two, 1, 0.0), guard(2)
    other.add(1, age=1, now=0.0)
    theirs = probe(other, 1, 0.0)
    forged = mine[:-6] + bytes(6)
    changed = mine[:30] + b"\xee" + mine[31:]
    tagged = BROADCAST[:12] + b"\x81\x00\x00\x01" + ETHERTYPE + bytes(4)
    strange = [theirs, forged, changed, mine[:40], mine[:12] + ETHERTYPE, tagged, mine[:14] + b"xxxx" + mine[18:]]
    assert list(two.inward(strange, 2, 0.1)) == strange
    assert list(two.outward(strange, 2, 0.1)) == strange
    assert two.found == []


def test_an_old_probe_is_taken_out_and_means_nothing(two: LoopGuard) -> None:
    old = probe(two, 1, 0.0)
    for n in range(1, loop_guard.RECENT + 1):
        two.tick(n * PERIOD_S)
    assert list(two.inward([old], 2, 9.0)) == []
    assert (two.found, two.stirred) == ([], False)


def test_a_probe_of_a_port_that_is_gone_means_nothing(two: LoopGuard) -> None:
    frame = probe(two, 1, 0.0)
    two.remove(1, 0.1)
    two.remove(7, 0.1)
    assert list(two.inward([frame], 2, 0.2)) == []
    assert two.found == []


@given(st.lists(st.binary(max_size=80)))
def test_any_bytes_do_no_harm(frames: list[bytes]) -> None:
    one = guard()
    one.add(1, age=1, now=0.0)
    head = b"\xff" * 12 + ETHERTYPE + loop_guard.MAGIC + bytes([loop_guard.VERSION])
    frames += [head + frame for frame in frames]
    assert list(one.inward(frames, 1, 1.0)) == frames


# -- worlds of hubs ---------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Hub:
    """`guard` None: somebody else's hub, which knows nothing of probes."""

    name: str
    guard: LoopGuard | None
    ways: dict[int, tuple["Hub", int]] = field(default_factory=dict)  # port -> where it leads
    cascades: set[int] = field(default_factory=set)

    def take(self, frame: bytes, port: int, now: float) -> Iterator[tuple["Hub", int, bytes]]:
        """A frame came in; where its copies go."""
        frames = [frame]
        if port in self.cascades and self.guard is not None:
            frames = list(self.guard.inward(frames, port, now))
        for out, (other, entry) in self.ways.items():
            if out == port:
                continue
            leaving = list(frames)
            if out in self.cascades and self.guard is not None:
                leaving = list(self.guard.outward(leaving, out, now))
            for one in leaving:
                yield other, entry, one


class World:
    def __init__(self, *hubs: Hub) -> None:
        self.hubs = hubs
        self.now = 0.0
        self.ports = 0

    def cascade(self, a: Hub, b: Hub) -> int:
        """`a` joins `b`; gives the port's number at `a`."""
        self.ports += 1
        port, entry = self.ports, self.ports + 1000
        a.ways[port], b.ways[entry] = (b, entry), (a, port)
        a.cascades.add(port)
        if a.guard is not None:
            a.guard.add(port, age=self.ports, now=self.now)
        return port

    def end(self, a: Hub, port: int) -> None:
        b, entry = a.ways.pop(port)
        del b.ways[entry]
        a.cascades.discard(port)
        if a.guard is not None:
            a.guard.remove(port, self.now)

    def storm(self, hub: Hub, frame: bytes = BROADCAST, hops: int = 40) -> bool:
        """Does a broadcast from a member of `hub` go round for ever?"""
        on_the_way = list(hub.take(frame, 0, self.now))
        for _ in range(hops):
            if not on_the_way:
                return False
            on_the_way = [copy for other, port, one in on_the_way for copy in other.take(one, port, self.now)][:64]
        return True

    def reached(self, hub: Hub) -> set[str]:
        """Whom a broadcast from a member of `hub` reaches; the world must have no loop."""
        seen, on_the_way = {hub.name}, list(hub.take(BROADCAST, 0, self.now))
        while on_the_way:
            seen |= {other.name for other, _, _ in on_the_way}
            on_the_way = [copy for other, port, one in on_the_way for copy in other.take(one, port, self.now)]
        return seen

    def run(self, seconds: float, step: float = 0.1) -> None:
        """What is sent in one step goes round together, hop by hop."""
        until = self.now + seconds
        while self.now < until:
            self.now = round(self.now + step, 6)
            on_the_way = []
            for hub in self.hubs:
                for port, frame in hub.guard.tick(self.now) if hub.guard is not None else ():
                    on_the_way.append((*hub.ways[port], frame))
            for _ in range(30):
                on_the_way = [copy for other, at, one in on_the_way for copy in other.take(one, at, self.now)][:64]

    def blocked(self) -> list[tuple[str, int]]:
        return [
            (hub.name, port)
            for hub in self.hubs
            if hub.guard is not None
            for port in sorted(hub.cascades)
            if hub.guard.row(port, self.now, str)["loop"] != State.OPEN
        ]


def hubs(*ids: int) -> list[Hub]:
    """Hubs with these ids; 0: somebody else's."""
    return [Hub(f"h{at}", guard(number) if number else None) for at, number in enumerate(ids)]


@pytest.mark.parametrize("other", [0, 2])
def test_two_cascades_to_one_hub_the_younger_is_cut_within_five_seconds(other: int) -> None:
    a, b = hubs(1, other)
    world = World(a, b)
    first = world.cascade(a, b)
    world.run(7.3)
    second = world.cascade(a, b)
    assert world.storm(a)
    world.run(5.0)
    assert world.blocked() == [("h0", second)]
    assert not world.storm(a)
    assert world.reached(a) == {"h0", "h1"}
    world.end(a, first)
    world.run(6.0)
    assert world.blocked() == []
    assert world.reached(b) == {"h0", "h1"}


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("later", [0.0, 0.5, 1.3, 2.0, 7.7])
def test_two_hubs_that_join_each_other_cut_one_cascade_only(one: int, other: int, later: float) -> None:
    a, b = hubs(one, other)
    world = World(a, b)
    ports = {"h0": world.cascade(a, b)}
    world.run(later)
    ports["h1"] = world.cascade(b, a)
    assert world.storm(a)
    world.run(5.0)
    [(name, _port)] = world.blocked()
    assert world.reached(a) == {"h0", "h1"}
    world.run(200.0)
    assert len(world.blocked()) == 1
    world.end(*((b, ports["h1"]) if name == "h0" else (a, ports["h0"])))  # the one that carries frames
    world.run(LONGEST_S)
    assert world.blocked() == []
    assert world.reached(a) == {"h0", "h1"}


@pytest.mark.parametrize("ids", [(1, 2, 3), (3, 2, 1), (2, 0, 1), (1, 0, 0), (2, 3, 1)])
def test_a_ring_of_three_is_opened_at_one_place(ids: tuple[int, ...]) -> None:
    a, b, c = hubs(*ids)
    world = World(a, b, c)
    world.cascade(a, b)
    world.cascade(b, c)
    world.run(0.7)
    world.cascade(c, a)
    assert world.storm(b)
    world.run(5.0)
    assert len(world.blocked()) == 1
    assert world.reached(b) == {"h0", "h1", "h2"}
    for _ in range(20):  # whenever it is tried again
        world.run(19.3)
        assert not world.storm(b)


def test_a_hub_beside_the_loop_does_not_keep_it_alive() -> None:
    a, b, beside = hubs(3, 0, 1)
    world = World(a, b, beside)
    world.cascade(beside, b)
    world.cascade(a, b)
    world.run(0.5)
    world.cascade(a, b)
    world.run(5.0)
    assert [name for name, _ in world.blocked()] == ["h0"]
    assert world.reached(beside) == {"h0", "h1", "h2"}
