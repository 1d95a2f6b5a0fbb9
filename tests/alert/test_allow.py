"""The allow list: what matches, until when, and that a wrong file or a broken write changes nothing."""

import datetime as dt
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.alert.findings import FINDING, end

from ukihashi.alert import allow
from ukihashi.alert.allow import AllowList, add, read, remove
from ukihashi.detect.record import Family
from ukihashi.errors import ConfigError, EnvironmentLacks, UkihashiError, UsageError

SOON = dt.datetime.now().astimezone().date() + dt.timedelta(days=3)
NOW = time.time()
ENTRY = """
[[allow]]
id = "a"
client = "192.168.126.0/24"
server = "61.197.235.210"
port = 7777
family = "softether"
owner = "Ann"
reason = "approved"
expires = 2030-06-30
"""


@pytest.fixture(autouse=True)
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conf" / "allow.toml"


def listed(path: Path, text: str) -> AllowList:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return AllowList(path)


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"client": end("192.168.126.7", 5)}, True),
        ({"client": end("192.168.127.7", 5)}, False),
        ({"client": end("fd00::1", 5)}, False),
        ({"server": end("61.197.235.210", 443)}, False),
        ({"server": end("61.197.235.211", 7777)}, False),
        ({"family": Family.UKIHASHI}, False),
    ],
)
def test_all_that_an_entry_names_must_fit(path: Path, change: dict[str, Any], matches: bool) -> None:
    entry = listed(path, ENTRY).match(replace(FINDING, **change), NOW)
    assert (entry is not None and entry.id == "a") is matches


def test_what_an_entry_does_not_name_is_any(path: Path) -> None:
    entries = listed(path, '[[allow]]\nid="b"\nclient="fd00::/8"\nowner="o"\nreason="r"\nexpires=2030-01-01\n')
    finding = replace(FINDING, client=end("fd00::1", 5), server=end("2001:db8::1", 80), family=Family.UKIHASHI)
    assert entries.match(finding, NOW)
    assert not entries.match(FINDING, NOW)


def test_it_holds_to_the_end_of_its_last_day_and_then_is_told_once_a_day(path: Path) -> None:
    entries = listed(path, ENTRY)
    last, after = at("2030-06-30T23:59:59+09:00"), at("2030-07-01T00:00:01+09:00")
    assert entries.match(FINDING, last)
    assert list(entries.expired(last)) == []
    assert entries.match(FINDING, after) is None
    assert [str(error) for error in entries.expired(after)] == [
        "entry a of the allow list (Ann) expired on 2030-06-30; what it allowed is reported again"
    ]
    assert list(entries.expired(after + 3600)) == []
    assert len(list(entries.expired(after + 86400))) == 1


def test_an_expired_entry_hides_no_later_one(path: Path) -> None:
    entries = listed(path, ENTRY + ENTRY.replace('"a"', '"b"').replace("2030", "2031"))
    found = entries.match(FINDING, at("2030-07-02T00:00:00+09:00"))
    assert found is not None
    assert found.id == "b"


def test_a_changed_file_is_read_again_and_a_wrong_one_changes_nothing(path: Path) -> None:
    entries = listed(path, ENTRY)
    told = list[UkihashiError]()
    path.write_text(ENTRY.replace('"192.168.126.0/24"', '"somewhere"'))
    for _ in range(3):
        entries.refresh(told.append)
    assert [str(error) for error in told] == [
        f"{path}: entry a: client must be an address or a prefix, not “somewhere”; the allow list stays as it was"
    ]
    assert entries.match(FINDING, NOW)
    path.write_text(ENTRY.replace('"a"', '"fresh"'))
    entries.refresh(told.append)
    found = entries.match(FINDING, NOW)
    assert found is not None
    assert found.id == "fresh"
    path.unlink()
    entries.refresh(told.append)
    assert entries.match(FINDING, NOW) is None
    assert len(told) == 1


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.replace("expires = 2030-06-30\n", ""),
        ENTRY.replace('owner = "Ann"\n', ""),
        ENTRY.replace('owner = "Ann"', 'owner = ""'),
        ENTRY.replace("softether", "wireguard"),
        ENTRY.replace("7777", "70000"),
        ENTRY.replace('"a"', '"a b"'),
        ENTRY + ENTRY,
        "allow = 3\n",
        "[[allow]\n",
    ],
)
def test_a_file_that_is_wrong_is_one_sentence_with_its_name(path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=str(path)):
        listed(path, text)


def test_entries_are_added_and_removed_and_comments_stay(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(f"# ours\n{ENTRY}")
    one = add(path, client="10.1.2.3/8", owner=" Bo ", reason="ticket 7", expires=SOON)
    two = add(path, client="fd00::1", owner="Bo", reason="r", expires=SOON, server="2001:db8::/32", port=443)
    assert [entry.id for entry in read(path)] == ["a", one.id, two.id]
    assert (one.client, one.owner, one.server, one.port) == ("10.0.0.0/8", "Bo", "", 0)
    assert remove(path, "a").owner == "Ann"
    assert [entry.id for entry in read(path)] == [one.id, two.id]
    assert remove(path, two.id) == two
    assert remove(path, one.id) == one
    assert read(path) == ()
    assert path.read_text().startswith("# ours\n")
    with pytest.raises(UsageError, match=f"no entry {one.id}"):
        remove(path, one.id)
    assert [file.name for file in path.parent.iterdir()] == ["allow.toml"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"client": "ten"}, "client must be an address"),
        ({"server": "1.2.3"}, "server must be an address"),
        ({"owner": " "}, "needs owner"),
        ({"reason": ""}, "needs reason"),
        ({"expires": SOON - dt.timedelta(days=5)}, "is over"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_and_nothing_written(path: Path, change: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = {"client": "10.0.0.1", "owner": "o", "reason": "r", "expires": SOON} | change
    with pytest.raises(UsageError, match=words):
        add(path, **fields)
    assert not path.exists()


def test_a_broken_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(path, ENTRY)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentLacks, match="No space left"):
        add(path, client="10.0.0.1", owner="o", reason="r", expires=SOON)
    assert path.read_text() == ENTRY
    assert [file.name for file in path.parent.iterdir()] == ["allow.toml"]


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    def write(number: int) -> None:
        add(path, client=f"10.0.0.{number}", owner="o", reason="r", expires=SOON)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.client for entry in read(path)) == [f"10.0.0.{number}" for number in range(8)]


def test_what_a_finding_says_of_it(path: Path) -> None:
    entry = listed(path, ENTRY).entries[0]
    assert allow.allowed(entry).expires == "2030-06-30"
