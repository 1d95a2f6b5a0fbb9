"""The access list: what a rule asks, and which one decides."""

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from tests.switch.frames import ALL, P1, P2, P3, A, B, C, arp, ether, frame, ip4

from ukihashi.ether.packet import parse
from ukihashi.switch import reasons
from ukihashi.switch.access import AccessList, Rule
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import HubRules, PortRules

ALICE, BOB = PortRules(user="Alice", group="staff"), PortRules(user="bob")
WEB = ether(B, A, IP(src="10.0.0.1", dst="192.0.2.7"), TCP(sport=50000, dport=443, flags="S"))
REPLY = ether(A, B, IP(src="192.0.2.7", dst="10.0.0.1"), TCP(sport=443, dport=50000, flags="SA"))
DNS = ether(B, A, IP(src="10.0.0.1", dst="192.0.2.7"), UDP(sport=5353, dport=53))
SIX = ether(B, A, IPv6(src="fd00::1", dst="2001:db8::7"), TCP(sport=50000, dport=443, flags="A"))
ASK = arp(A, "10.0.0.1", "10.0.0.2")
OTHER = frame(B, A)
EVERYTHING = [WEB, REPLY, DNS, SIX, ASK, OTHER]


def refused(rule: Rule, entry: PortRules = ALICE, leaves: PortRules | None = None) -> list[bytes]:
    rules = AccessList([rule])
    return [made for made in EVERYTHING if rules.refuses(parse(made), entry, leaves)]


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, EVERYTHING),
        ({"source": "10.0.0.0/8"}, [WEB, DNS]),
        ({"source": "10.0.0.1"}, [WEB, DNS]),
        ({"destination": "192.0.2.0/28"}, [WEB, DNS]),
        ({"destination": "192.0.2.8/30"}, []),
        ({"destination": "2001:db8::/32", "ipv6": True}, [SIX]),
        ({"protocol": 6}, [WEB, REPLY]),
        ({"protocol": 6, "ipv6": True}, [SIX]),
        ({"protocol": 17, "source": "10.0.0.0/8"}, [DNS]),
        ({"destination_ports": (443, 443)}, [WEB]),
        ({"destination_ports": (1, 500)}, [WEB, DNS]),
        ({"source_ports": (443, 443), "destination_ports": (40000, 60000)}, [REPLY]),
        ({"established": False}, [WEB]),
        ({"established": True}, [REPLY]),
        ({"established": True, "ipv6": True}, [SIX]),
        ({"source_mac": "02-00-00-00-00-02"}, [REPLY]),
        ({"destination_mac": "ff:ff:ff:ff:ff:ff"}, [ASK]),
        ({"source_mac": "02:00:00:00:00:00/ff:ff:ff:ff:ff:00"}, EVERYTHING),
        ({"source_user": "alice"}, EVERYTHING),
        ({"source_user": "STAFF"}, EVERYTHING),
        ({"source_user": "bob"}, []),
        ({"destination_user": "bob"}, []),  # who gets it is not known here
        ({"active": False}, []),
    ],
)
def test_what_a_rule_asks(asked: dict[str, Any], fits: list[bytes]) -> None:
    assert refused(Rule(**asked)) == fits


def test_who_gets_it() -> None:
    rule = Rule(source_user="staff", destination_user="BOB")
    assert AccessList([rule]).asks_receiver
    assert refused(rule, ALICE, BOB) == EVERYTHING
    assert refused(rule, BOB, BOB) == []
    assert refused(rule, ALICE, ALICE) == []


def test_the_first_that_fits_decides_the_lowest_priority_first() -> None:
    rules = AccessList(
        [
            Rule(priority=30),
            Rule(priority=20, discard=False, protocol=6),
            Rule(priority=10, destination="192.0.2.7", destination_ports=(443, 443)),
        ]
    )
    assert [rules.refuses(parse(made), ALICE) for made in (WEB, REPLY, DNS)] == [True, False, True]
    assert not AccessList([]).refuses(parse(WEB), ALICE)


def test_a_later_fragment_has_no_ports_to_ask_for() -> None:
    fragment = ether(B, A, IP(frag=10, proto=17), bytes(40))
    assert not AccessList([Rule(source_ports=(0, 65535), destination_ports=(0, 65535))]).refuses(parse(fragment), ALICE)
    assert AccessList([Rule(protocol=17)]).refuses(parse(fragment), ALICE)


# -- in the switch --------------------------------------------------------------------------------------------------


def hub_of(*rules: Rule) -> Switch:
    hub = Switch()
    for port, its in ((P1, ALICE), (P2, BOB), (P3, PortRules(user="carol"))):
        hub.add_port(port, its)
    hub.set_rules(HubRules(), rules)
    return hub


def test_a_refused_frame_is_dropped_where_it_comes_in() -> None:
    hub = hub_of(Rule(source_user="alice", protocol=17))
    made = [ip4(ALL, A), arp(A, "10.0.0.1", "10.0.0.2")]
    assert hub.forward(made, P1, 0.0) == {P2: made[1:], P3: made[1:]}
    assert hub.drops[P1] == {reasons.ACCESS: 1}
    assert set(hub.forward([ip4(ALL, C)], P3, 0.0)) == {P1, P2}
    hub.set_rules(HubRules())
    assert set(hub.forward(made[:1], P1, 0.0)) == {P2, P3}


def test_a_rule_about_receivers_is_asked_where_a_frame_leaves() -> None:
    hub = hub_of(Rule(priority=1, discard=False, protocol=1), Rule(source_user="alice", destination_user="bob"))
    made = [frame(ALL, A)]
    assert hub.forward(made, P1, 0.0) == {P3: made}
    assert hub.drops[P2] == {reasons.ACCESS: 1}
    assert set(hub.forward([frame(ALL, B)], P2, 0.0)) == {P1, P3}
    assert hub.forward([frame(B, A)] * 2, P1, 0.0) == {}
    assert hub.drops[P2] == {reasons.ACCESS: 3}


def test_a_list_that_cannot_be_understood_changes_nothing() -> None:
    hub = hub_of(Rule())
    with pytest.raises(ValueError, match="nowhere"):
        hub.set_rules(HubRules(), [Rule(source="nowhere")])
    assert hub.forward([frame(ALL, A)], P1, 0.0) == {}
