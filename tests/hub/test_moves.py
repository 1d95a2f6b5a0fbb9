"""Sessions that go from worker to worker while everybody talks, with streams between the workers as slow as they like.

Each case is one order of events, drawn from its seed: which worker turns, how much of which stream it reads, where a
member's next connection goes and when, who says what to whom.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.hub.cards import Card, frame
from tests.hub.farm import Farm, numbers

from ukihashi.hub import mesh, neighbours
from ukihashi.hub.limits import Limits
from ukihashi.net.tls import server_context
from ukihashi.wire.policy import Policy

WORKERS: Final = 4
NOBODY: Final = 9  # a station that no switch knows
MOVES: Final = 12
LIMITS: Final = Limits(linger_s=0.2)

SetUp = Callable[[int], Farm]


@pytest.fixture
def make_farm(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    monkeypatch.setattr(mesh, "FULL", 4000)  # so that frames wait in their trunks, too
    monkeypatch.setattr(neighbours, "NEWS_S", 0.02)
    made: list[Farm] = []

    def make(seed: int) -> Farm:
        farm = Farm(server_context(*certificate), LIMITS, WORKERS, seed, hesitates=True)
        for field in farm.fields:
            field.answers["policy"] = Policy(no_broadcast_limiter=True)
        made.append(farm)
        return farm

    yield make
    for farm in made:
        farm.close()


class Talk:
    """Members that send numbered frames to each other, to all, and to a station that nobody knows."""

    def __init__(self, farm: Farm, count: int) -> None:
        assert farm.chance is not None
        self.farm, self.chance = farm, farm.chance
        self.cards = {number: farm.card(number % WORKERS, "abcdef"[number - 1]) for number in range(1, count + 1)}
        self.sent = {(by, to): list[int]() for by in self.cards for to in self.cards if by != to}
        self._last = dict.fromkeys(self.cards, 0)
        for number, card in self.cards.items():
            card.send(frame(0, number))
        everybody = len(self.cards) - 1
        farm.until(lambda: all(len(card.got) == everybody for card in self.cards.values()), "the first words")
        farm.quiet()
        for card in self.cards.values():
            card.got.clear()

    def say(self, by: int) -> None:
        card = self.cards[by]
        if card.link is None or not card.machine.carries(card.link.number):
            return
        for _ in range(self.chance.randint(0, 3)):
            number = self._last[by] = self._last[by] + 1
            to = self.chance.choice([0, NOBODY, *[one for one in self.cards if one != by]])
            for other in self.cards if to in {0, NOBODY} else [to]:
                if other != by:
                    self.sent[by, other].append(number)
            card.send(frame(to, by, number, self.chance.choice([18, 60, 900])))

    def on(self, turns: int, but: Card | None = None) -> None:
        """So many turns go by, and everybody talks; what came for one of them is not looked at."""
        for _ in range(turns):
            self.say(self.chance.choice(list(self.cards)))
            self.farm.turn()
            for card in self.cards.values():
                if card is not but:
                    card.pump()

    def move(self, card: Card, worker: int) -> None:
        """Its next connection goes to that worker."""
        if self.chance.random() < 0.5:
            card.cut()
        else:  # it is silent, and the worker has not noticed
            card.machine.silent()
        self.on(self.chance.randint(0, 10), card)
        self.farm.go_to(card, worker)
        link = card.dial()
        card.ask(link)
        self.on(self.chance.randint(0, 30), card)
        card.answered(link)

    def upgrade(self, count: int) -> None:
        """All go on at the workers of a new program, one of which serves after the other; some were just moving."""
        for card in self.chance.sample(list(self.cards.values()), 2):
            card.machine.silent()
            self.farm.go_to(card, self.chance.randrange(len(self.farm.fields)))
            card.ask(card.dial())
            self.on(self.chance.randint(0, 5), card)
        self.farm.upgrade(count)
        cards = self.chance.sample(list(self.cards.values()), len(self.cards))
        for served in range(1, count + 1):
            worker = self.farm.serve()
            part = cards[: len(cards) // (count + 1 - served)]
            del cards[: len(part)]
            links = []
            for card in part:
                self.farm.go_to(card, worker)
                link = card.dial()
                card.ask(link)
                links.append((card, link))
                self.on(self.chance.randint(0, 20), card)
            self.asked = getattr(self, "asked", []) + links
        for card, link in self.asked:
            card.answered(link)
        self.asked = []

    def check(self) -> None:
        """Nothing was lost, doubled or exchanged."""

        def came(by: int, to: int) -> list[int]:
            others = {one for one in self.cards if one != to}  # a switch that forgot them sends theirs to all
            return numbers([one for one in self.cards[to].got if one[5] not in others], by)

        self.farm.until(lambda: all(len(came(*pair)) >= len(sent) for pair, sent in self.sent.items()), "all frames")
        self.farm.quiet()
        for (by, to), sent in self.sent.items():
            assert came(by, to) == sent, (by, to)
        assert all(len(sent) > MOVES for sent in self.sent.values())


@pytest.mark.parametrize("seed", range(4))
def test_members_that_move_lose_nothing_double_nothing_and_exchange_nothing(make_farm: SetUp, seed: int) -> None:
    farm = make_farm(seed)
    talk = Talk(farm, 4)
    for _ in range(MOVES):
        talk.move(talk.chance.choice(list(talk.cards.values())), talk.chance.randrange(WORKERS))
        talk.on(talk.chance.randint(0, 20))
    talk.check()


@pytest.mark.parametrize("seed", range(4))
def test_members_of_a_hub_that_is_upgraded_lose_nothing_either(make_farm: SetUp, seed: int) -> None:
    farm = make_farm(seed)
    talk = Talk(farm, 4)
    for count in (3, 1, 4):
        talk.on(60)
        talk.upgrade(count)
        talk.on(20)
    talk.check()


def test_what_finds_no_room_while_a_session_moves_is_counted(certificate: tuple[Path, Path]) -> None:
    """At the giver and at the taker; nothing overtakes what waits."""
    farm = Farm(server_context(*certificate), Limits(linger_s=0.2, resume_buffer=20_000), 3)
    a, b, c = farm.card(0, "a"), farm.card(2, "b"), farm.card(1, "c")
    for number, card in enumerate((a, b, c), 1):
        card.send(frame(0, number))
    farm.until(lambda: all(len(card.got) == 2 for card in (a, b, c)), "the first words")
    a.got.clear()
    a.cut()
    farm.go_to(a, 1)
    link = a.dial()
    a.ask(link)
    giver, taker = farm.neighbours[0].links[1], farm.fields[1]
    while farm.where(a):  # until it is on its way
        taker.turn()
        farm.fields[0].turn()
    waiting, giver.waiting = giver.waiting, mesh.FULL  # as if the taker took no more
    b.send(*(frame(1, 2, number, 1000) for number in range(1, 31)))
    for _ in range(10):
        farm.fields[2].turn()
        farm.fields[0].turn()
    giver.waiting = waiting
    while not farm.where(a):
        taker.turn()
    c.send(*(frame(1, 3, number, 1000) for number in range(1, 31)))
    taker.turn()
    a.answered(link)
    farm.quiet()
    came = {by: numbers(a.got, by) for by in (2, 3)}
    assert all(those == list(range(1, len(those) + 1)) for those in came.values())
    dropped = sum(row["drops"].get("queue_full", 0) for row in farm.hub(0).trunk_rows())
    assert dropped == 10
    assert len(a.got) + dropped + farm.session(a).drops["resume_buffer"] == 60
    farm.close()
