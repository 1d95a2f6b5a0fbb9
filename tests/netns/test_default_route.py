"""A default route through the card, as a user has it: everything leaves by the hub, but for what carries the tunnel.

              +-- one --+        +-- virtual LAN --+
card == wire ==         +-- hub ==                 ==> card, through the tunnel
              +-- two --+    |
                             +-- outside: knows the virtual LAN by way of the hub
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from lab.net import Host, Net
from lab.ukihashi import Card, Hub, gateway
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SERVER = {4: "198.51.100.1", 6: "2001:db8:51::1"}  # the hub, behind either gateway
WHO = (
    "import socket\n"
    "server = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "print('listens', flush=True)\n"
    "while True:\n"
    "    peer, address = server.accept()\n"
    "    with peer:\n"
    "        peer.sendall(address[0].removeprefix('::ffff:').encode())\n"
)
ASK = (
    "import socket, sys\n"
    "with socket.create_connection((sys.argv[1], 80), timeout=3) as sock:\n"
    "    print(sock.recv(100).decode())\n"
)


def address_between(one: Host, other: Host, version: int) -> str:
    """The address of `one` on its cable to `other`."""
    for link in json.loads(one.run(["ip", "-j", "addr", "show", "dev", f"to-{other.name}"])):
        for entry in link["addr_info"]:
            if entry["family"] == {4: "inet", 6: "inet6"}[version] and entry["scope"] == "global":
                return str(entry["local"])
    raise AssertionError(f"{one.name} has no address toward {other.name}")


class World:
    """The machines, and an account on `card` whose default routes lead through it."""

    def __init__(self, net: Net, version: int) -> None:
        self.card_host, self.one, self.two = net.lan("card", "one", "two")
        self.hub_host, self.outside = net.host("hub"), net.host("outside")
        for host in (self.one, self.two, self.hub_host):
            with host.inside():
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
                Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for router in (self.one, self.two):
            net.link(self.hub_host, router)
            for family, bits in ((4, 32), (6, 128)):
                via = address_between(self.hub_host, router, family)
                router.ip(f"-{family} route add {SERVER[family]}/{bits} via {via}")
        net.link(self.hub_host, self.outside)
        for family, bits in ((4, 32), (6, 128)):
            self.hub_host.add_address("lo", f"{SERVER[family]}/{bits}")
            self.outside.ip(f"-{family} route add default via {address_between(self.hub_host, self.outside, family)}")
        self.outside.spawn(["python3", "-c", WHO]).wait_for("listens")
        self.lead_through(self.one)
        self.before = self.state()

        self.hub, self.card = Hub(self.hub_host), Card(self.card_host)
        self.hub.start()
        self.card.join(self.hub.invite("ann", address=SERVER[version]))
        self.account = str(self.card.status()["account"])
        self.own = {family: self.card.address(family) for family in (4, 6)}
        self.card.leave(self.account)
        assert self.state() == self.before
        self.through_the_card()

    def through_the_card(self) -> None:
        """Let the account's default routes lead to the hub's own port on the virtual LAN."""
        path = self.card.config_dir / "card.d" / f"{self.account}.toml"
        document = tomlkit.parse(path.read_text())
        ways = [{"to": "0.0.0.0/0", "via": gateway(self.own[4])}, {"to": "::/0", "via": gateway(self.own[6])}]
        document["interface"]["routes"] = ways
        path.write_text(tomlkit.dumps(document))

    def lead_through(self, router: Host) -> None:
        """Both directions between the card's machine and the hub's take that router."""
        self.card_host.ip(f"route replace default via {router.ipv4}")
        self.card_host.ip(f"-6 route replace default via {router.ipv6}")
        for version, wire in ((4, "10.77.1.0/24"), (6, "fd77:0:0:1::/64")):
            self.hub_host.ip(f"-{version} route replace {wire} via {address_between(router, self.hub_host, version)}")

    def seen_outside(self, version: int) -> str:
        """The address by which `outside` knows the card's machine; waits until it is reached."""
        target = address_between(self.outside, self.hub_host, version)

        def look() -> str:
            return self.card_host.ask(["python3", "-c", ASK, target]).stdout.strip()

        return until(look, seconds=30, what="an answer from outside")

    def state(self) -> list[str]:
        """All that a card might change on its machine."""
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "addr"]
        return [*map(self.card_host.ip, shown)]


@pytest.fixture(scope="module", params=[4, pytest.param(6, marks=pytest.mark.soak)], ids=["outer IPv4", "outer IPv6"])
def machines(request: pytest.FixtureRequest) -> Iterator[World]:
    with Net() as net:
        yield World(net, request.param)


@pytest.fixture
def world(machines: World) -> Iterator[World]:
    """With the card up, in a session of this test's own."""
    machines.card.up(machines.account)
    yield machines
    machines.card.leave_all()
    assert machines.state() == machines.before


def test_traffic_leaves_by_the_hub_and_the_tunnel_outlives_a_change_of_gateway(world: World) -> None:
    for version in (4, 6):
        assert world.seen_outside(version) == world.own[version]
        world.card_host.pings(address_between(world.outside, world.hub_host, version))
    world.card_host.pings(world.two.ipv4)  # the physical neighbours are still there
    before = world.card.status()

    world.lead_through(world.two)
    world.one.ip("link set eth0 down")
    for version in (4, 6):
        assert world.seen_outside(version) == world.own[version]
    # a new connection at once, not after silence; in the same session
    until(lambda: world.card.status()["reconnects"] == 1, seconds=10, what="the new connection")
    after = world.card.status()
    assert after["session"] == before["session"]
    assert after["logins"] == before["logins"] == 1

    world.one.ip("link set eth0 up")
    world.one.add_address("eth0", f"{world.one.ipv6}/64")  # with the link its IPv6 addresses went
    world.lead_through(world.one)
    world.card.leave(world.account)
    assert world.state() == world.before


def test_a_deleted_default_route_comes_back_and_is_logged(world: World) -> None:
    world.card_host.ip("route del default table 75000")
    until(lambda: "default" in world.card_host.ip("route show table 75000"), seconds=10, what="the route coming back")
    until(lambda: "a route had vanished and was put back" in world.card.log(), seconds=10, what="the log saying so")
    assert world.seen_outside(4) == world.own[4]
    world.card.leave(world.account)
    assert world.state() == world.before


def test_after_a_kill_clean_removes_everything(world: World) -> None:
    row = world.card.status()
    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: not world.card_host.has_interface(row["interface"]), seconds=10, what="the interface going")
    assert world.state() != world.before
    assert "removed: " in world.card.run("card", "clean")
    assert world.state() == world.before
    assert world.card.run("card", "clean") == ""
    world.card.up(world.account)
    assert world.seen_outside(4) == world.own[4]
    world.card.leave(world.account)
    assert world.state() == world.before


def test_the_next_start_cleans_after_a_kill(world: World) -> None:
    row = world.card.status()
    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: not world.card_host.has_interface(row["interface"]), seconds=10, what="the interface going")
    assert world.state() != world.before
    world.card.up(world.account)
    assert world.seen_outside(6) == world.own[6]
    world.card.leave(world.account)
    assert world.state() == world.before
