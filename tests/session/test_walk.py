"""Every order of the events that matter, a few records long: from wherever it leads, one reconnect delivers everything.

Breadth first over all states that 8 events can reach (`./run soak`: 10). States that differ only in the names of links
and attempts are one. Here pipes hold records and messages instead of bytes; `test_any_order.py` has the bytes.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TypeVar

import pytest
from tests.session.world import CARRYING, check_machine, frame, inside_a_batch, number_of

from ukihashi.session.machine import CARD_MOVES, HUB_MOVES, Machine, Stale, State
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.extension import Resume

LEAST_STATES = {8: 8_700, 10: 38_000}  # by depth
EVERYTHING = {
    "send", "deliver", "ack", "lost", "cut", "suspect", "greeted", "upgrade", "stale", "answer too late",
    "wrong suspicion", "card goes on inside a batch", "hub goes on inside a batch",
}  # fmt: skip
LINKS = 3  # that can still bring something; more are older than both ends' memory
BATCHES = {"card": (2, 1), "hub": (1, 2)}  # three records each way, as two batches

SEEN = Counter[str]()  # what the walk came past
Slotted = TypeVar("Slotted")
Item = tuple[str, int, int]  # ("record", number, 0), ("have", number, 0), ("ask", attempt, have), ("answer", have, 0)
Pipes = dict[str, tuple[Item, ...] | None]  # by the end that reads; None: swallows everything


@cache
def records_in(data: bytes) -> tuple[int, ...]:
    return tuple(map(number_of, BlockDecoder(extended=True).feed(data)))


@cache
def batch(first: int, count: int) -> bytes:
    return encode_frames([frame(number, 5) for number in range(first, first + count)])


def shallow(thing: Slotted) -> Slotted:
    """What `copy.copy` does, in a third of the time."""
    new = thing.__class__.__new__(thing.__class__)
    for name in thing.__slots__:  # type: ignore[attr-defined]
        setattr(new, name, getattr(thing, name))
    return new


def twin(machine: Machine) -> Machine:
    """A copy that shares nothing that changes here."""
    new = shallow(machine)
    new.out, new.ledger = shallow(machine.out), shallow(machine.ledger)
    new.out._batches = machine.out._batches.copy()
    return new


class Small:
    """Both ends and their links; what each end got is a count, as anything but the next record is an error at once."""

    __slots__ = ("card", "hub", "links", "offered")

    def __init__(self) -> None:
        self.card = Machine(CARD_MOVES, 1)
        self.hub = Machine(HUB_MOVES, 1)
        self.links: dict[int, Pipes] = {1: {"card": (), "hub": ()}}
        self.offered = {"card": 0, "hub": 0}  # batches

    def copy(self) -> "Small":
        new = Small.__new__(Small)
        new.card, new.hub = twin(self.card), twin(self.hub)
        new.links = {number: dict(pipes) for number, pipes in self.links.items()}
        new.offered = dict(self.offered)
        return new

    def end(self, name: str) -> Machine:
        return self.card if name == "card" else self.hub

    # -- events ---------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[tuple[str, ...]]:
        """All that can happen now."""
        for name in ("card", "hub"):
            machine = self.end(name)
            if self.offered[name] < len(BATCHES[name]):
                yield "send", name
            if machine.link is not None:
                yield "lost", name
            if machine.state in CARRYING and machine.ack_at is not None:
                yield "ack", name
        for number, pipes in self.links.items():
            for name, items in pipes.items():
                if items:
                    yield "deliver", name, str(number)
            if any(items is not None for items in pipes.values()):
                yield "cut", str(number)
        if self.card.state is State.ONLINE:
            yield ("suspect",)
        yield ("greeted",)
        if self.hub.state is State.CUT:
            yield ("upgrade",)

    def do(self, event: tuple[str, ...]) -> None:
        match event:
            case "send", name:
                self.offer(name)
            case "lost", name:
                machine = self.end(name)
                assert machine.link is not None
                assert machine.lost(machine.link)
            case "ack", name:
                have = self.end(name).ack(1e9)
                assert have is not None
                self.write(name, ("have", have, 0))
            case "deliver", name, number:
                self.deliver(name, int(number))
            case "cut", number:
                self.links[int(number)] = {"card": None, "hub": None}
            case ("suspect",):
                assert self.card.silent()
            case ("greeted",):
                self.greeted()
            case ("upgrade",):
                self.hub = Machine.restore(HUB_MOVES, self.hub.save())
        self.forget()

    def offer(self, name: str) -> None:
        machine = self.end(name)
        count = BATCHES[name][self.offered[name]]
        self.offered[name] += 1
        machine.send(batch(machine.out.end, count), count)
        self.flush(name)

    def flush(self, name: str) -> None:
        machine = self.end(name)
        while data := machine.take(1):
            for number in records_in(data):
                self.write(name, ("record", number, 0))

    def write(self, name: str, item: Item) -> None:
        link = self.end(name).link
        assert link is not None
        self.put(link, "hub" if name == "card" else "card", item)

    def put(self, link: int, reader: str, item: Item) -> None:
        pipes = self.links.setdefault(link, {"card": None, "hub": None})
        items = pipes[reader]
        if items is not None:
            pipes[reader] = (*items, item)

    def greeted(self) -> int:
        number = max(self.links) + 1
        resume = self.card.ask(number)
        assert (resume is None) == (self.card.state is State.ONLINE)
        if resume is None:
            return 0
        self.links[number] = {"card": (), "hub": ()}
        self.put(number, "hub", ("ask", resume.attempt, resume.have))
        return number

    def deliver(self, name: str, link: int) -> None:
        """The next thing; over a link that this end has replaced, everything."""
        machine = self.end(name)
        while items := self.links[link][name]:
            (kind, number, have), self.links[link][name] = items[0], items[1:]
            if kind == "ask":
                self.asked(link, Resume(number, have))
                return
            if kind == "answer":
                if self.card.answered(link, number) is None:
                    SEEN["answer too late"] += 1
                else:
                    SEEN["card goes on inside a batch"] += inside_a_batch(self.card)
                    self.flush("card")
                return
            if machine.carries(link):
                SEEN["wrong suspicion"] += machine.heard()
                if kind == "record":
                    assert number == machine.have, "not the next record"
                    machine.received(1, 9, 0.0)
                else:
                    machine.acknowledged(number)
                return

    def asked(self, link: int, resume: Resume) -> None:
        try:
            have = self.hub.asked(link, resume)
        except Stale:
            SEEN["stale"] += 1
            self.links[link] = {"card": None, "hub": None}  # refused, which changes nothing, and closed
            return
        SEEN["hub goes on inside a batch"] += inside_a_batch(self.hub)
        self.put(link, "card", ("answer", have, 0))
        self.flush("hub")

    def forget(self) -> None:
        """Links by which nothing can come any more, and those beyond LINKS."""
        mine = {self.card.link, self.hub.link}
        for number in [
            number for number, pipes in self.links.items() if number not in mine and not any(pipes.values())
        ]:
            del self.links[number]
        spare = [number for number in self.links if number not in mine]
        for number in spare[: max(len(self.links) - LINKS, 0)]:
            del self.links[number]
        if not self.links:
            self.links[1] = {"card": None, "hub": None}  # a name to count on from

    # -- what it comes to -----------------------------------------------------------------------------------------

    def key(self) -> tuple[object, ...]:
        """The same for states that behave the same."""
        names = {number: at for at, number in enumerate(sorted(self.links))}
        asks = [
            item[1]
            for pipes in self.links.values()
            for items in pipes.values()
            for item in items or ()
            if item[0] == "ask"
        ]
        ranks = {attempt: at for at, attempt in enumerate(sorted({self.card.attempt, self.hub.attempt, *asks}))}
        ends = tuple(
            (
                machine.state,
                -1 if machine.link is None else names.get(machine.link, -2),
                ranks[machine.attempt],
                machine.have,
                machine.ack_at is None,
                machine.out.first,
                machine.out.cursor,
                machine.out.high,
                machine.out.end,
            )
            for machine in (self.card, self.hub)
        )
        pipes = tuple(
            tuple(
                None
                if items is None
                else tuple((kind, ranks[number] if kind == "ask" else number, have) for kind, number, have in items)
                for items in pipes.values()
            )
            for _, pipes in sorted(self.links.items())
        )
        return (*ends, pipes)

    def check(self) -> None:
        for machine, peer in ((self.card, self.hub), (self.hub, self.card)):
            check_machine(machine)
            assert machine.out.first <= peer.have <= machine.out.high, "acknowledged and not received, or never sent"

    def reconnect(self) -> None:
        """One reconnect without trouble, after which both ends have everything."""
        if self.card.state in CARRYING:
            assert self.card.link is not None
            self.card.lost(self.card.link)
        number = self.greeted()
        self.deliver("hub", number)
        self.deliver("card", number)
        for name in ("hub", "card"):
            while self.links[number][name]:
                self.deliver(name, number)
        for name in ("card", "hub"):
            self.write(name, ("have", self.end(name).acknowledge(), 0))
            self.deliver("hub" if name == "card" else "card", number)
        for machine, peer in ((self.card, self.hub), (self.hub, self.card)):
            assert machine.state is State.ONLINE
            assert machine.link == number
            assert machine.out.first == machine.out.end == peer.have, "not everything arrived"
            assert machine.out.bytes == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("depth", [8, pytest.param(10, marks=pytest.mark.soak)])
def test_from_every_reachable_state_one_reconnect_delivers_everything(depth: int) -> None:
    start = Small()
    known, level = {start.key()}, [start]
    sizes = [1]
    SEEN.clear()
    for _ in range(depth):
        following: list[Small] = []
        for state in level:
            for event in state.events():
                after = state.copy()
                after.do(event)
                key = after.key()
                if key in known:
                    continue
                known.add(key)
                SEEN[event[0]] += 1
                after.check()
                following.append(after)
            state.reconnect()
        level = following
        sizes.append(len(level))
    for state in level:
        state.reconnect()
    print(f"{len(known)} states within {depth} events; new ones at each depth: {sizes}; {dict(SEEN)}")
    assert len(known) >= LEAST_STATES[depth]
    assert set(SEEN) == EVERYTHING
    assert all(SEEN.values())
