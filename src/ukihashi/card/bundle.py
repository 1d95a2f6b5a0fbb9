"""Keeps the connections of one session that can't be resumed exactly: as many as the hub granted, until none is left.

One dial at a time, a second apart, to the very address that the first connection has (protocol section 13). What a hub
refuses as one too many is tried again later; what it no longer knows ends the session.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ukihashi.card.child import DataChild
from ukihashi.card.clock import clock
from ukihashi.card.messages import FORGOTTEN, Failed, Lost, Opened, Trouble
from ukihashi.card.status import Standing
from ukihashi.errors import N_, DialError, EnvironmentLacks, NotTrusted, Refused, UkihashiError
from ukihashi.locale import say
from ukihashi.net.route_watch import RouteWatch
from ukihashi.session.timers import Backoff
from ukihashi.wire.constants import Code

SPACING_S: Final = 1.0  # from one dial to the next
LATER_S: Final = 10.0  # after the hub found that there are enough

Dial = Callable[[int], Awaitable[object]]
"""Connect for an attempt and hand the socket to the data process."""

_log = structlog.get_logger()


class Bundle:
    """One session, from its first connection to the loss of its last."""

    def __init__(self, account: str, child: DataChild, standing: Standing, dial: Dial) -> None:
        self._account: Final = account
        self._child: Final = child
        self._standing: Final = standing
        self._dial: Final = dial
        self._links: dict[int, int] = {}  # attempt -> direction, the oldest first
        self._wanted = 1
        self._half_duplex = False
        self._dialling = 0  # the attempt; 0: none
        self._task: asyncio.Task[None] | None = None
        self._due = 0.0  # the next dial, not before
        self._backoff = Backoff(longest=LATER_S)

    async def hold(self, opened: Opened, way: RouteWatch | None) -> Lost:
        """Until the last connection is gone, or the session is over: why. Attempt 0: the TAP is gone."""
        terms = opened.terms
        self._links = {opened.attempt: opened.direction}
        self._wanted, self._half_duplex = terms.connections, terms.half_duplex
        self._rest(clock())
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(way))
            try:
                return await self._until_lost(group)
            finally:
                watch.cancel()
                self._give_up_dial()

    def renew(self, reason: UkihashiError) -> None:
        """Other connections are needed, at once."""
        for attempt in self._links:
            self._child.give_up(attempt, reason)

    async def _until_lost(self, group: asyncio.TaskGroup) -> Lost:
        while True:
            now = clock()
            lacks = len(self._links) < self._wanted and not self._dialling
            if lacks and now >= self._due:
                self._start_dial(group, now)
                continue
            event = await self._child.next_event(max(0.0, self._due - now) if lacks else None)
            now = clock()
            match event:
                case Lost(attempt=0) | Lost(over=True):
                    return event
                case Lost(attempt=number, trouble=trouble) if number in self._links:
                    del self._links[number]
                    if not self._links:
                        return event
                    _log.info(
                        "connection_lost", account=self._account, left=len(self._links), reason=say(trouble.error())
                    )
                case Opened(attempt=number, direction=direction) if number == self._dialling:
                    self._opened(number, direction)
                case Failed(attempt=number, trouble=trouble) if number == self._dialling:
                    self._dialling = 0
                    self._failed(trouble, now)
                case None if not self._child.alive:
                    gone = EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))
                    return Lost(-1, Trouble.of(gone))

    def _opened(self, number: int, direction: int) -> None:
        self._dialling = 0
        self._links[number] = direction
        self._backoff.reset()
        self._backoff.next(0.0)
        full = len(self._links) >= self._wanted
        if self._half_duplex and full and len(set(self._links.values())) == 1:
            self._child.give_up(number, DialError(N_("every connection of the session goes the same way")))

    def _failed(self, trouble: Trouble, now: float) -> None:
        error = trouble.error()
        _log.info("connection_not_added", account=self._account, reason=say(error))
        code = error.code if isinstance(error, Refused) else 0
        if code in FORGOTTEN or isinstance(error, NotTrusted):
            self._child.end(trouble)  # `Lost` will say that it is over
            self._due = now + LATER_S
        elif code == Code.TOO_MANY_CONNECTION:
            self._due = now + LATER_S
        else:
            self._due = now + self._backoff.next(random.random())  # noqa: S311 - spreads dials, no secret

    def _rest(self, now: float) -> None:
        self._due = now + SPACING_S
        self._backoff.next(0.0)  # the first pause is no pause: the dial before was the first try

    # -- dials ----------------------------------------------------------------------------------------------------

    def _start_dial(self, group: asyncio.TaskGroup, now: float) -> None:
        self._standing.attempts += 1
        self._dialling = self._standing.attempts
        self._due = now + SPACING_S
        self._task = group.create_task(self._connect(self._dialling))

    async def _connect(self, attempt: int) -> None:
        try:
            await self._dial(attempt)
        except UkihashiError as error:
            self._child.report(Failed(attempt, Trouble.of(error)))

    def _give_up_dial(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._dialling:
            self._child.give_up(self._dialling, DialError(N_("this connection is not needed any more")))

    async def _watch(self, way: RouteWatch | None) -> None:
        """Give all up as soon as their packets can't go on as they did; they all go the same way."""
        if way is None:
            return
        try:
            self.renew(await way.changed())
        except OSError as error:  # the kernel does not tell; silence will
            _log.warning("way_not_watched", reason=error.strerror)
