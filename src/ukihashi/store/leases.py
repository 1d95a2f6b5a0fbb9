"""Leases of a hub's IPv4 addresses, and the addresses fixed for stations."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ukihashi.errors import N_, UsageError
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub

Kind = Literal["leased", "told", "declined"]


@dataclass(frozen=True, slots=True)
class Lease:
    """One address in use, or once used."""

    number: int  # of the address in the hub's IPv4 subnet
    user_key: str  # of whom the station's port is; "" = the hub machine itself
    identity: bytes  # what DHCP knows the station by
    mac: bytes
    host: str  # the name that it gave itself, as a label of the DNS; "" = none
    kind: Kind  # told: it has the address otherwise and says so; declined: somebody unknown has it
    began_at: float  # seconds since 1970
    ends_at: float


def of_hub(db: Database, hub: Hub) -> list[Lease]:
    """All that are known, by address."""
    return [_lease(row) for row in db.rows("SELECT * FROM leases WHERE hub_id = ? ORDER BY number", (hub.id,))]


def put(db: Database, hub_id: int, lease: Lease) -> None:
    """Keep it, in the place of any other of that address."""
    db.do(
        "INSERT OR REPLACE INTO leases (hub_id, number, user_key, identity, mac, host, kind, began_at, ends_at)"
        " SELECT id, ?, ?, ?, ?, ?, ?, ?, ? FROM hubs WHERE id = ?",  # a hub deleted meanwhile has none
        (
            lease.number,
            lease.user_key,
            lease.identity,
            lease.mac,
            lease.host,
            lease.kind,
            lease.began_at,
            lease.ends_at,
            hub_id,
        ),
    )


def remove(db: Database, hub_id: int, numbers: Iterable[int]) -> None:
    """These addresses were never leased."""
    for number in numbers:
        db.do("DELETE FROM leases WHERE hub_id = ? AND number = ?", (hub_id, number))


def fixed(db: Database, hub: Hub) -> dict[bytes, int]:
    """Numbers that are kept for stations, by MAC."""
    rows = db.rows("SELECT mac, number FROM fixed_addresses WHERE hub_id = ? ORDER BY number", (hub.id,))
    return {row["mac"]: row["number"] for row in rows}


def fix(db: Database, hub: Hub, mac: bytes, number: int) -> None:
    """Keep an address for a station, in the place of another. Raises UsageError when it is another's."""
    if db.row("SELECT 1 FROM users WHERE hub_id = ? AND number = ?", (hub.id, number)):
        raise _taken()
    try:
        db.do("DELETE FROM fixed_addresses WHERE hub_id = ? AND mac = ?", (hub.id, mac))
        db.do("INSERT INTO fixed_addresses (hub_id, mac, number) VALUES (?, ?, ?)", (hub.id, mac, number))
    except sqlite3.IntegrityError as error:
        raise _taken() from error


def unfix(db: Database, hub: Hub, mac: bytes) -> bool:
    """Keep none for it any more; False if none was."""
    return db.do("DELETE FROM fixed_addresses WHERE hub_id = ? AND mac = ?", (hub.id, mac)) > 0


def fix_user(db: Database, hub: Hub, user_id: int, number: int) -> None:
    """Give a user this address. Raises UsageError when it is another's."""
    if db.row("SELECT 1 FROM fixed_addresses WHERE hub_id = ? AND number = ?", (hub.id, number)):
        raise _taken()
    try:
        db.do("UPDATE users SET number = ? WHERE id = ?", (number, user_id))
    except sqlite3.IntegrityError as error:
        raise _taken() from error


def taken_numbers(db: Database, hub_id: int, now: float) -> set[int]:
    """Numbers that must not be given to a new user: leased now, kept for stations, the service's own."""
    rows = db.rows(
        "SELECT number FROM leases WHERE hub_id = ? AND ends_at > ?"
        " UNION SELECT number FROM fixed_addresses WHERE hub_id = ?"
        " UNION SELECT service_number FROM hubs WHERE id = ? AND service_number IS NOT NULL",
        (hub_id, now, hub_id, hub_id),
    )
    return {row[0] for row in rows}


def service_number(db: Database, hub: Hub, *, first: int, last: int, now: float) -> int:
    """The number of the service's own addresses: the one it has, else the highest free one; 0 if none is free."""
    if hub.service_number:
        return hub.service_number
    taken = taken_numbers(db, hub.id, now)
    taken |= {row[0] for row in db.rows("SELECT number FROM users WHERE hub_id = ?", (hub.id,))}
    for number in range(last, first - 1, -1):
        if number not in taken:
            db.do("UPDATE hubs SET service_number = ? WHERE id = ?", (number, hub.id))
            return number
    return 0


def _taken() -> UsageError:
    return UsageError(N_("this address is somebody else's; `ukihashi hub leases` lists them"))


def _lease(row: sqlite3.Row) -> Lease:
    return Lease(
        row["number"],
        row["user_key"],
        row["identity"],
        row["mac"],
        row["host"],
        row["kind"],
        row["began_at"],
        row["ends_at"],
    )
