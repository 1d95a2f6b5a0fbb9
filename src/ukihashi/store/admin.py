"""The administrator's secret: argon2id form only, and whether it is still the one printed at the first start (D10)."""

from dataclasses import dataclass

from ukihashi.store.db import Database


@dataclass(frozen=True, slots=True)
class Admin:
    """The stored secret. `repr` shows no hash."""

    argon2: str
    one_time: bool

    def __repr__(self) -> str:
        return f"Admin(one_time={self.one_time})"


def get(db: Database) -> Admin | None:
    """None before the first start ended."""
    row = db.row("SELECT argon2, one_time FROM admin WHERE id = 1")
    return Admin(row["argon2"], bool(row["one_time"])) if row else None


def put(db: Database, argon2: str, *, one_time: bool, now: float) -> None:
    """Put this secret in the place of the one before."""
    db.do(
        "INSERT INTO admin (id, argon2, one_time, changed_at) VALUES (1, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET argon2 = excluded.argon2, one_time = excluded.one_time,"
        " changed_at = excluded.changed_at",
        (argon2, one_time, now),
    )


def rpc_hash(db: Database) -> bytes:
    """SHA0 form of the password for tools of others; b"" = they are refused."""
    row = db.row("SELECT rpc_hash FROM admin WHERE id = 1")
    return (row["rpc_hash"] if row else None) or b""


def put_rpc_hash(db: Database, rpc_hash: bytes) -> None:
    """Let tools of others in with this password, or with b"" no more."""
    db.do("UPDATE admin SET rpc_hash = ? WHERE id = 1", (rpc_hash or None,))
