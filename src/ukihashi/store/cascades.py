"""Cascades: other hubs that a virtual hub joins as a bridge."""

import sqlite3
from dataclasses import dataclass
from typing import Any

import msgspec

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, UsageError
from ukihashi.store import policies
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import Policy

_COLUMNS = "id, hub_id, name, online, account, secrets, policy, created_at"


@dataclass(frozen=True, slots=True)
class Cascade:
    """One cascade of one hub."""

    id: int  # the later made, the larger
    hub_id: int
    name: str
    online: bool  # is to be joined
    account: dict[str, Any]  # as a card's account, plain values, without secrets
    secrets: dict[str, Any]  # by option, "login.password"
    policy: Policy | None  # of what comes from there
    created_at: float


def all_cascades(db: Database, hub: Hub | None = None) -> list[Cascade]:
    """Every cascade of a hub, or of all hubs; by name."""
    where, values = ("WHERE hub_id = ?", (hub.id,)) if hub else ("", ())
    return [_cascade(row) for row in db.rows(f"SELECT {_COLUMNS} FROM cascades {where} ORDER BY key, id", values)]  # noqa: S608 - constants


def find(db: Database, hub: Hub, name: str) -> Cascade | None:
    """The cascade of that name, in any case."""
    row = db.row(
        f"SELECT {_COLUMNS} FROM cascades WHERE hub_id = ? AND key = ?",  # noqa: S608 - a constant
        (hub.id, name_key(name)),
    )
    return _cascade(row) if row else None


def get(db: Database, hub: Hub, name: str) -> Cascade:
    """As `find`, but an unknown name is a `UsageError`."""
    cascade = find(db, hub, name)
    if cascade is None:
        raise UsageError(
            N_("hub {hub} has no cascade “{name}”; `ukihashi hub cascade list` shows those it has"),
            hub=hub.name,
            name=name,
        )
    return cascade


def create(
    db: Database,
    hub: Hub,
    name: str,
    *,
    account: dict[str, Any],
    secrets: dict[str, Any],
    policy: Policy | None = None,
    online: bool = True,
    now: float,
) -> Cascade:
    """Add a cascade. Raises UsageError when the name is taken."""
    try:
        db.insert(
            "INSERT INTO cascades (hub_id, name, key, online, account, secrets, policy, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (hub.id, name, name_key(name), online, _text(account), _text(secrets), policies.written(policy), now),
        )
    except sqlite3.IntegrityError as error:
        raise UsageError(N_("hub {hub} has a cascade “{name}” already"), hub=hub.name, name=name) from error
    return get(db, hub, name)


def put(db: Database, cascade: Cascade) -> None:
    """Keep all fields of a cascade but its name."""
    db.do(
        "UPDATE cascades SET online = ?, account = ?, secrets = ?, policy = ? WHERE id = ?",
        (
            cascade.online,
            _text(cascade.account),
            _text(cascade.secrets),
            policies.written(cascade.policy),
            cascade.id,
        ),
    )


def delete(db: Database, cascade: Cascade) -> None:
    """Remove it with its secrets."""
    db.do("DELETE FROM cascades WHERE id = ?", (cascade.id,))


def _text(values: dict[str, Any]) -> str:
    return msgspec.json.encode(values).decode()


def _cascade(row: sqlite3.Row) -> Cascade:
    return Cascade(
        id=row["id"],
        hub_id=row["hub_id"],
        name=row["name"],
        online=bool(row["online"]),
        account=msgspec.json.decode(row["account"]),
        secrets=msgspec.json.decode(row["secrets"]),
        policy=policies.read(row["policy"]),
        created_at=row["created_at"],
    )
