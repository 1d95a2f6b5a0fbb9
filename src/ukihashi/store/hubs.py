"""Virtual hubs in the database."""

import sqlite3
from dataclasses import dataclass, field

import msgspec

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, UsageError
from ukihashi.store.address_settings import AddressSettings
from ukihashi.store.db import Database
from ukihashi.switch.rules import HubRules

_COLUMNS = (
    "id, name, online, subnet4, subnet6, host_port, created_at, max_sessions, listed, banner, options, admin_hash,"
    " login_hash, logins, last_login_at, addresses, service_number"
)


@dataclass(frozen=True, slots=True)
class Hub:
    """One virtual hub. `repr` shows no hash."""

    id: int
    name: str
    online: bool
    subnet4: str  # "10.81.7.0/24"
    subnet6: str  # "fd3c:1:2::/64"
    host_port: str  # interface on the hub machine; "" = none
    created_at: float  # seconds since 1970
    max_sessions: int = 0  # 0 = no limit
    listed: bool = True  # told to who asks for the names of hubs
    banner: str = ""  # for the users of clients that show one
    rules: HubRules = HubRules()  # noqa: RUF009 - frozen
    admin_hash: bytes = field(default=b"", repr=False)  # of the hub's own administrator: SHA0(password); b"" = nobody
    login_hash: bytes = field(default=b"", repr=False)  # the same password as user `administrator`'s
    logins: int = 0
    last_login_at: float = 0.0  # 0.0 = never
    addresses: AddressSettings = AddressSettings()  # noqa: RUF009 - frozen
    service_number: int = 0  # last part of the address service's own addresses; 0 = none yet


def all_hubs(db: Database) -> list[Hub]:
    """Every hub, by name."""
    return [_hub(row) for row in db.rows(f"SELECT {_COLUMNS} FROM hubs ORDER BY key")]  # noqa: S608 - a constant


def find(db: Database, name: str) -> Hub | None:
    """The hub of that name, in any case."""
    row = db.row(f"SELECT {_COLUMNS} FROM hubs WHERE key = ?", (name_key(name),))  # noqa: S608 - a constant
    return _hub(row) if row else None


def get(db: Database, name: str) -> Hub:
    """As `find`, but an unknown name is a `UsageError` that lists the known ones."""
    hub = find(db, name)
    if hub is not None:
        return hub
    if names := ", ".join(one.name for one in all_hubs(db)):
        raise UsageError(N_("there is no virtual hub “{name}”; there are: {names}"), name=name, names=names)
    raise UsageError(N_("there is no virtual hub yet; make one with: ukihashi hub create {name}"), name=name)


def create(
    db: Database,
    name: str,
    *,
    subnet4: str,
    subnet6: str,
    host_port: str = "",
    online: bool = True,
    now: float,
) -> Hub:
    """Add a hub. `name` is checked already (`auth.names`). Raises UsageError when the name is taken."""
    try:
        db.insert(
            "INSERT INTO hubs (name, key, online, subnet4, subnet6, host_port, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, name_key(name), online, subnet4, subnet6, host_port or None, now),
        )
    except sqlite3.IntegrityError as error:
        raise UsageError(N_("there is a virtual hub “{name}” already"), name=name) from error
    return get(db, name)


def put_settings(db: Database, hub: Hub) -> None:
    """Keep what an administrator sets: `online`, `max_sessions`, `listed`, `banner`, `rules`."""
    rules = msgspec.json.encode(hub.rules).decode()
    db.do(
        "UPDATE hubs SET online = ?, max_sessions = ?, listed = ?, banner = ?, options = ? WHERE id = ?",
        (hub.online, hub.max_sessions, hub.listed, hub.banner, rules, hub.id),
    )


def put_addresses(db: Database, hub: Hub) -> None:
    """Keep what an administrator decided about addresses and names."""
    db.do("UPDATE hubs SET addresses = ? WHERE id = ?", (msgspec.json.encode(hub.addresses).decode(), hub.id))


def put_host_port(db: Database, hub: Hub, interface: str) -> None:
    """Give the hub machine a place in it."""
    db.do("UPDATE hubs SET host_port = ? WHERE id = ?", (interface or None, hub.id))


def put_administrator(db: Database, hub: Hub, *, admin_hash: bytes, login_hash: bytes) -> None:
    """Keep both forms of the hub's own administrator's password; both b"": it has none."""
    db.do(
        "UPDATE hubs SET admin_hash = ?, login_hash = ? WHERE id = ?", (admin_hash or None, login_hash or None, hub.id)
    )


def note_login(db: Database, hub: Hub, now: float) -> None:
    """One more login, and when."""
    db.do("UPDATE hubs SET logins = logins + 1, last_login_at = ? WHERE id = ?", (now, hub.id))


def delete(db: Database, hub: Hub) -> None:
    """Remove a hub with its users and invites."""
    db.do("DELETE FROM hubs WHERE id = ?", (hub.id,))


def _hub(row: sqlite3.Row) -> Hub:
    return Hub(
        id=row["id"],
        name=row["name"],
        online=bool(row["online"]),
        subnet4=row["subnet4"],
        subnet6=row["subnet6"],
        host_port=row["host_port"] or "",
        created_at=row["created_at"],
        max_sessions=row["max_sessions"],
        listed=bool(row["listed"]),
        banner=row["banner"],
        rules=msgspec.json.decode(row["options"], type=HubRules),
        admin_hash=row["admin_hash"] or b"",
        login_hash=row["login_hash"] or b"",
        logins=row["logins"],
        last_login_at=row["last_login_at"] or 0.0,
        addresses=msgspec.json.decode(row["addresses"], type=AddressSettings),
        service_number=row["service_number"] or 0,
    )
