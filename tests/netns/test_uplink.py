"""`hub uplink`, as its users have it: members get out through the hub machine, and nothing else opens.

          +-- virtual LAN LAN, OFFICE --+        +-- one: where the default routes lead
card == hub machine                     == hub ==+
          +-- wire ---------------------+        +-- two
"""

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path

import pytest
from tests.netns.test_default_route import WHO, address_between

from lab.net import Host, Net
from lab.ukihashi import Card, Hub, gateway
from lab.wait import TimeOver, until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("nft"), pytest.mark.timeout(240)]

ASK = (
    "import socket, sys\n"
    "with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as sock:\n"
    "    print(sock.recv(100).decode())\n"
)
CONNECT = "import socket, sys\nsocket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()\n"
TALK = (  # a connection that says something every 50 ms, and dies of the first thing that is not answered
    "import socket, sys, time\n"
    "with socket.create_connection((sys.argv[1], 81), timeout=20) as sock:\n"
    "    print('talks', flush=True)\n"
    "    for number in range(100000):\n"
    "        sock.sendall(b'%6d' % number)\n"
    "        assert sock.recv(6, socket.MSG_WAITALL) == b'%6d' % number\n"
    "        print('said', number, flush=True)\n"
    "        time.sleep(0.05)\n"
)
ECHO = (
    "import socket\n"
    "server = socket.create_server(('::', 81), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "print('listens', flush=True)\n"
    "peer, _ = server.accept()\n"
    "while data := peer.recv(1000):\n"
    "    peer.sendall(data)\n"
)
BITS = {4: 32, 6: 128}


def read(path: Path) -> str:
    """A switch; of an interface that goes just now, nothing."""
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


class World:
    """The machines, the hub with two virtual hubs, and a member of each on `card`."""

    def __init__(self, net: Net) -> None:
        self.machine, self.card_host = net.host("hub"), net.host("card")
        net.link(self.machine, self.card_host)
        self.one, self.two = net.host("one"), net.host("two")
        for outside in (self.one, self.two):
            net.link(self.machine, outside)
            outside.spawn(["python3", "-c", WHO]).wait_for("listens")
        for family in (4, 6):
            via = address_between(self.one, self.machine, family)
            self.machine.ip(f"-{family} route add default via {via}")
        self.machine.spawn(["python3", "-c", WHO]).wait_for("listens")  # a service of the hub machine's own
        self.before = self.state()
        self.hub, self.cards = Hub(self.machine), {name: Card(self.card_host, name) for name in ("LAN", "OFFICE")}
        self.hub.start()
        self.hub.run("hub", "create", "OFFICE")
        self.own: dict[str, dict[int, str]] = {}
        self.interfaces: dict[str, str] = {}
        for name, card in self.cards.items():
            card.join(self.hub.invite("ann", hub=name))
            row = card.status()
            own = [ip_interface(address).ip for address in row["addresses"]]
            self.own[name] = {address.version: str(address) for address in own}
            self.interfaces[name] = str(row["interface"])

    def state(self) -> tuple[str, ...]:
        """All that the way out might change on the hub's machine."""
        names = ("forwarding", "force_forwarding", "accept_ra")
        with self.machine.inside():
            paths = [path for one in names for path in Path("/proc/sys/net").glob(f"ipv[46]/conf/*/{one}")]
            switches = [f"{path} {read(path)}" for path in sorted(paths)]
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "-d addr"]
        return (self.machine.run(["nft", "list", "ruleset"]), *switches, *map(self.machine.ip, shown))

    def is_as_before(self) -> None:
        """The interfaces of a process that has ended may still be going."""
        with suppress(TimeOver):
            until(lambda: self.state() == self.before, seconds=5, what="the last interface going")
        assert self.state() == self.before

    def lead(self, name: str, outside: Host, *, port: int = 80, address: str = "", family: int = 4) -> str:
        """Which address `outside` sees when a member asks it; "" if there is no answer. The way is put for it alone."""
        target = address or address_between(outside, self.machine, family)
        interface, via = self.interfaces[name], gateway(self.own[name][family])
        self.card_host.ip(f"-{family} route replace {target}/{BITS[family]} via {via} dev {interface}")
        answer = self.card_host.ask(["python3", "-c", ASK, target, str(port), "0.7"])
        self.card_host.ip(f"-{family} route del {target}/{BITS[family]} via {via} dev {interface}")
        return answer.stdout.strip()

    def uplink(self, *words: str) -> str:
        return self.hub.run("hub", "uplink", *words)

    def rows(self) -> dict[str, dict[str, object]]:
        return {row["hub"]: row for row in self.hub.tell("uplinks")}

    def seen_as(self, outside: Host, family: int) -> str:
        """The hub machine's own address there."""
        return address_between(self.machine, outside, family)


