import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap
from ukihashi.tap.netlink import Route, Rule

pytestmark = pytest.mark.netns


@pytest.fixture
def tap(own_network: None) -> Iterator[Tap]:
    opened = open_tap("uktest")
    yield opened
    opened.close()


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def test_up_sets_mtu_and_queue(tap: Tap) -> None:
    netlink.set_up(tap.name, mtu=1400, txqueuelen=77)
    shown = ip("link", "show", tap.name)
    assert "mtu 1400" in shown
    assert "qlen 77" in shown
    assert ",UP" in shown
    netlink.set_down(tap.name)
    assert ",UP" not in ip("link", "show", tap.name)


def test_mac(tap: Tap) -> None:
    netlink.set_mac(tap.name, b"\x02\x11\x22\x33\x44\x55")
    assert netlink.mac_of(tap.name) == b"\x02\x11\x22\x33\x44\x55"


def test_addresses_of_both_families_come_and_go(tap: Tap) -> None:
    netlink.set_up(tap.name)
    assert netlink.add_address(tap.name, "10.1.2.1/24")
    assert netlink.add_address(tap.name, "fd01::2/64")
    assert not netlink.add_address(tap.name, "10.1.2.1/24")
    assert sorted(netlink.addresses(tap.name)) == ["10.1.2.1/24", "fd01::2/64"]
    assert "tentative" not in ip("-6", "addr", "show", tap.name, "to", "fd01::/64")
    assert netlink.remove_address(tap.name, "10.1.2.1/24")
    assert not netlink.remove_address(tap.name, "10.1.2.1/24")
    assert netlink.addresses(tap.name) == ["fd01::2/64"]


def test_routes_come_and_go(tap: Tap) -> None:
    netlink.set_up(tap.name)
    netlink.add_address(tap.name, "10.1.2.1/24")
    netlink.add_address(tap.name, "fd01::2/64")
    routes = [
        Route("10.9.0.0/16", tap.name, "10.1.2.3"),
        Route("default", tap.name, "10.1.2.3", metric=77),
        Route("fd09::/48", tap.name, "fd01::1"),
    ]
    for route in routes:
        assert netlink.add_route(route)
        assert not netlink.add_route(route)
    assert "10.9.0.0/16 via 10.1.2.3" in ip("route")
    assert "default via 10.1.2.3 dev uktest" in ip("route")
    assert "fd09::/48 via fd01::1" in ip("-6", "route")
    for route in routes:
        assert netlink.remove_route(route)
        assert not netlink.remove_route(route)


def test_a_full_ring_is_seen_in_the_counters(tap: Tap) -> None:
    netlink.set_up(tap.name, txqueuelen=4)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((tap.name, 0))
        for _ in range(20):
            raw.send(bytes(60))
    assert netlink.counters(tap.name).tx_dropped > 0
    taken = len(tap.read_frames())
    assert netlink.counters(tap.name).tx_packets == taken


def test_works_from_a_thread_beside_an_event_loop(own_network: None) -> None:
    async def use() -> list[str]:
        return await asyncio.to_thread(netlink.addresses, "lo")

    # a thread takes the namespace of the thread that starts it
    assert asyncio.run(use()) == netlink.addresses("lo")


def test_what_the_kernel_refuses_is_a_sentence(tap: Tap) -> None:
    with pytest.raises(EnvironmentLacks, match="there is no network interface uknone"):
        netlink.set_up("uknone")
    with pytest.raises(EnvironmentLacks, match=r"10\.9\.0\.0/16 on uktest"):
        netlink.add_route(Route("10.9.0.0/16", tap.name, "10.250.0.1"))


def test_ipv6_switched_off_is_named(tap: Tap) -> None:
    subprocess.run(["sysctl", "-qw", "net.ipv6.conf.uktest.disable_ipv6=1"], check=False, capture_output=True)
    netlink.set_up(tap.name)
    try:
        netlink.add_address(tap.name, "fd01::2/64")
    except EnvironmentLacks as error:
        assert "IPv6 is switched off" in str(error)  # noqa: PT017 - where the sysctl is not reachable nothing is raised


