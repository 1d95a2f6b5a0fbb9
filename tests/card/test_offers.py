"""What is made of a DHCP answer, and what of it may be applied."""

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.card import offers
from ukihashi.card.offers import Machine, Offer, Taken
from ukihashi.config.card import Route
from ukihashi.ether import dhcp, dns

GATEWAY = IPv4Address("10.5.0.1")
NEAR = Route(to="10.9.0.0/16", via="10.5.0.1")
DEFAULT = Route(to="0.0.0.0/0", via="10.5.0.1")
BOTH = Offer(routes=(NEAR, DEFAULT))


def routes_option(*pairs: tuple[str, str]) -> bytes:
    return dhcp.write_routes([(IPv4Network(to), IPv4Address(via)) for to, via in pairs])


def test_an_offer_is_read() -> None:
    offer = offers.read(
        {
            dhcp.ROUTER: GATEWAY.packed,
            dhcp.DNS: GATEWAY.packed + IPv4Address("9.9.9.9").packed,
            dhcp.DOMAIN: b"lan.internal\0",
            dhcp.SEARCH: dns.write_names(["a.example", "b.example"]),
        },
        "10.5.0.1",
    )
    assert offer.router == "10.5.0.1"
    assert offer.name_servers == ("10.5.0.1", "9.9.9.9")
    assert (offer.domain, offer.search) == ("lan.internal", ("a.example", "b.example"))
    assert offer.kinds == ["dns", "default"]


def test_with_classless_routes_the_router_does_not_count() -> None:
    option = routes_option(("10.9.0.0/16", "10.5.0.1"), ("172.16.0.0/12", "0.0.0.0"))
    offer = offers.read({dhcp.ROUTER: GATEWAY.packed, dhcp.ROUTES: option})
    assert offer.routes == (NEAR, Route(to="172.16.0.0/12"))
    assert offer.router == ""
    assert offer.kinds == ["routes"]


@pytest.mark.parametrize("network", ["224.0.0.0/4", "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8"])
def test_a_route_that_can_not_be_meant_is_left_out(network: str) -> None:
    assert offers.read({dhcp.ROUTES: routes_option((network, "10.5.0.1"))}).routes == ()


def test_servers_that_can_not_be_meant_are_left_out() -> None:
    listed = [IPv4Address(one) for one in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.5.0.1")]
    assert offers.read({dhcp.DNS: dhcp.write_addresses(listed)}).name_servers == ("10.5.0.1",)


@pytest.mark.parametrize("domain", [b"a b", b"x\nnameserver 1.2.3.4", b"\xff\xff", b"-a.example", b"." * 9, b""])
def test_a_domain_that_is_none_is_left_out(domain: bytes) -> None:
    assert offers.read({dhcp.DOMAIN: domain}).domain == ""


@given(options=st.dictionaries(st.integers(0, 255), st.binary(max_size=80)))
def test_whatever_a_server_says_is_survived(options: dict[int, bytes]) -> None:
    offer = offers.read(options)
    assert all("\n" not in text for text in (offer.domain, *offer.search, *offer.name_servers))


def test_nothing_is_applied_without_consent() -> None:
    assert offers.judged(BOTH, [], Machine()) == ([], [])
    assert offers.judged(BOTH, ["routes"], Machine()) == ([NEAR], [])
    assert offers.judged(BOTH, ["default"], Machine()) == ([DEFAULT], [])
    assert offers.judged(Offer(), ["routes", "default"], Machine()) == ([], [])


@pytest.mark.parametrize("halves", [("0.0.0.0/1", "128.0.0.0/1")])
def test_a_default_route_in_disguise_is_one(halves: tuple[str, str]) -> None:
    offer = offers.read({dhcp.ROUTES: routes_option(*((half, "10.5.0.1") for half in halves))})
    assert offers.judged(offer, ["routes"], Machine()) == ([], [])
    assert len(offers.judged(offer, ["default"], Machine())[0]) == 2


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine(outer=["10.9.8.7"]), "the way to the hub"),
        (Machine(networks=[Taken(ip_network("10.9.1.0/24"), "eth0")]), "eth0"),  # the offered one is wider
        (Machine(networks=[Taken(ip_network("10.0.0.0/8"), "eth0")]), "eth0"),  # the offered one is narrower
        (Machine(networks=[Taken(ip_network("10.9.0.0/16"), "ukother")]), "ukother"),
    ],
)
def test_what_would_take_something_away_is_refused(machine: Machine, why: str) -> None:
    wanted, refused = offers.judged(BOTH, ["routes", "default"], machine)
    assert wanted == [DEFAULT]  # that one is kept off the hub and the neighbours by a mark and rules
    assert [one.about for one in refused] == ["10.9.0.0/16"]
    assert why in str(refused[0].reason)


def test_one_card_has_the_default_route() -> None:
    wanted, refused = offers.judged(BOTH, ["routes", "default"], Machine(default_by={4: "ukother"}))
    assert wanted == [NEAR]
    assert "ukother" in str(refused[0].reason)


def test_the_accounts_own_route_comes_first() -> None:
    own = Route(to="10.9.0.0/16", via="10.5.0.200")
    assert offers.judged(BOTH, ["routes"], Machine(), [own]) == ([], [])


def test_other_networks_are_no_matter() -> None:
    machine = Machine(
        outer=["198.51.100.1", "2001:db8::1"],
        networks=[Taken(ip_network("192.168.1.0/24"), "eth0"), Taken(ip_network("fd00::/64"), "eth0")],
    )
    assert offers.judged(BOTH, ["routes"], machine) == ([NEAR], [])


def test_a_router_of_ipv6_is_a_default_route_more() -> None:
    offer = offers.with_router6(BOTH, "fe80::1")
    assert offers.judged(offer, ["default"], Machine(default_by={4: "x"}))[0] == [Route(to="::/0", via="fe80::1")]
    assert offers.with_router6(BOTH, "") is BOTH


def test_domains_are_told_apart() -> None:
    offer = Offer(domain="LAN.internal", search=("a.example",))
    assert offers.domains(offer, ["Corp.example.", "lan.internal"]) == (
        ["lan.internal", "a.example"],
        ["lan.internal", "a.example", "corp.example"],
    )
