"""A hub's access list (frames) and its source rules (where logins may come from); lowest priority first."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.switch.access import Rule


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One entry of the access list."""

    id: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class SourceRule:
    """One entry about where logins may come from."""

    id: int
    priority: int
    network: str  # "192.0.2.0/24"
    deny: bool


def access_list(db: Database, hub: Hub) -> list[AccessRule]:
    """A hub's rules about frames, as they are asked."""
    rows = db.rows("SELECT id, rule FROM access_rules WHERE hub_id = ? ORDER BY priority, id", (hub.id,))
    return [AccessRule(row["id"], msgspec.json.decode(row["rule"], type=Rule)) for row in rows]


def put_access(db: Database, hub: Hub, rule: Rule, number: int = 0) -> AccessRule | None:
    """Add a rule, or give number `number` this content; None if the hub has none of that number."""
    told = (rule.priority, msgspec.json.encode(rule).decode())
    if number:
        changed = db.do(
            "UPDATE access_rules SET priority = ?, rule = ? WHERE hub_id = ? AND id = ?", (*told, hub.id, number)
        )
        return AccessRule(number, rule) if changed else None
    number = db.insert("INSERT INTO access_rules (priority, rule, hub_id) VALUES (?, ?, ?)", (*told, hub.id))
    return AccessRule(number, rule)


def remove_access(db: Database, hub: Hub, number: int) -> bool:
    """Remove a rule; False if the hub has none of that number."""
    return db.do("DELETE FROM access_rules WHERE hub_id = ? AND id = ?", (hub.id, number)) > 0


def replace_access(db: Database, hub: Hub, wanted: Sequence[Rule]) -> None:
    """These in the place of all."""
    db.do("DELETE FROM access_rules WHERE hub_id = ?", (hub.id,))
    for rule in wanted:
        put_access(db, hub, rule)


def sources(db: Database, hub: Hub) -> list[SourceRule]:
    """A hub's rules about where logins may come from, as they are asked."""
    rows = db.rows(
        "SELECT id, priority, network, deny FROM source_rules WHERE hub_id = ? ORDER BY priority, id", (hub.id,)
    )
    return [SourceRule(row["id"], row["priority"], row["network"], bool(row["deny"])) for row in rows]


def add_source(db: Database, hub: Hub, *, priority: int, network: str, deny: bool) -> SourceRule:
    """Add a rule; `network` is checked already."""
    number = db.insert(
        "INSERT INTO source_rules (hub_id, priority, network, deny) VALUES (?, ?, ?, ?)",
        (hub.id, priority, network, deny),
    )
    return SourceRule(number, priority, network, deny)


def remove_source(db: Database, hub: Hub, number: int) -> bool:
    """Remove a rule; False if the hub has none of that number."""
    return db.do("DELETE FROM source_rules WHERE hub_id = ? AND id = ?", (hub.id, number)) > 0


def clear_sources(db: Database, hub: Hub) -> None:
    """Remove all: logins may come from anywhere."""
    db.do("DELETE FROM source_rules WHERE hub_id = ?", (hub.id,))
