import pytest

from ukihashi.errors import UsageError
from ukihashi.store import users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub


def test_a_user_is_found_in_any_case(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "Hanako", sha0=b"h" * 20, now=5.0)
    assert users.find(db, hub, "HANAKO") == user
    assert (user.login, user.created_at, user.last_login_at) == ("generated", 5.0, 0.0)
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
    assert users.get(db, hub, "hanako").login == "generated"


def test_the_last_login_is_remembered(db: Database, hub: Hub) -> None:
    user = users.create(db, hub, "hanako", now=5.0)
    users.note_login(db, user, 77.0)
    assert users.get(db, hub, "hanako").last_login_at == 77.0
