"""Offices, from end to end: two that become one Ethernet, and a machine on the road that finds what is in them by name.

 w1 w2 router          web (the world outside)           e1 ... e8
  |  |  |               |                                 |      |
--+--+--+-- w-gate -----+-------- cloud -------- e-gate --+------+--
            hub bridge                           card bridge
"""

import hashlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.net import Host, Net, Process, run
from lab.offices import LAN, ROUTED4, ROUTED6, Member, Office, Town, web_server
from lab.ukihashi import HUB, Card, Hub
from lab.wait import until
from ukihashi.tap import reverse_path

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.peer("dnsmasq", "avahi-daemon", "dhclient", "udhcpc", "curl", "nft"),
]

BULK = 100_000_000  # bytes, each way
HOSTS = 8
CUT_S = 5.0  # a loop is cut within so long
HEAL_S = 15.0
FAR = "203.0.113.80"  # outside, known by a route only


class Branches:
    """The offices, joined: the west has hub, router and DHCP server, the east eight hosts behind one card."""

    def __init__(self, net: Net) -> None:
        self.town = Town(net)
        self.west, self.east = self.town.office("w", hosts=1), self.town.office("e", hosts=HOSTS)
        self.router = self.west.add_router()
        self.hub, self.card = Hub(self.west.gate), Card(self.east.gate)
        self.hub.start()
        self.hub.run("hub", "addresses", "set", HUB, "--dhcp", "relay", "--dns", "off", "--ra", "off")
        self.hub.run("hub", "bridge", HUB, LAN)
        self.card.join(self.hub.invite("east"))
        self.card.run("card", "bridge", LAN)

    def all(self) -> list[Member]:
        """Every host of both offices; none has a program of ours."""
        return [*self.west.hosts, *self.east.hosts]


@pytest.fixture(scope="module")
def branches() -> Iterator[Branches]:
    with Net() as net:
        yield Branches(net)


@pytest.fixture(scope="module")
def leases(branches: Branches) -> dict[str, dict[str, str]]:
    """Each host's lease, all asked for at once; two kinds of client."""
    with ThreadPoolExecutor() as pool:
        clients = ["dhclient" if number % 2 else "udhcpc" for number in range(len(branches.all()))]
        got = pool.map(lambda member, client: member.lease(client), branches.all(), clients)
        return {member.host.name: lease for member, lease in zip(branches.all(), got, strict=True)}


def test_hosts_behind_a_card_get_their_addresses_from_the_far_side(
    branches: Branches, leases: dict[str, dict[str, str]]
) -> None:
    assert len({lease["address"] for lease in leases.values()}) == HOSTS + 1
    assert {lease["server"] for lease in leases.values()} == {f"{ROUTED4}.1"}  # and by nobody else, the hub least
    assert {lease["router"] for lease in leases.values()} == {f"{ROUTED4}.1"}
    for member in branches.east.hosts:
        assert member.ipv6(ROUTED6)
    sessions = {row["session"] for row in branches.hub.mac_table() if row["session"].startswith("SID-EAST")}
    behind = [row for row in branches.hub.mac_table() if row["session"] in sessions]
    assert len({row["mac"] for row in behind}) >= HOSTS


def test_hosts_of_both_offices_hear_each_other_in_ipv4_and_ipv6(
    branches: Branches, leases: dict[str, dict[str, str]]
) -> None:
    (one,) = branches.west.hosts
    for member in branches.east.hosts:
        one.host.pings(leases[member.host.name]["address"])
    for member in branches.east.hosts[:2]:
        one.host.pings(member.ipv6(ROUTED6))
        member.host.pings(one.ipv6(ROUTED6))
        member.host.pings(leases[one.host.name]["address"])
        member.host.pings(branches.town.web.ipv4)  # outside, by the far office's router


def test_hosts_find_each_other_by_mdns(branches: Branches, leases: dict[str, dict[str, str]]) -> None:
    one, other = branches.west.hosts[0], branches.east.hosts[0]
    for member in (one, other):
        member.speak_mdns()
    assert other.hears_mdns(one) == leases[one.host.name]["address"]
    assert one.hears_mdns(other) == leases[other.host.name]["address"]
    assert one.hears_mdns(other, 6) in [*other.ipv6s(), *link_local(other.host)]


def link_local(host: Host) -> list[str]:
    return re.findall(r"inet6 (fe80::[0-9a-f:]+)", host.ip("-6 addr show dev eth0"))


