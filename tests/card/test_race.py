"""Several paths at once: who begins when, who wins, and that the others are let go."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ukihashi.card import race as race_module
from ukihashi.card.messages import Failed, Greeted, Lost, Trouble
from ukihashi.card.path_sources import Candidate
from ukihashi.card.race import Race
from ukihashi.errors import DialError, EnvironmentLacks, UkihashiError
from ukihashi.net.dial.via import parse

PATHS = [Candidate(parse(f"http://proxy{number}.lab:3128"), None, "link") for number in (1, 2, 3)]


class Child:
    """The data process as a race sees it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.alive = True
        self.given_up: list[int] = []

    async def next_event(self, seconds: float | None = None) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await self.events.get()
        except TimeoutError:
            return None

    def report(self, event: Any) -> None:
        self.events.put_nowait(event)

    def give_up(self, attempt: int, error: UkihashiError) -> None:
        self.given_up.append(attempt)


class Field:
    """A race with all around it; `fates`: what becomes of each dial, by the number of its path."""

    def __init__(self, **fates: Callable[["Field", int], Awaitable[object]]) -> None:
        self.child = Child()
        self.failed: list[tuple[str, str]] = []
        self.begun: list[tuple[int, float]] = []
        self.ended: list[int] = []
        self._fates = fates

    def begin(self, candidate: Candidate) -> tuple[int, Awaitable[object]]:
        number = int(candidate.via.host[5])
        self.begun.append((number, asyncio.get_running_loop().time()))
        return 10 + number, self._dial(number)

    async def _dial(self, number: int) -> None:
        try:
            await self._fates.get(f"path{number}", hangs)(self, 10 + number)
        finally:
            self.ended.append(number)

    def run(self, deadline: float = 5.0) -> int | None:
        async def scenario() -> int | None:
            made = Race(
                self.child,  # type: ignore[arg-type]
                self.begin,
                lambda candidate, error: self.failed.append((candidate.via.host, str(error))),
            )
            try:
                return await asyncio.wait_for(made.run(PATHS, deadline), 10)
            finally:
                await asyncio.sleep(0)

        return asyncio.run(scenario())

    @property
    def starts(self) -> list[float]:
        return [at - self.begun[0][1] for _number, at in self.begun]


async def hangs(_field: Field, _attempt: int) -> None:
    await asyncio.sleep(60)


async def refused(_field: Field, _attempt: int) -> None:
    raise DialError("no")


async def greets(field: Field, attempt: int) -> None:
    field.child.report(Greeted(attempt))


async def greets_late(field: Field, attempt: int) -> None:
    await asyncio.sleep(0.1)
    field.child.report(Greeted(attempt))


async def fails_behind(field: Field, attempt: int) -> None:
    field.child.report(Failed(attempt, Trouble.of(DialError("another key"))))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_module, "BESIDE_S", 0.2)


def test_the_first_wins_alone_if_it_is_quick() -> None:
    field = Field(path1=greets)
    assert field.run() == 11
    assert [number for number, _ in field.begun] == [1]
    assert (field.child.given_up, field.failed) == ([], [])


def test_the_next_begins_beside_one_that_says_nothing() -> None:
    field = Field(path2=greets_late)
    assert field.run() == 12
    assert [number for number, _ in field.begun] == [1, 2]
    assert 0.15 < field.starts[1] < 1.0
    assert field.child.given_up == [11]
    assert field.ended == [2, 1]


def test_the_next_begins_at_once_when_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_module, "BESIDE_S", 5.0)
    field = Field(path1=refused, path2=fails_behind, path3=greets)
    assert field.run() == 13
    assert field.starts[2] < 2.0
    assert field.failed == [("proxy1.lab", "no"), ("proxy2.lab", "another key")]
    assert field.child.given_up == []


def test_nobody_wins_when_all_have_failed() -> None:
    field = Field(path1=refused, path2=refused, path3=fails_behind)
    assert field.run() is None
    assert len(field.failed) == 3


def test_a_data_process_that_reports_nothing_ends_it() -> None:
    field = Field(path1=greets)
    field.child.report = lambda event: None  # type: ignore[method-assign]
    with pytest.raises(EnvironmentLacks):
        field.run(deadline=0.3)
    assert field.child.given_up == [11, 12, 13]


def test_an_interface_that_is_gone_ends_it() -> None:
    async def gone(field: Field, _attempt: int) -> None:
        field.child.report(Lost(0, Trouble.of(EnvironmentLacks("no interface"))))

    field = Field(path1=gone)
    with pytest.raises(EnvironmentLacks, match="no interface"):
        field.run()
    assert field.child.given_up == [11]


def test_what_is_said_of_an_attempt_before_does_not_count() -> None:
    async def stale(field: Field, _attempt: int) -> None:
        field.child.report(Greeted(3))
        field.child.report(Failed(3, Trouble.of(DialError("long ago"))))

    field = Field(path1=stale, path2=greets)
    assert field.run() == 12
    assert field.failed == []
