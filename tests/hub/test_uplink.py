"""The way out, on a machine of its own: rules and switches come, follow the routes, and leave nothing behind.

The whole of it, with members, is in tests/netns/test_uplink.py.
"""

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.net import Host, Net
from lab.wait import until
from ukihashi.errors import UkihashiError
from ukihashi.ether import ndp
from ukihashi.hub.uplink import JOURNAL, Line, Place, Uplinks, table_text
from ukihashi.tap import forwarding

pytestmark = [pytest.mark.peer("nft")]

LAN = Place("lan", "uklan", ("10.9.1.1/24", "fd09:1::1/64"))
OFFICE = Place("office", "ukoffice", ("10.9.2.1/24", "fd09:2::1/64"))
ANY: frozenset[str] = frozenset()


class Machine:
    """A host with two ways out and two host ports, and the uplinks of a hub on it."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.told: list[str] = []
        self.poll = select.poll()
        for name in ("eth0", "eth1", "uklan", "ukoffice"):
            host.ip(f"link add {name} type veth peer name {name}-peer")
            host.ip(f"link set {name} up")
            host.ip(f"link set {name}-peer up")
        host.add_address("eth0", "192.0.2.2/24")
        host.add_address("eth0", "2001:db8::2/64")
        host.add_address("eth1", "198.51.100.2/24")
        host.ip("route add default via 192.0.2.1")
        host.ip("-6 route add default via 2001:db8::1")
        self.before = self.state()

    def uplinks(self) -> Uplinks:
        return Uplinks(self.folder, self.poll, lambda: [("0.0.0.0", 443)], lambda error: self.told.append(str(error)))

    def state(self) -> tuple[str, dict[str, str]]:
        """All that is touched: the packet filter and every switch of IP."""
        with self.host.inside():
            paths = [path for path in forwarding.PROC.glob("ipv[46]/conf/*/*") if path.stat().st_mode & 0o400]
            paths = [path for path in paths if "secret" not in path.name]
            return self.rules(), {str(path): path.read_text() for path in [*paths, forwarding.PROC / "ipv4/ip_forward"]}

    def rules(self) -> str:
        return self.host.run(["nft", "list", "ruleset"])

    def switches(self, *keys: str) -> list[str]:
        return [forwarding.read(key) for key in keys]


@pytest.fixture
def machine(net: Net, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(net.host("hub"), tmp_path)
    with made.host.inside():
        yield made


def test_on_and_off_leave_nothing(machine: Machine) -> None:
    uplinks = machine.uplinks()
    uplinks.open({"lan": ANY})
    assert machine.rules() == ""  # there is no host port yet
    assert [row["state"] for row in uplinks.rows()] == ["no host port"]
    uplinks.put_places([LAN, OFFICE])
    rules = machine.rules()
    assert 'ip saddr 10.9.1.0/24 oifname "eth0" counter name "c0" masquerade' in rules
    assert 'ip6 saddr fd09:1::/64 oifname "eth0" counter name "c0" masquerade' in rules
    assert "ukoffice" not in rules
    assert machine.switches("ipv4/conf/eth0/forwarding", "ipv4/conf/uklan/forwarding") == ["1", "1"]
    assert machine.switches("ipv4/conf/eth1/forwarding", "ipv4/conf/ukoffice/forwarding") == ["0", "0"]
    assert machine.switches("ipv4/ip_forward", "ipv6/conf/all/forwarding") == ["0", "0"]
    assert machine.switches("ipv6/conf/uklan/forwarding", "ipv6/conf/eth0/forwarding") == ["1", "0"]
    assert [(row["state"], row["ipv4"], row["ipv6"]) for row in uplinks.rows()] == [("on", ["eth0"], ["eth0"])]

    uplinks.want({"office": frozenset({"eth1"}), "lan": ANY})
    rules = machine.rules()
    assert 'ip saddr 10.9.2.0/24 oifname "eth1"' in rules
    assert 'ip saddr 10.9.1.0/24 oifname "eth0"' in rules
    uplinks.want({"office": frozenset({"eth1"})})
    assert "uklan" not in machine.rules()
    assert machine.switches("ipv4/conf/eth0/forwarding", "ipv4/conf/eth1/forwarding") == ["0", "1"]
    uplinks.want({})
    assert machine.state() == machine.before
    assert not (machine.folder / JOURNAL).exists()
    assert machine.told == []
    uplinks.close()


def test_the_end_and_a_kill_leave_nothing(machine: Machine) -> None:
    uplinks = machine.uplinks()
    uplinks.open({"lan": ANY})
    uplinks.put_places([LAN])
    uplinks.close()
    assert machine.state() == machine.before

    killed = machine.uplinks()
    killed.open({"lan": ANY})
    killed.put_places([LAN])
    killed.forget()  # as the kernel does it with its sockets
    assert machine.rules() == ""
    assert machine.state() != machine.before
    following = machine.uplinks()
    following.open({})
    assert machine.state() == machine.before
    following.close()


def test_what_somebody_else_changed_meanwhile_is_left_alone(machine: Machine) -> None:
    forwarding.write("ipv4/conf/eth1/forwarding", "1")
    uplinks = machine.uplinks()
    uplinks.open({"lan": frozenset({"eth0", "eth1"})})
    uplinks.put_places([LAN])
    forwarding.write("ipv4/ip_forward", "1")  # for all
    uplinks.close()
    assert machine.switches("ipv4/conf/eth0/forwarding", "ipv4/conf/eth1/forwarding") == ["1", "1"]


def test_the_way_out_follows_the_default_route(machine: Machine) -> None:
    uplinks = machine.uplinks()
    uplinks.open({"lan": ANY})
    uplinks.put_places([LAN])
    machine.host.ip("route replace default via 198.51.100.1 dev eth1")
    watch(machine, uplinks, lambda: 'saddr 10.9.1.0/24 oifname "eth1"' in machine.rules())
    assert 'ip6 saddr fd09:1::/64 oifname "eth0"' in machine.rules()
    assert machine.switches("ipv4/conf/eth1/forwarding") == ["1"]
    machine.host.ip("route del default")
    machine.host.ip("-6 route del default")
    watch(machine, uplinks, lambda: uplinks.rows()[0]["state"] == "no way out")
    assert 'iifname "uklan" drop' in machine.rules()  # and nothing gets out by any other
    uplinks.close()
    assert machine.switches("ipv4/conf/eth1/forwarding", "ipv4/conf/eth0/forwarding") == ["0", "0"]


def watch(machine: Machine, uplinks: Uplinks, what: Callable[[], bool]) -> None:
    def look() -> bool:
        uplinks.look({fd for fd, _ in machine.poll.poll(50)})
        return what()

    until(look, seconds=10, what="the change being noticed")


def test_a_successor_takes_over_without_a_gap(machine: Machine) -> None:
    old = machine.uplinks()
    old.open({"lan": ANY})
    old.put_places([LAN])
    left = old.leave()
    assert left is not None
    kept = os.dup(left.fd)  # as an exec keeps it
    old.forget()
    new = machine.uplinks()
    new.adopt(type(left)(left.table, kept), {"lan": ANY})
    assert left.table in machine.rules()
    new.put_places([LAN])
    assert left.table + " " not in machine.rules()
    assert "masquerade" in machine.rules()
    successor = new.leave()
    assert successor is not None
    assert successor.table != left.table
    new.close()
    assert machine.state() == machine.before


def test_a_successor_that_wants_none_undoes_all(machine: Machine) -> None:
    old = machine.uplinks()
    old.open({"lan": ANY})
    old.put_places([LAN])
    left = old.leave()
    assert left is not None
    kept = os.dup(left.fd)
    old.forget()
    new = machine.uplinks()
    new.adopt(type(left)(left.table, kept), {})
    new.put_places([LAN])
    assert machine.state() == machine.before
    new.close()


def test_another_table_that_drops_is_told_once(machine: Machine) -> None:
    machine.host.run(
        ["nft", "add table ip shop; add chain ip shop f { type filter hook forward priority 0; policy drop; }"]
    )
    uplinks = machine.uplinks()
    uplinks.open({"lan": ANY})
    uplinks.put_places([LAN])
    uplinks.want({"lan": frozenset({"eth1"})})
    assert [line for line in machine.told if "ip shop f" in line] == machine.told != []
    assert len(machine.told) == 1
    assert uplinks.rows()[0]["droppers"] == ["ip shop f"]
    uplinks.close()


def test_without_a_switch_for_each_interface_router_advertisements_are_still_heard(machine: Machine) -> None:
    """As it is before Linux 6.17."""
    forwarding.write("ipv6/conf/eth1/forwarding", "1")  # somebody's router
    before = machine.state()
    settings = forwarding.needed(["eth0", "uklan"], single=False)
    for one in settings:
        forwarding.switch(one)
    assert machine.switches("ipv6/conf/all/forwarding", "ipv6/conf/eth0/forwarding") == ["1", "1"]
    assert machine.switches("ipv6/conf/eth0/accept_ra", "ipv6/conf/eth1/accept_ra") == ["2", "1"]
    text = table_text("t", [Line(LAN, (("eth0",), ("eth0",)))], settings, [443])
    assert 'iifname != { "uklan" } meta nfproto ipv6 ct state new ct status & dnat == 0 drop' in text
    assert 'iifname { "eth0" } meta nfproto ipv4 ct state new' in text
    for one in reversed(settings):
        assert forwarding.put_back(one)
    assert machine.state() == before


@pytest.mark.parametrize("single", [True, False])
def test_default_routes_of_router_advertisements_stay(machine: Machine, single: bool) -> None:
    router = bytes.fromhex("02000000aa01")
    said = ndp.RouterAdvertisement(router, ndp.link_local(router), router_lifetime_s=900)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth1-peer", 0))
        wire.send(ndp.router_advertisement(said))
    way = f"default via {ndp.link_local(router)} dev eth1 proto ra"
    until(lambda: way in machine.host.ip("-6 route"), seconds=5, what="the advertised default route")
    settings = forwarding.needed(["eth0", "uklan"], ["uklan"], single=single)
    for one in settings:
        forwarding.switch(one)
    assert forwarding.read("ipv6/conf/uklan/forwarding") == "1"
    assert way in machine.host.ip("-6 route")
    for one in reversed(settings):
        assert forwarding.put_back(one)
    assert way in machine.host.ip("-6 route")
    assert machine.state() == machine.before


def test_where_everything_is_forwarded_already_nothing_is_switched(machine: Machine) -> None:
    forwarding.write("ipv4/ip_forward", "1")
    forwarding.write("ipv6/conf/all/forwarding", "1")
    assert forwarding.needed(["eth0", "uklan"]) == []
    before = machine.state()
    uplinks = machine.uplinks()
    uplinks.open({"lan": ANY})
    uplinks.put_places([LAN])
    assert "ct state new" not in machine.rules()
    uplinks.close()
    assert machine.state() == before


def test_what_the_kernel_refuses_is_said_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    uplinks = machine.uplinks()
    uplinks.open({"lan": ANY})
    monkeypatch.setattr("ukihashi.hub.uplink.FORWARD", "nonsense")
    uplinks.put_places([LAN])
    uplinks.settle()
    assert len(machine.told) == 1
    assert "nftables refused" in machine.told[0]
    assert uplinks.rows()[0]["state"] == "failed"
    monkeypatch.undo()
    uplinks.settle()
    assert uplinks.rows()[0]["state"] == "on"
    uplinks.close()
    assert machine.state() == machine.before


def test_an_interface_that_no_rule_can_name_is_refused() -> None:
    with pytest.raises(UkihashiError):
        table_text("t", [Line(LAN, (('et"h',), ()))], [], [])
