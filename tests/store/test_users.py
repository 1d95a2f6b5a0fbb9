from dataclasses import replace

import pytest

from ukihashi.errors import UsageError
from ukihashi.store import users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import Policy


def test_a_user_is_found_in_any_case(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "Hanako", sha0=b"h" * 20, now=5.0)
    assert users.find(db, hub, "HANAKO") == user
    assert (user.login, user.created_at, user.last_login_at) == ("standard", 5.0, 0.0)
    with pytest.raises(UsageError, match="has a user “hanako” already"):
        users.create(db, hub, "hanako", now=5.0)
    with pytest.raises(UsageError, match="no user “taro”"):
        users.get(db, hub, "taro")


def test_no_hash_shows_in_what_is_printed(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", sha0=b"hhhhhhhhhhhhhhhhhhhh", argon2="$argon2id$x", now=5.0)
    assert "hhhh" not in repr(user)
    assert "argon2id" not in repr(user)


def test_addresses_go_upward_are_kept_and_run_out_with_a_sentence(db: Database, hub: Hub) -> None:
    three = [users.create(db, hub, name, now=1.0) for name in "abc"]
    assert [users.assign_number(db, one, first=2, last=3) for one in three[:2]] == [2, 3]
    assert users.assign_number(db, users.get(db, hub, "a"), first=2, last=3) == 2
    with pytest.raises(UsageError, match="all 2 addresses"):
        users.assign_number(db, three[2], first=2, last=3)
    users.delete(db, users.get(db, hub, "a"))
    assert users.assign_number(db, three[2], first=2, last=3) == 2


def test_a_new_password_replaces_every_form_of_the_old(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", anonymous=True, now=5.0)
    assert user.login == "anonymous"
    users.set_password(db, user, argon2="$argon2id$x")
    user = users.get(db, hub, "hanako")
    assert (user.login, user.sha0, user.anonymous) == ("chosen", b"", False)
    users.set_standard_hash(db, user, b"s" * 20)
    assert users.get(db, hub, "hanako").login == "chosen+standard"
    users.set_password(db, user, sha0=b"t" * 20)
    assert users.get(db, hub, "hanako").login == "standard"


def test_the_last_login_is_remembered(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", now=5.0)
    users.note_login(db, user, 77.0)
    assert users.get(db, hub, "hanako").last_login_at == 77.0


def test_all_that_an_administrator_sets_is_kept(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", now=5.0)
    wanted = replace(
        user,
        kind="issued",
        common_name="Hanako",
        serial=b"\x07",
        real_name="Hanako Suzuki",
        note="n",
        policy=Policy(max_upload=1000),
        expires_at=99.0,
        quota_bytes=10,
        quota_days=7,
        period_began_at=6.0,
        updated_at=8.0,
    )
    users.put(db, wanted, 8.0)
    assert users.get(db, hub, "hanako") == wanted
    assert wanted.login == "issued"
    users.set_password(db, wanted, sha0=b"t" * 20)
    again = users.get(db, hub, "hanako")
    assert (again.kind, again.common_name, again.serial) == ("password", "", b"")


def test_logins_end_at_the_moment_of_expiry(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", now=5.0)
    assert not user.expired(1e12)
    assert not replace(user, expires_at=99.0).expired(98.9)
    assert replace(user, expires_at=99.0).expired(99.0)


def test_a_quota_fills_up_and_begins_anew_with_the_next_period(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", now=5.0)
    users.put(db, replace(user, quota_bytes=100, quota_days=2, period_began_at=1000.0), 5.0)

    def move(size: int, now: float) -> users.User:
        user = users.get(db, hub, "hanako")
        users.add_traffic(db, user, frames_in=1, bytes_in=size, frames_out=2, bytes_out=size, now=now)
        return users.get(db, hub, "hanako")

    assert not move(49, 1001.0).spent(1001.0)
    user = move(1, 1002.0)
    assert user.spent(1002.0)
    end = 1000.0 + 2 * users.DAY_S
    assert user.spent(end - 0.1)
    assert not user.spent(end)
    assert user.period(end + 4 * users.DAY_S) == (end + 4 * users.DAY_S, 0)  # two whole periods without traffic
    user = move(3, end + 1)
    assert (user.period_began_at, user.period_bytes) == (end, 6)
    assert (user.bytes_in, user.frames_in, user.bytes_out, user.frames_out) == (53, 3, 53, 6)


def test_without_a_quota_nothing_is_ever_spent(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", now=5.0)
    users.add_traffic(db, user, frames_in=0, bytes_in=1 << 40, frames_out=0, bytes_out=0, now=5.0)
    assert not users.get(db, hub, "hanako").spent(5.0)
