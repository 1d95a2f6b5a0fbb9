"""When further connections are dialled, on the test's clock; the data process is a script."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

from ukihashi.card import bundle as module
from ukihashi.card.bundle import LATER_S, SPACING_S, Bundle
from ukihashi.card.child import DataChild, Event
from ukihashi.card.messages import Failed, Lost, Opened, Terms, Trouble
from ukihashi.card.status import Standing
from ukihashi.errors import DialError, NotTrusted, Refused, UkihashiError
from ukihashi.net.route_watch import RouteWatch
from ukihashi.wire.constants import Code, Direction

FIRST = Opened(1, False, "SID-1", bytes(20), 20_000, 0, "TLSv1.3", "X", bytes(32), terms=Terms(3))
CUT = Trouble.of(DialError("cut"))


class World:
    """The clock, the data process, and the network behind it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alive = True
        self.events: list[Event] = []
        self.dials: list[tuple[float, int]] = []
        self.given_up: list[int] = []
        self.ended: list[Trouble] = []
        self.answer: Callable[[int], Event | None] = self.opens
        self.until = 200.0  # then the last connections are lost
        self.open: set[int] = {1}
        self.at: list[tuple[float, Callable[[], None]]] = []  # what happens when
        self.fails: UkihashiError | None = None  # TCP itself

    def clock(self) -> float:
        return self.now

    def opens(self, attempt: int, direction: int = Direction.BOTH) -> Event:
        self.open.add(attempt)
        return msgspec.structs.replace(FIRST, attempt=attempt, resumed=True, direction=direction)

    def refuses(self, error: UkihashiError) -> Callable[[int], Event]:
        return lambda attempt: Failed(attempt, Trouble.of(error))

    async def dial(self, attempt: int) -> None:
        if self.now >= self.until:
            return
        self.dials.append((self.now - 100.0, attempt))
        if self.fails is not None:
            raise self.fails
        event = self.answer(attempt)
        if event is not None:
            self.events.append(event)

    # -- as `DataChild`

    def report(self, event: Event) -> None:
        self.events.append(event)

    def give_up(self, attempt: int, error: UkihashiError) -> None:
        self.given_up.append(attempt)
        if attempt in self.open:
            self.lose(attempt)

    def end(self, trouble: Trouble) -> None:
        self.ended.append(trouble)
        self.events.append(Lost(-1, trouble, over=True))

    def lose(self, *attempts: int) -> None:
        for attempt in attempts:
            self.open.discard(attempt)
            self.events.append(Lost(attempt, CUT, left=len(self.open)))

    async def next_event(self, seconds: float | None = None) -> Event | None:
        await asyncio.sleep(0)  # dials go on
        if self.events:
            return self.events.pop(0)
        wake = min([self.now + (1e9 if seconds is None else seconds), self.until, *(when for when, _ in self.at)])
        self.now = max(self.now, wake)
        for when, happens in list(self.at):
            if self.now >= when:
                self.at.remove((when, happens))
                happens()
        if self.now >= self.until:
            self.lose(*self.open)
        return self.events.pop(0) if self.events else None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(module, "clock", made.clock)
    monkeypatch.setattr(random, "random", lambda: 0.5)
    return made


def hold(world: World, opened: Opened = FIRST, way: RouteWatch | None = None) -> Lost:
    standing = Standing(attempts=opened.attempt)
    child = cast(DataChild, world)
    dial = cast("Callable[[int], Awaitable[object]]", world.dial)

    async def run() -> Lost:
        async with asyncio.timeout(10):
            return await Bundle("lab", child, standing, dial).hold(opened, way)

    return asyncio.run(run())


def granted(**terms: Any) -> Opened:
    return msgspec.structs.replace(FIRST, terms=Terms(**terms))


def test_connections_come_a_second_apart_until_there_are_enough(world: World) -> None:
    lost = hold(world)
    assert world.dials == [(SPACING_S, 2), (2 * SPACING_S, 3)]
    assert (lost.left, lost.over) == (0, False)


