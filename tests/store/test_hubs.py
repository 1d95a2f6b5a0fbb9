import pytest

from ukihashi.errors import UsageError
from ukihashi.store import hubs, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub


def test_a_hub_is_found_in_any_case(db: Database, hub: Hub) -> None:
    assert hubs.find(db, "lan") == hub
    assert hubs.get(db, "Lan").host_port == "uklan"


def test_a_name_is_taken_in_any_case(db: Database, hub: Hub) -> None:
    with pytest.raises(UsageError, match="a virtual hub “lan” already"):
        hubs.create(db, "lan", subnet4="10.81.8.0/24", subnet6="fd3c:1:3::/64", now=1.0)


def test_a_wrong_name_lists_the_right_ones(db: Database, hub: Hub) -> None:
    hubs.create(db, "本社", subnet4="10.81.8.0/24", subnet6="fd3c:1:3::/64", now=1.0)
    with pytest.raises(UsageError, match="no virtual hub “WAN”; there are: LAN, 本社"):
        hubs.get(db, "WAN")


def test_without_any_hub_the_sentence_says_how_to_make_one(db: Database) -> None:
    with pytest.raises(UsageError, match="hub create WAN"):
        hubs.get(db, "WAN")


def test_a_deleted_hub_takes_its_users_along(db: Database, hub: Hub) -> None:
    users.create(db, hub, "hanako", now=1.0)
    hubs.delete(db, hub)
    assert hubs.all_hubs(db) == []
    assert users.count(db) == {}
