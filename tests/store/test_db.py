import sqlite3
from pathlib import Path

import pytest

from ukihashi.errors import EnvironmentLacks
from ukihashi.store.db import Database, migrations


def test_a_new_database_has_the_newest_form_and_opens_again(tmp_path: Path) -> None:
    for _ in range(2):
        db = Database(tmp_path / "hub.db")
        found = db.row("PRAGMA user_version")
        assert found is not None
        assert found[0] == len(migrations())
        db.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "hub.db").close()
    raw = sqlite3.connect(tmp_path / "hub.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(EnvironmentLacks, match="form 99, this ukihashi knows up to"):
        Database(tmp_path / "hub.db")


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(EnvironmentLacks, match=r"hub\.db can't be used: file is not a database"):
        Database(tmp_path / "hub.db")
    with pytest.raises(EnvironmentLacks, match="can't be used: unable to open"):
        Database(tmp_path / "absent" / "hub.db")


def test_a_change_happens_whole_or_not_at_all(tmp_path: Path) -> None:
    db = Database(tmp_path / "hub.db")

    def half() -> None:
        with db.change():
            db.do("INSERT INTO admin VALUES (1, 'x', 1, 0.0, NULL)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert db.rows("SELECT * FROM admin") == []
    with db.change():
        db.do("INSERT INTO admin VALUES (1, 'x', 1, 0.0, NULL)")
    assert len(db.rows("SELECT * FROM admin")) == 1
    db.close()


def test_a_migration_that_fails_leaves_the_form_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(tmp_path / "hub.db").close()
    known = migrations()
    monkeypatch.setattr(
        "ukihashi.store.db.migrations", lambda: [*known, "CREATE TABLE extra (x); SELECT no_such_function()"]
    )
    with pytest.raises(EnvironmentLacks, match="no_such_function"):
        Database(tmp_path / "hub.db")
    monkeypatch.undo()
    db = Database(tmp_path / "hub.db")
    assert db.rows("SELECT name FROM sqlite_master WHERE name = 'extra'") == []
    db.close()


def test_a_database_of_an_older_form_keeps_all_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = migrations()
    with monkeypatch.context() as before:
        before.setattr("ukihashi.store.db.migrations", lambda: scripts[:1])
        db = Database(tmp_path / "hub.db")
        db.do("INSERT INTO hubs (name, key, subnet4, subnet6, created_at) VALUES ('LAN', 'lan', '4', '6', 7)")
        db.do("INSERT INTO users (hub_id, name, key, kind, number, created_at) VALUES (1, 'a', 'a', 'password', 9, 8)")
        db.do("INSERT INTO invites (user_id, digest, created_at, expires_at) VALUES (1, zeroblob(32), 1, 2)")
        db.close()
    db = Database(tmp_path / "hub.db")
    assert [tuple(row) for row in db.rows("SELECT name, number, created_at, group_id FROM users")] == [
        ("a", 9, 8, None)
    ]
    assert [row["user_id"] for row in db.rows("SELECT user_id FROM invites")] == [1]
    assert db.rows("PRAGMA foreign_key_check") == []
    db.do("DELETE FROM hubs")
    assert db.rows("SELECT * FROM users") == db.rows("SELECT * FROM invites") == []
    db.close()
