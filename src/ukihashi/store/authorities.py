"""Whose certificates a hub takes as proof of a user (kind `issued`), and the serial numbers that prove nothing more."""

import sqlite3
from dataclasses import dataclass

from ukihashi.errors import N_, UsageError
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA's certificate."""

    id: int
    certificate: bytes  # DER


@dataclass(frozen=True, slots=True)
class Revoked:
    """One serial number; see `auth.certificate.serial_bytes`."""

    id: int
    serial: bytes


def all_authorities(db: Database, hub: Hub) -> list[Authority]:
    """Those that a hub trusts, oldest first."""
    rows = db.rows("SELECT id, certificate FROM authorities WHERE hub_id = ? ORDER BY id", (hub.id,))
    return [Authority(row["id"], row["certificate"]) for row in rows]


def add(db: Database, hub: Hub, certificate: bytes) -> Authority:
    """Trust one more. Raises UsageError when it is trusted already."""
    try:
        number = db.insert("INSERT INTO authorities (hub_id, certificate) VALUES (?, ?)", (hub.id, certificate))
    except sqlite3.IntegrityError as error:
        raise UsageError(N_("hub {hub} trusts this authority already"), hub=hub.name) from error
    return Authority(number, certificate)


def remove(db: Database, hub: Hub, number: int) -> bool:
    """Trust it no more; False if the hub has none of that number."""
    return db.do("DELETE FROM authorities WHERE hub_id = ? AND id = ?", (hub.id, number)) > 0


def all_revoked(db: Database, hub: Hub) -> list[Revoked]:
    """The serial numbers that a hub refuses, in the order in which they came."""
    rows = db.rows("SELECT id, serial FROM revoked WHERE hub_id = ? ORDER BY id", (hub.id,))
    return [Revoked(row["id"], row["serial"]) for row in rows]


def revoke(db: Database, hub: Hub, serial: bytes) -> Revoked:
    """Refuse this serial number from now on; a second call changes nothing."""
    db.do("INSERT OR IGNORE INTO revoked (hub_id, serial) VALUES (?, ?)", (hub.id, serial))
    row = db.row("SELECT id FROM revoked WHERE hub_id = ? AND serial = ?", (hub.id, serial))
    assert row is not None, "it was put there just now"
    return Revoked(row["id"], serial)


def unrevoke(db: Database, hub: Hub, number: int) -> bool:
    """Refuse it no more; False if the hub has none of that number."""
    return db.do("DELETE FROM revoked WHERE hub_id = ? AND id = ?", (hub.id, number)) > 0