def test_a_hundred_megabytes_pass_whole_both_ways_at_once(
    branches: Branches, leases: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    one, other = branches.west.hosts[0], branches.east.hosts[0]
    data = random.Random(8).randbytes(BULK)
    (tmp_path / "file").write_bytes(data)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    for member in (one, other):
        member.serve(tmp_path)
    urls = {one: f"http://{leases[other.host.name]['address']}/file", other: f"http://[{one.ipv6(ROUTED6)}]/file"}
    with ThreadPoolExecutor() as pool:
        sums = list(pool.map(lambda member: member.fetch_sum(urls[member], seconds=120), urls))
    assert sums == [hashlib.sha256(data).hexdigest()] * 2


def test_a_cable_between_the_offices_that_makes_a_loop_is_cut_off_reported_and_forgiven(
    branches: Branches, leases: dict[str, dict[str, str]]
) -> None:
    one, other = branches.west.hosts[0], leases[branches.east.hosts[0].host.name]["address"]
    one.host.pings(other)
    begin = time.monotonic()
    lay_cable(branches.west, branches.east)
    try:
        until(
            lambda: "blocked for" in branches.hub.run("hub", "status"), seconds=30, what="word of the loop", step_s=0.1
        )
        assert time.monotonic() - begin < CUT_S + 1.0  # a second for the program that asks
        sent = count(one.host)
        time.sleep(1.0)
        assert count(one.host) - sent < 2000  # nothing goes round any more
        for member in (one, branches.east.hosts[0]):  # who asks anew teaches the switches where he is now
            member.host.ip("neigh flush dev eth0")
        one.host.pings(other)  # by the cable
    finally:
        run(["ip", "-n", branches.west.wire.switch.namespace, "link", "del", "cable"])
    begin = time.monotonic()
    one.host.pings(other, seconds=HEAL_S)
    assert time.monotonic() - begin < HEAL_S
    until(lambda: "blocked for" not in branches.hub.run("hub", "status"), seconds=HEAL_S, what="the loop forgotten")


def lay_cable(west: Office, east: Office) -> None:
    """Somebody connects both offices' switches."""
    ends = [west.wire.switch, east.wire.switch]
    near, far = (["cable", "netns", end.namespace] for end in ends)
    run(["ip", "link", "add", *near, "type", "veth", "peer", "name", *far])
    for end in ends:
        end.ip("link set cable master br0 up")


def count(host: Host) -> int:
    """Frames that have arrived at the host."""
    return int(host.run(["cat", "/sys/class/net/eth0/statistics/rx_packets"]))


# -- on the road ------------------------------------------------------------------------------------------------------


class Road:
    """A hub in a data centre, with a way out and names; a shop with a web server; and a laptop somewhere."""

    def __init__(self, net: Net, folder: Path) -> None:
        self.town = town = Town(net)
        self.hub, shop = Hub(town.cloud), town.dweller("shop")
        self.laptop = town.dweller("laptop")
        town.web.add_address("lo", f"{FAR}/32")
        town.web.set_sysctl("net/ipv4/ip_forward", "1")
        for host in (town.cloud, self.laptop):
            host.ip(f"route add default via {town.web.ipv4}")
            host.own_etc("resolv.conf", f"nameserver {town.web.ipv4}\n")
        town.web.spawn(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
             "--pid-file=", "--log-facility=-", f"--host-record=news.example,{FAR}"],
            log="dnsmasq",
        ).wait_for("started")  # fmt: skip
        self.hub.start()
        self.hub.run("hub", "uplink", HUB)
        self.shop = Card(shop)
        self.shop.join(self.hub.invite("shop"))
        self.inside, self.outside = web_server(shop, folder), web_server(town.web, folder)
        self.card = Card(self.laptop)

    def state(self) -> list[Any]:
        """All that a card might change on the laptop."""
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "-d addr"]
        files = [self.laptop.run(["cat", "/etc/resolv.conf"]), self.laptop.run(["nft", "list", "ruleset"])]
        with self.laptop.inside():
            checks = [reverse_path.read(name) for name in ("all", "default", "eth0")]
        return [*map(self.laptop.ip, shown), *files, checks]

    def fetch(self, name: str) -> subprocess.CompletedProcess[str]:
        """Ask the web server of that name, as a browser does."""
        return self.laptop.ask(["curl", "-sSf", "--noproxy", "*", "--max-time", "10", f"http://{name}/hello"])


def asked_by(server: Process) -> str:
    """Which address the web server was asked by last."""
    return str(re.findall(r"^(?:::ffff:)?(\S+) - - .*GET /hello", server.output(), re.MULTILINE)[-1])


@pytest.mark.parametrize("end", ["leave", "kill"])
def test_one_link_and_the_laptop_reaches_by_name_what_is_inside_and_outside_and_leaves_no_trace(
    road: Road, end: str
) -> None:
    before = road.state()
    road.card.join(road.hub.invite(f"ann-{end}"), "--accept", "all")
    own = {road.card.address(4), road.card.address(6)}
    until(lambda: road.fetch("shop.lan.internal").returncode == 0, seconds=15, what="the shop's name", step_s=0.1)
    assert asked_by(road.inside) in own
    assert road.fetch("news.example").stdout == "hello"
    assert asked_by(road.outside) == road.town.cloud.ipv4  # by the hub's way out, not by the laptop's own
    assert road.state() != before
    if end == "leave":
        road.card.leave("lan")
    else:
        for pid in road.laptop.pids():
            os.kill(pid, signal.SIGKILL)
        until(lambda: not road.laptop.pids(), seconds=5, what="the card's end")
        road.card.run("card", "clean")
    assert road.state() == before
    assert road.fetch("news.example").stdout == "hello"
    assert asked_by(road.outside) == road.laptop.ipv4
    road.card.run("card", "delete", "lan")


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "hello").write_text("hello")
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)
    with Net() as net:
        yield Road(net, folder)
