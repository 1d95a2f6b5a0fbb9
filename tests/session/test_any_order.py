"""Whatever happens to the links, in any order: every record arrives once, in order, and the ledgers say so."""

from collections import Counter
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.session.world import ALL, CARRYING, End, Link, World

from ukihashi.session.machine import State

SIZES = st.lists(st.sampled_from([5, 5, 14, 60, 300, 5000]), min_size=1, max_size=4)
FLOOR = 1  # times that each thing worth trying has to come about; most do hundreds of times
HAPPENS = (
    "stale",
    "answer too late",
    "wrong suspicion",
    "hub had not noticed",
    "card reads a replaced link",
    "hub reads a replaced link",
    "card goes on inside a batch",
    "hub goes on inside a batch",
)
WHICH = st.sampled_from([0, 0, 0, 0, 1, 1, 2])  # links, counted from the newest
SOME = st.sampled_from([1, 7, 20, 40, 100, ALL])  # bytes of one write or one read


class Links(RuleBasedStateMachine):
    """Everything that can happen, one thing at a time."""

    seen: ClassVar[Counter[str]] = Counter()  # over all examples

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize()
    def begin(self) -> None:
        self.world.check()

    # -- the ends -------------------------------------------------------------------------------------------------

    @rule(card=st.booleans(), sizes=SIZES, limit=SOME)
    def send(self, card: bool, sizes: list[int], limit: int) -> None:
        """A batch, and one write of what waits: this batch, or an earlier one that is to be sent again."""
        self.world.offer(self.end(card), sizes)
        self.world.write(self.end(card), limit)

    @rule(card=st.booleans(), sizes=SIZES)
    def keep(self, card: bool, sizes: list[int]) -> None:
        """The socket is full, or there is none."""
        self.world.offer(self.end(card), sizes)

    @rule(card=st.booleans(), limit=SOME)
    def write(self, card: bool, limit: int) -> None:
        self.world.write(self.end(card), limit)

    @rule(card=st.booleans(), seconds=st.sampled_from([0.0, 0.4, 1.0]), padding=st.integers(-1, 30))
    def acknowledge(self, card: bool, seconds: float, padding: int) -> None:
        self.world.now += seconds
        if padding < 0:
            self.world.ack(self.end(card))
        else:
            self.world.keepalive(self.end(card), padding)

    @precondition(lambda self: self.world.card.machine.state is State.ONLINE)
    @rule()
    def suspect(self) -> None:
        """It may be wrong: then the old link speaks, or the hub is asked over a new one while the old one works."""
        assert self.world.card.machine.silent()

    @rule()
    def dial_greeted(self) -> None:
        """Beside a suspect link, after a cut, over a resume that gets no answer; or too late to be needed."""
        needed = self.world.card.machine.state is not State.ONLINE
        assert (self.world.greeted() is not None) is needed

    @rule()
    def upgrade(self) -> None:
        self.world.upgrade()

    # -- the links ------------------------------------------------------------------------------------------------

    @rule(which=WHICH, size=SOME)
    def deliver_to_hub(self, which: int, size: int) -> None:
        self.world.hub_reads(self.link(which), size)

    @rule(which=WHICH, size=SOME)
    def deliver_to_card(self, which: int, size: int) -> None:
        self.world.card_reads(self.link(which), size)

    @rule(
        which=WHICH,
        seen=st.sampled_from(["card", "hub", "both", "nobody"]),
        gone=st.sampled_from(["both", "one", "none"]),
    )
    def cut(self, which: int, seen: str, gone: str) -> None:
        """Seen by one end, both, or nobody yet. What is under way is lost, or still arrives at an end that went on."""
        link = self.link(which)
        if gone == "both":
            link.cut()
        elif gone == "one":
            (link.to_hub if which % 2 else link.to_card).cut()
        for name, end in (("card", self.world.card), ("hub", self.world.hub)):
            mine = end.machine.link == link.number
            if seen in {name, "both"}:
                assert end.machine.lost(link.number) is mine
                assert not end.machine.lost(link.number)

    @rule(card=st.booleans(), sizes=SIZES, read=st.integers(1, 60))
    def cut_inside_a_batch(self, card: bool, sizes: list[int], read: int) -> None:
        """Or inside a record, or behind the batch; seen by the end that wrote it."""
        end = self.end(card)
        number = end.machine.link
        self.world.offer(end, sizes)
        self.world.write_all(end)
        if number is not None:
            link = self.world.links[number]
            (self.world.hub_reads if card else self.world.card_reads)(link, read)
            link.cut()
            end.machine.lost(number)

    @rule(first=st.booleans())
    def a_quiet_reconnect(self, first: bool) -> None:
        if first:
            self.world.settle()
        self.world.reconnect()
        self.quiet()

    # -- always ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self) -> None:
        self.world.check()

    @invariant()
    def only_one_link_carries(self) -> None:
        for end in (self.world.card, self.world.hub):
            carrying = [number for number in self.world.links if end.machine.carries(number)]
            assert len(carrying) == (end.machine.state in CARRYING)

    def teardown(self) -> None:
        self.world.reconnect()
        self.quiet()
        self.seen.update(self.world.seen)

    def quiet(self) -> None:
        """After a reconnect without trouble."""
        assert not self.world.lossy, "a session ended"
        self.world.check_all_arrived()

    def end(self, card: bool) -> End:
        return self.world.card if card else self.world.hub

    def link(self, which: int) -> Link:
        """The newest, the one before, the one before that."""
        found = list(self.world.links.values())
        return found[-1 - which % len(found)]


class LossyLinks(Links):
    """The same with a hub that sometimes has no memory for a cut session: then what is missing is counted."""

    @precondition(lambda self: self.world.hub.machine.state is State.CUT)
    @rule()
    def no_memory(self) -> None:
        self.world.hub.machine.lose("resume_memory")
        self.world.lossy = True

    def quiet(self) -> None:
        self.world.settle()  # what a new session carries, if the old one was refused
        self.world.check_all_arrived()


def run(machine: type[Links], examples: int, wanted: tuple[str, ...]) -> None:
    machine.seen.clear()
    chosen: Any = settings(
        max_examples=examples, stateful_step_count=60, derandomize=True, database=None, deadline=None
    )
    run_state_machine_as_test(machine, settings=chosen)
    print(dict(machine.seen))
    assert {name: machine.seen[name] for name in wanted if machine.seen[name] < FLOOR} == {}


@pytest.mark.slow
def test_every_record_arrives_once_and_in_order_whatever_happens() -> None:
    run(Links, 160, HAPPENS)


@pytest.mark.slow
def test_what_a_hub_without_memory_loses_is_counted() -> None:
    run(LossyLinks, 30, ("refused",))
