"""A full tunnel with the kill switch: all that leaves a machine goes by the hub, whatever happens to the tunnel.

            eth0 +-- one --+
    card ========+         +== hub == outside            the way from the hub outside is `hub uplink`
         to-two  +-- two --+

What is captured on the card's wires is everything it sent there.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface
from pathlib import Path

import pytest
from tests.netns.test_default_route import ASK, SERVER, WHO, address_between

from lab.capture import Capture
from lab.net import Host, Net, run
from lab.ukihashi import FAST_CARD, Card, Hub, gateway
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("nft", "tcpdump"), pytest.mark.timeout(240)]

WIRES = ("eth0", "to-two")
CHATTER = (  # what a busy machine says all the time: names, pages, pings, greetings to the neighbourhood
    "import itertools, socket, sys, time\n"
    "targets = sys.argv[1:]\n"
    "begun = []\n"
    "print('chats', flush=True)\n"
    "for number in itertools.count():\n"
    "    for target in targets:\n"
    "        family = socket.AF_INET6 if ':' in target else socket.AF_INET\n"
    "        icmp = socket.IPPROTO_ICMPV6 if ':' in target else socket.IPPROTO_ICMP\n"
    "        echo = bytes([128 if ':' in target else 8, 0, 0, 0, 0, 1, 0, number % 256])\n"
    "        for kind, protocol, port, data in (\n"
    "            (socket.SOCK_DGRAM, 0, 53, b'name'), (socket.SOCK_DGRAM, 0, 5353, b'name'),\n"
    "            (socket.SOCK_DGRAM, 0, 443, b'quic'), (socket.SOCK_DGRAM, icmp, 0, echo),\n"
    "        ):\n"
    "            try:\n"
    "                with socket.socket(family, kind, protocol) as sock:\n"
    "                    sock.sendto(data, (target, port))\n"
    "            except OSError:\n"
    "                pass\n"
    "        sock = socket.socket(family)\n"
    "        sock.setblocking(False)\n"
    "        sock.connect_ex((target, 80))\n"
    "        begun.append(sock)\n"
    "        if len(begun) > 50:\n"
    "            begun.pop(0).close()\n"
    "    print('round', number, flush=True)\n"
    "    time.sleep(0.05)\n"
)
# what may be seen of the card's machine: TLS to the hub, and what finds neighbours
EXPECTED = (
    "arp or (tcp and port 443 and host {server}) or (icmp6 and ip6[40] >= 133 and ip6[40] <= 136)"
    " or (ip6 and dst host ff02::16)"
)


class World:
    """The machines, and an account on `card` whose default routes lead through it."""

    def __init__(self, net: Net, version: int) -> None:
        self.version = version
        self.card_host, self.one = net.lan("card", "one")
        self.two, self.machine, self.outside = net.host("two"), net.host("hub"), net.host("outside")
        net.link(self.two, self.card_host)
        net.link(self.machine, self.outside)
        for router in (self.one, self.two):
            router.set_sysctl("net/ipv4/ip_forward", "1")
            router.set_sysctl("net/ipv6/conf/all/forwarding", "1")
            net.link(self.machine, router)
            for family, bits in ((4, 32), (6, 128)):
                via = address_between(self.machine, router, family)
                router.ip(f"-{family} route add {SERVER[family]}/{bits} via {via}")
                self.machine.add_address("lo", f"{SERVER[family]}/{bits}")
        for family in (4, 6):
            self.machine.ip(f"-{family} route add default via {address_between(self.outside, self.machine, family)}")
            for router in (self.one, self.two):
                near = ip_interface(f"{self.card_address(router, family)}/{24 if family == 4 else 64}").network
                self.machine.ip(f"-{family} route add {near} via {address_between(router, self.machine, family)}")
        self.outside.spawn(["python3", "-c", WHO]).wait_for("listens")
        self.lead_by(self.one)
        self.before = self.state()

        self.hub, self.card = Hub(self.machine), Card(self.card_host)
        self.hub.start()
        self.hub.run("hub", "uplink", "LAN")
        self.card.join(self.hub.invite("ann", address=SERVER[version]))
        self.account = str(self.card.status()["account"])
        self.own = {family: self.card.address(family) for family in (4, 6)}
        self.card.leave(self.account)
        assert self.state() == self.before
        ways = [{"to": "0.0.0.0/0", "via": gateway(self.own[4])}, {"to": "::/0", "via": gateway(self.own[6])}]
        self.configure(routes=ways)
        self.card.configure(self.account, FAST_CARD)

    def card_address(self, router: Host, family: int) -> str:
        """The card's machine's own on the wire toward a router."""
        at = 0 if router is self.one else 2
        return self.card_host.addresses[at + (family == 6)]

    def configure(self, **settings: object) -> None:
        self.card.configure(self.account, {"interface": settings})

    def lead_by(self, router: Host) -> None:
        """The physical default routes of the card's machine."""
        near = {self.one: "eth0", self.two: "to-two"}[router]
        for family, address in ((4, router.ipv4), (6, router.ipv6)):
            self.card_host.ip(f"-{family} route replace default via {address} dev {near}")

    def state(self) -> tuple[str, ...]:
        """All that a card might change on its machine."""
        switches = ("rp_filter", "accept_ra", "forwarding", "disable_ipv6")
        with self.card_host.inside():
            paths = sorted(path for one in switches for path in Path("/proc/sys/net").glob(f"ipv[46]/conf/*/{one}"))
            told = [f"{path} {path.read_text()}" for path in paths]
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "-d addr"]
        return (self.card_host.run(["nft", "list", "ruleset"]), *told, *map(self.card_host.ip, shown))

    def seen_outside(self, family: int) -> str:
        """The address by which `outside` knows the card's machine; waits until it is reached."""
        target = address_between(self.outside, self.machine, family)

        def look() -> str:
            return self.card_host.ask(["python3", "-c", ASK, target]).stdout.strip()

        return until(look, seconds=30, what="an answer from outside")

    @property
    def targets(self) -> list[str]:
        """Whom a chattering machine talks to: far and near, and the hub's machine itself."""
        far = [address_between(self.outside, self.machine, family) for family in (4, 6)]
        near = [self.one.ipv4, self.one.ipv6, self.two.ipv4, "224.0.0.251"]
        return [*far, *near, "203.0.113.9", "2001:db8:9::9", address_between(self.machine, self.one, 4)]

    @contextmanager
    def chatter(self) -> Iterator["Chatter"]:
        """Talk all the time; the captures of all wires, complete at the end of the block."""
        with ExitStack() as stack:
            captures = [stack.enter_context(Capture(self.card_host, wire)) for wire in WIRES]
            process = self.card_host.spawn(["python3", "-c", CHATTER, *self.targets], log="chatter")
            process.wait_for("chats")
            chatter = Chatter(self, captures)
            yield chatter
            until(lambda: process.output().count("round") >= 20, seconds=30, what="enough being said")
            assert process.running
            process.stop()

    def mac(self, wire: str) -> str:
        return self.card_host.run(["cat", f"/sys/class/net/{wire}/address"]).strip()


