"""Several paths at once, until one has led to the hub with the right key: that one is gone on with, the others go.

The first has a head start of `BESIDE_S`; the next begins then, or as soon as one has failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ukihashi.card.child import DataChild
from ukihashi.card.clock import clock
from ukihashi.card.messages import Failed, Greeted, Lost, Trouble
from ukihashi.card.path_sources import Candidate
from ukihashi.card.redial import BESIDE_S
from ukihashi.errors import N_, DialError, EnvironmentLacks, UkihashiError

Begin = Callable[[Candidate], tuple[int, Awaitable[object]]]
"""Give the number of an attempt over that path, and what connects for it and hands the socket to the data process."""


class Race:
    """One race. `failed` is told of each path that did not lead there, and why."""

    def __init__(self, child: DataChild, begin: Begin, failed: Callable[[Candidate, UkihashiError], object]) -> None:
        self._child: Final = child
        self._begin: Final = begin
        self._failed: Final = failed
        self._runs: dict[int, tuple[Candidate, asyncio.Task[None]]] = {}

    async def run(self, candidates: Sequence[Candidate], deadline: float) -> int | None:
        """The attempt that got there first, and waits for `go_on`; None: none did, within `deadline` seconds each.

        Raises: UkihashiError: the TAP or the data process is gone.
        """
        coming, due, last, won = list(candidates), clock(), 0.0, None
        try:
            while won is None and (coming or self._runs):
                now = clock()
                if coming and (now >= due or not self._runs):
                    self._start(coming.pop(0))
                    due, last = now + BESIDE_S, now + deadline
                    continue
                event = await self._child.next_event(max(0.0, (due if coming else last) - now))
                match event:
                    case Greeted(attempt=number) if number in self._runs:
                        won = number
                    case Failed(attempt=number, trouble=trouble) if number in self._runs:
                        candidate, _task = self._runs.pop(number)
                        self._failed(candidate, trouble.error())
                        due = clock()
                    case Lost(attempt=0, trouble=trouble):
                        raise trouble.error()
                    case None if not self._child.alive or (not coming and clock() >= last):
                        raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))
            return won
        finally:
            for number, (_candidate, task) in self._runs.items():
                if number != won:
                    task.cancel()
                    self._child.give_up(number, DialError(N_("this connection is not needed any more")))

    def _start(self, candidate: Candidate) -> None:
        number, connecting = self._begin(candidate)
        self._runs[number] = candidate, asyncio.create_task(self._connect(number, connecting))

    async def _connect(self, number: int, connecting: Awaitable[object]) -> None:
        try:
            await connecting
        except UkihashiError as error:
            self._child.report(Failed(number, Trouble.of(error)))
