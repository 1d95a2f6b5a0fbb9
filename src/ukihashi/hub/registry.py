"""The sessions of all workers, where there are several: whether somebody may have one more, and its number.

A worker by itself sees its own sessions only. So each tells control which it has, and control counts (MultiLogins of
the policy, the virtual hub's bound). What was let in and is not yet a session counts too, for COMING_S.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from ukihashi.hub.messages import (
    LOGIN_DEADLINE,
    LoginAnswered,
    LoginAsked,
    LoginRefused,
    SessionClosed,
    SessionOpened,
    SessionsHere,
)
from ukihashi.wire.constants import Code

COMING_S: Final = LOGIN_DEADLINE


class _One(NamedTuple):
    worker: int
    hub: str  # casefolded
    user: str
    unique_id: bytes


class Registry:
    """See the module."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], _One] = {}  # by virtual hub (casefolded) and name
        self._coming: dict[tuple[int, int], tuple[float, _One]] = {}  # by worker and question: let in, since when
        self._numbers: dict[str, int] = {}  # by virtual hub: the last one given
        self._told: set[int] = set()  # workers that tell us what they have: others count by themselves

    def here(self, worker: int, message: SessionsHere) -> None:
        """A worker has these."""
        self._told.add(worker)
        for hub, session, user, unique_id in message.sessions:
            self._sessions[hub.casefold(), session] = _One(worker, hub.casefold(), user, unique_id)
        for hub, number in message.numbers.items():
            self._numbers[hub.casefold()] = max(number, self._numbers.get(hub.casefold(), 0))

    def opened(self, worker: int, opened: SessionOpened) -> None:
        """A login became a session."""
        if worker in self._told:
            one = _One(worker, opened.hub.casefold(), opened.user, opened.unique_id)
            self._sessions[one.hub, opened.session] = one
            self._came(worker, one.hub, one.user)

    def closed(self, worker: int, closed: SessionClosed) -> None:
        """It ended."""
        key = closed.hub.casefold(), closed.session
        if key in self._sessions and self._sessions[key].worker == worker:
            del self._sessions[key]

    def refused(self, worker: int, refused: LoginRefused) -> None:
        """The worker did not let in whom we had let in."""
        self._came(worker, refused.hub.casefold(), refused.user)

    def gone(self, worker: int) -> None:
        """It has ended, with all it had."""
        self._told.discard(worker)
        self._sessions = {key: one for key, one in self._sessions.items() if one.worker != worker}
        self._coming = {key: coming for key, coming in self._coming.items() if key[0] != worker}

    def judge(self, worker: int, asked: LoginAsked, answer: LoginAnswered) -> LoginAnswered:
        """`answer` lets somebody in: so it is, with a number, unless there are too many already."""
        if worker not in self._told:
            return answer
        hub = answer.hub.casefold()
        there = list(self._of_hub(hub))
        ghost = asked.unique_id if asked.unique_id.strip(b"\0") else None  # what the same machine has left behind (9.3)
        same = sum(one.user == answer.user and one.unique_id != ghost for one in there)
        code = Code.NONE
        if answer.policy.multi_logins and same >= answer.policy.multi_logins:
            code = Code.TOO_MANY_USER_SESSION
        elif answer.max_sessions and len(there) >= answer.max_sessions:
            code = Code.HUB_IS_BUSY
        if code:
            return LoginAnswered(answer.ask, error=int(code), no_save_password=answer.policy.no_save_password)
        number = self._numbers[hub] = self._numbers.get(hub, 0) + 1
        self._coming[worker, asked.ask] = self._clock(), _One(worker, hub, answer.user, asked.unique_id)
        return replace(answer, number=number)

    def _of_hub(self, hub: str) -> Iterator[_One]:
        now = self._clock()
        self._coming = {key: coming for key, coming in self._coming.items() if now - coming[0] < COMING_S}
        yield from (one for one in self._sessions.values() if one.hub == hub)
        yield from (one for _since, one in self._coming.values() if one.hub == hub)

    def _came(self, worker: int, hub: str, user: str) -> None:
        for key, (_since, one) in self._coming.items():
            if (one.worker, one.hub, one.user.casefold()) == (worker, hub, user.casefold()):
                del self._coming[key]
                return
