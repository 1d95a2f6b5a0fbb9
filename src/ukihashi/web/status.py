"""The administrator's view of the hub as plain rows for the template; missing values become a dash, never an error."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ukihashi.errors import Translate
from ukihashi.web.texts import ADMIN, UNITS

MAX_ROWS: Final = 500  # sessions and users shown; the command line lists all
DASH: Final = "–"


class Ask(Protocol):
    """`WebApi.ask` with a deadline."""

    def __call__(self, do: str, /, **args: Any) -> Awaitable[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class HubRow:
    """One virtual hub."""

    name: str
    online: bool
    users: str
    sessions: str
    subnet: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. `since` is ISO 8601 with zone."""

    session: str
    hub: str
    user: str
    peer: str
    client: str
    since: str
    received: str
    sent: str
    dropped: str


@dataclass(frozen=True, slots=True)
class UserRow:
    """One user. `last_login` is ISO 8601 with zone."""

    name: str
    hub: str
    group: str
    last_login: str
    received: str
    sent: str


@dataclass(frozen=True, slots=True)
class State:
    """All that the page shows. `total_sessions` may be more than there are rows."""

    as_of: str
    uptime: str
    hubs: list[HubRow]
    sessions: list[SessionRow]
    total_sessions: int
    more: str
    users: list[UserRow]
    more_users: str
    trouble: str  # why something below is missing; "" if all answered


async def gather(ask: Ask, translate: Translate, *, clock: Callable[[], float] | None = None) -> State:
    """Ask the hub for its state. Raises what `ask` raises."""
    now = clock() if clock else datetime.now(UTC).timestamp()
    answers = {do: await ask(do) for do in ("status", "list", "sessions", "users")}
    status, hubs, sessions, users = (_rows(answer) for answer in answers.values())
    trouble = next((str(answer.get("error", DASH)) for answer in answers.values() if answer.get("ok") is not True), "")
    head = status[0] if status else {}
    return State(
        as_of=_moment(now),
        uptime=_uptime(head, translate),
        hubs=[_hub(row) for row in hubs],
        sessions=[_session(row) for row in sessions[:MAX_ROWS]],
        total_sessions=len(sessions),
        more=_more("more_sessions", len(sessions), translate),
        users=[_user(row) for row in users[:MAX_ROWS]],
        more_users=_more("more_users", len(users), translate),
        trouble=trouble,
    )


def span(seconds: float, translate: Translate) -> str:
    """A length of time in the two units that matter: "3 d 4 h", "2 h 5 min", "1 min 30 s"."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes_rest = divmod(minutes, 60)
    days, hours_rest = divmod(hours, 24)
    if days:
        return translate(UNITS["days"]).format(days=days, hours=hours_rest)
    if hours:
        return translate(UNITS["hours"]).format(hours=hours, minutes=minutes_rest)
    return translate(UNITS["minutes"]).format(minutes=minutes, seconds=rest)


def size(count: object) -> str:
    """Bytes in binary units with three digits: "512 B", "1.50 KiB", "22.4 MiB"."""
    if not isinstance(count, int | float) or isinstance(count, bool):
        return DASH
    if count < 1024:
        return f"{count:.0f} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 999.5 or unit == "TiB":
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    raise AssertionError


def _rows(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = answer.get("rows", [])
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _hub(row: Mapping[str, Any]) -> HubRow:
    return HubRow(
        name=_text(row, "name"),
        online=row.get("online", True) is not False,
        users=_text(row, "users"),
        sessions=_text(row, "sessions"),
        subnet=" ".join(str(row[key]) for key in ("subnet4", "subnet6") if row.get(key)) or DASH,
    )


def _session(row: Mapping[str, Any]) -> SessionRow:
    since = row.get("since")
    return SessionRow(
        session=_text(row, "session"),
        hub=_text(row, "hub"),
        user=_text(row, "user"),
        peer=_text(row, "peer"),
        client=_text(row, "client"),
        since=_moment(since) if isinstance(since, int | float) else DASH,
        received=size(row.get("bytes_in")),
        sent=size(row.get("bytes_out")),
        dropped=_dropped(row),
    )


def _user(row: Mapping[str, Any]) -> UserRow:
    last = row.get("last_login_at")
    return UserRow(
        name=_text(row, "name"),
        hub=_text(row, "hub"),
        group=_text(row, "group"),
        last_login=_moment(last) if isinstance(last, int | float) else DASH,
        received=size(row.get("bytes_in")),
        sent=size(row.get("bytes_out")),
    )


def _more(key: str, total: int, translate: Translate) -> str:
    return translate(ADMIN[key]).format(shown=MAX_ROWS, total=total) if total > MAX_ROWS else ""


def _dropped(row: Mapping[str, Any]) -> str:
    """All frames dropped, whatever the reason; the command line tells them apart."""
    drops = row.get("drops")
    return str(sum(drops.values())) if isinstance(drops, dict) else DASH


def _uptime(head: Mapping[str, Any], translate: Translate) -> str:
    if isinstance(seconds := head.get("uptime_s"), int | float):
        return span(seconds, translate)
    return DASH


def _moment(at: float) -> str:
    """ISO 8601 in the hub's own time zone, to the second."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return DASH if value is None or value == "" else str(value)
