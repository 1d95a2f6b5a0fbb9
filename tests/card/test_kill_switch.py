"""The kill switch on a machine of its own: what leaves it and what not. With a card: tests/netns/test_full_tunnel.py.

card =====(group of cards)===== far
card ------ eth0 -------------- far
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab.net import Net
from lab.wait import until
from ukihashi.card import kill_switch
from ukihashi.card.kill_switch import GROUP, KillSwitch, table_of, table_text
from ukihashi.card.routes import MARK
from ukihashi.config import places
from ukihashi.config.card import Interface
from ukihashi.errors import EnvironmentLacks
from ukihashi.net.dial.direct import SO_MARK
from ukihashi.net.dial.names import KnownAddresses

MAC = "02:00:00:00:00:01"


class Machine:
    """A host with a wire and something that stands for a card."""

    def __init__(self, net: Net) -> None:
        self.host, self.far = net.host("card"), net.host("far")
        net.link(self.far, self.host)  # the wire
        net.link(self.far, net.host("more"))
        self.host.ip(f"route add default via {self.far.ipv4}")
        self.host.ip(f"-6 route add default via {self.far.ipv6}")
        self.before = self.rules()

    def rules(self) -> str:
        return self.host.run(["nft", "list", "ruleset"])

    def sends(self, address: str, *, port: int = 7, mark: int = 0, source: int = 0) -> bool:
        """Does a datagram leave?"""
        version = ip_address(address).version
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            if source:
                sock.bind(("", source))
            try:
                sock.sendto(b"x", (address, port))
            except PermissionError:
                return False
            return True


@pytest.fixture
def machine(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(net)
    monkeypatch.setenv(places.RUNTIME, str(tmp_path))
    with made.host.inside():
        yield made


def settings(*, on: bool = True, allow: list[str] | None = None, name: str = "uklan") -> Interface:
    return Interface(name=name, mac=MAC, kill_switch=on, kill_switch_allow=allow or [])


@pytest.mark.peer("nft")
def test_only_the_tunnels_packets_and_what_a_network_needs_get_out(machine: Machine) -> None:
    switch = KillSwitch("lan")
    for outside in ("203.0.113.1", "2001:db8::1", machine.far.ipv4, machine.far.ipv6):
        assert machine.sends(outside)
    switch.put(settings())
    for outside in ("203.0.113.1", "2001:db8::1", machine.far.ipv4, machine.far.ipv6):
        assert not machine.sends(outside)
        assert machine.sends(outside, mark=MARK)
    assert machine.sends("127.0.0.1")
    assert machine.sends("::1")
    assert machine.sends(machine.far.ipv4, source=68, port=67)
    assert not machine.sends(machine.far.ipv4, source=67, port=68)
    assert machine.sends(machine.far.ipv6, source=546, port=547)
    assert machine.host.ask(["ping", "-n", "-c1", "-W1", machine.far.ipv4]).returncode != 0
    assert (kill_switch.blocked(switch.table) or 0) >= 6
    switch.put(settings(on=False))
    assert machine.sends("203.0.113.1")
    assert machine.rules() == machine.before


@pytest.mark.peer("nft")
def test_neighbours_are_still_found(machine: Machine) -> None:
    def found(address: str) -> bool:
        return "lladdr" in machine.host.ip(f"neigh show {address}")

    switch = KillSwitch("lan")
    switch.put(settings())
    machine.host.ip("neigh flush all")
    for address in (machine.far.ipv4, machine.far.ipv6):
        assert machine.sends(address, mark=MARK)
        until(partial(found, address), seconds=5, what=f"{address} being found")
    switch.end(settings(), holds=False)


@pytest.mark.peer("nft")
def test_a_card_takes_everything_and_named_networks_stay_reachable(machine: Machine) -> None:
    switch = KillSwitch("lan")
    switch.put(settings(allow=["10.77.1.0/24", "fd77:0:0:1::/64"]))
    assert machine.sends(machine.far.ipv4)
    assert machine.sends(machine.far.ipv6)
    assert not machine.sends("203.0.113.1")
    machine.host.ip(f"link set to-far group {GROUP}")
    assert machine.sends("203.0.113.1")
    assert machine.sends("2001:db8::1")
    switch.end(settings(), holds=False)
    assert machine.rules() == machine.before


@pytest.mark.peer("nft")
def test_what_is_passed_on_for_others_is_held_too(machine: Machine) -> None:
    more = machine.host.net.host("behind")
    machine.host.net.link(machine.host, more)
    more.ip(f"route add default via {machine.host.addresses[-2]}")
    machine.far.ip(f"route add {more.ipv4}/32 via {machine.host.ipv4}")
    machine.host.set_sysctl("net/ipv4/ip_forward", "1")
    more.pings(machine.far.ipv4)
    switch = KillSwitch("lan")
    switch.put(settings())
    assert more.ask(["ping", "-n", "-c1", "-W1", machine.far.ipv4]).returncode != 0
    machine.host.ip(f"link set to-far group {GROUP}")
    more.pings(machine.far.ipv4)
    switch.end(settings(), holds=False)


@pytest.mark.peer("nft")
def test_it_outlives_its_card_until_somebody_wants_it_gone(machine: Machine) -> None:
    KillSwitch("lan").put(settings())  # and killed
    successor = KillSwitch("lan")
    assert not machine.sends("203.0.113.1")
    successor.put(settings(allow=["203.0.113.0/24"]))
    assert machine.sends("203.0.113.1")
    assert not machine.sends("198.51.100.1")
    successor.end(settings(), holds=True)  # it failed
    assert not machine.sends("198.51.100.1")
    KillSwitch("lan").end(settings(), holds=False)  # left, though it was never online
    assert machine.rules() == machine.before
    KillSwitch("lan").put(settings())
    assert kill_switch.clean("uklan") == ["ukihashi_kill_uklan"]
    assert kill_switch.clean("uklan") == []
    KillSwitch("lan").put(settings())
    KillSwitch("far").put(settings(name="to-far"))  # an interface that is there
    assert kill_switch.clean_orphans() == ["ukihashi_kill_uklan"]
    assert kill_switch.clean("to-far") == ["ukihashi_kill_to-far"]
    assert machine.rules() == machine.before


@pytest.mark.peer("nft")
def test_somebody_who_flushes_the_filter_lays_nothing_open(machine: Machine) -> None:
    switch = KillSwitch("lan")

    async def scene() -> None:
        keeping = asyncio.create_task(switch.keep())
        await asyncio.sleep(0)
        await asyncio.to_thread(switch.put, settings())
        assert not machine.sends("203.0.113.1")
        for times in (1, 2):
            machine.host.run(["nft", "flush", "ruleset"])
            async with asyncio.timeout(10):
                while switch.row() is None or switch.row()["restored"] < times:  # type: ignore[index]
                    await asyncio.sleep(0.05)
            assert not machine.sends("203.0.113.1")
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    asyncio.run(scene())
    switch.end(settings(), holds=False)
    switch.look()
    assert machine.rules() == machine.before


@pytest.mark.peer("nft")
def test_addresses_that_worked_are_kept_for_the_next_card(machine: Machine) -> None:
    known = KnownAddresses()
    known.worked("hub.example", 443, (socket.AF_INET6, ("2001:db8::1", 443, 0, 0)))
    known.worked("hub.example", 443, (socket.AF_INET, ("192.0.2.1", 443)))
    switch = KillSwitch("lan")
    switch.remember(known.rows())
    assert switch.remembered() == []  # without a kill switch names can be looked up
    switch.put(settings())
    switch.remember(known.rows())
    following = KnownAddresses()
    following.take(KillSwitch("lan").remembered())
    assert following.of("hub.example", 443) == known.of("hub.example", 443)
    switch.end(settings(), holds=False)
    assert switch.remembered() == []
    assert machine.rules() == machine.before


@pytest.mark.netns
def test_without_the_library_the_card_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ukihashi.net.nftables.LIBRARY", "libnone.so")
    with pytest.raises(EnvironmentLacks, match="not installed"):
        KillSwitch("lan").put(settings())
    KillSwitch("lan").put(settings(on=False))
    assert kill_switch.clean_orphans() == []


@pytest.mark.netns
def test_a_machine_without_a_packet_filter_has_cards_without_a_kill_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise EnvironmentLacks("nftables refused: {reason}", reason="Operation not supported")

    monkeypatch.setattr("ukihashi.net.nftables.Nftables.run", refuse)
    switch = KillSwitch("lan")
    switch.put(settings(on=False))
    switch.end(settings(on=False), holds=False)
    with pytest.raises(EnvironmentLacks, match="not supported"):
        switch.put(settings())
    assert switch.row() is None


def test_any_interface_has_a_table_of_its_own() -> None:
    assert table_of("uklan") == "ukihashi_kill_uklan"
    assert table_of("日本") == "ukihashi_kill_xe697a5e69cac"
    assert "ip daddr { 10.0.0.0/8, 192.168.0.0/16 } accept" in table_text("t", ["10.0.0.0/8", "192.168.0.0/16"])
    assert "ip6 daddr" not in table_text("t", ["10.0.0.0/8"])
