"""What users used: counters, and who may stay no longer because a quota is used up or the time is over.

Traffic comes from the worker every few seconds for each session. It is gathered and written at once, for a commit
waits for the disk: a thousand sessions must not keep logins waiting. A power cut loses the last moments of counting.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from ukihashi.auth.names import name_key
from ukihashi.errors import UkihashiError
from ukihashi.hub.backstage import Live, end_sessions
from ukihashi.hub.messages import SessionOpened, Traffic
from ukihashi.hub.storage import Storage
from ukihashi.store import hubs, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub

WRITE_S: Final = 2.0  # how long traffic is gathered
CHECK_S: Final = 15.0  # how often it is asked whose time is over
QUOTA: Final = "the user's quota is used up"
EXPIRED: Final = "the user has expired"

_log = structlog.get_logger()


@dataclass(slots=True)
class _Sum:
    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0


class Accounting:
    """Counts, and ends sessions of who may stay no longer."""

    def __init__(
        self,
        storage: Storage,
        live: Live,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._live = live
        self._clock = clock
        self._sleep = sleep
        self._gathered: dict[tuple[str, str], _Sum] = {}  # by keys of hub and user
        self._came: Final = asyncio.Event()
        self._checked = 0.0  # until when it is known whose time is over

    def add(self, traffic: Traffic) -> None:
        """Count it soon."""
        total = self._gathered.setdefault((name_key(traffic.hub), name_key(traffic.user)), _Sum())
        total.frames_in += traffic.frames_in
        total.bytes_in += traffic.bytes_in
        total.frames_out += traffic.frames_out
        total.bytes_out += traffic.bytes_out
        self._came.set()

    async def opened(self, opened: SessionOpened) -> None:
        """Note a login."""

        def note(db: Database) -> None:
            hub = hubs.find(db, opened.hub)
            user = users.find(db, hub, opened.user) if hub else None
            if hub is not None:
                hubs.note_login(db, hub, opened.at)
            if user is not None:
                users.note_login(db, user, opened.at)

        try:
            await self._storage.change(note)
        except UkihashiError as error:  # a full disk: the session lives on all the same
            _log.warning("internal_error", reason=str(error))

    async def run(self) -> None:
        """Write what is gathered, and look whose time is over, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_on())
            group.create_task(self._check_on())

    async def write(self, *, last: bool = False) -> None:
        """Write what is gathered now; end the sessions of those whose quota it has used up, unless it is the `last`."""
        gathered, self._gathered = self._gathered, {}
        self._came.clear()
        if not gathered:
            return
        try:
            spent = await self._storage.change(_count, gathered, self._clock())
        except UkihashiError as error:  # a full disk: better members who talk than exact counters
            _log.warning("internal_error", reason=str(error))
            return
        if not last:
            await self._end(spent, QUOTA, "quota_spent")

    async def check(self) -> None:
        """End the sessions of those whose time is over since the last look."""
        now = self._clock()
        try:
            expired = await self._storage.read(_expired, self._checked, now)
        except UkihashiError as error:
            _log.warning("internal_error", reason=str(error))
            return
        self._checked = now
        await self._end(expired, EXPIRED, "user_expired")

    async def _write_on(self) -> None:
        while True:
            await self._came.wait()
            await self._sleep(WRITE_S)
            await _come_what_may(self.write())

    async def _check_on(self) -> None:
        while True:
            await self._sleep(CHECK_S)
            await _come_what_may(self.check())

    async def _end(self, whose: list[tuple[Hub, list[str]]], reason: str, event: str) -> None:
        for hub, names in whose:
            if ended := await end_sessions(self._live, hub, names, reason):
                _log.warning(event, hub=hub.name, users=names, sessions=ended)


async def _come_what_may(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - the worker may say anything; what can't be counted must not end the hub
        await _log.aexception("internal_error")


def _count(db: Database, gathered: dict[tuple[str, str], _Sum], now: float) -> list[tuple[Hub, list[str]]]:
    """Add it all up; by hub, who has no quota left."""
    known = {name_key(hub.name): hub for hub in hubs.all_hubs(db)}
    spent: dict[str, list[str]] = {}
    for (hub_key, user_key), total in gathered.items():
        hub = known.get(hub_key)
        user = users.find(db, hub, user_key) if hub else None
        if hub is None or user is None:  # deleted meanwhile, or the hub's administrator
            continue
        users.add_traffic(
            db,
            user,
            frames_in=total.frames_in,
            bytes_in=total.bytes_in,
            frames_out=total.frames_out,
            bytes_out=total.bytes_out,
            now=now,
        )
        if users.get(db, hub, user.name).spent(now):
            spent.setdefault(hub_key, []).append(user.name)
    return [(known[key], names) for key, names in spent.items()]


def _expired(db: Database, since: float, now: float) -> list[tuple[Hub, list[str]]]:
    return [(hub, names) for hub in hubs.all_hubs(db) if (names := users.expired(db, hub, since, now))]
