"""What is inside a frame: against scapy's own making, and against anything at all."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Reply, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet as Made
from scapy.packet import Raw

from ukihashi.ether import packet
from ukihashi.ether.packet import parse

TO, BY = "02:00:00:00:00:02", "02:00:00:00:00:01"


def ether(*layers: Made, to: str = TO) -> bytes:
    made: Made = Ether(dst=to, src=BY)
    for layer in layers:
        made /= layer
    return bytes(made)


def test_tcp_of_ipv4() -> None:
    frame = ether(IP(src="10.0.0.1", dst="10.0.0.2"), TCP(sport=1234, dport=443, flags="SA"))
    found = parse(frame)
    assert (found.kind, found.version, found.protocol, found.start) == (0x0800, 4, packet.TCP, 34)
    assert (found.source, found.destination) == (ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed)
    assert (found.source_port, found.destination_port) == (1234, 443)
    assert found.flags == packet.SYN | packet.ACK
    assert not found.is_group
    assert not found.hidden


def test_ip_options_are_stepped_over() -> None:
    assert parse(ether(IP(options=[b"\x94\x04\0\0"]), UDP(sport=67, dport=68))).source_port == 67


@pytest.mark.parametrize(
    "layers",
    [
        (),
        (IPv6ExtHdrHopByHop(),),
        (IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(), IPv6ExtHdrDestOpt(options=[])),
        (IPv6ExtHdrFragment(offset=0, m=1),),
        (AH(nh=58, payloadlen=4, icv=bytes(12)),),
    ],
)
def test_icmpv6_behind_extension_headers(layers: tuple[Made, ...]) -> None:
    found = parse(ether(IPv6(src="fe80::1", dst="ff02::1"), *layers, ICMPv6ND_RA(), to="33:33:00:00:00:01"))
    assert (found.version, found.protocol, found.message) == (6, packet.ICMPV6, packet.ROUTER_ADVERTISEMENT)
    assert found.source == ip_address("fe80::1").packed
    assert found.is_group


@pytest.mark.parametrize("messages", [(ICMPv6ND_RS(), 133), (ICMPv6ND_NS(), 135), (ICMPv6EchoRequest(), 128)])
def test_other_messages_of_icmpv6(messages: tuple[Made, int]) -> None:
    assert parse(ether(IPv6(), messages[0])).message == messages[1]


@pytest.mark.parametrize(
    "tags",
    [
        (Dot1Q(vlan=5),),
        (Dot1Q(vlan=0), Dot1Q(vlan=0)),
        (Dot1AD(vlan=7), Dot1Q(vlan=5)),
    ],
)
def test_tags_are_taken_off_as_receivers_do(tags: tuple[Made, ...]) -> None:
    found = parse(ether(*tags, IP(), UDP(sport=67, dport=68)))
    assert (found.kind, found.source_port) == (0x0800, 67)


def test_snap_hides_nothing() -> None:
    frame = bytes(Dot3(dst=TO, src=BY) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP() / IP() / UDP(sport=67, dport=68))
    assert parse(frame).source_port == 67
    plain = bytes(Dot3(dst=TO, src=BY) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(bytes(35)))
    assert parse(plain).kind == 38


def test_endless_tags_are_hidden() -> None:
    frame = bytes(12) + b"\x81\0\0\0" * 20 + bytes(Ether() / IP() / UDP())[12:]
    assert parse(frame).hidden


def test_later_fragments_have_no_ports() -> None:
    four = parse(ether(IP(frag=100, proto=17), Raw(b"\0\x43\0\x44" * 10)))
    assert (four.version, four.protocol, four.start, four.source_port, four.hidden) == (4, 17, 0, 0, False)
    six = parse(ether(IPv6(), IPv6ExtHdrFragment(offset=10, nh=17), Raw(b"\x02\x22\x02\x23" * 10)))
    assert (six.protocol, six.start, six.source_port, six.hidden) == (17, 0, 0, False)


def test_flags_that_come_in_another_fragment_are_hidden() -> None:
    tiny = parse(ether(IP(flags="MF", proto=6), Raw(b"\x01\xbb\x10\0\0\0\0\0")))
    assert (tiny.protocol, tiny.flags, tiny.hidden) == (packet.TCP, -1, True)
    rest = parse(ether(IP(frag=1, proto=6), Raw(bytes(20))))
    assert rest.hidden


def test_a_cut_chain_of_headers_is_hidden() -> None:
    for frame in (
        ether(IPv6(nh=0), Raw(b"\x3a")),
        ether(IPv6(nh=60), Raw(b"\x3a\xff" + bytes(20))),
        ether(IPv6(nh=58)),
    ):
        assert parse(frame).hidden
    assert not parse(ether(IPv6(nh=59))).hidden


def test_what_ip_says_to_be_padding_is_not_read() -> None:
    bare = ether(IP(len=20, proto=17)) + b"\0\x43\0\x44" + bytes(20)
    assert parse(bare).source_port == 0


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        bytes(13),
        bytes(12) + b"\x08\0",
        ether(IP(version=5), Raw(bytes(20))),
        ether(IP(ihl=4), Raw(bytes(20))),
        ether(IP(len=10), Raw(bytes(20))),
        ether(IPv6(version=4), Raw(bytes(20))),
        ether(ARP())[:30],
    ],
)
def test_what_cannot_be_read_is_unknown(damaged: bytes) -> None:
    found = parse(damaged)
    assert (found.version, found.source, found.protocol, found.start) == (0, b"", -1, 0)


def test_arp_has_two_addresses() -> None:
    found = parse(ether(Dot1Q(vlan=3), ARP(psrc="10.0.0.1", pdst="10.0.0.2")))
    assert (found.kind, found.version) == (0x0806, 0)
    assert (found.source, found.destination) == (ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed)


def test_the_target_of_neighbour_discovery() -> None:
    assert packet.target(parse(ether(IPv6(), ICMPv6ND_NA(tgt="fe80::9")))) == ip_address("fe80::9").packed
    assert packet.target(parse(ether(IPv6(), ICMPv6ND_NS(tgt="fe80::8")))) == ip_address("fe80::8").packed
    assert packet.target(parse(ether(IPv6(), ICMPv6ND_RA()))) == b""
    assert packet.target(parse(ether(IPv6(), ICMPv6ND_NA())[:60])) == b""


# -- DHCP -----------------------------------------------------------------------------------------------------------


def dhcp(kind: str, *, op: int = 2, by: int = 67, to: int = 68, address: str = "10.0.0.7", extra: bytes = b"") -> bytes:
    body = BOOTP(op=op, yiaddr=address, chaddr=bytes.fromhex("020000000009"))
    return ether(IP(), UDP(sport=by, dport=to), body / DHCP(options=[("router", "1.2.3.4"), ("message-type", kind)]))


def test_dhcp_messages() -> None:
    kinds = ["discover", "offer", "request", "decline", "ack", "nak", "release", "inform"]
    assert [packet.dhcp_message(parse(dhcp(kind))) for kind in kinds] == list(range(1, 9))
    assert packet.dhcp_message(parse(dhcp("ack")[:200])) == 0
    assert packet.dhcp_message(parse(dhcp("ack", by=1, to=2))) == 0


def test_a_lease_is_an_ack_with_an_address() -> None:
    assert packet.lease(parse(dhcp("ack"))) == (ip_address("10.0.0.7").packed, bytes.fromhex("020000000009"))
    assert packet.lease(parse(dhcp("offer"))) is None
    assert packet.lease(parse(dhcp("ack", address="0.0.0.0"))) is None  # the answer to an inform
    assert packet.lease(parse(dhcp("ack", op=1))) is None
    assert packet.lease(parse(dhcp("ack", by=68, to=67))) is None


def test_who_speaks_as_a_dhcp_server() -> None:
    assert packet.is_dhcp_reply(parse(dhcp("offer")))
    assert packet.is_dhcp_reply(parse(dhcp("offer", by=4000)))  # clients don't look at the port it came from
    assert packet.is_dhcp_reply(parse(dhcp("offer", to=67)))  # to a relay
    assert not packet.is_dhcp_reply(parse(dhcp("request", op=1, by=68, to=67)))
    assert not packet.is_dhcp_reply(parse(dhcp("request", op=1, by=67, to=67)))  # a relay's own
    assert packet.is_dhcp(parse(dhcp("discover", op=1, by=68, to=67)))
    assert not packet.is_dhcp(parse(ether(IP(), TCP(sport=67, dport=68))))


def test_dhcpv6() -> None:
    solicit = parse(ether(IPv6(), UDP(sport=546, dport=547), DHCP6_Solicit()))
    answer = parse(ether(IPv6(), UDP(sport=547, dport=546), DHCP6_Advertise()))
    relayed = parse(ether(IPv6(), UDP(sport=547, dport=547), DHCP6_Reply()))
    assert [packet.dhcpv6_message(each) for each in (solicit, answer, relayed)] == [1, 2, 7]
    assert [packet.is_dhcpv6_reply(each) for each in (solicit, answer, relayed)] == [False, True, True]
    assert all(packet.is_dhcpv6(each) for each in (solicit, answer, relayed))
    assert not packet.is_dhcpv6(parse(ether(IP(), UDP(sport=547, dport=546))))


# -- router advertisements ------------------------------------------------------------------------------------------


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.sampled_from([(), (Dot1Q(vlan=5),)]))
def test_no_router_any_more_and_the_checksum_is_right(lifetime: int, mtu: int, tags: tuple[Made, ...]) -> None:
    frame = ether(*tags, IPv6(src="fe80::1", dst="ff02::1"), ICMPv6ND_RA(routerlifetime=lifetime, reachabletime=mtu))
    changed = packet.without_router(parse(frame))
    made = Ether(changed)
    assert made[ICMPv6ND_RA].routerlifetime == 0
    assert made[ICMPv6ND_RA].reachabletime == mtu
    given = made[ICMPv6ND_RA].cksum
    del made[ICMPv6ND_RA].cksum
    right = Ether(bytes(made))[ICMPv6ND_RA].cksum
    assert {given, right} <= {0, 0xFFFF} or given == right  # both mean zero in ones' complement
    assert len(changed) == len(frame)


def test_one_that_is_no_router_stays_the_same_object() -> None:
    frame = ether(IPv6(), ICMPv6ND_RA(routerlifetime=0))
    assert packet.without_router(parse(frame)) is frame


# -- anything -------------------------------------------------------------------------------------------------------

VALID = [
    dhcp("ack"),
    ether(Dot1Q(vlan=5), IP(), TCP()),
    ether(IPv6(), IPv6ExtHdrHopByHop(), IPv6ExtHdrFragment(), ICMPv6ND_RA()),
    ether(IPv6(), UDP(sport=547, dport=546), DHCP6_Reply()),
    ether(IPv6(), ICMPv6ND_NA()),
    ether(ARP()),
    ether(IP(), ICMP()),
]
changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)
anything = st.one_of(
    st.binary(max_size=100),
    st.builds(
        lambda frame, edits, cut: bytes({**dict(enumerate(frame)), **dict(edits)}.get(n, 0) for n in range(len(frame)))[
            :cut
        ],
        st.sampled_from(VALID),
        changes,
        st.integers(0, 400),
    ),
)


@given(anything)
def test_nothing_that_comes_is_too_much(frame: bytes) -> None:
    found = parse(frame)
    assert found.frame is frame
    assert len(found.source) == len(found.destination)
    assert len(found.source) in (0, 4, 16)
    assert found.start <= len(frame)
    assert found.start or not found.source_port
    packet.target(found)
    assert 0 <= packet.dhcp_message(found) <= 255
    assert 0 <= packet.dhcpv6_message(found) <= 255
    packet.is_dhcp_reply(found)
    packet.is_dhcpv6_reply(found)
    given = packet.lease(found)
    assert given is None or (len(given[0]), len(given[1])) == (4, 6)
    assert found.message != packet.ROUTER_ADVERTISEMENT or len(packet.without_router(found)) == len(frame)
    packet.is_urgent(frame)