def test_a_session_of_one_connection_needs_no_more(world: World) -> None:
    hold(world, granted())
    assert world.dials == []


def test_a_lost_connection_is_replaced_and_the_session_goes_on(world: World) -> None:
    world.at = [(150.0, lambda: world.lose(1)), (150.2, lambda: world.lose(2))]
    hold(world)
    assert world.dials[2:] == [(50.0, 4), (51.0, 5)]


def test_the_last_loss_is_told(world: World) -> None:
    world.at = [(150.0, lambda: world.lose(1, 2, 3))]
    lost = hold(world)
    assert (lost.attempt, lost.left, world.now) == (3, 0, 150.0)


def test_one_too_many_is_tried_again_later_and_costs_nothing_else(world: World) -> None:
    world.answer = world.refuses(Refused("enough", code=Code.TOO_MANY_CONNECTION))
    world.until = 100.0 + SPACING_S + 2.5 * LATER_S
    hold(world)
    assert [round(when, 3) for when, _ in world.dials] == [1.0, 11.0, 21.0]
    assert world.ended == []


@pytest.mark.parametrize("error", [
    Refused("forgotten", code=Code.SESSION_TIMEOUT),
    Refused("forgotten", code=Code.INVALID_PROTOCOL),
    NotTrusted("another certificate"),
])  # fmt: skip
def test_a_hub_that_knows_the_session_no_more_or_is_another_ends_it(world: World, error: UkihashiError) -> None:
    world.answer = world.refuses(error)
    lost = hold(world)
    assert lost.over
    assert type(lost.trouble.error()) is type(error)
    assert len(world.dials) == 1


@pytest.mark.parametrize("where", ["tcp", "talk"])
def test_other_failures_are_tried_again_ever_slower(world: World, where: str) -> None:
    if where == "tcp":
        world.fails = DialError("no way")
    else:
        world.answer = world.refuses(DialError("no hub"))
    world.until = 140.0
    hold(world)
    assert [round(when) for when, _ in world.dials] == [1, 2, 4, 8, 16, 26, 36]


def test_after_a_success_failures_are_tried_fast_again(world: World) -> None:
    answers = iter([DialError("1"), DialError("2"), None, DialError("3")])

    def answer(attempt: int) -> Event:
        error = next(answers, None)
        return world.opens(attempt) if error is None else Failed(attempt, Trouble.of(error))

    world.answer = answer
    hold(world)
    assert [round(when) for when, _ in world.dials] == [1, 2, 4, 5, 6]


def test_a_connection_that_is_not_answered_holds_up_no_loss(world: World) -> None:
    world.answer = lambda _attempt: None
    world.at = [(150.0, lambda: world.lose(1))]
    assert hold(world).attempt == 1
    assert world.given_up == [2]


def test_half_duplex_with_all_connections_one_way_changes_the_newest(world: World) -> None:
    directions = iter([Direction.TO_SERVER, Direction.TO_CLIENT])
    world.answer = lambda attempt: world.opens(attempt, next(directions))
    opened = msgspec.structs.replace(granted(connections=2, half_duplex=True), direction=Direction.TO_SERVER)
    hold(world, opened)
    assert world.dials == [(1.0, 2), (2.0, 3)]
    assert world.given_up[0] == 2


def test_a_process_that_is_gone_is_told(world: World) -> None:
    def die() -> None:
        world.alive = False

    world.at = [(150.0, die)]
    assert "data process" in str(hold(world).trouble.error())


def test_a_tap_that_is_gone_ends_all(world: World) -> None:
    world.at = [(150.0, lambda: world.report(Lost(0, CUT)))]
    assert hold(world).attempt == 0


def test_a_network_that_changed_renews_them_all(world: World) -> None:
    class Way:
        async def changed(self) -> DialError:
            return DialError("the way has changed")

    lost = hold(world, granted(), cast(RouteWatch, Way()))
    assert world.given_up[0] == 1
    assert lost.attempt == 1