class Chatter:
    """What was captured."""

    def __init__(self, world: World, captures: list[Capture]) -> None:
        self._world, self._captures = world, captures
        self._macs = [world.mac(wire) for wire in WIRES]

    def leaks(self) -> list[str]:
        """What left the card's machine and should not have; ask after the end."""
        return self._lines(f"not ({EXPECTED.format(server=SERVER[self._world.version])})")

    def tls(self) -> list[str]:
        """What carried the tunnel."""
        return self._lines(f"tcp and dst port 443 and dst host {SERVER[self._world.version]}")

    def _lines(self, expression: str) -> list[str]:
        found = []
        for capture, mac in zip(self._captures, self._macs, strict=True):
            wanted = f"ether src {mac} and ({expression})"
            found += run(["tcpdump", "-nn", "-r", str(capture.path), wanted]).splitlines()
        return found


@pytest.fixture(scope="module", params=[4, pytest.param(6, marks=pytest.mark.soak)], ids=["outer IPv4", "outer IPv6"])
def machines(request: pytest.FixtureRequest) -> Iterator[World]:
    with Net() as net:
        yield World(net, request.param)


@pytest.fixture
def world(machines: World) -> Iterator[World]:
    yield machines
    machines.card.leave_all()
    machines.card.run("card", "clean")
    assert machines.state() == machines.before


