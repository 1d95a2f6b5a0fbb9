"""The filters of a policy, one by one: what they stop, in which direction, and what still passes."""

from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Reply, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from tests.switch.frames import ALL, P1, P2, P3, A, B, arp, ether, frame

from ukihashi.switch import reasons
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.wire.policy import Policy

GROUP6 = b"\x33\x33\0\0\0\x01"


def traffic(by: bytes, to: bytes = ALL) -> dict[str, bytes]:
    """One frame of each kind."""
    return {
        "discover": ether(to, by, IP(), UDP(sport=68, dport=67), BOOTP(op=1), DHCP(options=[("message-type", 1)])),
        "offer": ether(to, by, IP(), UDP(sport=67, dport=68), BOOTP(op=2), DHCP(options=[("message-type", 2)])),
        "solicit": ether(GROUP6, by, IPv6(), UDP(sport=546, dport=547), DHCP6_Solicit()),
        "reply6": ether(to, by, IPv6(), UDP(sport=547, dport=546), DHCP6_Reply()),
        "syn": ether(to, by, IP(), TCP(flags="S")),
        "syn_ack": ether(to, by, IP(), TCP(flags="SA")),
        "ack": ether(to, by, IP(), TCP(flags="A")),
        "syn_ack6": ether(to, by, IPv6(), TCP(flags="SA")),
        "ack6": ether(to, by, IPv6(), TCP(flags="A")),
        "rs": ether(GROUP6, by, IPv6(), ICMPv6ND_RS()),
        "ra": ether(GROUP6, by, IPv6(), ICMPv6ND_RA(routerlifetime=0)),
        "ns": ether(GROUP6, by, IPv6(), ICMPv6ND_NS()),
        "ping": ether(to, by, IP(), ICMP()),
        "ping6": ether(to, by, IPv6(), ICMPv6EchoRequest()),
        "arp": arp(by, "10.0.0.1", "10.0.0.2"),
        "other": frame(to, by),
    }


ALL_KINDS = set(traffic(A))
IPV4 = {"discover", "offer", "syn", "syn_ack", "ack", "ping"}
IPV6 = {"solicit", "reply6", "syn_ack6", "ack6", "rs", "ra", "ns", "ping6"}
CASES: list[tuple[str, str, set[str], bool]] = [  # policy, reason, what is stopped, also on the way to the member
    ("dhcp_filter", reasons.DHCP, {"discover", "offer"}, True),
    ("dhcpv6_filter", reasons.DHCP, {"solicit", "reply6"}, True),
    ("dhcp_no_server", reasons.DHCP_SERVER, {"offer"}, False),
    ("dhcpv6_no_server", reasons.DHCP_SERVER, {"reply6"}, False),
    ("no_server", reasons.TCP_SERVER, {"syn_ack"}, False),
    ("no_server_v6", reasons.TCP_SERVER, {"syn_ack6"}, False),
    ("arp_dhcp_only", reasons.BROADCAST, {"syn", "syn_ack", "ack", "syn_ack6", "ack6", "ping", "other"}, True),
    ("rs_and_ra_filter", reasons.ROUTER, {"rs", "ra"}, True),
    ("ra_filter", reasons.ROUTER, {"ra"}, False),
    ("filter_ipv4", reasons.IPV4, IPV4 | {"arp"}, True),
    ("filter_ipv6", reasons.IPV6, IPV6, True),
    ("filter_non_ip", reasons.NON_IP, {"other"}, True),
]


def hub_of(**policy: Any) -> Switch:
    hub = Switch()
    hub.add_port(P1, PortRules(policy=Policy(no_broadcast_limiter=True, **policy)))
    hub.add_port(P2, PortRules(policy=Policy(no_broadcast_limiter=True)))
    return hub


@pytest.mark.parametrize(("name", "reason", "stopped", "both"), CASES, ids=[case[0] for case in CASES])
def test_what_a_filter_stops(name: str, reason: str, stopped: set[str], both: bool) -> None:
    hub = hub_of(**{name: True})
    made = traffic(A)
    out = hub.forward(list(made.values()), P1, 0.0).get(P2, [])
    assert {kind for kind in made if made[kind] not in out} == stopped
    assert hub.drops[P1] == {reason: len(stopped)}
    made = traffic(B)
    back = hub.forward(list(made.values()), P2, 0.0).get(P1, [])
    assert {kind for kind in made if made[kind] not in back} == (stopped if both else set())
    assert hub.drops[P1] == {reason: len(stopped) * (1 + both)}
    assert not hub.drops[P2]


