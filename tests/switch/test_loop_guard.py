"""Networks of a made-up world: hubs with guards, and switches of others that flood, joined at will; time jumps."""

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.ether.frame import BROADCAST
from ukihashi.switch import loop_guard
from ukihashi.switch.loop_guard import (
    ETHERTYPE,
    GONE_S,
    HURRY_S,
    LONGEST_S,
    PERIOD_S,
    QUIET_S,
    SOON_S,
    Age,
    Change,
    Kind,
    LoopGuard,
    Probe,
    read_probe,
)

FRAME = BROADCAST + bytes.fromhex("020000000001") + b"\x08\x06" + bytes(46)
CUT_S = 5.0  # that a loop may live
HEAL_S = 15.0  # that a block may outlive its loop


def guard(number: int = 1) -> LoopGuard:
    return LoopGuard(hub_id=bytes([number]) * 8, key=b"secret of this start" + bytes([number]))


def body(frame: bytes) -> bytes:
    probe = read_probe(frame)
    assert probe is not None
    return probe.body


def probe(one: LoopGuard, port: str, now: float) -> bytes:
    return body(next(frame for at, frame in one.tick(now) if at == port))


def member(age: float) -> Age:
    return Kind.MEMBER, age


@pytest.fixture
def two() -> LoopGuard:
    one = guard()
    one.add("a", age=member(1), now=0.0)
    one.add("b", age=member(2), now=0.0)
    return one


def test_each_port_sends_a_small_broadcast_at_once_and_then_every_period(two: LoopGuard) -> None:
    assert two.due_at == 0.0
    sent = two.tick(0.0)
    assert [port for port, _ in sent] == ["a", "b"]
    for _, frame in sent:
        assert (len(frame), frame[:6], frame[12:14]) == (60, BROADCAST, ETHERTYPE)
        assert frame[6] & 3 == 2  # locally administered, of one station
    assert sent[0][1][6:12] != sent[1][1][6:12]
    assert two.due_at == PERIOD_S
    assert two.tick(PERIOD_S - 0.01) == []
    assert len(two.tick(PERIOD_S)) == 2


@pytest.mark.parametrize(("sent", "back"), [("a", "b"), ("b", "a")])
def test_the_younger_of_two_ports_is_blocked(two: LoopGuard, sent: str, back: str) -> None:
    two.returned(probe(two, sent, 0.0), back, 0.1)
    assert two.changes == [Change("b", True, "a", sent, back)]
    assert (two.is_blocked("a"), two.is_blocked("b"), two.because("b")) == (False, True, "a")


def test_what_a_port_is_counts_more_than_its_age() -> None:
    kinds = [Kind.SUSPECT, Kind.MEMBER, Kind.CASCADE, Kind.BRIDGE]
    for larger, smaller in pairwise(kinds):
        one = guard()
        one.add("old", age=(larger, 1.0), now=0.0)
        one.add("young", age=(smaller, 2.0), now=0.0)
        one.returned(probe(one, "young", 0.0), "old", 0.1)
        assert one.is_blocked("old")
        assert not one.is_blocked("young")


def test_a_probe_that_comes_back_on_its_own_port_blocks_it(two: LoopGuard) -> None:
    two.returned(probe(two, "a", 0.0), "a", 0.1)
    assert two.changes == [Change("a", True, "a", "a", "a")]


def test_a_probe_that_somebody_tagged_is_known_too(two: LoopGuard) -> None:
    frame = dict(two.tick(0.0))["a"]
    tagged = read_probe(frame[:12] + b"\x81\x00\x00\x07" + frame[12:])
    assert tagged == read_probe(frame)
    assert tagged is not None
    assert tagged.hub == two.id


def test_a_blocked_port_stays_so_as_long_as_probes_return_and_opens_when_they_do_not(two: LoopGuard) -> None:
    now = 0.0
    two.returned(probe(two, "a", now), "b", now)
    while now < 100:
        now += PERIOD_S
        two.returned(probe(two, "b", now), "a", now)
    two.tick(now + QUIET_S - 0.5)
    assert two.is_blocked("b")
    two.tick(now + QUIET_S + 0.1)
    assert two.changes[1:] == [Change("b", False, "a")]