def test_nothing_leaks_in_a_cut_nor_at_a_change_of_gateway_or_of_interface(world: World) -> None:
    world.configure(kill_switch=True)
    world.card.up(world.account)
    for family in (4, 6):
        assert world.seen_outside(family) == address_between(world.machine, world.outside, family)
    first = world.card.status()
    assert first["lan"]["kill_switch"]["table"] == "ukihashi_kill_uklan"
    assert "stopped" in world.card.run("card", "status", world.account)

    with world.chatter() as chatter:
        until(lambda: world.card.status()["lan"]["kill_switch"]["blocked"] > 10, seconds=20, what="packets held back")
        version = world.version
        to_hub = f"{SERVER[version]}/{32 if version == 4 else 128}"
        world.one.ip(f"-{version} route replace blackhole {to_hub}")  # a cut that nobody tells of
        until(lambda: world.card.status()["state"] == "reconnecting", seconds=20, what="the cut being noticed")
        until(lambda: world.card.status()["cut_s"] > 2, seconds=20, what="redials")
        world.one.ip(f"-{version} route replace {to_hub} via {address_between(world.machine, world.one, version)}")
        until(lambda: world.card.status()["state"] == "online", seconds=20, what="the tunnel coming back")
        assert world.seen_outside(4)
        resumed = world.card.status()["reconnects"]

        world.lead_by(world.two)  # another gateway on another wire, and the old one is gone
        world.card_host.ip("link set eth0 down")
        until(lambda: world.card.status()["reconnects"] > resumed, seconds=20, what="the tunnel on the other wire")
        for family in (4, 6):
            assert world.seen_outside(family) == address_between(world.machine, world.outside, family)
    assert chatter.leaks() == []
    assert len(chatter.tls()) > 20
    last = world.card.status()
    assert last["session"] == first["session"]
    assert last["logins"] == 1

    world.card_host.ip("link set eth0 up")
    world.card_host.add_address("eth0", f"{world.card_host.ipv6}/64")  # with the link its IPv6 addresses went
    world.lead_by(world.one)
    world.card.leave(world.account)
    # what the wire did comes back in another order
    assert [sorted(one.splitlines()) for one in world.state()] == [sorted(one.splitlines()) for one in world.before]
    world.before = world.state()


def test_a_killed_card_leaves_the_door_shut_until_somebody_opens_it(world: World) -> None:
    world.configure(kill_switch=True)
    world.card.up(world.account)
    with world.chatter() as chatter:
        kill(world)
        assert "ukihashi_kill_uklan" in world.card_host.run(["nft", "list", "ruleset"])
        world.card.up(world.account)  # the next card takes over what stands
        assert world.seen_outside(4) == address_between(world.machine, world.outside, 4)
        kill(world)
    assert chatter.leaks() == []
    told = world.card.run("card", "clean", world.account)
    assert "removed: nftables table inet ukihashi_kill_uklan" in told
    assert world.state() == world.before
    assert world.card.run("card", "clean") == ""


def test_without_the_kill_switch_it_leaks_so_the_captures_see_it(world: World) -> None:
    world.configure(kill_switch=False)
    world.card.up(world.account)
    with world.chatter() as chatter:
        kill(world)
        until(
            lambda: world.card_host.ask(["ping", "-n", "-c1", "-W1", world.one.ipv4]).returncode == 0,
            seconds=10,
            what="a ping",
        )
    assert any("203.0.113.9.53: " in line for line in chatter.leaks())
    assert any("2001:db8:9::9.53: " in line for line in chatter.leaks())


def test_the_switch_is_thrown_while_the_card_is_up(world: World) -> None:
    world.configure(kill_switch=False)
    world.card.up(world.account)
    world.card_host.pings(world.one.ipv4)
    world.card.run("card", "set", world.account, "interface.kill_switch", "true")
    assert world.card_host.ask(["ping", "-n", "-c1", "-W1", world.one.ipv4]).returncode != 0
    assert world.seen_outside(4) == address_between(world.machine, world.outside, 4)
    world.card.run("card", "set", world.account, "interface.kill_switch_allow", f"{world.one.ipv4}/32")
    world.card_host.pings(world.one.ipv4)
    world.card_host.run(["nft", "flush", "ruleset"])
    until(lambda: world.card.status()["lan"]["kill_switch"]["restored"] == 1, seconds=10, what="it being put back")
    world.card.run("card", "set", world.account, "interface.kill_switch", "false")
    assert world.card_host.run(["nft", "list", "ruleset"]) == ""
    assert world.card.status()["logins"] == 1
    world.card.run("card", "unset", world.account, "interface.kill_switch_allow")


def kill(world: World) -> None:
    """The card's first process, so that nobody undoes anything."""
    row = world.card.status()
    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: not world.card_host.has_interface(row["interface"]), seconds=10, what="the interface going")
