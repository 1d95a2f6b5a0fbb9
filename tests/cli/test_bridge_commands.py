"""`hub bridge` and `card bridge`, where neither hub nor card runs, and what `status` makes of their rows."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lab.own_network import own_network
from ukihashi.card import account
from ukihashi.cli.card_bridge import bridge as card_bridge
from ukihashi.cli.card_bridge import bridge_lines as card_lines
from ukihashi.cli.hub_bridge import bridge as hub_bridge
from ukihashi.cli.hub_bridge import bridge_lines as hub_lines
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, Login
from ukihashi.config.hub import load_hub
from ukihashi.errors import DaemonUnreachable, UkihashiError

pytestmark = pytest.mark.netns


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (places.STATE, places.CONFIG, places.RUNTIME):
        monkeypatch.setenv(name, str(tmp_path))
    with own_network():
        for name in ("eth1", "eth2"):
            subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"far-{name}"], check=True)
        subprocess.run(["ip", "addr", "add", "10.1.0.2/24", "dev", "eth2"], check=True)
        yield


def run(command: click.Command, *words: str) -> Result:
    return CliRunner().invoke(command, list(words))


def refused(command: click.Command, *words: str) -> str:
    error = run(command, *words).exception
    assert isinstance(error, UkihashiError), error
    return str(error)


def test_a_bridge_is_written_into_hub_toml_and_out_of_it() -> None:
    path = places.hub_config()
    path.write_text("# mine\nworkers = 2\n")
    done = run(hub_bridge, "LAN", "eth1")
    assert (done.exit_code, done.stderr) == (0, "no hub is running: all of it holds from its next start\n")
    run(hub_bridge, "LAN", "eth2", "--take-addresses")
    config = load_hub(path)
    assert (config.bridges, config.bridge_addresses) == ({"LAN": ("eth1", "eth2")}, ("eth2",))
    run(hub_bridge, "lan", "eth1", "--remove")
    run(hub_bridge, "LAN", "eth2", "--remove")
    assert path.read_text().rstrip() == "# mine\nworkers = 2"


def test_what_a_hub_cannot_bridge_is_not_written() -> None:
    assert "eth2 has addresses of its own (10.1.0.2/24)" in refused(hub_bridge, "LAN", "eth2")
    assert refused(hub_bridge, "LAN", "eth9") == "there is no network interface eth9"
    assert "loopback" in refused(hub_bridge, "LAN", "lo")
    assert refused(hub_bridge, "LAN") == "name the interface too, as in: ukihashi hub bridge LAN eth1"
    assert "can't name a network interface" in refused(hub_bridge, "LAN", "a/b")
    assert not places.hub_config().exists()
    run(hub_bridge, "LAN", "eth1")
    assert "joined to virtual hub LAN already" in refused(hub_bridge, "OTHER", "eth1")
    assert "is not joined to virtual hub OTHER" in refused(hub_bridge, "OTHER", "eth1", "--remove")
    assert load_hub(places.hub_config()).bridges == {"LAN": ("eth1",)}
    assert isinstance(run(hub_bridge).exception, DaemonUnreachable)


def test_an_interface_that_is_written_down_already_is_no_error() -> None:
    run(hub_bridge, "LAN", "eth2", "--take-addresses")
    before = places.hub_config().read_text()
    assert run(hub_bridge, "LAN", "eth2").exit_code == 0
    assert places.hub_config().read_text() == before


def make(name: str) -> None:
    interface = Interface(name=f"uk{name}", mac="02:00:00:00:00:02")
    hub = Hub(host="hub.example", hub="LAN", user="alice")
    account.write(name, CardConfig(hub=hub, login=Login(method="anonymous"), interface=interface))


def test_a_bridge_is_written_into_an_account_and_out_of_it() -> None:
    assert "name the account" in refused(card_bridge, "eth1")
    make("lan")
    done = run(card_bridge, "eth1")  # of the only one
    assert (done.exit_code, done.stderr) == (0, "the card “lan” is not up; it holds from its next start\n")
    assert account.read("lan").interface.bridge == "eth1"
    assert "bridges eth1 already" in refused(card_bridge, "eth2")
    assert "does not bridge eth2" in refused(card_bridge, "eth2", "--remove")
    run(card_bridge, "eth1", "--account", "lan", "--remove")
    assert account.read("lan").interface.bridge == ""
    assert "eth2 has addresses" in refused(card_bridge, "eth2")
    run(card_bridge, "eth2", "--take-addresses")
    assert account.read("lan").interface.bridge_addresses
    make("other")
    assert "there are: lan, other" in refused(card_bridge, "eth1")


def test_what_status_says() -> None:
    told = {"template": "there is no network interface {interface}", "values": {"interface": "eth1"}}
    joined: dict[str, Any] = {
        "hub": "LAN", "interface": "eth1", "bridge": "ukbr-eth1", "members": ["eth1", "ukt-eth1"], "state": "joined",
        "problem": None, "warnings": [], "port": {"bytes_in": 2048, "bytes_out": 1024},
        "counters": {"eth1": {"rx_bytes": 2048, "tx_bytes": 1024}},
    }  # fmt: skip
    apart: dict[str, Any] = {
        "hub": "LAN",
        "interface": "eth1",
        "state": "apart",
        "problem": told,
        "warnings": [],
        "port": None,
    }
    assert list(hub_lines([joined])) == [
        "Bridge: eth1 and virtual hub LAN, joined; ukbr-eth1 of eth1, ukt-eth1; 2.00 KiB received, 1.00 KiB sent"
    ]
    assert list(hub_lines([apart])) == [
        "Bridge: eth1 and virtual hub LAN, not joined", "  there is no network interface eth1",
    ]  # fmt: skip
    assert card_lines(None) == {}
    assert card_lines(joined) == {
        "Bridge": "eth1, joined; ukbr-eth1 of eth1, ukt-eth1; 2.00 KiB received there, 1.00 KiB sent"
    }
    assert card_lines(apart) == {"Bridge": "eth1, not joined: there is no network interface eth1"}
