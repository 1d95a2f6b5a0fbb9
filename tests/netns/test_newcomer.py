"""A newcomer's way, from the README alone, in namespaces that never saw the program: its commands, and what they print.

Nothing else is used: no test's knowledge of addresses, folders or options.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable

import pytest

from lab.net import Host, Net
from lab.offices import ROUTED4, Town
from lab.readme import Block, blocks, script, unprepared
from lab.ukihashi import LINK, SERVES, Card, Hub, gateway

FIRST = {"README.md": "The first join", "README.ja.md": "最初の参加"}


def until_first_ping(name: str) -> list[Block]:
    """What the README tells to do up to the first answer from the other machine."""
    found = blocks(name, heading=FIRST[name])
    last = next(number for number, block in enumerate(found) if any(word.startswith("ping") for word in block.commands))
    return found[: last + 1]


@pytest.mark.parametrize("name", list(FIRST))
def test_the_first_ping_takes_two_commands_on_each_machine(name: str) -> None:
    count = Counter[str]()
    for block in until_first_ping(name):
        count[block.host] += len(block.commands)
    assert set(count) == {"hub", "ann"}
    assert max(count.values()) <= 2, count
    assert until_first_ping(name) == until_first_ping("README.md")


@pytest.mark.slow
def test_the_first_ping_as_printed(net: Net, lacks: Callable[[str], None]) -> None:
    if reason := unprepared():
        lacks(reason)
    machine, ann = net.lan("hub", "ann")
    homes = {"hub": Hub(machine), "ann": Card(ann)}  # folders of their own; nothing is started or prepared by them
    (serve,), (join, ping) = (block.commands for block in until_first_ping("README.md"))
    serving = machine.spawn(script(serve, {}), log="hub", env=homes["hub"].env)
    link = serving.wait_for(LINK.pattern, seconds=60)[0]
    joined = ann.ask(script(join, {"LINK": link}), env=homes["ann"].env, timeout_s=60)
    assert joined.returncode == 0, joined.stderr
    own = re.search(r"\s(\d+\.\d+\.\d+\.\d+)/24\b", joined.stdout)  # "prints that address, and the same with .1"
    assert own is not None, joined.stdout
    answered = ann.ask(script(ping, {"HUB-ADDRESS": gateway(own[1])}))
    assert "3 received" in answered.stdout, answered.stdout


# -- offices ----------------------------------------------------------------------------------------------------------

OFFICES = ("docs/offices.en.md", "docs/offices.ja.md")


def test_both_languages_tell_the_same_commands_for_offices() -> None:
    assert blocks(OFFICES[0]) == blocks(OFFICES[1])
    assert len(blocks(OFFICES[0])) >= 10


class Offices:
    """Two offices with one host each, a router with DHCP in the west, and a laptop outside."""

    def __init__(self, net: Net) -> None:
        town = Town(net)
        self.west, self.east = town.office("w", hosts=1), town.office("e", hosts=1)
        self.west.add_router()
        self.west.gate.ip(f"route add default via {town.web.ipv4}")
        self.hub, self.laptop = Hub(self.west.gate), Card(town.dweller("laptop"))
        self.homes = {"west": self.hub, "east": Card(self.east.gate), "laptop": self.laptop}

    def follow(self, steps: list[Block]) -> int:
        """Give the commands as a reader does; whenever the east has been bridged, both offices hear each other."""
        values, bridged = {"WEST": self.west.gate.ipv4}, 0
        for block in steps:
            home = self.homes[block.host]
            for command in block.commands:
                program, *words = (values.get(word, word) for word in shlex.split(command))
                assert program in {"ukihashi", "./run"}  # the same thing, by the test above
                if block.stays:
                    home.host.spawn(home.argv(*words), log="stays", env=home.env).wait_for(SERVES, seconds=60)
                    continue
                done = home.ask(*words, timeout_s=60)
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
                if found := LINK.search(done.stdout):
                    values["LINK"] = found[0]
                if words[:2] == ["card", "bridge"] and "--remove" not in words:
                    bridged += 1
                    self.hear_each_other()
                if "--dhcp" in words and block.host == "laptop":
                    home.host.pings(f"{ROUTED4}.1")
        return bridged

    def hear_each_other(self) -> None:
        (one,), (other,) = self.west.hosts, self.east.hosts
        one.lease("dhclient")
        one.host.pings(other.lease()["address"])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.peer("dnsmasq", "udhcpc", "dhclient")
def test_the_guide_for_offices_as_printed(net: Net) -> None:
    offices = Offices(net)
    before = {home: state(home.host) for home in offices.homes.values()}
    assert offices.follow(blocks(OFFICES[0])) == 1
    offices.laptop.leave_all()
    for name in ("east", "laptop"):
        assert state(offices.homes[name].host) == before[offices.homes[name]]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.peer("dnsmasq", "udhcpc", "dhclient")
def test_the_readmes_offices_as_printed(net: Net) -> None:
    offices = Offices(net)
    offices.hub.start()
    assert offices.follow(blocks("README.md", heading="Offices")) == 1


def state(host: Host) -> list[str]:
    """What a card might change on a machine."""
    return [
        *map(host.ip, ("rule", "-6 rule", "route show table all", "-d addr")),
        host.run(["cat", "/etc/resolv.conf"]),
    ]