@pytest.mark.parametrize("text", ["10.1.2.300/24", "", "host", "fd00::1/129"])
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        netlink.add_address("lo", text)


@pytest.mark.parametrize(
    ("destination", "via"), [("10.0.0.1/8", ""), ("10.0.0.0/8", "fd00::1"), ("x", ""), ("default", "y")]
)
def test_no_route(destination: str, via: str) -> None:
    with pytest.raises(UsageError):
        netlink.check_route(destination, via)


@pytest.mark.parametrize("version", [4, 6])
def test_rules_come_and_go_and_ours_are_told_from_others(own_network: None, version: int) -> None:
    before = netlink.all_rules()
    near = Rule(version, 31000, netlink.MAIN, no_default=True)
    rest = Rule(version, 31001, 75000, unless_mark=0x2B75)
    for rule in (near, rest):
        assert netlink.add_rule(rule)
        assert not netlink.add_rule(rule)
    shown = ip(f"-{version}", "rule")
    assert "31000:\tfrom all lookup main suppress_prefixlength 0 proto 75" in shown
    assert "31001:\tnot from all fwmark 0x2b75 lookup 75000 proto 75" in shown
    ip(f"-{version}", "rule", "add", "priority", "31002", "table", "main")  # an admin's
    assert netlink.own_rules() == {near, rest}
    assert Rule(version, 31002, netlink.MAIN) in netlink.all_rules()
    ip(f"-{version}", "rule", "del", "priority", "31002")
    for rule in (near, rest):
        assert netlink.remove_rule(rule)
        assert not netlink.remove_rule(rule)
    assert netlink.all_rules() == before


def test_our_routes_are_told_as_they_were_given(tap: Tap) -> None:
    netlink.set_up(tap.name)
    netlink.add_address(tap.name, "10.1.2.1/24")
    netlink.add_address(tap.name, "fd01::2/64")
    given = [
        Route("0.0.0.0/0", tap.name, "10.1.2.3", table=75000),
        Route("default6", tap.name, "fd01:0::1", table=75000),
        Route("10.9.0.0/16", tap.name, "10.1.2.3", metric=7),
        Route("fd09::/48", tap.name),
        Route("fd0a::/48", tap.name, metric=7),
    ]
    for route in given:
        netlink.add_route(route)
    ip("route", "add", "10.8.0.0/16", "via", "10.1.2.3")  # an admin's
    assert netlink.own_routes(tap.name) == {netlink.normal(route) for route in given}
    assert netlink.own_routes("lo") == set()
    assert {254, 255, 75000} <= netlink.tables_with_routes()


def test_where_default_routes_lead(tap: Tap) -> None:
    netlink.set_up(tap.name)
    netlink.add_address(tap.name, "10.1.2.1/24")
    netlink.add_address(tap.name, "fd01::2/64")
    assert netlink.default_interfaces(4) == netlink.default_interfaces(6) == set()
    netlink.add_route(Route("default", tap.name, "10.1.2.3"))
    assert netlink.default_interfaces(4) == {tap.name}
    netlink.add_route(Route("default6", tap.name, "fd01::1"))
    assert netlink.default_interfaces(6) == {tap.name}
    ip("route", "replace", "default", "nexthop", "via", "10.1.2.3", "nexthop", "dev", "lo")
    assert netlink.default_interfaces(4) == {tap.name, "lo"}


def test_changing_rules_without_the_right_is_a_sentence(own_network: None) -> None:
    script = "from ukihashi.tap.netlink import Rule, add_rule; add_rule(Rule(4, 31000, 254))"
    command = ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "changing the routing rules needs root (or the capability CAP_NET_ADMIN)" in done.stderr


def test_a_kernel_without_rules_is_a_sentence(own_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NetlinkError(errno.EOPNOTSUPP)

    monkeypatch.setattr(IPRoute, "rule", refuse, raising=False)
    with pytest.raises(EnvironmentLacks, match="the kernel refused the IPv4 rule 31000: table 254: Operation not supp"):
        netlink.add_rule(Rule(4, 31000, netlink.MAIN))
