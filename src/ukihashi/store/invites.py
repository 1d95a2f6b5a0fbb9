"""Join links in the database: the digest of each token, whose it is, what became of it."""

from dataclasses import dataclass

from ukihashi.auth.token import Invite
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.store.users import User


@dataclass(frozen=True, slots=True)
class InviteRow:
    """One link as listed."""

    id: int
    hub: str
    user: str
    created_at: float  # seconds since 1970
    expires_at: float
    used_at: float  # 0.0 = not used
    revoked_at: float  # 0.0 = not revoked

    def state(self, now: float) -> str:
        """`used`, `revoked`, `expired` or `open`."""
        if self.revoked_at:
            return "revoked"
        if self.used_at:
            return "used"
        return "expired" if now >= self.expires_at else "open"


def create(db: Database, user: User, digest: bytes, *, now: float, expires_at: float) -> int:
    """Keep a new link's digest; its id."""
    return db.insert(
        "INSERT INTO invites (user_id, digest, created_at, expires_at) VALUES (?, ?, ?, ?)",
        (user.id, digest, now, expires_at),
    )


def find(db: Database, user: User, digest: bytes) -> tuple[int, Invite] | None:
    """The link with this digest, if it was made for this user."""
    row = db.row(
        "SELECT id, expires_at, used_hash, revoked_at FROM invites WHERE digest = ? AND user_id = ?", (digest, user.id)
    )
    if row is None:
        return None
    return row["id"], Invite(row["expires_at"], row["used_hash"] or b"", row["revoked_at"] is not None)


def mark_used(db: Database, invite_id: int, password_hash: bytes, now: float) -> None:
    """The link set this password."""
    db.do("UPDATE invites SET used_at = ?, used_hash = ? WHERE id = ?", (now, password_hash, invite_id))


def revoke(db: Database, invite_id: int, now: float) -> bool:
    """Make a link useless; False if there is none of that id."""
    return db.do("UPDATE invites SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now, invite_id)) > 0


def all_invites(db: Database, hub: Hub | None = None) -> list[InviteRow]:
    """Every link, oldest first; those of one hub if given."""
    rows = db.rows(
        "SELECT i.id, h.name AS hub, u.name AS user, i.created_at, i.expires_at, i.used_at, i.revoked_at"
        " FROM invites i JOIN users u ON u.id = i.user_id JOIN hubs h ON h.id = u.hub_id"
        " WHERE ?1 IS NULL OR h.id = ?1 ORDER BY i.id",
        (hub.id if hub else None,),
    )
    return [
        InviteRow(
            id=row["id"],
            hub=row["hub"],
            user=row["user"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            used_at=row["used_at"] or 0.0,
            revoked_at=row["revoked_at"] or 0.0,
        )
        for row in rows
    ]


def forget_old(db: Database, before: float) -> int:
    """Delete links that ended (used, revoked or expired) before that time; how many."""
    return db.do("DELETE FROM invites WHERE max(expires_at, coalesce(used_at, 0)) < ?", (before,))
