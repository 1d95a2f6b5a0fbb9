"""The table of IP addresses: ages, limits, owners; and the rules of ports that rest on it."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.switch.frames import ALL, P1, P2, P3, A, B, C, arp, ether, ip4, ip6, tagged

from ukihashi.switch import reasons
from ukihashi.switch.forward import Switch
from ukihashi.switch.ip_table import AddressRules, IpTable
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.policy import Policy

FREE = AddressRules()
X, Y = ip_address("10.0.0.1").packed, ip_address("fe80::1").packed


def hub_of(*rules: PortRules) -> Switch:
    hub = Switch()
    for port, its in zip((P1, P2, P3), rules, strict=False):
        hub.add_port(port, its)
    return hub


def rows(hub: Switch, now: float = 0.0) -> dict[str, int]:
    return {str(ip_address(row.address)): row.port for row in hub.address_rows(now)}


def offer(address: str, station: bytes, kind: str = "ack", destination: bytes = ALL) -> bytes:
    """What a DHCP server at station B says."""
    from scapy.layers.dhcp import BOOTP, DHCP
    from scapy.layers.inet import IP, UDP

    body = BOOTP(op=2, yiaddr=address, chaddr=station) / DHCP(options=[("message-type", kind), "end"])
    return ether(destination, B, IP(src="10.0.0.254", dst="255.255.255.255"), UDP(sport=67, dport=68), body)


def test_an_address_is_forgotten_after_60_s_a_leased_one_after_300() -> None:
    table = IpTable()
    table.note(X, P1, 0.0, FREE)
    table.note(Y, P1, 10.0, FREE)
    table.lease(Y, P1, 10.0)
    assert [row.address for row in table.rows(59.9)] == [X, Y]
    assert [row.address for row in table.rows(60.0)] == [Y]
    assert table.rows(310.0) == []
    assert len(table) == 2  # until room is wanted


def test_a_move_makes_a_new_entry() -> None:
    table = IpTable()
    table.note(X, P1, 0.0, FREE)
    table.note(X, P1, 5.0, FREE)
    (first,) = table.rows(5.0)
    assert (first.port, first.created, first.seen, first.leased) == (P1, 0.0, 5.0, False)
    table.note(X, P2, 6.0, FREE)
    (second,) = table.rows(6.0)
    assert (second.port, second.created, second.seen) == (P2, 6.0, 6.0)
    assert second.key != first.key
    assert table.forget(second.key)
    assert not table.forget(second.key)
    assert table.rows(6.0) == []


def test_a_forged_flood_stays_within_the_limit_and_takes_nothing_from_others() -> None:
    table = IpTable(limit=100)
    table.note(Y, P2, 0.0, FREE)
    for n in range(500):
        table.note(b"\x0a\x01" + n.to_bytes(2, "big"), P1, 0.0, FREE)
    assert len(table) == 100
    assert table.note(X, P2, 0.0, FREE) == ""
    assert {row.address for row in table.rows(0.0) if row.port == P2} == {X, Y}
    assert len(table) == 100
    assert table.note(ip_address("fe80::2").packed, P3, 0.0, FREE) == ""  # of the other kind, from a port with none
    assert [row.port for row in table.rows(0.0)].count(P3) == 1
    table.forget_port(P1)
    assert len(table) == 3


def test_addresses_come_back_with_their_ages_unless_they_have_moved() -> None:
    table, heir = IpTable(), IpTable()
    for address, port, now in ((X, P1, 10.0), (Y, P1, 20.0)):
        table.note(address, port, now, FREE)
    table.lease(X, P1, 12.0)
    heir.note(Y, P2, 15.0, FREE)
    heir.put_back(P1, table.addresses(P1))
    assert [(row.address, row.port, row.created, row.seen, row.leased) for row in heir.rows(20.0)] == [
        (X, P1, 10.0, 12.0, True),
        (Y, P2, 15.0, 15.0, False),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([P1, P2, P3]), st.sampled_from([0, 1, 30, 100])), max_size=60)
)
def test_counts_and_order_stay_true(steps: list[tuple[int, PortId, int]]) -> None:
    table, now, rules = IpTable(limit=5), 0.0, AddressRules(most_v4=2, most_v6=1)
    for number, port, wait in steps:
        now += wait
        address = bytes([10, 0, 0, number]) if number % 2 else b"\xfe\x80" + bytes([*range(13), number])
        if number == 7:
            table.lease(address, port, now)
        reason = table.note(address, port, now, rules if port == P1 else FREE)
        shown = table.rows(now)
        assert reason or address in [row.address for row in shown] or len(table) == 5
        assert [row.seen for row in shown] == sorted(row.seen for row in shown)
        held = {each: table.addresses(each) for each in (P1, P2, P3)}
        assert sum(map(len, held.values())) == len(table) <= 5
        assert all(row.port == each for each, rows in held.items() for row in rows)
        leases = sum(row.leased for row in held[P1])  # those are not refused
        assert sum(len(row.address) == 4 for row in held[P1]) <= 2 + leases
        assert sum(len(row.address) == 16 for row in held[P1]) <= 1


@pytest.mark.parametrize(
    ("address", "noted"),
    [
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.1.1", True),
        ("100.64.0.1", True),
        ("100.128.0.1", False),
        ("8.8.8.8", False),
        ("fe80::1", True),
        ("fd00::1", False),
        ("2001:db8::1", False),
    ],
)
def test_a_new_hub_notes_private_and_local_addresses_only(address: str, noted: bool) -> None:
    hub = hub_of(PortRules())
    made = (ip6 if ":" in address else ip4)(ALL, A, address)
    hub.forward([made], P1, 0.0)
    assert rows(hub) == ({address: P1} if noted else {})
    hub.set_rules(HubRules(private_ipv4_only=False, local_ipv6_only=False))
    hub.forward([made], P1, 0.0)
    assert rows(hub) == {address: P1}


@pytest.mark.parametrize("nobody", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"])
def test_addresses_of_nobody_are_not_noted(nobody: str) -> None:
    hub = hub_of(PortRules())
    hub.set_rules(HubRules(private_ipv4_only=False, local_ipv6_only=False))
    hub.forward([(ip6 if ":" in nobody else ip4)(ALL, A, nobody)], P1, 0.0)
    assert rows(hub) == {}


def test_arp_and_tagged_frames_say_who_sent_them() -> None:
    hub = hub_of(PortRules(), PortRules())
    hub.forward([arp(A, "10.0.0.1", "10.0.0.9"), tagged(ip4(ALL, C, "10.0.0.2"), 5)], P1, 0.0)
    assert rows(hub) == {"10.0.0.1": P1, "10.0.0.2": P1}
    hub.remove_port(P1)
    assert rows(hub) == {}


# -- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "v4", "v6"),
    [
        (PortRules(), 30, 30),
        (PortRules(confined=True), 4, 30),
        (PortRules(policy=Policy(no_routing=True)), 4, 30),
        (PortRules(policy=Policy(no_routing_v6=True)), 30, 15),
        (PortRules(policy=Policy(max_ip=1, max_ipv6=1)), 4, 5),  # lower limits count as these
        (PortRules(policy=Policy(max_ip=7, max_ipv6=8)), 7, 8),
        (PortRules(confined=True, policy=Policy(max_ip=7)), 4, 30),
        (PortRules(policy=Policy(no_routing_v6=True, max_ipv6=8)), 30, 8),
    ],
)
def test_limits_of_a_port(rules: PortRules, v4: int, v6: int) -> None:
    hub = hub_of(rules, PortRules())
    first = [ip4(B, A, f"10.0.0.{n}") for n in range(1, 31)]
    second = [ip6(B, A, f"fe80::{n}") for n in range(1, 31)]
    hub.forward([ip4(ALL, B, "192.168.0.1")], P2, 0.0)
    assert hub.forward([*first, first[0]], P1, 0.0)[P2] == [*first[:v4], first[0]]
    assert hub.forward([*second, second[0]], P1, 0.0)[P2] == [*second[:v6], second[0]]
    assert hub.drops[P1].get(reasons.ADDRESSES_FULL, 0) == 60 - v4 - v6
    assert hub.forward([first[29]], P1, 60.0) == {P2: [first[29]]}  # the others are forgotten


def test_public_addresses_do_not_count_but_pass_no_more_when_the_limit_is_reached() -> None:
    hub = hub_of(PortRules(confined=True), PortRules())
    public = [ip4(ALL, A, f"8.8.8.{n}") for n in range(1, 11)]
    private = [ip4(ALL, A, f"10.0.0.{n}") for n in range(1, 5)]
    assert hub.forward(public + private, P1, 0.0)[P2] == public + private
    asking = [ip4(ALL, A, "0.0.0.0"), private[0]]
    assert hub.forward([*public, *asking, arp(A, "8.8.4.4", "10.0.0.9")], P1, 1.0)[P2] == asking
    assert hub.drops[P1] == {reasons.ADDRESSES_FULL: 11}


# -- owners ---------------------------------------------------------------------------------------------------------


def test_a_checked_port_takes_no_address_of_another_that_was_heard_within_13_s() -> None:
    hub = hub_of(PortRules(policy=Policy(check_ip=True, check_ipv6=True)), PortRules(), PortRules())
    hub.forward([arp(B, "10.0.0.2", "10.0.0.9"), ip6(ALL, B, "fe80::2")], P2, 0.0)
    spoofed = [
        arp(A, "10.0.0.2", "10.0.0.3"),
        arp(A, "10.0.0.2", "10.0.0.3", destination=C, reply=True),
        ip4(ALL, A, "10.0.0.2"),
        ip6(ALL, A, "fe80::2"),
    ]
    assert hub.forward(spoofed, P1, 12.9) == {}
    assert hub.drops[P1] == {reasons.ADDRESS_TAKEN: 4}
    assert rows(hub, 12.9) == {"10.0.0.2": P2, "fe80::2": P2}
    assert len(hub.forward(spoofed, P1, 13.0)[P2]) == 4
    assert rows(hub, 13.0) == {"10.0.0.2": P1, "fe80::2": P1}
    hub.forward([arp(C, "10.0.0.2", "10.0.0.9")], P3, 13.0)  # who is not checked may
    assert rows(hub, 13.0)["10.0.0.2"] == P3


def test_a_neighbour_advertisement_claims_its_target_too() -> None:
    from scapy.layers.inet6 import ICMPv6ND_NA, IPv6

    hub = hub_of(PortRules(policy=Policy(check_ipv6=True)), PortRules())
    hub.forward([ip6(ALL, B, "fe80::2")], P2, 0.0)
    sly = ether(ALL, A, IPv6(src="fe80::1", dst="ff02::1"), ICMPv6ND_NA(tgt="fe80::2"))
    fair = ether(ALL, A, IPv6(src="fe80::1", dst="ff02::1"), ICMPv6ND_NA(tgt="fe80::1"))
    assert hub.forward([sly, fair], P1, 1.0) == {P2: [fair]}
    assert hub.drops[P1] == {reasons.ADDRESS_TAKEN: 1}


# -- leases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", [ALL, A])
def test_an_address_in_a_dhcp_ack_is_leased(destination: bytes) -> None:
    hub = hub_of(PortRules(), PortRules())
    hub.forward([ip4(ALL, A, "0.0.0.0")], P1, 0.0)
    hub.forward([offer("10.0.0.7", A, "offer", destination)], P2, 0.0)
    assert rows(hub) == {"10.0.0.254": P2}
    hub.forward([offer("10.0.0.7", A, "ack", destination)], P2, 1.0)
    assert rows(hub, 1.0) == {"10.0.0.254": P2, "10.0.0.7": P1}
    assert rows(hub, 300.9) == {"10.0.0.7": P1}
    hub.forward([ip4(ALL, A, "10.0.0.7")], P1, 300.0)
    assert [row.leased for row in hub.address_rows(599.9)] == [True]


def test_a_lease_does_not_take_an_address_in_use_away() -> None:
    hub = hub_of(PortRules(), PortRules(), PortRules())
    hub.forward([ip4(ALL, A, "10.0.0.1")], P1, 0.0)
    hub.forward([ip4(ALL, C, "10.0.0.3")], P3, 0.0)
    hub.forward([offer("10.0.0.3", A)], P2, 12.9)
    assert rows(hub, 12.9)["10.0.0.3"] == P3
    hub.forward([offer("10.0.0.3", A)], P2, 13.0)
    assert rows(hub, 13.0)["10.0.0.3"] == P1


def test_who_must_use_dhcp_may_use_leased_addresses_only() -> None:
    hub = hub_of(PortRules(policy=Policy(dhcp_force=True)), PortRules())
    ask, own = ip4(ALL, A, "0.0.0.0"), ip4(ALL, A, "10.0.0.7")
    assert hub.forward([ask, own], P1, 0.0) == {P2: [ask]}
    noise = [ip4(A, B, "10.0.0.254")] * 3
    hub.forward([*noise, offer("10.0.0.7", A, destination=A)], P2, 1.0)  # behind others with the same header
    claims = [own, arp(A, "10.0.0.7", "10.0.0.9"), ip4(ALL, A, "10.0.0.8"), ip4(ALL, A, "8.8.8.8"), ip6(ALL, A)]
    assert hub.forward([arp(A, "10.0.0.9", "10.0.0.9")], P1, 2.0) == {}
    assert hub.forward(claims, P1, 2.0)[P2] == [claims[0], claims[1], claims[4]]
    assert hub.drops[P1] == {reasons.NO_LEASE: 4}
    assert hub.forward([own], P1, 302.0) == {}  # silent for too long


def test_asking_for_a_lease_is_allowed_from_any_address_and_lets_nothing_else_pass() -> None:
    from scapy.layers.inet import IP, UDP

    hub = hub_of(PortRules(policy=Policy(dhcp_force=True)), PortRules())
    renew = ether(ALL, A, IP(src="10.0.0.7", dst="10.0.0.254"), UDP(sport=68, dport=67))
    half = ether(ALL, A, IP(src="10.0.0.7", dst="10.0.0.254"), UDP(sport=68, dport=53))
    endless = ALL + A + b"\x81\0\0\0" * 20
    assert hub.forward([renew, ip4(ALL, A, "10.0.0.7"), half, endless], P1, 0.0) == {P2: [renew]}
    assert hub.drops[P1] == {reasons.NO_LEASE: 3}


def test_a_lease_in_a_vlan_is_that_stations() -> None:
    hub = hub_of(PortRules(policy=Policy(vlan_id=5, dhcp_force=True)), PortRules())
    hub.forward([ip4(ALL, A, "0.0.0.0")], P1, 0.0)
    hub.forward([offer("10.0.0.7", A)], P2, 0.0)  # there is no such station outside
    assert hub.forward([ip4(ALL, A, "10.0.0.7")], P1, 1.0) == {}
    hub.forward([tagged(offer("10.0.0.7", A), 5)], P2, 2.0)
    assert len(hub.forward([ip4(ALL, A, "10.0.0.7")], P1, 3.0)[P2]) == 1
