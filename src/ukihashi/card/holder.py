"""Keeps one exactly resumable session linked: dials when `redial.py` says so, until no link can go on with it.

Both processes take part. The data process knows the session and its numbers; it says when the link is silent, cut or
answered. What is here knows when to dial, and where the packets go.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec
import structlog

from ukihashi.card.child import DataChild
from ukihashi.card.clock import clock
from ukihashi.card.messages import Asked, Failed, LoopFound, Lost, Opened, Recovered, Suspect, Trouble
from ukihashi.card.redial import Redial
from ukihashi.card.status import Blocked, Standing, State
from ukihashi.errors import N_, DialError, EnvironmentLacks, UkihashiError
from ukihashi.locale import say
from ukihashi.net.route_watch import RouteWatch

Dial = Callable[[int, Callable[[], object]], Awaitable[RouteWatch | None]]
"""Connect for an attempt and hand the socket to the data process; gives its way, to be watched.

The second argument is called as soon as the first machine on the way has taken the connection.
"""

_log = structlog.get_logger()


class Holder:
    """One session, from its login to its end."""

    def __init__(
        self,
        account: str,
        child: DataChild,
        redial: Redial,
        standing: Standing,
        dial: Dial,
        carried: Callable[[int], object],
    ) -> None:
        """`carried`: told of the attempt whose link carries the session from now on."""
        self._account: Final = account
        self._child: Final = child
        self._redial: Final = redial
        self._standing: Final = standing
        self._dial: Final = dial
        self._carried: Final = carried
        self._ways: dict[int, RouteWatch | None] = {}
        self._dials: dict[int, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._link = 0  # the attempt whose link carries the session; 0: none
        self._end_with_link = False

    def end_with_link(self) -> None:
        """The account has changed so that the next connection is to log in afresh."""
        self._end_with_link = True

    def renew(self, reason: UkihashiError) -> None:
        """Another connection is needed, at once."""
        if self._link:
            self._child.give_up(self._link, reason)

    async def hold(self, opened: Opened, way: RouteWatch | None) -> Lost:
        """Until the session is over: why. Attempt 0: the TAP is gone."""
        grace = float(opened.grace_s)
        async with asyncio.TaskGroup() as group:
            self._go_on(group, opened.attempt, way)
            try:
                return await self._until_over(group, grace)
            finally:
                self._stop_watch()
                self._standing.blocked = None
                for attempt in list(self._dials):
                    self._give_up(attempt)

    async def _until_over(self, group: asyncio.TaskGroup, grace: float) -> Lost:
        redial, standing = self._redial, self._standing
        while True:
            now = clock()
            if redial.is_over(now):
                return _over(DialError(N_("no way to the hub was found while it kept the session")))
            if redial.is_due(now):
                self._start_dial(group, now)
                continue
            event = await self._child.next_event(redial.wait(now))
            now = clock()
            match event:
                case Lost(attempt=0) | Lost(over=True):
                    return event
                case Failed(over=True, trouble=trouble):
                    return Lost(event.attempt, trouble, over=True)
                case Lost(attempt=self._link, trouble=trouble):
                    self._stop_watch()
                    standing.cut(trouble.error())
                    _log.warning("link_lost", account=self._account, reason=say(trouble.error()))
                    if self._end_with_link:
                        return event
                    redial.cut(now, grace)
                case Suspect():
                    redial.suspect(now)
                    standing.become(State.SUSPECT, DialError(N_("the hub is silent; another connection is tried")))
                    _log.warning("link_silent", account=self._account)
                case Recovered():
                    self._give_up_all()
                    redial.recovered()
                    standing.become(State.ONLINE)
                    _log.info("link_recovered", account=self._account)
                case LoopFound(because=because):
                    self._loop(because)
                case Asked(attempt=attempt):
                    if self._link:
                        self._stop_watch()
                        standing.cut(DialError(N_("the hub was silent; the session goes on over another connection")))
                    redial.asked(attempt, now, grace)
                case Opened():
                    self._resumed(group, event, now)
                case Failed(attempt=attempt, trouble=trouble) if attempt in redial.open:
                    self._dials.pop(attempt, None)
                    redial.failed(attempt)
                    if standing.state is State.RECONNECTING:
                        standing.reason = trouble.error()
                case None if not self._child.alive:
                    return _over(EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more")))

    def _loop(self, because: str | None) -> None:
        """The hub has blocked this card, or opened its way again."""
        standing = self._standing
        if because is not None:
            standing.blocked = (
                standing.blocked._replace(by=because) if standing.blocked else Blocked(because, time.time())
            )
            _log.warning("card_blocked", account=self._account, loop_with=because)
        elif standing.blocked is not None:
            seconds = round(time.time() - standing.blocked.since, 1)
            standing.blocked = None
            _log.warning("card_unblocked", account=self._account, seconds=seconds)

    # -- links ----------------------------------------------------------------------------------------------------

    def _go_on(self, group: asyncio.TaskGroup, attempt: int, way: RouteWatch | None) -> None:
        """This attempt's link carries the session."""
        self._link = attempt
        self._watch = group.create_task(watch_way(self._child, attempt, way))

    def _resumed(self, group: asyncio.TaskGroup, opened: Opened, now: float) -> None:
        standing, way = self._standing, self._ways.get(opened.attempt)
        self._carried(opened.attempt)
        self._dials.pop(opened.attempt, None)
        self._give_up_all()
        self._redial.opened(now)
        standing.resumes += 1
        standing.reconnects += 1
        standing.online()
        if standing.session is not None:
            standing.session = again(standing.session, opened)
        _log.info(
            "card_online", account=self._account, peer=standing.peer, resumed=True, gap_s=round(standing.gap_s, 3)
        )
        self._go_on(group, opened.attempt, way)

    def _stop_watch(self) -> None:
        self._link = 0
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # -- dials ----------------------------------------------------------------------------------------------------

    def _start_dial(self, group: asyncio.TaskGroup, now: float) -> None:
        self._standing.attempts += 1
        attempt = self._standing.attempts
        for old in self._redial.dial(attempt, now):
            self._give_up(old)
        self._dials[attempt] = group.create_task(self._connect(attempt))

    async def _connect(self, attempt: int) -> None:
        try:
            self._ways[attempt] = await self._dial(attempt, partial(self._redial.connected, attempt))
        except UkihashiError as error:
            self._child.report(Failed(attempt, Trouble.of(error)))
        else:
            self._redial.connected(attempt)

    def _give_up(self, attempt: int) -> None:
        self._ways.pop(attempt, None)
        task = self._dials.pop(attempt, None)
        if task is not None:
            task.cancel()
            self._child.give_up(attempt, DialError(N_("this connection is not needed any more")))

    def _give_up_all(self) -> None:
        for attempt in list(self._dials):
            self._give_up(attempt)
        self._ways.clear()


async def watch_way(child: DataChild, attempt: int, way: RouteWatch | None) -> None:
    """Give a link up as soon as its packets can't go on as they did."""
    if way is None:
        return
    try:
        child.give_up(attempt, await way.changed())
    except OSError as error:  # the kernel does not tell; silence will
        _log.warning("way_not_watched", reason=error.strerror)


def again(old: Opened, new: Opened) -> Opened:
    """A resume's answer says little: what the login said still holds."""
    return msgspec.structs.replace(
        old,
        attempt=new.attempt,
        resumed=True,
        tls=new.tls,
        cipher=new.cipher,
        congestion=new.congestion,
        pin=new.pin,
        product=new.product,
        direction=new.direction,
        banner="",
        lost=0,
        carried=0,
    )


def _over(error: UkihashiError) -> Lost:
    return Lost(-1, Trouble.of(error), over=True)
