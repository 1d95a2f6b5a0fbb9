"""Packets really go where routes and marks say: a card's machine with two ways out and a TAP that nobody reads but us.

          +-- one --+
card -----+ (wire)  +-- both hold the address FAR, so whoever answers tells which way the packet went
          +-- two --+
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from lab.net import Host, Net
from ukihashi.card.lan import Lan
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, Route
from ukihashi.errors import DialError
from ukihashi.net.dial import direct
from ukihashi.net.route_watch import RouteWatch
from ukihashi.tap import reverse_path
from ukihashi.tap.device import Tap, open_tap

pytestmark = pytest.mark.netns

FAR = {4: "203.0.113.9", 6: "2001:db8:9::9"}
PORT = 443
GATEWAYS = {4: "10.9.0.1", 6: "fd09::1"}
GREET = (
    "import socket, sys, threading\n"
    "server = socket.create_server(('::', 443), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "print('listens', flush=True)\n"
    "kept = []\n"
    "while True:\n"
    "    peer, _ = server.accept()\n"
    "    peer.sendall(sys.argv[1].encode())\n"
    "    kept.append(peer)\n"
)


class World:
    def __init__(self, net: Net) -> None:
        self.card, self.one, self.two = net.lan("card", "one", "two")
        for host in (self.one, self.two):
            for version, bits in ((4, 32), (6, 128)):
                host.add_address("lo", f"{FAR[version]}/{bits}")
            host.spawn(["python3", "-c", GREET, host.name]).wait_for("listens")
        self.lead_to(self.one)

    def lead_to(self, host: Host) -> None:
        """The physical default routes, as a DHCP client or a router's advertisement would replace them."""
        self.card.ip(f"route replace default via {host.ipv4}")
        self.card.ip(f"-6 route replace default via {host.ipv6}")

    def answers(self, version: int, mark: int) -> str:
        """Who answers a connection with that mark."""
        with self.card.inside():
            sock = asyncio.run(direct.dial(FAR[version], PORT, deadline=10, mark=mark))
        with sock:
            sock.settimeout(10)
            return sock.recv(10).decode()

    def state(self) -> list[str]:
        """All that a card might change."""
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "addr"]
        with self.card.inside():
            return [*map(self.card.ip, shown), str([reverse_path.read(name) for name in ("all", "eth0")])]


@pytest.fixture
def world(net: Net, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv(places.RUNTIME, str(tmp_path_factory.mktemp("run")))
    return World(net)


@contextlib.contextmanager
def carded(world: World) -> Iterator[tuple[Lan, Tap]]:
    """The machine with a card that takes the default routes; afterwards exactly as it was."""
    before = world.state()
    interface = Interface(
        name="uklan", mac="02:00:00:00:00:02", addresses=["10.9.0.2/24", "fd09::2/64"],
        routes=[Route(to="0.0.0.0/0", via=GATEWAYS[4]), Route(to="::/0", via=GATEWAYS[6])],
    )  # fmt: skip
    lan = Lan("lan", CardConfig(hub=Hub(host="hub.example", hub="LAN", user="alice"), interface=interface))
    with world.card.inside():
        tap = open_tap("uklan")
        try:
            lan.set_up("uklan")
            for gateway in GATEWAYS.values():  # nobody answers for it on this virtual LAN
                world.card.ip(f"neigh replace {gateway} lladdr 02:00:00:00:00:01 dev uklan nud permanent")
            yield lan, tap
        finally:
            assert lan.undo() == []
            tap.close()
    assert world.state() == before


def arrive(tap: Tap, version: int, address: str) -> None:
    """Wait until a packet to the address comes out of the TAP."""
    packed = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, address)
    at = 38 if version == 6 else 30  # of the destination in an Ethernet frame
    deadline = time.monotonic() + 10
    while not any(frame[at : at + len(packed)] == packed for frame in tap.read_frames()):
        assert time.monotonic() < deadline, f"nothing for {address} came to the card"
        time.sleep(0.01)


def say_something(world: World, version: int) -> None:
    with (
        world.card.inside(),
        socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.sendto(b"unmarked", (FAR[version], 9))


@pytest.mark.parametrize("version", [4, 6])
def test_the_card_gets_everything_but_what_carries_the_tunnel(world: World, version: int) -> None:
    assert world.answers(version, 0) == "one"
    with carded(world) as (lan, tap):
        assert world.answers(version, lan.mark) == "one"
        say_something(world, version)
        arrive(tap, version, FAR[version])
        with pytest.raises(DialError), world.card.inside():  # unmarked, it ends in the TAP
            asyncio.run(direct.dial(FAR[version], PORT, deadline=0.5))
        world.card.pings(world.one.ipv4 if version == 4 else world.one.ipv6)  # the physical neighbours
        world.lead_to(world.two)  # the physical gateway is replaced
        assert world.answers(version, lan.mark) == "two"
        say_something(world, version)
        arrive(tap, version, FAR[version])
        world.lead_to(world.one)
    assert world.answers(version, 0) == "one"


@pytest.mark.parametrize("where", ["all", "eth0"])
def test_answers_pass_a_strict_reverse_path_check(world: World, where: str) -> None:
    with world.card.inside():
        reverse_path.write(where, reverse_path.STRICT)
    with carded(world) as (lan, _tap):
        assert world.answers(4, lan.mark) == "one"
        with world.card.inside():  # as it would be without us
            reverse_path.write("all", reverse_path.STRICT)
            reverse_path.write("eth0", reverse_path.STRICT)
            with pytest.raises(DialError):
                asyncio.run(direct.dial(FAR[4], PORT, deadline=0.5, mark=lan.mark))
            reverse_path.write("all", reverse_path.STRICT if where == "all" else 0)
            reverse_path.write("eth0", reverse_path.LOOSE)


@pytest.mark.parametrize("version", [4, 6])
def test_a_running_connection_is_told_of_another_gateway_and_of_nothing_else(world: World, version: int) -> None:
    async def scenario(lan: Lan) -> DialError:
        with await direct.dial(FAR[version], PORT, deadline=10, mark=lan.mark) as sock:
            watch = asyncio.create_task(RouteWatch.of(sock, lan.mark).changed())
            await asyncio.sleep(0.2)
            for command in ("addr add 10.9.7.7/24 dev uklan", "route add 10.44.0.0/16 via 10.9.0.1 dev uklan"):
                await asyncio.to_thread(world.card.ip, command)
            await asyncio.sleep(0.4)
            assert not watch.done()
            await asyncio.to_thread(world.lead_to, world.two)
            async with asyncio.timeout(10):
                return await watch

    with carded(world) as (lan, _tap):
        reason = asyncio.run(scenario(lan))
        old, new = (host.ipv4 if version == 4 else host.ipv6 for host in (world.one, world.two))
        assert str(reason) == f"the way to {FAR[version]} has changed from eth0 {old} to eth0 {new}"
        world.card.ip("route del 10.44.0.0/16")
        world.lead_to(world.one)


def test_the_state_that_is_compared_is_all_of_it(world: World) -> None:
    """The comparison above can fail."""
    before = world.state()
    world.card.ip("rule add priority 31000 lookup main suppress_prefixlength 0")
    assert world.state() != before
    world.card.ip("rule del priority 31000")
    assert world.state() == before
