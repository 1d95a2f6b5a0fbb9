"""Leases and kept addresses in the database."""

from pathlib import Path

import pytest

from ukihashi.errors import UsageError
from ukihashi.store import hubs, leases, users
from ukihashi.store.address_settings import SILENT, AddressSettings
from ukihashi.store.db import Database, migrations
from ukihashi.store.hubs import Hub
from ukihashi.store.leases import Lease

MAC = b"\x02\0\0\0\0\x01"


@pytest.fixture
def lan(db: Database) -> Hub:
    return hubs.create(db, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", now=1.0)


def lease(number: int, ends: float = 100.0) -> Lease:
    return Lease(number, "ann", b"id", MAC, "nova", "leased", 1.0, ends)


def test_a_lease_takes_the_place_of_another_of_its_address(db: Database, lan: Hub) -> None:
    leases.put(db, lan.id, lease(7))
    leases.put(db, lan.id, lease(7, 200.0))
    leases.put(db, lan.id, lease(8))
    assert leases.of_hub(db, lan) == [lease(7, 200.0), lease(8)]
    leases.remove(db, lan.id, [7, 99])
    assert leases.of_hub(db, lan) == [lease(8)]


def test_a_hub_that_is_deleted_takes_its_leases_along(db: Database, lan: Hub) -> None:
    leases.put(db, lan.id, lease(7))
    leases.fix(db, lan, MAC, 9)
    hubs.delete(db, lan)
    leases.put(db, lan.id, lease(8))  # one that was under way
    assert db.rows("SELECT * FROM leases") == db.rows("SELECT * FROM fixed_addresses") == []


def test_an_address_is_kept_for_one(db: Database, lan: Hub) -> None:
    ann = users.create(db, lan, "ann", now=1.0)
    leases.fix_user(db, lan, ann.id, 7)
    leases.fix(db, lan, MAC, 9)
    leases.fix(db, lan, MAC, 10)
    assert leases.fixed(db, lan) == {MAC: 10}
    bob = users.create(db, lan, "bob", now=1.0)
    for number in (7, 10):
        with pytest.raises(UsageError):
            leases.fix(db, lan, b"\x02" * 6, number)
        with pytest.raises(UsageError):
            leases.fix_user(db, lan, bob.id, number)
    assert users.numbers(db, lan) == {"ann": 7}
    assert leases.unfix(db, lan, MAC)
    assert not leases.unfix(db, lan, MAC)


def test_the_service_keeps_its_number_and_users_get_others(db: Database, lan: Hub) -> None:
    leases.fix(db, lan, MAC, 254)
    number = leases.service_number(db, lan, first=2, last=254, now=5.0)
    assert number == 253
    lan = hubs.get(db, "LAN")
    assert leases.service_number(db, lan, first=2, last=254, now=5.0) == lan.service_number == 253
    leases.put(db, lan.id, lease(2, ends=50.0))
    leases.put(db, lan.id, lease(3, ends=4.0))
    assert leases.taken_numbers(db, lan.id, 5.0) == {2, 253, 254}
    ann = users.create(db, lan, "ann", now=1.0)
    taken = leases.taken_numbers(db, lan.id, 5.0)
    assert users.assign_number(db, ann, first=2, last=254, without=taken) == 3


def test_no_number_is_left_for_the_service(db: Database, lan: Hub) -> None:
    leases.fix(db, lan, MAC, 2)
    assert leases.service_number(db, lan, first=2, last=2, now=1.0) == 0


def test_a_new_hub_serves_and_one_from_before_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    path = tmp_path / "old.db"
    scripts = migrations()
    with monkeypatch.context() as before:
        before.setattr("ukihashi.store.db.migrations", lambda: scripts[:2])
        old = Database(path)
        old.do(
            "INSERT INTO hubs (name, key, online, subnet4, subnet6, created_at)"
            " VALUES ('OLD', 'old', 1, '10.81.8.0/24', 'fd3c:1:3::/64', 1.0)"
        )
        old.close()
    db = Database(path)
    was, new = hubs.get(db, "old"), hubs.create(db, "NEW", subnet4="10.81.9.0/24", subnet6="fd3c:1:4::/64", now=1.0)
    assert was.addresses == SILENT
    assert new.addresses == AddressSettings()
    db.close()
