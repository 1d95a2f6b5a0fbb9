"""Users of virtual hubs: how they prove themselves, what they may, what they used, their addresses (D10, D18)."""

import sqlite3
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, UsageError
from ukihashi.store import policies
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import DEFAULT, Policy

Kind = Literal["password", "anonymous", "certificate", "issued"]

DAY_S: Final = 86_400
QUOTA_DAYS: Final = 30  # of a period, unless said otherwise

_SELECT: Final = (
    "SELECT u.*, coalesce(g.name, '') AS group_name, g.policy AS group_policy"
    " FROM users u LEFT JOIN groups g ON g.id = u.group_id"
)


@dataclass(frozen=True, slots=True)
class User:
    """One user of one hub. `repr` shows no hash."""

    id: int
    hub_id: int
    group_id: int  # 0 = in none
    group: str  # its name; "" = in none
    group_policy: Policy | None
    name: str
    kind: Kind
    sha0: bytes  # 20 bytes, password-equivalent; b"" = none kept
    argon2: str  # "" = none
    certificate: bytes  # kind `certificate`: this one, DER
    common_name: str  # kind `issued`; "" = any
    serial: bytes  # kind `issued`; b"" = any
    number: int  # last part of both assigned addresses; 0 = none assigned
    real_name: str
    note: str
    policy: Policy | None  # None: the group's, else a new user's
    expires_at: float  # no login from then on; 0.0 = never
    quota_bytes: int  # of both directions in a period; 0 = no limit
    quota_days: int
    period_began_at: float
    period_bytes: int
    created_at: float  # seconds since 1970
    updated_at: float
    last_login_at: float  # 0.0 = never
    logins: int
    bytes_in: int  # from the member into the hub, all sessions so far
    frames_in: int
    bytes_out: int
    frames_out: int

    def __repr__(self) -> str:
        return f"User({self.name!r}, hub_id={self.hub_id})"

    @property
    def anonymous(self) -> bool:
        """Whether this user is let in without a proof."""
        return self.kind == "anonymous"

    @property
    def login(self) -> str:
        """How this user is let in, in one word for listings."""
        if self.kind != "password":
            return self.kind
        if self.argon2:
            return "chosen+standard" if self.sha0 else "chosen"
        return "standard" if self.sha0 else "none"

    @property
    def effective_policy(self) -> Policy:
        """The user's own, else the group's, else a new user's."""
        return self.policy or self.group_policy or DEFAULT

    def expired(self, now: float) -> bool:
        """Whether the time for logins is over."""
        return bool(self.expires_at) and now >= self.expires_at

    def period(self, now: float) -> tuple[float, int]:
        """When the present quota period began, and the bytes used in it. Periods follow one another without a gap."""
        length = self.quota_days * DAY_S
        past = int((now - self.period_began_at) // length)
        if past <= 0:
            return self.period_began_at, self.period_bytes
        return self.period_began_at + past * length, 0

    def spent(self, now: float) -> bool:
        """Whether the quota of the present period is used up."""
        return bool(self.quota_bytes) and self.period(now)[1] >= self.quota_bytes


def effective_policy(db: Database, user: User) -> Policy:
    """As `User.effective_policy`, by what the database says now."""
    row = db.row(f"{_SELECT} WHERE u.id = ?", (user.id,))
    return (_user(row) if row else user).effective_policy


def all_users(db: Database, hub: Hub) -> list[User]:
    """Every user of a hub, by name."""
    return [_user(row) for row in db.rows(f"{_SELECT} WHERE u.hub_id = ? ORDER BY u.key", (hub.id,))]


def numbers(db: Database, hub: Hub) -> dict[str, int]:
    """The own numbers of a hub's users, by `name_key`."""
    rows = db.rows("SELECT key, number FROM users WHERE hub_id = ? AND number IS NOT NULL", (hub.id,))
    return {row[0]: row[1] for row in rows}


def count(db: Database) -> dict[int, int]:
    """Number of users by hub id."""
    return {row[0]: row[1] for row in db.rows("SELECT hub_id, COUNT(*) FROM users GROUP BY hub_id")}


def expired(db: Database, hub: Hub, since: float, now: float) -> list[str]:
    """Names of those whose time for logins ended after `since` and by now."""
    query = "SELECT name FROM users WHERE hub_id = ? AND expires_at > ? AND expires_at <= ?"
    return [row[0] for row in db.rows(query, (hub.id, since, now))]


def find(db: Database, hub: Hub, name: str) -> User | None:
    """The user of that name, in any case."""
    row = db.row(f"{_SELECT} WHERE u.hub_id = ? AND u.key = ?", (hub.id, name_key(name)))
    return _user(row) if row else None


def get(db: Database, hub: Hub, name: str) -> User:
    """As `find`, but an unknown name is a `UsageError`."""
    user = find(db, hub, name)
    if user is None:
        raise UsageError(
            N_("hub {hub} has no user “{name}”; `ukihashi hub user list` shows those it has"), hub=hub.name, name=name
        )
    return user


def create(
    db: Database,
    hub: Hub,
    name: str,
    *,
    anonymous: bool = False,
    sha0: bytes = b"",
    argon2: str = "",
    note: str = "",
    now: float,
) -> User:
    """Add a user; everything else is `put`'s. `name` is checked already. Raises UsageError when the name is taken."""
    kind: Kind = "anonymous" if anonymous else "password"
    try:
        db.insert(
            "INSERT INTO users (hub_id, name, key, kind, sha0, argon2, note, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (hub.id, name, name_key(name), kind, sha0 or None, argon2 or None, note, now, now),
        )
    except sqlite3.IntegrityError as error:
        raise UsageError(N_("hub {hub} has a user “{name}” already"), hub=hub.name, name=name) from error
    return get(db, hub, name)


def put(db: Database, user: User, now: float) -> None:
    """Keep all fields that an administrator sets: not the name, the address, and what is counted.

    The user must have been read in the same `Database.change`, so that nothing in between is undone.
    """
    db.do(
        "UPDATE users SET group_id = ?, kind = ?, sha0 = ?, argon2 = ?, certificate = ?, common_name = ?, serial = ?,"
        " real_name = ?, note = ?, policy = ?, expires_at = ?, quota_bytes = ?, quota_days = ?, period_began_at = ?,"
        " period_bytes = ?, updated_at = ? WHERE id = ?",
        (
            user.group_id or None,
            user.kind,
            user.sha0 or None,
            user.argon2 or None,
            user.certificate or None,
            user.common_name or None,
            user.serial or None,
            user.real_name,
            user.note,
            policies.written(user.policy),
            user.expires_at or None,
            user.quota_bytes or None,
            user.quota_days,
            user.period_began_at,
            user.period_bytes,
            now,
            user.id,
        ),
    )


def delete(db: Database, user: User) -> None:
    """Remove a user with all invites."""
    db.do("DELETE FROM users WHERE id = ?", (user.id,))


def set_password(db: Database, user: User, *, sha0: bytes = b"", argon2: str = "") -> None:
    """Put these in the place of every form of proof kept so far; any user becomes one with a password."""
    db.do(
        "UPDATE users SET kind = 'password', sha0 = ?, argon2 = ?, certificate = NULL, common_name = NULL,"
        " serial = NULL WHERE id = ?",
        (sha0 or None, argon2 or None, user.id),
    )


def set_standard_hash(db: Database, user: User, sha0: bytes) -> None:
    """Put the standard hash in the place of the one kept so far; a chosen password's argon2 form stays."""
    db.do("UPDATE users SET sha0 = ? WHERE id = ?", (sha0, user.id))


def replace_hash(db: Database, user: User, sha0: bytes, now: float) -> bool:
    """A member's own new password, if the old one still holds; of the old one nothing is left."""
    statement = "UPDATE users SET sha0 = ?, argon2 = NULL, updated_at = ? WHERE id = ? AND sha0 = ?"
    return db.do(statement, (sha0, now, user.id, user.sha0)) > 0


def assign_number(db: Database, user: User, *, first: int, last: int, without: AbstractSet[int] = frozenset()) -> int:
    """The user's own last address part: the one it has, else the lowest free one that is not in `without`.

    Raises:
        UsageError: none is free.
    """
    if user.number:
        return user.number
    taken = {row[0] for row in db.rows("SELECT number FROM users WHERE hub_id = ?", (user.hub_id,))}
    for number in range(first, last + 1):
        if number not in taken and number not in without:
            db.do("UPDATE users SET number = ? WHERE id = ?", (number, user.id))
            return number
    raise UsageError(
        N_("all {count} addresses of this hub are assigned; delete users who no longer need theirs"),
        count=last - first + 1,
    )


def note_login(db: Database, user: User, now: float) -> None:
    """One more login, and when."""
    db.do("UPDATE users SET last_login_at = ?, logins = logins + 1 WHERE id = ?", (now, user.id))


def add_traffic(
    db: Database, user: User, *, frames_in: int, bytes_in: int, frames_out: int, bytes_out: int, now: float
) -> None:
    """Count what a session moved, for ever and for the present quota period; `user` read in the same `change`."""
    began, used = user.period(now)
    db.do(
        "UPDATE users SET frames_in = frames_in + ?, bytes_in = bytes_in + ?, frames_out = frames_out + ?,"
        " bytes_out = bytes_out + ?, period_began_at = ?, period_bytes = ? WHERE id = ?",
        (frames_in, bytes_in, frames_out, bytes_out, began, used + bytes_in + bytes_out, user.id),
    )


def _user(row: sqlite3.Row) -> User:
    return User(
        id=row["id"],
        hub_id=row["hub_id"],
        group_id=row["group_id"] or 0,
        group=row["group_name"],
        group_policy=policies.read(row["group_policy"]),
        name=row["name"],
        kind=row["kind"],
        sha0=row["sha0"] or b"",
        argon2=row["argon2"] or "",
        certificate=row["certificate"] or b"",
        common_name=row["common_name"] or "",
        serial=row["serial"] or b"",
        number=row["number"] or 0,
        real_name=row["real_name"],
        note=row["note"],
        policy=policies.read(row["policy"]),
        expires_at=row["expires_at"] or 0.0,
        quota_bytes=row["quota_bytes"] or 0,
        quota_days=row["quota_days"],
        period_began_at=row["period_began_at"],
        period_bytes=row["period_bytes"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        last_login_at=row["last_login_at"] or 0.0,
        logins=row["logins"],
        bytes_in=row["bytes_in"],
        frames_in=row["frames_in"],
        bytes_out=row["bytes_out"],
        frames_out=row["frames_out"],
    )
