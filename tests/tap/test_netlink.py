import asyncio
import socket
import subprocess
from collections.abc import Iterator

import pytest

from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap
from ukihashi.tap.netlink import Changes, Route

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


def test_only_our_own_changes_are_undone(tap: Tap) -> None:
    netlink.set_up(tap.name)
    netlink.add_address(tap.name, "10.1.2.1/24")
    changes = Changes()
    changes.add_address(tap.name, "10.1.2.1/24")
    changes.add_address(tap.name, "10.1.3.1/24")
    changes.add_route(Route("10.9.0.0/16", tap.name, "10.1.3.3"))
    assert changes.undo() == []
    assert netlink.addresses(tap.name) == ["10.1.2.1/24"]
    assert "10.9.0.0" not in ip("route")


def test_undo_after_the_interface_is_gone_is_quiet(tap: Tap) -> None:
    netlink.set_up(tap.name)
    changes = Changes()
    changes.add_address(tap.name, "10.1.2.1/24")
    changes.add_route(Route("10.9.0.0/16", tap.name))
    tap.close()
    assert changes.undo() == []


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
