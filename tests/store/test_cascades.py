from dataclasses import replace

import pytest

from ukihashi.errors import UsageError
from ukihashi.store import cascades, hubs
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import Policy

ACCOUNT = {"hub": {"host": "hub.example", "hub": "LAN", "user": "branch"}}


def test_a_cascade_is_found_in_any_case_and_its_name_is_taken_once(db: Database, hub: Hub) -> None:
    made = cascades.create(db, hub, "支店 Branch", account=ACCOUNT, secrets={"login.password": "x"}, now=5.0)
    assert cascades.find(db, hub, "支店 BRANCH") == made
    assert (made.online, made.account, made.secrets, made.policy) == (True, ACCOUNT, {"login.password": "x"}, None)
    with pytest.raises(UsageError, match="has a cascade “支店 branch” already"):
        cascades.create(db, hub, "支店 branch", account=ACCOUNT, secrets={}, now=6.0)
    with pytest.raises(UsageError, match="no cascade “x”"):
        cascades.get(db, hub, "x")


def test_what_is_set_is_kept_and_what_is_deleted_is_gone(db: Database, hub: Hub) -> None:
    made = cascades.create(db, hub, "a", account=ACCOUNT, secrets={}, online=False, now=5.0)
    wanted = replace(made, online=True, account={}, secrets={"login.password": "y"}, policy=Policy(max_mac=7))
    cascades.put(db, wanted)
    assert cascades.all_cascades(db, hub) == [wanted]
    cascades.delete(db, wanted)
    assert cascades.all_cascades(db) == []


def test_cascades_are_listed_by_name_and_go_with_their_hub(db: Database, hub: Hub) -> None:
    other = hubs.create(db, "OTHER", subnet4="10.81.8.0/24", subnet6="fd3c:1:3::/64", now=1.0)
    for home, name in ((other, "a"), (hub, "b"), (hub, "A")):
        cascades.create(db, home, name, account=ACCOUNT, secrets={}, now=1.0)
    assert [one.name for one in cascades.all_cascades(db, hub)] == ["A", "b"]
    assert [one.hub_id for one in cascades.all_cascades(db)] == [other.id, hub.id, hub.id]
    hubs.delete(db, hub)
    assert [one.name for one in cascades.all_cascades(db)] == ["a"]
