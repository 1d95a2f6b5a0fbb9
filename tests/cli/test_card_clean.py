"""`ukihashi card clean` after a card was killed, in a network of the test's own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import ready
from lab.own_network import own_network
from ukihashi.card import journal, routes
from ukihashi.card.journal import Journal
from ukihashi.config import places
from ukihashi.tap import netlink
from ukihashi.tap.device import open_tap

pytestmark = pytest.mark.netns


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (places.STATE, places.CONFIG, places.RUNTIME):
        monkeypatch.setenv(name, str(tmp_path))
    with own_network():
        yield


def clean(*words: str, lang: str = "en") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ukihashi.cli.main", f"--lang={lang}", "card", "clean", *words]
    if ready.can(command, os.environ):
        return ready.ask(command, env=os.environ, namespace=ready.here(), stdin="", timeout_s=60)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def leave_rules(slot: int, account: str = "", interface: str = "") -> None:
    pair = routes.rules(4, slot)
    if account:
        journal.write(account, Journal(interface=interface, rules=list(pair)))
    for rule in pair:
        netlink.add_rule(rule)


def test_nothing_to_do() -> None:
    done = clean()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing was left behind\n")


def test_everything_left_behind_is_removed_and_told() -> None:
    before = netlink.all_rules()
    leave_rules(0, "office")
    leave_rules(4)  # nobody wrote this down
    done = clean()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"removed: {rule}" for slot in (0, 4) for rule in reversed(routes.rules(4, slot))
    ]
    assert netlink.all_rules() == before
    assert clean().stdout == ""


def test_one_account_only() -> None:
    leave_rules(0, "office")
    leave_rules(1, "home")
    assert clean("home").stdout.splitlines() == [f"removed: {rule}" for rule in reversed(routes.rules(4, 1))]
    assert netlink.own_rules() == set(routes.rules(4, 0))


def test_a_card_that_lives_is_left_alone_even_if_it_does_not_answer() -> None:
    leave_rules(0, "office", interface="ukoffice")
    tap = open_tap("ukoffice")
    refused = clean("office")
    assert refused.returncode == 2
    assert "`ukihashi card leave office`" in refused.stderr
    assert clean().stdout == ""
    assert netlink.own_rules() == set(routes.rules(4, 0))
    tap.close()
    assert len(clean("office").stdout.splitlines()) == 2
