"""When to send a keep-alive, when a peer counts as dead, when to dial again. Time is an argument, chance too.

Two laws: between two ukihashi ends that of docs/decisions.md (keep-alive after 5 s of silence in that direction,
suspect at 10 s, dead at 15 s); with anything else the protocol's (sections 12.3 and 14). All times are in seconds of
one clock that never goes back.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from ukihashi.wire.constants import Code

KEEPALIVE_S: Final = 5.0  # silence in one direction before a keep-alive, between ukihashi ends
HUB_FIRST_S: Final = 2.5  # the hub's first keep-alive comes this long after the card's
SUSPECT_S: Final = 10.0
DEAD_S: Final = 15.0


class KeepAliveLaw(Protocol):
    """One direction of one connection: the sender's side."""

    @property
    def due_at(self) -> float:
        """When to send a keep-alive, unless something else is sent before."""

    def sent(self, now: float, chance: float = 0.0) -> None:
        """Anything at all, data or keep-alive, was sent. `chance`: a fresh random number in [0, 1)."""

    def is_due(self, now: float) -> bool:
        """It is time for a keep-alive; after sending it, call `sent`."""


class KeepAlive:
    """Between ukihashi ends: a keep-alive after `interval` of silence in this direction."""

    __slots__ = ("_interval", "due_at")

    def __init__(self, now: float, *, interval: float = KEEPALIVE_S, first_after: float = 0.0) -> None:
        """`first_after`: 0 for the card, HUB_FIRST_S for the hub; counted from the start of the tunnel."""
        self._interval = interval
        self.due_at = now + first_after

    def sent(self, now: float, chance: float = 0.0) -> None:  # noqa: ARG002 - our law is regular on purpose (D4)
        self.due_at = now + self._interval

    def is_due(self, now: float) -> bool:
        return now >= self.due_at


class StandardKeepAlive:
    """With a standard peer: at once, then after max(T/5, random in 0..T/2) of silence (12.3)."""

    __slots__ = ("_timeout", "due_at")

    def __init__(self, now: float, *, timeout: float) -> None:
        """`timeout`: T, the session's timeout from the welcome."""
        self._timeout = timeout
        self.due_at = now

    def sent(self, now: float, chance: float = 0.0) -> None:
        self.due_at = now + max(self._timeout / 5, chance * self._timeout / 2)

    def is_due(self, now: float) -> bool:
        return now >= self.due_at


class Health(Enum):
    """What silence says about a link."""

    ALIVE = "alive"
    SUSPECT = "suspect"  # dial a second link beside this one
    DEAD = "dead"  # close this one


class Liveness:
    """One direction of one connection, or a whole session: the receiver's side."""

    __slots__ = ("_dead", "_heard", "_suspect")

    def __init__(self, now: float, *, dead: float = DEAD_S, suspect: float | None = None) -> None:
        """`dead`, `suspect`: silence that makes it so. With a standard peer `dead` is T and nothing is suspect."""
        if suspect is not None and suspect > dead:
            raise ValueError("a link is suspect before it is dead")
        self._dead = dead
        self._suspect = dead if suspect is None else suspect
        self._heard = now

    def heard(self, now: float) -> None:
        """Any byte came."""
        self._heard = now

    def silent_for(self, now: float) -> float:
        """Seconds since the last byte."""
        return now - self._heard

    def health(self, now: float) -> Health:
        """The verdict at `now`."""
        silence = now - self._heard
        if silence >= self._dead:
            return Health.DEAD
        return Health.SUSPECT if silence >= self._suspect else Health.ALIVE

    def is_dead(self, now: float) -> bool:
        """Silent for `dead` or longer."""
        return now - self._heard >= self._dead

    @property
    def dead_at(self) -> float:
        """When it will be dead if nothing more comes."""
        return self._heard + self._dead

    @property
    def suspect_at(self) -> float:
        """When it will be suspect; equal to `dead_at` if suspicion is off."""
        return self._heard + self._suspect


class Backoff:
    """Waits between attempts: none before the first, then 1, 2, 4 ... `longest` seconds, each shaken by a fifth."""

    __slots__ = ("_attempts", "_longest", "_shortest")

    def __init__(self, *, shortest: float = 1.0, longest: float = 30.0) -> None:
        self._shortest = shortest
        self._longest = longest
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """Attempts since the last success."""
        return self._attempts

    def next(self, chance: float) -> float:
        """Seconds to wait before the coming attempt; `chance` in [0, 1) moves it between -20 % and +20 %.

        The shaking keeps many cards from dialling a restarted hub in step.
        """
        done, self._attempts = self._attempts, self._attempts + 1
        if done == 0:
            return 0.0
        wait = self._longest if done > 32 else min(self._shortest * 2 ** (done - 1), self._longest)
        return wait * (0.8 + 0.4 * chance)

    def reset(self) -> None:
        """An attempt succeeded."""
        self._attempts = 0


@dataclass(frozen=True, slots=True)
class RetryRule:
    """What to do after the hub, or our own end, gave up with a code of section 11."""

    again: bool  # False: a person must act first
    at_least: float = 0.0  # seconds to wait, whatever the back-off says


_STOP: Final = RetryRule(again=False)
_SLOW: Final = RetryRule(again=True, at_least=60.0)
_RULES: Final[dict[int, RetryRule]] = {
    Code.USER_CANCEL: _STOP,
    Code.CERT_NOT_TRUSTED: _STOP,
    Code.SERVER_CERT_EXPIRES: _STOP,
    Code.HOSTNAME_MISMATCH: _STOP,
    Code.AUTO_DISCONNECTED: _STOP,
    Code.SESSION_TIMEOUT: RetryRule(again=True, at_least=5.0),  # a full login, not another resume (20.1)
    Code.HUB_STOPPING: _SLOW,
    Code.HUB_IS_BUSY: _SLOW,
    Code.TOO_MANY_USER_SESSION: _SLOW,
    Code.LICENSE_ERROR: _SLOW,
    # The protocol lets clients repeat these fast, which helps nobody: only an admin can mend them.
    Code.HUB_NOT_FOUND: _SLOW,
    Code.AUTH_FAILED: _SLOW,
    Code.ACCESS_DENIED: _SLOW,
    Code.AUTHTYPE_NOT_SUPPORTED: _SLOW,
    Code.VERSION_INVALID: _SLOW,
    Code.IP_ADDRESS_DENIED: _SLOW,
    Code.MONITOR_MODE_DENIED: _SLOW,
    Code.BRIDGE_MODE_DENIED: _SLOW,
    Code.NULL_PASSWORD_LOCAL_ONLY: _SLOW,
    Code.CLIENT_ID_REQUIRED: _SLOW,
}


def retry_rule(code: int) -> RetryRule:
    """The rule for `code`; one without a rule of its own is tried again as the back-off says."""
    return _RULES.get(code, RetryRule(again=True))