@pytest.fixture(scope="module")
def machines() -> Iterator[World]:
    with Net() as net:
        yield World(net)


@pytest.fixture
def world(machines: World) -> Iterator[World]:
    """With no way out yet."""
    yield machines
    for name in list(machines.rows()):
        machines.uplink(name, "--remove")


def test_members_get_out_by_the_default_routes_and_no_more_when_it_is_removed(world: World) -> None:
    assert world.lead("LAN", world.one) == ""
    told = world.uplink("lan")
    assert "to-one" in told
    for family in (4, 6):
        assert world.lead("LAN", world.one, family=family) == world.seen_as(world.one, family)
        assert world.lead("LAN", world.two, family=family) == ""  # not where the default routes lead
    assert world.rows()["LAN"]["connections"] == 2
    assert 'uplink = ["LAN"]' in (world.hub.config_dir / "hub.toml").read_text()
    world.uplink("LAN", "--remove")
    assert world.lead("LAN", world.one) == ""
    assert world.machine.run(["nft", "list", "ruleset"]) == ""
    assert json.loads(world.machine.run(["sysctl", "-n", "net.ipv4.ip_forward"])) == 0


def test_each_virtual_hub_has_its_own_way_and_gets_a_host_port_if_it_has_none(world: World) -> None:
    world.uplink("LAN")
    assert "to-two" in world.uplink("OFFICE", "--to", "to-two")
    world.card_host.pings(gateway(world.own["OFFICE"][4]))  # the port that was made
    for family in (4, 6):
        assert world.lead("OFFICE", world.two, family=family) == world.seen_as(world.two, family)
        assert world.lead("OFFICE", world.one, family=family) == ""
        assert world.lead("LAN", world.one, family=family) == world.seen_as(world.one, family)
    world.uplink("OFFICE", "--to", "to-two", "--to", "to-one")
    assert world.lead("OFFICE", world.one) == world.seen_as(world.one, 4)
    assert world.lead("OFFICE", world.two) == world.seen_as(world.two, 4)


def test_nothing_else_opens(world: World) -> None:
    world.uplink("LAN")
    world.uplink("OFFICE")
    outer = world.seen_as(world.one, 4)
    office = gateway(world.own["OFFICE"][4])
    assert world.lead("LAN", world.one, address=outer) == ""  # a service of the hub's machine, at another address
    assert world.lead("LAN", world.one, address=office) == ""
    assert world.lead("LAN", world.one, address=world.own["OFFICE"][4]) == ""  # a member of the other virtual hub
    assert world.lead("LAN", world.one, address=world.seen_as(world.one, 6), family=6) == ""
    # the hub itself may be reached wherever it listens
    world.card_host.ip(f"route add {outer}/32 via {gateway(world.own['LAN'][4])}")
    world.card_host.run(["python3", "-c", CONNECT, outer, "443"])
    assert world.card_host.ask(["python3", "-c", CONNECT, outer, "80"]).returncode != 0
    world.card_host.pings(outer)
    world.card_host.ip(f"route del {outer}/32")
    # neither members nor anybody else behind this machine can be reached from outside, as a router would let one
    for family, wire in ((4, world.own["LAN"][4]), (6, world.own["LAN"][6])):
        world.one.ip(f"-{family} route add {wire}/{BITS[family]} via {world.seen_as(world.one, family)}")
        assert world.one.ask(["ping", "-n", "-c1", "-W1", wire]).returncode != 0
        far = address_between(world.two, world.machine, family)
        world.one.ip(f"-{family} route add {far}/{BITS[family]} via {world.seen_as(world.one, family)}")
        world.two.ip(f"-{family} route add default via {world.seen_as(world.two, family)}")
        assert world.one.ask(["ping", "-n", "-c1", "-W1", far]).returncode != 0
        world.one.ip(f"-{family} route del {wire}/{BITS[family]}")
        world.one.ip(f"-{family} route del {far}/{BITS[family]}")
        world.two.ip(f"-{family} route del default")


