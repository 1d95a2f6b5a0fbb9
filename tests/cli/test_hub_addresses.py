"""`hub addresses` and `hub leases` against a hub that is a table of answers."""

import json
from typing import Any

import pytest

from ukihashi.cli import hub_addresses
from ukihashi.cli.main import build, run

SHOWN: dict[str, Any] = {
    "hub": "LAN",
    "subnet4": "10.81.7.0/24",
    "subnet6": "fd3c:1:2::/64",
    "host_port": "10.81.7.1",
    "service4": "10.81.7.254",
    "service6": "fd3c:1:2::fe",
    "service_mac": "02:00:00:00:00:fe",
    "dhcp": "serve",
    "lease_s": 86400,
    "router": "auto",
    "router_now": "",
    "routes": [["192.168.7.0/24", "10.81.7.9"]],
    "dns": True,
    "domain": "lan.internal",
    "name_servers": [],
    "forward": "auto",
    "forwards": False,
    "ra": True,
    "guard": True,
    "trusted": ["bob"],
    "leases": 2,
    "free": 248,
}
LEASE: dict[str, Any] = {
    "hub": "LAN",
    "address": "10.81.7.7",
    "state": "leased",
    "fixed": "user",
    "user": "ann",
    "mac": "02:00:00:00:00:01",
    "host": "nova",
    "since": 1.0,
    "until": 86401.0,
    "session": "SID-ANN-1",
    "name": "ann.lan.internal",
}


class FakeHub:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, verb: str, **arguments: Any) -> list[dict[str, Any]]:
        self.asked.append((verb, arguments))
        return [SHOWN] if verb.startswith("addresses") else [LEASE]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub()
    monkeypatch.setattr(hub_addresses, "client", lambda: made)
    return made


@pytest.mark.parametrize("words", [[], ["LAN"], ["show"], ["show", "LAN"]])
def test_show_is_what_is_meant_without_a_command(
    hub: FakeHub, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(build(), ["hub", "addresses", *words]) == 0
    assert hub.asked == [("addresses", {"hub": "LAN" if "LAN" in words else ""})]
    out = capsys.readouterr().out
    for part in ("10.81.7.254", "lan.internal", "192.168.7.0/24", "bob"):
        assert part in out
    assert run(build(), ["hub", "addresses", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == SHOWN


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["--dhcp", "relay", "--lease", "12h"], {"dhcp": "relay", "lease_s": 43200}),
        (["--lease", "90m"], {"lease_s": 5400}),
        (["--lease", "600"], {"lease_s": 600}),
        (
            ["--router", "none", "--route", "10.1.0.0/16,10.81.7.9"],
            {"router": "none", "routes": ["10.1.0.0/16,10.81.7.9"]},
        ),
        (["--route", "none", "--name-server", "none"], {"routes": [], "name_servers": []}),
        (["--name-server", "10.0.0.1", "--name-server", "fd00::1"], {"name_servers": ["10.0.0.1", "fd00::1"]}),
        (["--dns", "off", "--ra", "on", "--guard", "off"], {"dns": False, "ra": True, "guard": False}),
        (["--domain", "x.example", "--forward", "on"], {"domain": "x.example", "forward": "on"}),
        (["--trust", "bob", "--no-trust", "eve"], {"trust": ["bob"], "no_trust": ["eve"]}),
    ],
)
def test_only_what_is_named_is_set(hub: FakeHub, words: list[str], fields: dict[str, Any]) -> None:
    assert run(build(), ["hub", "addresses", "set", "LAN", *words]) == 0
    assert hub.asked == [("addresses_set", {"hub": "LAN", **fields})]


@pytest.mark.parametrize("words", [[], ["--lease", "soon"], ["--dhcp", "maybe"], ["--dns", "maybe"]])
def test_nothing_and_nonsense_are_refused(hub: FakeHub, words: list[str]) -> None:
    assert run(build(), ["hub", "addresses", "set", "LAN", *words]) == 2
    assert hub.asked == []


def test_leases_are_listed_released_and_fixed(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(build(), ["hub", "leases"]) == 0
    assert "ann.lan.internal" in capsys.readouterr().out
    assert run(build(), ["hub", "leases", "LAN", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == LEASE
    assert run(build(), ["hub", "leases", "release", "LAN", "10.81.7.7"]) == 0
    assert run(build(), ["hub", "leases", "fix", "LAN", "ann", "10.81.7.9"]) == 0
    assert run(build(), ["hub", "leases", "fix", "LAN", "02:00:00:00:00:01", "--remove"]) == 0
    assert run(build(), ["hub", "leases", "fix", "LAN", "ann"]) == 2
    assert run(build(), ["hub", "leases", "fix", "LAN", "ann", "10.81.7.9", "--remove"]) == 2
    assert [verb for verb, _ in hub.asked] == ["leases", "leases", "lease_release", "lease_fix", "lease_unfix"]
    assert hub.asked[3][1] == {"hub": "LAN", "who": "ann", "address": "10.81.7.9"}


@pytest.mark.parametrize("mode", ["serve", "relay", "off"])
def test_every_mode_has_words_in_japanese_too(hub: FakeHub, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHOWN, "dhcp", mode)
    monkeypatch.setitem(SHOWN, "dns", False)
    monkeypatch.setenv("LANGUAGE", "ja")
    assert run(build(), ["hub", "addresses"]) == 0