def test_a_port_that_is_blocked_for_itself_sends_no_more_while_its_probes_go_round(two: LoopGuard) -> None:
    old = probe(two, "a", 0.0)
    now, sent = 0.0, 0
    while now < 60:
        now += 0.5
        sent += sum(port == "a" for port, _ in two.tick(now))
        two.returned(old, "a", now)
    assert two.is_blocked("a")
    assert sent <= 1
    now += QUIET_S
    assert "a" in dict(two.tick(now))
    two.tick(now + 0.5)
    assert not two.is_blocked("a")


def test_a_loop_that_comes_back_soon_is_trusted_less_each_time_it_goes(two: LoopGuard) -> None:
    now, quiet = 0.0, []
    for _ in range(9):
        two.returned(probe(two, "a", now), "b", now)
        since = now
        while two.is_blocked("b"):
            now += 0.5
            two.tick(now)
        quiet.append(now - since)
        now += PERIOD_S
    assert quiet[:3] == [QUIET_S, 2 * QUIET_S, 4 * QUIET_S]
    assert 2 * QUIET_S <= HEAL_S
    assert quiet[-1] == LONGEST_S
    now += loop_guard.AGAIN_S
    two.returned(probe(two, "a", now), "b", now)
    two.tick(now + QUIET_S)
    assert not two.is_blocked("b")


def test_when_the_other_port_of_the_loop_goes_the_blocked_one_opens_soon(two: LoopGuard) -> None:
    two.returned(probe(two, "a", 0.0), "b", 0.0)
    two.remove("a", 0.1)
    assert "a" not in two
    two.tick(GONE_S - 0.5)
    assert two.is_blocked("b")
    two.tick(GONE_S + 0.2)
    assert not two.is_blocked("b")
    assert not two.knows("a")


def test_a_port_that_only_changes_the_worker_is_as_it_was(two: LoopGuard) -> None:
    two.returned(probe(two, "a", 0.0), "b", 0.0)
    two.remove("b", 1.0)
    two.tick(1.5)
    two.add("b", age=member(2), now=2.0)
    assert two.is_blocked("b")
    two.remove("a", 3.0)
    two.add("a", age=member(1), now=4.0)
    two.tick(6.5)
    assert two.is_blocked("b")


def test_a_port_of_another_process_goes_on_blocked() -> None:
    one = guard()
    one.add("b", age=member(2), now=0.0, blocked_for="a")
    one.add("a", age=member(1), now=0.0)
    assert (one.is_blocked("b"), one.because("b")) == (True, "a")
    one.tick(0.5)
    assert one.is_blocked("b")
    one.returned(probe(one, "b", 2.5), "a", 2.5)
    one.tick(QUIET_S + 0.5)
    assert one.is_blocked("b")
    one.tick(2.5 + QUIET_S + 0.5)
    assert not one.is_blocked("b")


def test_of_blocked_ports_on_one_loop_the_oldest_opens_first() -> None:
    one = guard()
    for number, port in enumerate("abc"):
        one.add(port, age=member(number), now=0.0)
    now = 0.0
    while now < 20:
        for port, frame in one.tick(now):
            for back in "abc":
                if back != port:
                    one.returned(body(frame), back, now)
        now += 0.5
    assert [port for port in "abc" if one.is_blocked(port)] == ["b", "c"]
    one.remove("a", now)
    while now < 40:
        for port, frame in one.tick(now):
            for back in "bc":
                if back != port:
                    one.returned(body(frame), back, now)
        now += 0.5
    assert [port for port in "bc" if one.is_blocked(port)] == ["c"]
    assert one.because("c") == "b"


def test_old_and_strange_probes_cut_nobody(two: LoopGuard) -> None:
    old = probe(two, "a", 0.0)
    now, fresh = 0.0, old
    for _ in range(20):
        now += PERIOD_S
        fresh = probe(two, "a", now)
    other = LoopGuard(hub_id=two.id, key=b"not the key at all")
    other.add("a", age=member(1), now=0.0)
    wrong = fresh[:-1] + bytes([fresh[-1] ^ 1])
    for one in (old, probe(other, "a", 0.0), wrong, b"", fresh[:20]):
        two.returned(one, "b", now)
    two.returned(fresh, "nowhere", now)
    assert two.changes == []
    two.returned(fresh, "b", now)
    assert len(two.changes) == 1


