from dataclasses import replace

import pytest

from ukihashi.errors import UsageError
from ukihashi.store import hubs, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.switch.rules import HubRules


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


def test_settings_and_counters_are_kept_and_no_hash_shows(db: Database, hub: Hub) -> None:
    assert (hub.max_sessions, hub.listed, hub.banner, hub.rules) == (0, True, "", HubRules())
    wanted = replace(
        hub, online=False, max_sessions=7, listed=False, banner="ようこそ", rules=HubRules(storm_threshold=9)
    )
    hubs.put_settings(db, wanted)
    assert hubs.get(db, "LAN") == wanted
    hubs.put_administrator(db, hub, admin_hash=b"a" * 20, login_hash=b"l" * 20)
    hubs.note_login(db, hub, 5.0)
    kept = hubs.get(db, "LAN")
    assert (kept.admin_hash, kept.login_hash, kept.logins, kept.last_login_at) == (b"a" * 20, b"l" * 20, 1, 5.0)
    assert "aaaa" not in repr(kept)
    assert "llll" not in repr(kept)
