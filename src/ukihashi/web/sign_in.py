"""Who is signed in, and how often a stranger may try. Plain state; `now` (monotonic seconds) is an argument."""

import hmac
import secrets
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final

LIFE_S: Final = 8 * 3600.0  # a session ends this long after the sign-in
IDLE_S: Final = 30 * 60.0  # or this long after the last page
MAX_SESSIONS: Final = 32  # the longest unused one goes first
FAILURES: Final = 5  # wrong attempts of one address ...
WINDOW_S: Final = 15 * 60.0  # ... in this time; then it waits until the first of them is that old
MAX_SOURCES: Final = 4096  # addresses remembered; the one heard longest ago is forgotten first


@dataclass(slots=True)
class Session:
    """One administrator's browser."""

    created: float
    seen: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    one_time: str = ""  # the first-start secret, kept only until a password is chosen; else empty
    notice: str = ""  # a key of `texts.NOTICES` to show once
    changed: str = ""  # an option to mark once as changed

    def __repr__(self) -> str:  # the secrets stay out of any log
        return f"Session(created={self.created:.0f})"


class Sessions:
    """Signed-in browsers by their random 256-bit id; kept in memory, so a restart of the hub ends them."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}  # longest unused first

    def __len__(self) -> int:
        return len(self._open)

    def open(self, now: float, *, one_time: str = "") -> tuple[str, Session]:
        """A new session and the id for its cookie."""
        while len(self._open) >= MAX_SESSIONS:
            del self._open[next(iter(self._open))]
        session_id, session = secrets.token_urlsafe(32), Session(now, now, one_time=one_time)
        self._open[session_id] = session
        return session_id, session

    def find(self, session_id: str, now: float) -> Session | None:
        """The living session of that id, now the most recently used; None for unknown or ended ones."""
        for key, session in list(self._open.items()):
            if now - session.created >= LIFE_S or now - session.seen >= IDLE_S:
                del self._open[key]
        if session_id not in self._open:
            return None
        session = self._open.pop(session_id)
        session.seen = now
        self._open[session_id] = session
        return session

    def close(self, session_id: str) -> None:
        """End one session; an unknown id is no error."""
        self._open.pop(session_id, None)

    def close_all(self) -> None:
        """End every session: the password has changed."""
        self._open.clear()


class Throttle:
    """Counts wrong sign-ins by source: an IPv4 address, or an IPv6 /64, of which one person has many addresses."""

    def __init__(self) -> None:
        self._failed: dict[str, list[float]] = {}  # times, oldest first; sources heard longest ago first

    def wait(self, source: str, now: float) -> float:
        """Seconds that `source` has to wait before its next attempt; 0 = it may try."""
        times = self._recent(source, now)
        return times[0] + WINDOW_S - now if len(times) >= FAILURES else 0.0

    def failed(self, source: str, now: float) -> None:
        """Note a wrong attempt."""
        times = [*self._recent(source, now), now][-FAILURES:]
        self._failed.pop(_group(source), None)
        while len(self._failed) >= MAX_SOURCES:
            del self._failed[next(iter(self._failed))]
        self._failed[_group(source)] = times

    def succeeded(self, source: str) -> None:
        """Forget what `source` did wrong."""
        self._failed.pop(_group(source), None)

    def _recent(self, source: str, now: float) -> list[float]:
        return [at for at in self._failed.get(_group(source), []) if now - at < WINDOW_S]


def same(given: str, expected: str) -> bool:
    """Compare two secrets in constant time; an empty expected value never matches."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def _group(source: str) -> str:
    try:
        address = ip_address(source)
    except ValueError:
        return source[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