@given(st.lists(st.binary(max_size=80)))
def test_any_bytes_do_no_harm(frames: list[bytes]) -> None:
    one = guard()
    one.add("a", age=member(1), now=0.0)
    head = BROADCAST * 2 + ETHERTYPE + loop_guard.MAGIC + bytes([loop_guard.VERSION])
    for frame in frames:
        assert read_probe(frame) is None or frame[12:14] == ETHERTYPE or frame[16:18] == ETHERTYPE
        read_probe(head + frame)
        one.returned(frame, "a", 1.0)
    assert one.changes == []


def test_what_looks_like_a_loop_is_probed_at_once_but_not_all_the_time(two: LoopGuard) -> None:
    two.tick(0.0)
    two.hurry("a", 0.1)
    assert two.due_at == SOON_S
    assert [port for port, _ in two.tick(SOON_S)] == ["a"]
    sent = 0
    for tenth in range(100):
        now = 1 + tenth / 10
        two.hurry("a", now)
        sent += sum(port == "a" for port, _ in two.tick(now))
    assert 20 <= sent <= 10 / SOON_S
    two.hurry("nobody", 20.0)


def test_a_hub_of_a_lower_id_goes_first() -> None:
    one = guard(5)
    one.add("a", age=member(1), now=0.0)
    one.other(bytes([1]) * 8, 0.0)
    one.other(bytes([9]) * 8, 0.0)
    one.returned(probe(one, "a", 0.0), "a", 0.1)
    assert one.changes == []
    assert one.due_at == HURRY_S
    one.hurry("a", 0.3)
    one.returned(probe(one, "a", 0.3), "a", 0.4)
    assert one.changes == []
    one.returned(probe(one, "a", HURRY_S), "a", HURRY_S + 0.1)
    assert len(one.changes) == 1


def test_of_two_hubs_that_have_both_blocked_the_one_of_the_lower_id_opens_first() -> None:
    opened = []
    for other in (9, 1):
        one = guard(5)
        one.add("a", age=member(1), now=0.0)
        one.returned(probe(one, "a", 0.0), "a", 0.0)
        now = 0.0
        while one.is_blocked("a"):
            now += 0.5
            one.other(bytes([other]) * 8, now)
            one.tick(now)
        opened.append(now)
    assert opened[0] == QUIET_S
    assert PERIOD_S < opened[1] - opened[0] <= HEAL_S - QUIET_S


# -- worlds -----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """A hub of ours, or (`guard` None) a switch or hub of somebody else, which knows nothing of probes."""

    name: str
    guard: LoopGuard | None = None
    ways: dict[str, tuple["Node", str]] = field(default_factory=dict)  # port -> where it leads

    def passes(self, port: str) -> bool:
        return self.guard is None or not self.guard.is_blocked(port)

    def took(self, frame: bytes, port: str, came: list[tuple[LoopGuard, Probe, str]]) -> bool:
        """It is a probe of this hub. `came`: what is to be told to guards."""
        seen = read_probe(frame)
        if seen is None or self.guard is None:
            return False
        came.append((self.guard, seen, port))
        return seen.hub == self.guard.id


