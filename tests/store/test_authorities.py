import pytest

from ukihashi.errors import UsageError
from ukihashi.store import authorities, hubs
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub


def test_an_authority_is_trusted_once_and_by_one_hub(db: Database, hub: Hub) -> None:
    other = hubs.create(db, "WAN", subnet4="4", subnet6="6", now=1.0)
    added = authorities.add(db, hub, b"DER")
    with pytest.raises(UsageError, match="trusts this authority already"):
        authorities.add(db, hub, b"DER")
    assert authorities.all_authorities(db, hub) == [added]
    assert authorities.all_authorities(db, other) == []
    assert not authorities.remove(db, other, added.id)
    assert authorities.remove(db, hub, added.id)
    assert authorities.all_authorities(db, hub) == []


def test_a_revoked_number_stays_one_entry(db: Database, hub: Hub) -> None:
    once = authorities.revoke(db, hub, b"\x07")
    assert authorities.revoke(db, hub, b"\x07") == once
    assert authorities.all_revoked(db, hub) == [once]
    assert authorities.unrevoke(db, hub, once.id)
    assert not authorities.unrevoke(db, hub, once.id)
