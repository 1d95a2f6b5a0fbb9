"""`hub upgrade` from outside: another version takes over under load, and who is connected hardly notices (A5)."""

import json
import re
import shutil
from pathlib import Path

import pytest

import ukihashi
from lab import peers
from lab.applications import Steady
from lab.net import Net
from lab.numbered import End, Numbered
from lab.ukihashi import Card, Hub, gateway
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

UPGRADE_S = 90.0  # three starts of Python beside other people's work


class Programs:
    """Versions of the program in folders; a link says which one is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "installed"  # for PYTHONPATH

    def install(self, version: str, *, flaw: str = "") -> None:
        """The program as it is here, under another version number; `flaw` is written to the end of a module."""
        package = self._folder / version / "ukihashi"
        if not package.exists():
            source = Path(ukihashi.__file__).parent
            shutil.copytree(source, package)
            about = package / "__init__.py"
            text, count = re.subn(r'__version__ = ".*"', f'__version__ = "{version}"', about.read_text())
            assert count == 1
            about.write_text(text)
            with (package / "hub" / "worker.py").open("a") as module:
                module.write(flaw)
        fresh = self._folder / "fresh"
        fresh.symlink_to(package.parent)
        fresh.rename(self.path)


def version_of(hub: Hub) -> str:
    return str(json.loads(hub.run("hub", "status", "--json"))["version"])


def test_another_version_takes_over_and_no_record_is_lost(net: Net) -> None:
    machine, a, b = net.lan("hub", "a", "b")
    programs = Programs(machine.folder)
    programs.install("1.1.1")
    hub, cards = Hub(machine), {host: Card(host) for host in (a, b)}
    hub.start(env={"PYTHONPATH": str(programs.path)})
    for host, card in cards.items():
        card.join(hub.invite(host.name))
    assert version_of(hub) == "1.1.1"
    assert hub.process is not None
    pid = hub.process.pid
    home = gateway(cards[a].address(4))
    a.pings(home)
    a.pings(cards[b].address(4))
    sessions = {row["user"]: row["session"] for row in hub.sessions()}
    stations = {(row["mac"], row["session"]) for row in hub.mac_table() if row["session"] != "host"}
    ends = End(a, cards[a].interface()), End(b, cards[b].interface())
    with (
        Steady(machine, "uklan") as at_hub,
        Steady(a, ends[0].interface) as at_a,
        Steady(b, ends[1].interface) as at_b,
        Numbered(*ends, rate=200, seed=5) as frames,
    ):
        for version in ("1.1.2", "1.1.3"):
            programs.install(version)
            done = json.loads(hub.run("hub", "upgrade", "--json", timeout_s=UPGRADE_S))
            assert done["to"] == version_of(hub) == version
            assert done["sessions"] == 2
            a.pings(home)
        result = frames.finish()
        assert at_hub.events() == at_a.events() == at_b.events() == []
    assert result.up.exact, result
    assert result.down.exact, result
    assert hub.process.pid == pid
    assert hub.process.running
    assert {row["user"]: row["session"] for row in hub.sessions()} == sessions
    assert stations <= {(row["mac"], row["session"]) for row in hub.mac_table()}
    for row in hub.sessions():
        assert row["ledger"]["resumes"] == 2
        assert row["ledger"]["lost"] == 0
        assert row["ledger"]["dropped"] == {}
    for card in cards.values():
        assert card.status()["ledger"]["lost"] == 0


def test_a_broken_program_or_configuration_is_refused_and_the_hub_goes_on(net: Net) -> None:
    machine, a = net.lan("hub", "a")
    programs = Programs(machine.folder)
    programs.install("1.1.1")
    hub, card = Hub(machine), Card(a)
    hub.start(env={"PYTHONPATH": str(programs.path)})
    card.join(hub.invite("a"))
    a.pings(gateway(card.address(4)))
    pids = machine.pids()

    programs.install("1.1.2", flaw="this is no Python\n")
    refused = hub.ask("hub", "upgrade", timeout_s=UPGRADE_S)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert re.search(r"can't take over: .*SyntaxError.* — the hub goes on as it was", refused.stderr), refused.stderr

    programs.install("1.1.3")
    hub.config_dir.mkdir(exist_ok=True)
    (hub.config_dir / "hub.toml").write_text("listen = 443\n")
    refused = hub.ask("hub", "upgrade", timeout_s=UPGRADE_S)
    assert refused.returncode == 3
    assert "hub.toml: listen must be" in refused.stderr

    assert version_of(hub) == "1.1.1"
    assert sorted(machine.pids()) == sorted(pids)
    ledger = card.status()["ledger"]
    assert (ledger["cuts"], ledger["resumes"], ledger["lost"]) == (0, 0, 0)
    a.pings(gateway(card.address(4)))


@pytest.mark.peer("vpnclient", "vpncmd")
def test_the_official_client_goes_on_too(net: Net) -> None:
    machine, host, windows = net.lan("hub", "a", "b")
    hub, card = Hub(machine), Card(host)
    hub.start()
    card.join(hub.invite("a"))
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    client = peers.Client(windows)
    client.start()
    own = card.address(4)
    theirs = ".".join([*own.split(".")[:3], "200"])
    client.create_account(
        "v1", server=machine.ipv4, port=443, hub="LAN", user="taro", password=made["password"], cidrs=[f"{theirs}/24"]
    )
    client.connect("v1")
    host.pings(theirs, seconds=30)
    before = {row["user"]: row["session"] for row in hub.sessions()}
    done = json.loads(hub.run("hub", "upgrade", "--json", timeout_s=UPGRADE_S))
    assert done["sessions"] == 2
    until(lambda: all(row["connections"] for row in hub.sessions()), seconds=40, what="every member's connection")
    host.pings(theirs, seconds=30)
    windows.pings(own, seconds=30)
    assert {row["user"] for row in hub.sessions()} == set(before)
    assert before["a"] in {row["session"] for row in hub.sessions()}
    client.disconnect("v1")
