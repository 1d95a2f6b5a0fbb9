"""Users of virtual hubs, and the addresses assigned to them (D10, D18)."""

import sqlite3
from dataclasses import dataclass

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, UsageError
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub

_COLUMNS = "id, hub_id, name, kind, sha0, argon2, number, note, created_at, last_login_at"


@dataclass(frozen=True, slots=True)
class User:
    """One user of one hub. `repr` shows no hash."""

    id: int
    hub_id: int
    name: str
    anonymous: bool
    sha0: bytes  # 20 bytes, password-equivalent; b"" = none kept
    argon2: str  # "" = none
    number: int  # last part of both assigned addresses; 0 = none assigned
    note: str
    created_at: float  # seconds since 1970
    last_login_at: float  # 0.0 = never

    def __repr__(self) -> str:
        return f"User({self.name!r}, hub_id={self.hub_id})"

    @property
    def login(self) -> str:
        """How this user is let in, in one word for listings."""
        if self.anonymous:
            return "anonymous"
        if self.argon2:
            return "chosen+standard" if self.sha0 else "chosen"
        return "generated" if self.sha0 else "none"


def all_users(db: Database, hub: Hub) -> list[User]:
    """Every user of a hub, by name."""
    rows = db.rows(f"SELECT {_COLUMNS} FROM users WHERE hub_id = ? ORDER BY key", (hub.id,))  # noqa: S608 - a constant
    return [_user(row) for row in rows]


def count(db: Database) -> dict[int, int]:
    """Number of users by hub id."""
    return {row[0]: row[1] for row in db.rows("SELECT hub_id, COUNT(*) FROM users GROUP BY hub_id")}


def find(db: Database, hub: Hub, name: str) -> User | None:
    """The user of that name, in any case."""
    row = db.row(
        f"SELECT {_COLUMNS} FROM users WHERE hub_id = ? AND key = ?",  # noqa: S608 - a constant
        (hub.id, name_key(name)),
    )
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
    """Add a user. `name` is checked already (`auth.names`). Raises UsageError when the name is taken."""
    try:
        db.insert(
            "INSERT INTO users (hub_id, name, key, kind, sha0, argon2, note, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                hub.id,
                name,
                name_key(name),
                "anonymous" if anonymous else "password",
                sha0 or None,
                argon2 or None,
                note,
                now,
            ),
        )
    except sqlite3.IntegrityError as error:
        raise UsageError(N_("hub {hub} has a user “{name}” already"), hub=hub.name, name=name) from error
    return get(db, hub, name)


def delete(db: Database, user: User) -> None:
    """Remove a user with all invites."""
    db.do("DELETE FROM users WHERE id = ?", (user.id,))


def set_password(db: Database, user: User, *, sha0: bytes = b"", argon2: str = "") -> None:
    """Put these in the place of every form kept so far; an anonymous user becomes one with a password."""
    db.do(
        "UPDATE users SET kind = 'password', sha0 = ?, argon2 = ? WHERE id = ?", (sha0 or None, argon2 or None, user.id)
    )


def set_standard_hash(db: Database, user: User, sha0: bytes) -> None:
    """Put the standard hash in the place of the one kept so far; a chosen password's argon2 form stays."""
    db.do("UPDATE users SET sha0 = ? WHERE id = ?", (sha0, user.id))


def assign_number(db: Database, user: User, *, first: int, last: int) -> int:
    """The user's own last address part: the one it has, else the lowest free one.

    Raises:
        UsageError: none is free.
    """
    if user.number:
        return user.number
    taken = {row[0] for row in db.rows("SELECT number FROM users WHERE hub_id = ?", (user.hub_id,))}
    for number in range(first, last + 1):
        if number not in taken:
            db.do("UPDATE users SET number = ? WHERE id = ?", (number, user.id))
            return number
    raise UsageError(
        N_("all {count} addresses of this hub are assigned; delete users who no longer need theirs"),
        count=last - first + 1,
    )


def note_login(db: Database, user: User, now: float) -> None:
    """Remember when a user came in last."""
    db.do("UPDATE users SET last_login_at = ? WHERE id = ?", (now, user.id))


def _user(row: sqlite3.Row) -> User:
    return User(
        id=row["id"],
        hub_id=row["hub_id"],
        name=row["name"],
        anonymous=row["kind"] == "anonymous",
        sha0=row["sha0"] or b"",
        argon2=row["argon2"] or "",
        number=row["number"] or 0,
        note=row["note"],
        created_at=row["created_at"],
        last_login_at=row["last_login_at"] or 0.0,
    )