class World:
    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes
        self.now = 0.0
        self.ports = 0

    def join(self, a: Node, b: Node, kinds: tuple[Kind, Kind] = (Kind.CASCADE, Kind.MEMBER)) -> tuple[str, str]:
        """A cable; gives its ends, guarded where somebody guards."""
        self.ports += 1
        ends = f"{self.ports}a", f"{self.ports}b"
        a.ways[ends[0]], b.ways[ends[1]] = (b, ends[1]), (a, ends[0])
        for node, port, kind in ((a, ends[0], kinds[0]), (b, ends[1], kinds[1])):
            if node.guard is not None:
                node.guard.add(port, age=(kind, self.ports), now=self.now)
        return ends

    def part(self, a: Node, port: str, *, noticed: bool = True) -> None:
        """Pull the cable; `noticed`: its ports are gone."""
        b, end = a.ways.pop(port)
        del b.ways[end]
        for node, name in ((a, port), (b, end)):
            if node.guard is not None and noticed:
                node.guard.remove(name, self.now)

    def flood(
        self, node: Node, frame: bytes, port: str = "", came: list[tuple[LoopGuard, Probe, str]] | None = None
    ) -> tuple[set[str], bool]:
        """Who gets a frame that `node` sends (by `port` only, if named), and whether it goes round."""
        seen: set[tuple[str, str]] = set()
        visits: list[str] = []
        on_the_way = [(node, name) for name in ([port] if port else node.ways) if name in node.ways]
        if not port:
            on_the_way = [(node, name) for name in node.ways if node.passes(name)]
        while on_the_way:
            ahead = []
            for sender, out in on_the_way:
                other, entry = sender.ways[out]
                if (other.name, entry) in seen:
                    continue
                seen.add((other.name, entry))
                if other.took(frame, entry, [] if came is None else came) or not other.passes(entry):
                    continue
                visits.append(other.name)
                ahead += [(other, name) for name in other.ways if name != entry and other.passes(name)]
            on_the_way = ahead
        return {node.name, *visits}, node.name in visits or len(visits) > len(set(visits))

    def storms(self) -> bool:
        """Does any broadcast come twice anywhere?"""
        return any(self.flood(node, FRAME)[1] for node in self.nodes)

    def run(self, seconds: float, step: float = 0.1) -> None:
        """What is sent in one step is on its way at the same time, and comes at the step's end."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = round(self.now + step, 6)
            came: list[tuple[LoopGuard, Probe, str]] = []
            for node in self.nodes:
                for port, frame in node.guard.tick(self.now) if node.guard is not None else ():
                    self.flood(node, frame, port, came)
            for at, probe, port in came:
                if probe.hub == at.id:
                    at.returned(probe.body, port, self.now)
                else:
                    at.other(probe.hub, self.now)

    def until_calm(self, seconds: float) -> None:
        """There is no loop any more within that time."""
        until = self.now + seconds
        while self.storms():
            assert self.now < until
            self.run(0.1)

    def blocked(self) -> list[str]:
        return [
            f"{node.name} {port}"
            for node in self.nodes
            if node.guard is not None
            for port in node.ways
            if node.guard.is_blocked(port)
        ]

    def parts(self) -> list[set[str]]:
        """Who is joined with whom, by cables."""
        found: dict[str, set[str]] = {node.name: {node.name} for node in self.nodes}
        for node in self.nodes:
            for other, _ in node.ways.values():
                whole = found[node.name] | found[other.name]
                for name in whole:
                    found[name] = whole
        return [found[node.name] for node in self.nodes]

    def is_whole(self) -> bool:
        """Everybody reaches everybody whom cables join."""
        return [self.flood(node, FRAME)[0] for node in self.nodes] == self.parts()


def nodes(*ids: int) -> list[Node]:
    """Hubs with these ids; 0: somebody else's."""
    return [Node(f"n{at}", guard(number) if number else None) for at, number in enumerate(ids)]


@pytest.mark.parametrize("other", [0, 2])
def test_two_cascades_to_one_hub_one_is_cut_within_five_seconds_and_heals(other: int) -> None:
    a, b = nodes(1, other)
    world = World(a, b)
    first, _ = world.join(a, b)
    world.run(7.3)
    second, _ = world.join(a, b)
    assert world.storms()
    world.until_calm(CUT_S)
    assert world.blocked() == [f"n0 {second}"]
    world.run(300.0)
    assert world.blocked() == [f"n0 {second}"]
    world.part(a, first)
    world.run(HEAL_S)
    assert world.blocked() == []
    assert world.is_whole()


def test_two_cards_bridged_to_one_network_and_one_that_is_unplugged_unseen() -> None:
    hub, lan = nodes(1, 0)
    world = World(hub, lan)
    first, _ = world.join(hub, lan, (Kind.MEMBER, Kind.MEMBER))
    second, _ = world.join(hub, lan, (Kind.MEMBER, Kind.MEMBER))
    world.until_calm(CUT_S)
    assert world.blocked() == [f"n0 {second}"]
    world.run(60.0)
    world.part(hub, first, noticed=False)  # its card is still there
    world.run(HEAL_S)
    assert world.blocked() == []
    assert world.is_whole()