def test_a_port_without_a_filter_is_not_asked() -> None:
    hub = Switch()
    hub.add_port(P1, PortRules(confined=True))
    port = hub._ports[P1]
    assert port.admit is None
    assert port.deliver is None
    assert not hub._delivers


def test_unicast_is_no_broadcast() -> None:
    hub = hub_of(arp_dhcp_only=True)
    made = [*traffic(A, to=B).values()]
    assert len(hub.forward(made, P1, 0.0)[P2]) == len(made)


def test_tags_hide_nothing_from_a_filter() -> None:
    offer = (IP(), UDP(sport=67, dport=68), BOOTP(op=2))
    hub = hub_of(dhcp_no_server=True)
    nested = ether(ALL, A, Dot1Q(vlan=0), Dot1Q(vlan=0), *offer)
    endless = bytes(ALL + A) + b"\x81\0\0\0" * 20 + bytes(Ether() / offer[0])[12:]
    assert hub.forward([nested, endless], P1, 0.0) == {}
    assert hub.drops[P1] == {reasons.DHCP_SERVER: 2}


def test_what_is_hidden_from_a_filter_does_not_pass_it() -> None:
    tiny = ether(ALL, A, IP(flags="MF", proto=6), Raw(bytes(8)))
    rest = ether(ALL, A, IP(frag=1, proto=6), Raw(bytes(20)))
    chain = ether(ALL, A, IPv6(nh=44), IPv6ExtHdrFragment(nh=60, m=1))
    assert hub_of(no_server=True).forward([tiny, rest], P1, 0.0) == {}
    assert hub_of(ra_filter=True).forward([chain], P1, 0.0) == {}
    assert hub_of(no_server_v6=True).forward([chain], P1, 0.0) == {}
    assert hub_of(no_server_v6=True).forward([tiny, rest], P1, 0.0) == {P2: [tiny, rest]}
    assert hub_of(dhcp_filter=True).forward([tiny, chain], P1, 0.0) == {P2: [tiny, chain]}


# -- router advertisements to the member ----------------------------------------------------------------------------


def advertised(**rules: Any) -> int:
    """The lifetime that a member hears."""
    hub = Switch()
    hub.add_port(P1, PortRules(**rules))
    hub.add_port(P2)
    made = ether(GROUP6, B, IPv6(src="fe80::1", dst="ff02::1"), ICMPv6ND_RA(routerlifetime=1800))
    (heard,) = hub.forward([made], P2, 0.0)[P1]
    read = Ether(heard)
    assert (heard == made) == (read[ICMPv6ND_RA].routerlifetime == 1800)
    given = read[ICMPv6ND_RA].cksum
    del read[ICMPv6ND_RA].cksum
    assert Ether(bytes(read))[ICMPv6ND_RA].cksum == given
    return int(read[ICMPv6ND_RA].routerlifetime)


def test_a_router_is_no_default_router_for_who_may_have_none() -> None:
    always = Policy(no_ipv6_default_router_in_ra=True)
    over_ipv6 = Policy(no_ipv6_default_router_in_ra_when_ipv6=True)
    assert advertised() == 1800
    assert advertised(policy=always) == 0
    assert advertised(policy=over_ipv6) == 1800
    assert advertised(policy=over_ipv6, over_ipv6=True) == 0


# -- privacy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hub_rules", "passing"),
    [
        (HubRules(), set()),
        (HubRules(privacy_drops_broadcasts=False), {"broadcast"}),
        (HubRules(privacy_drops_arp=False), {"arp", "arp_reply"}),
    ],
)
def test_two_private_members_do_not_hear_each_other(hub_rules: HubRules, passing: set[str]) -> None:
    hub = Switch()
    for port in (P1, P2):
        hub.add_port(port, PortRules(policy=Policy(privacy_filter=True)))
    hub.add_port(P3)
    hub.set_rules(hub_rules)
    made = {
        "broadcast": frame(ALL, A),
        "arp": arp(A, "10.0.0.1", "10.0.0.2"),
        "unknown": frame(B, A),
        "arp_reply": arp(A, "10.0.0.1", "10.0.0.2", destination=B, reply=True),
    }
    out = hub.forward(list(made.values()), P1, 0.0)
    assert {kind for kind in made if made[kind] in out.get(P2, [])} == passing
    assert out[P3] == list(made.values())
    hub.forward([frame(ALL, B)], P2, 0.0)
    assert hub.forward([frame(B, A)], P1, 0.0) == {}
    assert hub.drops[P2][reasons.PRIVACY] == 5 - len(passing)
    assert hub.forward([frame(ALL, b"\x02\0\0\0\0\x09")], P3, 0.0).keys() == {P1, P2}
