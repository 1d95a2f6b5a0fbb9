from ukihashi.store import admin
from ukihashi.store.db import Database


def test_the_one_secret_is_replaced_not_added(db: Database) -> None:
    assert admin.get(db) is None
    admin.put(db, "$first", one_time=True, now=1.0)
    admin.put(db, "$second", one_time=False, now=2.0)
    stored = admin.get(db)
    assert stored == admin.Admin("$second", one_time=False)
    assert "second" not in repr(stored)