def test_a_network_that_sends_everything_back() -> None:
    hub, lan, beside = nodes(1, 0, 0)
    world = World(hub, lan, beside)
    world.join(hub, lan)
    first, _ = world.join(lan, beside)
    world.run(5.0)
    assert world.blocked() == []
    world.join(lan, beside)  # a loop out there, which only they can cut
    world.run(CUT_S)
    assert world.blocked() == ["n0 1a"]
    assert not world.flood(hub, FRAME)[1]
    world.part(lan, first)
    world.run(HEAL_S)
    assert world.is_whole()


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("later", [0.0, 0.5, 1.3, 2.0, 7.7])
def test_two_hubs_that_join_each_other_cut_one_way_only(one: int, other: int, later: float) -> None:
    a, b = nodes(one, other)
    world = World(a, b)
    world.join(a, b)
    world.run(later)
    world.join(b, a)
    assert world.storms()
    world.until_calm(CUT_S)
    world.run(HEAL_S)  # both may have acted, if their probes were on their way at the same time
    assert len(world.blocked()) == 1
    assert world.is_whole()
    blocked = world.blocked()
    world.run(200.0)
    assert world.blocked() == blocked


@pytest.mark.parametrize("ids", [(1, 2, 3), (3, 2, 1), (2, 0, 1), (1, 0, 0), (2, 3, 1)])
def test_a_ring_of_three_is_opened_at_one_place(ids: tuple[int, ...]) -> None:
    a, b, c = nodes(*ids)
    world = World(a, b, c)
    world.join(a, b)
    world.join(b, c)
    world.run(0.7)
    world.join(c, a)
    assert world.storms()
    world.until_calm(CUT_S)
    world.run(HEAL_S)  # both may have acted, if their probes were on their way at the same time
    assert len(world.blocked()) == 1
    assert world.is_whole()
    for _ in range(20):
        world.run(19.3)
        assert not world.storms()


def test_two_hubs_that_are_joined_and_both_bridged_to_one_network() -> None:
    a, b, lan = nodes(2, 1, 0)
    world = World(a, b, lan)
    world.join(a, b)
    world.join(a, lan, (Kind.BRIDGE, Kind.BRIDGE))
    third, _ = world.join(b, lan, (Kind.BRIDGE, Kind.BRIDGE))
    world.until_calm(CUT_S)
    world.run(HEAL_S)  # both may have acted, if their probes were on their way at the same time
    assert len(world.blocked()) == 1
    assert world.is_whole()
    world.part(b, third, noticed=False)
    world.run(HEAL_S)
    assert world.blocked() == []
    assert world.is_whole()


def test_a_hub_beside_the_loop_does_not_keep_it_alive() -> None:
    a, b, beside = nodes(3, 0, 1)
    world = World(a, b, beside)
    world.join(beside, b)
    world.join(a, b)
    world.run(0.5)
    world.join(a, b)
    world.until_calm(CUT_S)
    assert [name[:2] for name in world.blocked()] == ["n0"]
    assert world.is_whole()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, list[tuple[Node, str]], list[float]]:
    """Up to three hubs of ours and three switches of others, and cables that come one after another."""
    ours = draw(st.permutations([1, 2, 3]))[: draw(st.integers(1, 3))]
    made = nodes(*ours, *[0] * draw(st.integers(0, 3)))
    world = World(*made)
    cables, pauses = [], []
    for _ in range(draw(st.integers(1, 6))):
        a = made[draw(st.integers(0, len(ours) - 1))]
        b = draw(st.sampled_from(made))
        if a is not b:
            kinds = draw(st.sampled_from([(Kind.CASCADE, Kind.MEMBER), (Kind.BRIDGE, Kind.BRIDGE)]))
            cables.append((a, world.join(a, b, kinds)[0]))
            world.run(draw(st.sampled_from([0.0, 0.3, 2.0])))
    pauses = draw(st.lists(st.sampled_from([1.0, 30.0]), max_size=3))
    return world, cables, pauses


@given(worlds(), st.randoms(use_true_random=False))
def test_any_network_calms_down_stays_whole_and_so_it_does_when_cables_are_pulled(
    made: tuple[World, list[tuple[Node, str]], list[float]], chance: Random
) -> None:
    world, cables, pauses = made
    world.run(40.0, 0.25)
    assert not world.storms()
    assert world.is_whole()
    blocked = world.blocked()
    world.run(60.0, 0.25)
    assert world.blocked() == blocked
    a, b = world.nodes[0], chance.choice(world.nodes)
    if a is not b:
        cables.append((a, world.join(a, b)[0]))
        world.until_calm(CUT_S)
    for pause in pauses:
        if cables:
            world.part(*cables.pop(chance.randrange(len(cables))), noticed=chance.random() < 0.5)
            world.run(pause, 0.25)
    world.run(60.0, 0.25)
    assert not world.storms()
    assert world.is_whole()
