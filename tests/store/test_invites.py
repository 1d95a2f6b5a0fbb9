import pytest

from ukihashi.store import invites, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.store.users import User


@pytest.fixture
def user(db: Database, hub: Hub) -> User:
    return users.create(db, hub, "hanako", now=1.0)


def test_a_link_is_found_only_for_its_own_user(db: Database, hub: Hub, user: User) -> None:
    other = users.create(db, hub, "taro", now=1.0)
    number = invites.create(db, user, b"d" * 32, now=1.0, expires_at=100.0)
    found = invites.find(db, user, b"d" * 32)
    assert found is not None
    assert (found[0], found[1].expires_at, found[1].used_hash) == (number, 100.0, b"")
    assert invites.find(db, other, b"d" * 32) is None
    assert invites.find(db, user, b"e" * 32) is None


def test_what_became_of_a_link_is_listed(db: Database, hub: Hub, user: User) -> None:
    numbers = [
        invites.create(db, user, bytes([n]) * 32, now=1.0, expires_at=10.0 if n == 3 else 100.0) for n in range(4)
    ]
    invites.mark_used(db, numbers[1], b"h" * 20, 5.0)
    assert invites.revoke(db, numbers[2], 6.0)
    assert [row.state(50.0) for row in invites.all_invites(db, hub)] == ["open", "used", "revoked", "expired"]
    assert not invites.revoke(db, 999, 6.0)


def test_old_links_are_forgotten_and_others_kept(db: Database, user: User) -> None:
    invites.create(db, user, b"a" * 32, now=1.0, expires_at=10.0)
    invites.create(db, user, b"b" * 32, now=1.0, expires_at=100.0)
    assert invites.forget_old(db, 50.0) == 1
    assert len(invites.all_invites(db)) == 1