def test_it_is_offered_to_members_who_take_offers_in_both_versions_of_ip(world: World) -> None:
    world.uplink("LAN")
    card, before = world.cards["LAN"], sorted(world.card_host.ip("route show table all").split())
    account = str(card.status()["account"])
    card.leave(account)
    card.configure(account, {"interface": {"dhcp": "auto", "accept": ["default"]}})
    card.up(account)
    for family in (4, 6):
        target = address_between(world.one, world.machine, family)

        def seen(target: str = target) -> str:
            return world.card_host.ask(["python3", "-c", ASK, target, "80", "1.5"]).stdout.strip()

        assert until(seen, seconds=20, what=f"IPv{family} by the hub") == world.seen_as(world.one, family)
    card.leave(account)
    card.configure(account, {"interface": {"dhcp": "off", "accept": []}})
    card.up(account)
    assert sorted(world.card_host.ip("route show table all").split()) == before


def test_a_table_of_somebody_else_that_drops_is_named(world: World) -> None:
    world.machine.run(
        ["nft", "add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }"]
    )
    done = world.hub.ask("hub", "uplink", "LAN")
    assert "inet wall f" in done.stderr
    assert world.lead("LAN", world.one) == ""
    until(lambda: "inet wall f" in world.hub.output, seconds=5, what="the log saying so")
    world.machine.run(["nft", "delete", "table", "inet", "wall"])
    assert world.lead("LAN", world.one) == world.seen_as(world.one, 4)


def test_an_upgrade_keeps_connections_and_an_end_and_a_kill_leave_nothing(world: World) -> None:
    world.uplink("LAN")
    target = address_between(world.one, world.machine, 4)
    world.card_host.ip(f"route add {target}/32 via {gateway(world.own['LAN'][4])}")
    world.one.spawn(["python3", "-c", ECHO]).wait_for("listens")
    talk = world.card_host.spawn(["python3", "-c", TALK, target], log="talk")
    talk.wait_for("talks")
    before = world.machine.run(["nft", "list", "ruleset"])
    world.hub.run("hub", "upgrade", timeout_s=90)
    after = world.machine.run(["nft", "list", "ruleset"])
    assert "masquerade" in after
    assert after != before  # the successor's own table
    said = talk.output().count("said")
    until(lambda: talk.output().count("said") > said + 5, seconds=20, what="the connection going on")
    assert talk.running
    talk.stop()
    world.card_host.ip(f"route del {target}/32")

    for card in world.cards.values():
        card.leave_all()
    world.hub.stop()
    world.is_as_before()
    world.hub.start()
    until(lambda: world.rows()["LAN"]["state"] == "on", seconds=10, what="the way out coming back")
    assert world.hub.process is not None
    world.hub.process.stop(signal.SIGKILL)
    until(lambda: not world.machine.has_interface("uklan"), seconds=10, what="the host port going")
    assert world.machine.run(["nft", "list", "ruleset"]) == ""
    assert world.state() != world.before
    world.hub.configure({"uplink": []})
    world.hub.start()
    world.hub.stop()
    world.is_as_before()
    world.hub.start()
