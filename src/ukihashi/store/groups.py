"""Groups of a hub's users: a name and the policy of those who have none of their own."""

import sqlite3
from dataclasses import dataclass

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, UsageError
from ukihashi.store import policies
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import Policy

_COLUMNS = "id, hub_id, name, real_name, note, policy"


@dataclass(frozen=True, slots=True)
class Group:
    """One group of one hub."""

    id: int
    hub_id: int
    name: str
    real_name: str
    note: str
    policy: Policy | None  # None: its users have a new user's


def all_groups(db: Database, hub: Hub) -> list[Group]:
    """Every group of a hub, by name."""
    rows = db.rows(f"SELECT {_COLUMNS} FROM groups WHERE hub_id = ? ORDER BY key", (hub.id,))  # noqa: S608 - a constant
    return [_group(row) for row in rows]


def count_members(db: Database, hub: Hub) -> dict[int, int]:
    """Number of users by group id; a group without any is not in it."""
    query = "SELECT group_id, COUNT(*) FROM users WHERE hub_id = ? AND group_id IS NOT NULL GROUP BY group_id"
    return {row[0]: row[1] for row in db.rows(query, (hub.id,))}


def find(db: Database, hub: Hub, name: str) -> Group | None:
    """The group of that name, in any case."""
    row = db.row(
        f"SELECT {_COLUMNS} FROM groups WHERE hub_id = ? AND key = ?",  # noqa: S608 - a constant
        (hub.id, name_key(name)),
    )
    return _group(row) if row else None


def get(db: Database, hub: Hub, name: str) -> Group:
    """As `find`, but an unknown name is a `UsageError`."""
    group = find(db, hub, name)
    if group is None:
        raise UsageError(
            N_("hub {hub} has no group “{name}”; `ukihashi hub group list` shows those it has"),
            hub=hub.name,
            name=name,
        )
    return group


def create(
    db: Database, hub: Hub, name: str, *, real_name: str = "", note: str = "", policy: Policy | None = None
) -> Group:
    """Add a group. `name` is checked already (`auth.names`). Raises UsageError when the name is taken."""
    try:
        db.insert(
            "INSERT INTO groups (hub_id, name, key, real_name, note, policy) VALUES (?, ?, ?, ?, ?, ?)",
            (hub.id, name, name_key(name), real_name, note, policies.written(policy)),
        )
    except sqlite3.IntegrityError as error:
        raise UsageError(N_("hub {hub} has a group “{name}” already"), hub=hub.name, name=name) from error
    return get(db, hub, name)


def put(db: Database, group: Group) -> None:
    """Keep all fields of a group but its name."""
    db.do(
        "UPDATE groups SET real_name = ?, note = ?, policy = ? WHERE id = ?",
        (group.real_name, group.note, policies.written(group.policy), group.id),
    )


def delete(db: Database, group: Group) -> None:
    """Remove a group; its users stay, in none."""
    db.do("DELETE FROM groups WHERE id = ?", (group.id,))


def _group(row: sqlite3.Row) -> Group:
    return Group(
        id=row["id"],
        hub_id=row["hub_id"],
        name=row["name"],
        real_name=row["real_name"],
        note=row["note"],
        policy=policies.read(row["policy"]),
    )
