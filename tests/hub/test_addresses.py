from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import EnvironmentLacks
from ukihashi.hub.addresses import addresses, choose_subnets, host_port_name
from ukihashi.store.hubs import Hub

HUB = Hub(1, "LAN", True, "10.81.7.0/24", "fd3c:1:2::/64", "uklan", 0.0)


@given(
    used=st.lists(st.tuples(st.ip_addresses(v=4), st.integers(9, 32)), max_size=30),
    number=st.integers(0, 2**40 - 1),
)
def test_chosen_subnets_touch_nothing_in_use(used: list[tuple[object, int]], number: int) -> None:
    networks = [IPv4Network((str(address), length), strict=False) for address, length in used]
    subnet4, subnet6 = choose_subnets(networks, lambda below: number % below)
    assert not any(subnet4.overlaps(one) for one in networks)
    assert subnet4.is_private or subnet4.subnet_of(IPv4Network("100.64.0.0/10"))
    assert (subnet4.prefixlen, subnet6.prefixlen) == (24, 64)
    assert subnet6.subnet_of(IPv6Network("fd00::/8"))


def test_the_usual_choice_is_in_10_64() -> None:
    subnet4, _ = choose_subnets([], lambda _below: 0)
    assert subnet4 == IPv4Network("10.64.0.0/24")


def test_a_machine_that_routes_all_of_10_gets_another_pool() -> None:
    subnet4, _ = choose_subnets([IPv4Network("10.0.0.0/8")], lambda _below: 5)
    assert subnet4 == IPv4Network("172.16.5.0/24")


def test_no_free_network_is_a_sentence() -> None:
    everything = [ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
    with pytest.raises(EnvironmentLacks, match="ip route"):
        choose_subnets(everything, lambda _below: 0)


def test_addresses_of_one_number() -> None:
    assert addresses(HUB, 1) == ("10.81.7.1/24", "fd3c:1:2::1/64")
    assert addresses(HUB, 254) == ("10.81.7.254/24", "fd3c:1:2::fe/64")


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("LAN", set(), "uklan"),
        ("LAN", {"uklan", "uklan2"}, "uklan3"),
        ("Büro Süd", set(), "ukburosud"),
        ("a-very-long-name-indeed", set(), "ukaverylongname"),
        ("a-very-long-name-indeed", {"ukaverylongname"}, "ukaverylongnam2"),
    ],
)
def test_interface_names(name: str, taken: set[str], expected: str) -> None:
    assert host_port_name(name, taken) == expected
    assert len(expected) <= 15


def test_a_name_without_latin_letters_gets_a_stable_interface_name() -> None:
    assert host_port_name("本社", set()) == host_port_name("本社", set())
    assert host_port_name("本社", set()) != host_port_name("支店", set())
    assert host_port_name("本社", set()).startswith("ukhub")
