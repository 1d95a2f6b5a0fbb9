"""`hub ciphers` and `card ciphers`: every suite with what is to be known of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ukihashi.card import account
from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, Login, Tls
from ukihashi.net.suites import available

Rows = Callable[..., tuple[int, dict[str, dict[str, Any]], str]]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rows:
    """Run a command with --json: exit status, rows by suite, what it said beside."""
    monkeypatch.setenv(places.CONFIG, str(tmp_path))

    def ask(*words: str) -> tuple[int, dict[str, dict[str, Any]], str]:
        status = run(build(), [*words, "--json"])
        said = capsys.readouterr()
        return status, {row["suite"]: row for row in map(json.loads, said.out.splitlines())}, said.err

    return ask


@pytest.mark.parametrize("program", ["hub", "card"])
def test_every_suite_is_listed_and_each_that_can_not_be_had_says_why(rows: Rows, program: str) -> None:
    status, found, aside = rows(program, "ciphers")
    assert (status, aside) == (0, "")
    assert found.keys() == {suite.name for suite in available()}
    assert {row["state"] for row in found.values()} == {"offered", "possible", "refused"}
    assert all((row["state"] == "refused") == bool(row["reason"]) for row in found.values())
    assert found["TLS_AES_128_GCM_SHA256"]["state"] == "offered"
    assert found["AES128-SHA"]["state"] == "possible"
    assert found["RC4-MD5"]["reason"] == "RC4 is broken, and RFC 7465 forbids it"


def test_what_is_picked_comes_first_and_nothing_else_is_offered(rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text('[tls]\nciphers = ["AES256-SHA", "TLS_AES_128_CCM_SHA256"]\n')
    _status, found, _aside = rows("hub", "ciphers")
    assert [row["suite"] for row in found.values()][:2] == ["AES256-SHA", "TLS_AES_128_CCM_SHA256"]
    assert {row["suite"] for row in found.values() if row["state"] == "picked"} == set(list(found)[:2])
    assert "offered" not in {row["state"] for row in found.values()}


def test_a_card_shows_its_own_picks(rows: Rows) -> None:
    account.write(
        "lan",
        CardConfig(
            hub=Hub(host="hub.example", hub="LAN", user="ann"),
            login=Login(password="secret"),
            interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
            tls=Tls(ciphers=["AES128-SHA"]),
        ),
    )
    assert rows("card", "ciphers", "lan")[1]["AES128-SHA"]["state"] == "picked"
    status, found, aside = rows("card", "ciphers", "nobody")
    assert (status, found) == (2, {})
    assert "nobody" in aside


def test_a_wrong_pick_is_said_and_the_list_is_given_all_the_same(rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text('[tls]\nciphers = ["AES256-SHA1"]\n')
    status, found, aside = rows("hub", "ciphers")
    assert status == 2
    assert (
        "hub.toml: the TLS library of this machine has no cipher suite “AES256-SHA1”; did you mean AES256-SHA?" in aside
    )
    assert found.keys() == {suite.name for suite in available()}


def test_for_people_risks_and_reasons_are_in_the_last_column(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(places.CONFIG, str(tmp_path))
    assert run(build(), ["hub", "ciphers"]) == 0
    said = capsys.readouterr()
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in said.out.splitlines()}
    assert lines["AES128-SHA"].endswith(
        "can be picked no forward secrecy: whoever gets the hub's key can read what was "
        "recorded before; CBC mode: open to padding attacks"
    )
    assert lines["NULL-MD5"].endswith("not offered MD5 is broken, and RFC 6151 warns against it")
    assert f"{tmp_path}/hub.toml" in said.err
