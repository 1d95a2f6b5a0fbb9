import dataclasses
import stat
from pathlib import Path

import msgspec
import pytest

from ukihashi.auth.link import Link
from ukihashi.card import account
from ukihashi.config import places
from ukihashi.config.card import CardConfig, account_name_for, check_account_name, interface_name_for, parse_pin
from ukihashi.errors import ConfigError, EnvironmentLacks, UsageError

LINK = Link("hub.example", 443, "LAN", "alice", "t" * 22, bytes(range(32)), ("10.181.7.2/24", "fd3c::2/64"))


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(places.STATE, str(tmp_path / "state"))
    monkeypatch.setenv(places.CONFIG, str(tmp_path / "config"))
    return tmp_path


def made() -> CardConfig:
    return account.from_link(LINK, "lan")


def test_an_account_comes_back_as_it_was_written() -> None:
    config = made()
    account.write("lan", config)
    assert account.read("lan") == config
    assert account.names() == ["lan"]


def test_only_the_owner_reads_the_secret() -> None:
    account.write("lan", made())
    assert stat.S_IMODE(account.path_of("lan").stat().st_mode) == 0o600
    assert not account.open_to_others("lan")
    account.path_of("lan").chmod(0o644)
    assert account.open_to_others("lan")
    account.edit("lan", {("login", "invite"): None})
    assert not account.open_to_others("lan")


def test_a_link_gives_pin_addresses_and_a_strong_secret() -> None:
    config = made()
    assert config.pin == bytes(range(32))
    assert config.trust.mode == "pin"
    assert config.interface.addresses == ["10.181.7.2/24", "fd3c::2/64"]
    assert config.interface.name == "uklan"
    assert config.login.invite == "t" * 22
    assert len(bytes.fromhex(config.login.password)) * 8 >= 128
    assert made().login.password != config.login.password


def test_the_paths_of_a_link_are_tried_too_as_far_as_they_are_known_here() -> None:
    via = (
        "quic://new.example",
        "HTTP://P.example:1",
        "direct:",
        "http://taro:s3cr3t@p.example:1",
        "http://p.example:1",
    )
    link = dataclasses.replace(LINK, via=(*via, *(f"ssh://gate{number}.example" for number in range(20))))
    config = account.from_link(Link.parse(link.text()), "lan")
    assert config.path.via == "auto"
    assert config.path.known == ["http://p.example:1", *(f"ssh://gate{number}.example" for number in range(7))]
    account.write("lan", config)
    assert account.read("lan") == config
    assert made().path.known == []


def test_a_mac_is_of_one_station_and_locally_administered() -> None:
    for first in range(256):
        mac = account.make_mac(lambda size, first=first: bytes([first] * size))  # type: ignore[misc]
        assert int(mac[:2], 16) & 3 == 2


def test_an_edit_keeps_comments_and_the_rest() -> None:
    account.write("lan", made())
    path = account.path_of("lan")
    path.write_text(path.read_text() + "\n# the admin's own words\n")
    before = account.read("lan")
    after = account.edit("lan", {("login", "invite"): None, ("times", "dead"): 20.0, ("trust", "pin"): "ab" * 32})
    assert "# the admin's own words" in path.read_text()
    assert after.login.invite == ""
    assert after.times.dead == 20.0
    assert after.pin == b"\xab" * 32
    assert after.interface == before.interface


def test_a_missing_account_names_the_others() -> None:
    with pytest.raises(UsageError, match="card join"):
        account.read("lan")
    account.write("office", made())
    with pytest.raises(UsageError, match="there are: office"):
        account.read("lan")


@pytest.mark.parametrize(
    ("text", "wants"),
    [
        ("[hub\n", "line 1"),
        ("[hub]\nhost='h'\nhub='LAN'\nuser='u'\n", "interface is missing"),
        ("[hub]\nhost='h'\nhub='LAN'\nuser='u'\nprot=1\n[interface]\nname='x'\nmac='02:00:00:00:00:01'\n", "port"),
        ("[hub]\nhost='h'\nhub='LAN'\nuser='u'\n[interface]\nname='x'\nmac='02:00:00:00:00:01'\n", "password"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(text: str, wants: str) -> None:
    path = account.path_of("lan")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=wants) as caught:
        account.read("lan")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("mac", ["", "x", "01:00:00:00:00:01", "00:00:00:00:00:00", "02-00-00-00-00-01"])
def test_a_wrong_mac_is_refused(mac: str) -> None:
    config = made()
    wrong = msgspec.structs.replace(config, interface=msgspec.structs.replace(config.interface, mac=mac))
    with pytest.raises(UsageError, match="MAC"):
        account.write("lan", wrong)


def test_a_folder_that_cannot_be_made_is_a_sentence(own_places: Path) -> None:
    (own_places / "config").write_text("in the way")
    with pytest.raises(EnvironmentLacks, match="can't be written"):
        account.write("lan", made())


def test_removing() -> None:
    account.write("lan", made())
    assert account.remove("lan")
    assert not account.remove("lan")


def test_the_installation_stays_the_same() -> None:
    first = account.installation_id()
    assert len(first) == 36
    assert account.installation_id() == first


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "x" * 33, "a\n"])
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_account_name(name)


@pytest.mark.parametrize("hub", ["LAN", "支社", "Branch 2/Tokyo", "...", "x" * 300, "仮" * 200])
def test_every_hub_name_gives_a_usable_account_and_interface(hub: str) -> None:
    name = check_account_name(account_name_for(hub))
    assert len(interface_name_for(name).encode()) <= 15
    assert interface_name_for(name).startswith("uk")


def test_long_names_give_different_interfaces() -> None:
    assert interface_name_for("branch-office-a") != interface_name_for("branch-office-b")


def test_pins() -> None:
    assert parse_pin("SHA256:" + "AB:" * 31 + "AB") == b"\xab" * 32
    with pytest.raises(UsageError):
        parse_pin("abcd")
