"""The guards: what a member can't do to others, in whatever clothes; what stays possible; and who owns an address."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_RelayReply, DHCP6_Reply, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q
from scapy.packet import Raw
from tests.switch.frames import ALL, P1, P2, P3, P4, ZERO, A, B, C, D, E, arp, ether, frame, tagged

from ukihashi.ether.offload import ALL as ALL_KINDS
from ukihashi.ether.offload import NEEDS_CHECKSUM, NO_SPLIT, OFFLOAD, SuperFrame, flaw
from ukihashi.ether.segment import finish
from ukihashi.switch import reasons
from ukihashi.switch.claims import ASKER, network
from ukihashi.switch.forward import RUN, Switch
from ukihashi.switch.guards import ANSWER_S, PORT_LIMIT, QUIET_S, TRIAL_S, TRUNK_ANSWER_S
from ukihashi.switch.rules import GuardRules, HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.policy import Policy

GROUP6 = b"\x33\x33\0\0\0\x01"
GATEWAY, SERVICE, GATEWAY6 = "10.0.0.1", "10.0.0.254", "fe80::1"
HUB_MAC = b"\x02\xaa\0\0\0\x01"
OWN = tuple(ip_address(text).packed for text in (GATEWAY, SERVICE, GATEWAY6))
FREE = Policy(no_broadcast_limiter=True)

BOOTREPLY = BOOTP(op=2, yiaddr="10.0.0.66", chaddr=C)
OFFER = BOOTREPLY / DHCP(options=[("message-type", 2), "end"])
RA = ICMPv6ND_RA(routerlifetime=1800)


def fragments(data: bytes, cut: int, *, at: int = 14) -> list[bytes]:
    """An IPv4 frame in two: `cut` bytes behind IP's header are in the first."""
    head, body = data[: at + 20], data[at + 20 :]

    def part(offset: int, more: bool, payload: bytes) -> bytes:
        length = (20 + len(payload)).to_bytes(2, "big")
        flags = (0x2000 if more else 0) | offset // 8
        return head[: at + 2] + length + head[at + 4 : at + 6] + flags.to_bytes(2, "big") + head[at + 8 :] + payload

    return [part(0, True, body[:cut]), part(cut, False, body[cut:])]


def offer(to: bytes = ALL, by: bytes = B, sport: int = 67, dport: int = 68) -> bytes:
    return ether(to, by, IP(src="10.0.0.2", dst="255.255.255.255"), UDP(sport=sport, dport=dport), OFFER)


def hidden_by_checksum(dport: int = 9) -> SuperFrame:
    """UDP to some port; but the checksum is to be put where the port stands, and is chosen to be DHCP's."""
    plain = ether(C, B, IP(src="10.0.0.2", dst="10.0.0.3"), UDP(sport=67, dport=dport), OFFER)
    trailer = OFFLOAD.pack(NEEDS_CHECKSUM, NO_SPLIT, 0, 0, 34, 2)
    for word in range(0x10000):
        made = SuperFrame(plain[:-2] + word.to_bytes(2, "big") + trailer)
        if finish(made)[0][36:38] == b"\0\x44":
            return made
    raise AssertionError("some word gives every checksum")


def rogue() -> dict[str, tuple[str, bytes]]:
    """Frames by which a member would be a DHCP server or a router: what each is refused for."""
    ip, dhcp, router, hidden = IP(src="10.0.0.2"), reasons.ROGUE_DHCP, reasons.ROGUE_ROUTER, reasons.HIDDEN
    six, servers = IPv6(src="fe80::2", dst="ff02::1"), UDP(sport=67, dport=68)
    six_reply = UDP(sport=547, dport=546)
    first4 = fragments(offer(), 8)[0]
    first6 = IPv6ExtHdrFragment(offset=0, m=1, id=7)
    return {
        "offer": (dhcp, offer()),
        "offer to one": (dhcp, offer(C)),
        "from another port": (dhcp, offer(C, sport=12345)),
        "to a relay": (dhcp, offer(C, dport=67)),
        "from 67 to anywhere": (dhcp, offer(C, dport=40000)),
        "no cookie": (dhcp, ether(ALL, B, ip, servers, BOOTREPLY)),
        "empty": (dhcp, ether(C, B, ip, servers)),
        "IP options": (dhcp, ether(C, B, IP(src="10.0.0.2", options=[IPOption_NOP()] * 8), servers, OFFER)),
        "wrong length": (dhcp, ether(C, B, IP(src="10.0.0.2", len=20), servers, OFFER)),
        "wrong version": (dhcp, ether(C, B, IP(src="10.0.0.2", version=7), servers, OFFER)),
        "short header": (hidden, ether(C, B, IP(src="10.0.0.2", ihl=3), servers, OFFER)),
        "in a VLAN": (dhcp, ether(ALL, B, Dot1Q(vlan=5), ip, servers, OFFER)),
        "priority tag": (dhcp, ether(C, B, Dot1Q(vlan=0, prio=3), ip, servers, OFFER)),
        "two tags": (dhcp, ether(ALL, B, Dot1AD(vlan=5), Dot1Q(vlan=6), ip, servers, OFFER)),
        "old provider tag": (dhcp, offer()[:12] + b"\x91\0\0\5" + offer()[12:]),
        "nine tags": (hidden, offer()[:12] + b"\x81\0\0\0" * 9 + offer()[12:]),
        "SNAP": (dhcp, offer()[:12] + b"\1\x40\xaa\xaa\3\0\0\0" + offer()[12:]),
        "SNAP as bridges make it": (dhcp, offer()[:12] + b"\1\x40\xaa\xaa\3\0\0\xf8" + offer()[12:]),
        "fragment": (dhcp, first4),
        "fragment to a relay": (hidden, fragments(offer(C, dport=67), 8)[0]),
        "checksum on the port": (dhcp, hidden_by_checksum()),
        "DHCPv6 advertise": (dhcp, ether(C, B, six, six_reply, DHCP6_Advertise())),
        "DHCPv6 reply": (dhcp, ether(C, B, six, six_reply, DHCP6_Reply())),
        "DHCPv6 to 547": (dhcp, ether(C, B, six, UDP(sport=547, dport=547), DHCP6_RelayReply())),
        "DHCPv6 behind options": (dhcp, ether(C, B, six, IPv6ExtHdrDestOpt(), six_reply, DHCP6_Reply())),
        "DHCPv6 fragment": (dhcp, ether(C, B, six, first6, six_reply, DHCP6_Reply())),
        "RA": (router, ether(GROUP6, B, six, RA)),
        "RA to one": (router, ether(C, B, six, RA)),
        "RA in a VLAN": (router, ether(GROUP6, B, Dot1Q(vlan=9), six, RA)),
        "RA behind options": (router, ether(GROUP6, B, six, IPv6ExtHdrDestOpt(), RA)),
        "RA behind hop-by-hop and routing": (
            router,
            ether(GROUP6, B, six, IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(), RA),
        ),
        "RA in an atomic fragment": (router, ether(GROUP6, B, six, IPv6ExtHdrFragment(id=7), RA)),
        "RA, first fragment": (router, ether(GROUP6, B, six, first6, IPv6ExtHdrDestOpt(), RA)),
        "chain that goes on in the next fragment": (
            hidden,
            ether(GROUP6, B, six, IPv6ExtHdrFragment(m=1, nh=60), Raw(b"\x3a\x05" + bytes(14))),
        ),
        "endless chain": (hidden, ether(GROUP6, B, six, IPv6ExtHdrDestOpt(len=200))),
        "redirect": (router, ether(C, B, IPv6(src=GATEWAY6, dst="fe80::3"), ICMPv6ND_Redirect(tgt="fe80::2"))),
        "NA behind options": (hidden, ether(C, B, six, IPv6ExtHdrDestOpt(), ICMPv6ND_NA(tgt="fe80::2"))),
        "NS in fragments": (hidden, ether(C, B, six, first6, ICMPv6ND_NS(tgt="fe80::3"))),
        "ARP of nobody's kind": (hidden, arp(B, GATEWAY, "10.0.0.3").replace(b"\x06\x04", b"\x06\x05")),
        "gateway's ARP": (reasons.FORGED, arp(B, GATEWAY, "10.0.0.3", C, reply=True)),
        "gratuitous": (reasons.FORGED, arp(B, GATEWAY, GATEWAY)),
        "service's ARP": (reasons.FORGED, arp(B, SERVICE, "10.0.0.3")),
        "ARP of another hardware": (reasons.FORGED, arp(B, GATEWAY, "10.0.0.3").replace(b"\0\1\x08\0", b"\0\6\x08\0")),
        "ARP in a VLAN": (reasons.FORGED, tagged(arp(B, GATEWAY, "10.0.0.3"), 7)),
        "ARP for another MAC": (reasons.FORGED, ether(ALL, B, ARP(op=2, hwsrc=D.hex(":"), psrc=GATEWAY))),
        "NA with override": (reasons.FORGED, ether(GROUP6, B, six, ICMPv6ND_NA(tgt=GATEWAY6, O=1, R=1))),
        "NA with another MAC": (
            reasons.FORGED,
            ether(C, B, six, ICMPv6ND_NA(tgt=GATEWAY6), ICMPv6NDOptDstLLAddr(lladdr=D.hex(":"))),
        ),
        "NS that tells": (
            reasons.FORGED,
            ether(C, B, IPv6(src=GATEWAY6), ICMPv6ND_NS(tgt="fe80::3"), ICMPv6NDOptSrcLLAddr(lladdr=B.hex(":"))),
        ),
        "RS that tells": (reasons.FORGED, ether(C, B, IPv6(src=GATEWAY6, dst="ff02::2"), ICMPv6ND_RS())),
        "the hub's MAC": (reasons.FORGED_STATION, frame(C, HUB_MAC)),
    }  # fmt: skip


def lawful() -> dict[str, bytes]:
    """What a member may send."""
    ip, six = IP(src="10.0.0.2", dst="10.0.0.3"), IPv6(src="fe80::2", dst="fe80::3")
    big = ether(C, B, ip, UDP(sport=4000, dport=5000), Raw(b"\0\x44" * 500))
    return {
        "TCP": ether(C, B, ip, TCP(dport=68)),
        "UDP": ether(C, B, ip, UDP(sport=4000, dport=5000)),
        "UDP to a low port": ether(C, B, ip, UDP(sport=4000, dport=53)),
        "UDP of 67's range": ether(C, B, ip, UDP(sport=4000, dport=0x4400)),
        "a later fragment": fragments(big, 800)[1],
        "a first fragment": fragments(big, 800)[0],
        "ping": ether(C, B, ip, ICMP()),
        "discover": ether(ALL, B, IP(src="0.0.0.0", dst="255.255.255.255"), UDP(sport=68, dport=67), BOOTP(op=1)),
        "solicit": ether(GROUP6, B, six, UDP(sport=546, dport=547), DHCP6_Solicit()),
        "RS": ether(GROUP6, B, IPv6(src="::", dst="ff02::2"), ICMPv6ND_RS()),
        "NS": ether(GROUP6, B, six, ICMPv6ND_NS(tgt="fe80::3"), ICMPv6NDOptSrcLLAddr(lladdr=B.hex(":"))),
        "NA": ether(C, B, six, ICMPv6ND_NA(tgt="fe80::2", O=1), ICMPv6NDOptDstLLAddr(lladdr=B.hex(":"))),
        "DAD": ether(GROUP6, B, IPv6(src="::", dst="ff02::1:ff00:2"), ICMPv6ND_NS(tgt="fd00::2")),
        "ping6": ether(C, B, six, ICMPv6EchoRequest()),
        "ping6 in fragments": ether(C, B, six, IPv6ExtHdrFragment(m=1), ICMPv6EchoRequest(data=b"x" * 100)),
        "ARP request": arp(B, "10.0.0.2", GATEWAY),
        "ARP reply": arp(B, "10.0.0.2", "10.0.0.3", C, reply=True),
        "ARP probe": arp(B, "0.0.0.0", "10.0.0.2"),
        "ARP in a VLAN": tagged(arp(B, "10.0.0.2", GATEWAY), 9),
        "MLD": ether(GROUP6, B, six, IPv6ExtHdrHopByHop(), Raw(b"\x8f" + bytes(23))),
        "other": frame(C, B),
        "short": C + B + b"\x08\0",
    }  # fmt: skip


def hub_of(*, guard: GuardRules | None = None, **ports: Any) -> Switch:
    """The hub machine at port 1, members at 2 and 3, each heard once; a listener at 4 if asked for."""
    hub = Switch()
    hub.set_rules(HubRules(), (), guard or GuardRules(on=True, addresses=OWN, stations=(HUB_MAC,), trusted=("boss",)))
    hub.add_port(P1, PortRules(is_hub_port=True, policy=FREE))
    hub.add_port(P2, ports.get("two", PortRules(user="two", policy=FREE)), kinds=ALL_KINDS)
    hub.add_port(P3, PortRules(user="three", policy=FREE), kinds=ALL_KINDS)
    for port, mac in ((P1, HUB_MAC), (P2, B), (P3, C)):
        hub.forward([frame(ALL, mac)], port, 0.0)
    return hub


ROGUE, LAWFUL = rogue(), lawful()


# -- servers, routers, forged senders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROGUE)
def test_it_reaches_nobody_and_is_counted(name: str) -> None:
    reason, data = ROGUE[name]
    hub = hub_of()
    assert hub.forward([data], P2, 1.0) == {}
    assert hub.drops[P2] == {reason: 1}
    assert hub.guards.caught[P2][0] == reason


@pytest.mark.parametrize("name", ROGUE)
def test_from_who_is_trusted_it_passes(name: str) -> None:
    hub = hub_of(two=PortRules(user="Boss", policy=FREE))
    before = hub.drops[P2].total()
    assert P3 in hub.forward([ROGUE[name][1]], P2, 1.0)
    assert hub.drops[P2].total() == before
    off = hub_of(guard=GuardRules())
    assert P3 in off.forward([ROGUE[name][1]], P2, 1.0)


@pytest.mark.parametrize("name", LAWFUL)
def test_what_a_member_may_send_passes(name: str) -> None:
    hub = hub_of()
    assert hub.forward([LAWFUL[name]], P2, 1.0)[P3] == [LAWFUL[name]]
    assert not hub.drops[P2]


@pytest.mark.parametrize("count", [1, RUN - 2, RUN + 4])
@pytest.mark.parametrize("name", ["offer to one", "RA to one", "NA with override", "IP options", "DHCPv6 reply"])
@pytest.mark.parametrize("before", ["TCP", "UDP", "ping", "ping6", "UDP over IPv6", "TCP over IPv6"])
def test_it_does_not_pass_among_others_with_the_same_header(name: str, before: str, count: int) -> None:
    six = IPv6(src="fe80::2", dst="fe80::3")
    decoy = {
        **LAWFUL,
        "UDP over IPv6": ether(C, B, six, UDP(sport=4000, dport=5000), Raw(bytes(99))),
        "TCP over IPv6": ether(C, B, six, TCP()),
    }[before]
    hub, data = hub_of(), C + B + ROGUE[name][1][12:]
    for batch in ([decoy] * count + [data], [data] + [decoy] * count, [decoy] * count + [data] + [decoy] * count):
        out = hub.forward(batch, P2, 1.0)
        assert set(out[P3]) == {decoy}
        assert len(out[P3]) == len(batch) - 1
    assert hub.drops[P2].total() == 3


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([*ROGUE, *LAWFUL]), min_size=1, max_size=60), st.integers(1, 3))
def test_a_batch_is_judged_as_its_frames_would_be(names: list[str], repeat: int) -> None:
    frames = [ROGUE[name][1] if name in ROGUE else LAWFUL[name] for name in names for _ in range(repeat)]
    together, alone = hub_of(), hub_of()
    out = together.forward(frames, P2, 1.0).get(P3, [])
    assert out == [one for each in frames for one in alone.forward([each], P2, 1.0).get(P3, [])]
    assert together.drops[P2] == alone.drops[P2]
    assert not {ROGUE[name][1] for name in names if name in ROGUE} & set(out) - set(LAWFUL.values())


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([name for name, (reason, _) in ROGUE.items() if reason != reasons.FORGED_STATION]),
    st.lists(st.sampled_from([b"\x81\0\0\0", b"\x88\xa8\0\7", b"\x91\0\0\1"]), max_size=9),
    st.sampled_from([ALL, C, GROUP6, b"\x01\x80\xc2\0\0\x0e"]),
)
def test_tags_and_receivers_change_nothing(name: str, tags: list[bytes], to: bytes) -> None:
    hub, data = hub_of(), ROGUE[name][1]
    if isinstance(data, SuperFrame):
        return
    assert hub.forward([to + B + b"".join(tags) + data[12:]], P2, 1.0) == {}
    assert hub.drops[P2].total() == 1


def test_a_super_frame_is_judged_as_it_will_be() -> None:
    hub, made = hub_of(), hidden_by_checksum()
    assert not flaw(made, ALL_KINDS)
    assert made[36:38] == b"\0\x09"
    assert hub.forward([made] * (RUN + 1), P2, 1.0) == {}
    assert hub.drops[P2] == {reasons.ROGUE_DHCP: RUN + 1}
    usual = SuperFrame(LAWFUL["UDP"].ljust(90, b"\0") + OFFLOAD.pack(NEEDS_CHECKSUM, NO_SPLIT, 0, 0, 34, 6))
    assert hub.forward([usual] * RUN, P2, 1.0)[P3] == [usual] * RUN


def test_nothing_is_learned_from_what_is_dropped() -> None:
    hub = hub_of(guard=GuardRules(on=True, addresses=OWN))
    ack = ether(C, E, IP(src="10.0.0.2"), UDP(sport=67, dport=9), BOOTP(op=2, yiaddr="10.0.0.9", chaddr=C))
    ack = ack + bytes(DHCP(options=[("message-type", 5), "end"]))
    hub.forward([ack, arp(E, GATEWAY, "10.0.0.3")], P2, 1.0)
    assert {row.mac for row in hub.rows(1.0)} == {HUB_MAC, B, C}
    assert hub.address_rows(1.0) == []


def test_a_port_that_was_guarded_is_no_more_when_it_is_trusted() -> None:
    hub = hub_of()
    assert hub.forward([offer()], P2, 1.0) == {}
    hub.set_rules(HubRules(), (), GuardRules(on=True, trusted=("TWO",)))
    assert P3 in hub.forward([offer()], P2, 1.0)
    hub.set_rules(HubRules(), (), GuardRules(on=True))
    assert hub.forward([offer()], P2, 1.0) == {}


def test_a_bridge_of_this_machine_is_trusted_in_relay_mode_only() -> None:
    for relay in (False, True):
        hub = hub_of(guard=GuardRules(on=True, relay=relay), two=PortRules(bridge=True, is_local_bridge=True))
        assert (P3 in hub.forward([offer()], P2, 1.0)) == relay


def test_the_hubs_macs_and_those_behind_trusted_ports_are_nobody_elses() -> None:
    hub = hub_of(guard=GuardRules(on=True))
    assert hub.forward([frame(C, HUB_MAC)], P2, 5.0) == {}
    assert hub.drops[P2] == {reasons.FORGED_STATION: 1}
    assert hub.guards.caught[P2] == (reasons.FORGED_STATION, HUB_MAC.hex(":"))
    assert hub.forward([frame(C, HUB_MAC)], P2, QUIET_S + 1) != {}, "a laptop that left the office's network"


# -- addresses ---------------------------------------------------------------------------------------------------------

MINE = "10.0.0.3"
Claim = Callable[..., bytes]


def na(mac: bytes, address: str, to: bytes = GROUP6) -> bytes:
    option = ICMPv6NDOptDstLLAddr(lladdr=mac.hex(":"))
    return ether(to, mac, IPv6(src=address, dst="ff02::1"), ICMPv6ND_NA(tgt=address, O=1), option)


def claim4(mac: bytes) -> bytes:
    return arp(mac, MINE, MINE)


def claim6(mac: bytes) -> bytes:
    return na(mac, "fd00::3")


CLAIMS = pytest.mark.parametrize("claim", [claim4, claim6])


def passes(hub: Switch, data: bytes, port: PortId, now: float) -> bool:
    """Does it reach another member (or, from the third, the second)?"""
    before = hub.drops[port].total()
    out = hub.forward([data], port, now)
    reached = any(data in frames for frames in out.values())
    assert reached == (hub.drops[port].total() == before)
    return reached


@CLAIMS
def test_an_address_in_use_is_not_anothers(claim: Claim) -> None:
    hub = hub_of()
    assert passes(hub, claim(C), P3, 1.0)
    assert not passes(hub, claim(B), P2, 2.0)
    assert hub.guards.caught[P2][0] == reasons.FORGED
    assert passes(hub, claim(C), P3, 3.0)
    assert not passes(hub, claim(D), P2, 4.0), "with whatever MAC"


@CLAIMS
def test_a_station_may_move_with_its_address(claim: Claim) -> None:
    hub = hub_of()
    assert passes(hub, claim(C), P3, 1.0)
    assert passes(hub, claim(C), P2, 2.0)
    assert not passes(hub, claim(D), P3, 3.0)


@CLAIMS
def test_behind_one_port_a_station_may_take_over_from_another(claim: Claim) -> None:
    hub = hub_of()
    assert passes(hub, claim(C), P3, 1.0)
    assert passes(hub, claim(D), P3, 2.0)
    assert not passes(hub, claim(B), P2, 3.0)


@CLAIMS
def test_who_leaves_leaves_its_address(claim: Claim) -> None:
    hub = hub_of()
    assert passes(hub, claim(C), P3, 1.0)
    hub.remove_port(P3)
    hub.add_port(P4, PortRules(user="four", policy=FREE))
    assert passes(hub, claim(D), P4, 2.0)


@CLAIMS
def test_a_quiet_station_is_asked_and_keeps_its_address_if_it_answers(claim: Claim) -> None:
    hub, now = hub_of(), 1.0 + QUIET_S
    assert passes(hub, claim(C), P3, 1.0)
    out = hub.forward([claim(B)], P2, now)
    assert list(out) == [P3]
    (question,) = out[P3]
    assert question[:12] == C + ASKER
    assert passes(hub, claim(C), P3, now + 0.2)
    assert not passes(hub, claim(B), P2, now + ANSWER_S + 0.1)


@CLAIMS
def test_a_quiet_station_that_says_nothing_loses_it(claim: Claim) -> None:
    hub, now = hub_of(), 1.0 + QUIET_S
    assert passes(hub, claim(C), P3, 1.0)
    hub.forward([claim(B)], P2, now)
    assert hub.forward([claim(B)], P2, now + 0.5) == {}, "it was asked a moment ago"
    assert passes(hub, claim(B), P2, now + ANSWER_S + 0.1)
    assert not passes(hub, claim(C), P3, now + ANSWER_S + 1), "too late"


def test_the_questions_are_well_formed() -> None:
    from scapy.layers.l2 import Ether

    hub = hub_of()
    hub.forward([tagged(claim4(C), 5), claim6(C)], P3, 1.0)
    out = hub.forward([tagged(claim4(B), 5), claim6(B)], P2, 1.0 + QUIET_S)
    asked4, asked6 = (Ether(data) for data in out[P3])
    assert (asked4[Dot1Q].vlan, asked4[ARP].op, asked4[ARP].psrc, asked4[ARP].pdst) == (5, 1, "0.0.0.0", MINE)
    assert (asked6[IPv6].src, asked6[IPv6].dst, asked6[IPv6].hlim) == ("::", "ff02::1:ff00:3", 255)
    assert asked6[ICMPv6ND_NS].tgt == "fd00::3"
    right = asked6[ICMPv6ND_NS].cksum
    del asked6[ICMPv6ND_NS].cksum
    assert Ether(bytes(asked6))[ICMPv6ND_NS].cksum == right


def test_in_another_vlan_an_address_is_another() -> None:
    hub = hub_of()
    assert passes(hub, tagged(claim4(C), 5), P3, 1.0)
    assert passes(hub, tagged(claim4(B), 6), P2, 2.0)
    assert not passes(hub, tagged(claim4(B), 5), P2, 3.0)


def test_a_leased_address_is_its_stations_wherever_it_is_and_however_quiet() -> None:
    hub, address = hub_of(), ip_address(MINE).packed
    hub.guards.lease(address, C, 0.0, 5000.0)
    assert not passes(hub, claim4(B), P2, 1000.0)
    assert passes(hub, claim4(C), P2, 1001.0)
    hub.guards.lease(address, B, 1002.0, 5000.0)
    assert passes(hub, claim4(B), P2, 1003.0)
    assert not passes(hub, claim4(C), P3, 1004.0)
    hub.guards.release(address)
    hub.remove_port(P2)
    assert passes(hub, claim4(C), P3, 1005.0)
    hub.guards.lease(address, D, 1006.0, 1100.0)
    assert not passes(hub, claim4(C), P3, 1050.0)
    assert passes(hub, claim4(C), P3, 1100.0), "it ran out"
    hub.guards.lease(address, D, 1101.0, 2000.0)
    hub.guards.release_all()
    assert passes(hub, claim4(C), P3, 1102.0)


def test_an_address_behind_a_trusted_port_is_kept_while_the_station_is_known() -> None:
    hub = hub_of()
    hub.forward([arp(HUB_MAC, "10.0.0.7", GATEWAY)], P1, 1.0)
    assert not passes(hub, arp(B, "10.0.0.7", MINE), P2, 300.0)
    hub.forward([arp(HUB_MAC, MINE, GATEWAY)], P1, 301.0)
    assert passes(hub, claim4(C), P1, 302.0), "who is trusted says what he likes"


def test_nobody_speaks_for_a_station_that_is_somewhere_else() -> None:
    hub = hub_of()
    forged = ether(ALL, B, ARP(op=2, hwsrc=C.hex(":"), psrc="10.0.0.77", pdst="10.0.0.77"))
    assert not passes(hub, forged, P2, 1.0)
    proxy = ether(ALL, B, ARP(op=2, hwsrc=D.hex(":"), psrc="10.0.0.77", pdst="10.0.0.77"))
    assert passes(hub, proxy, P2, 2.0)


@pytest.mark.parametrize(
    "look",
    [
        lambda mac: arp(mac, "0.0.0.0", MINE),
        lambda mac: ether(GROUP6, mac, IPv6(src="::", dst="ff02::1:ff00:3"), ICMPv6ND_NS(tgt="fd00::3")),
    ],
    ids=["ARP probe", "DAD"],
)
def test_a_first_look_is_not_spoiled_but_a_conflict_is_heard(look: Callable[[bytes], bytes]) -> None:
    hub = hub_of()
    assert passes(hub, look(C), P3, 1.0)
    assert not passes(hub, look(B), P2, 1.5), "as if two looked at once"
    assert not passes(hub, claim4(B), P2, 1.6) or not passes(hub, claim6(B), P2, 1.6)
    assert passes(hub, look(C), P3, 2.0)
    assert passes(hub, look(B), P2, 1.0 + TRIAL_S), "who has it must hear that somebody else wants it"


def test_what_the_ip_table_knows_counts_where_nothing_was_claimed() -> None:
    hub = hub_of()
    hub.forward([ether(B, C, IP(src=MINE, dst="10.0.0.2"), ICMP())], P3, 1.0)
    assert not passes(hub, claim4(B), P2, 2.0)
    assert passes(hub, claim4(C), P2, 3.0), "it moved"


def test_a_port_has_so_many_addresses_and_no_more() -> None:
    hub = hub_of()
    for number in range(3 * PORT_LIMIT):
        hub.forward([arp(B, f"10.9.{number >> 8}.{number & 255}", GATEWAY)], P2, 1.0)
    assert passes(hub, claim4(C), P3, 2.0)
    assert not passes(hub, claim4(B), P2, 3.0)
    assert passes(hub, arp(C, "10.9.0.0", GATEWAY), P3, 20.0), "the oldest was forgotten"
    small = Switch(limit=8)
    small.set_rules(HubRules(), (), GuardRules(on=True))
    for port in (P2, P3):
        small.add_port(port, PortRules(bridge=True, policy=FREE))
    small.forward([frame(ALL, C), claim4(C)], P3, 1.0)
    for number in range(40):
        small.forward([arp(B, f"10.9.0.{number}", GATEWAY)], P2, 1.0)
    assert not passes(small, claim4(B), P2, 2.0), "a flood of one port takes nothing from others"


# -- several workers ---------------------------------------------------------------------------------------------------

TRUNK = PortRules(is_trunk=True)


def with_trunk() -> Switch:
    hub = hub_of()
    hub.add_port(P4, TRUNK, kinds=ALL_KINDS)
    return hub


def test_what_another_worker_has_let_in_is_not_judged_again() -> None:
    hub = with_trunk()
    for name in ("offer", "RA", "gateway's ARP"):
        assert P3 in hub.forward([ROGUE[name][1]], P4, 1.0)


def test_but_a_claim_that_it_could_not_judge_is() -> None:
    hub = with_trunk()
    assert passes(hub, claim4(C), P3, 1.0)
    assert not passes(hub, claim4(D), P4, 2.0)
    hub.enter_as(P4, PortRules(is_trunk=True, is_trusted=True))
    assert P3 in hub.forward([claim4(D)], P4, 3.0)


def test_an_address_behind_another_worker_is_kept_and_asked_about_there() -> None:
    hub = with_trunk()
    hub.forward([claim4(D)], P4, 1.0)
    assert not passes(hub, claim4(C), P3, 2.0)
    now = 1.0 + QUIET_S
    out = hub.forward([claim4(C)], P3, now)
    assert [data[:12] for data in out[P4]] == [D + ASKER]
    assert not passes(hub, claim4(C), P3, now + ANSWER_S + 0.1), "its answer may take a while"
    assert passes(hub, claim4(C), P3, now + TRUNK_ANSWER_S + 0.1)


# -- relay -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_in_relay_mode_clients_are_heard_by_who_may_serve_only(guarded: bool) -> None:
    rules = GuardRules(on=guarded, relay=True, trusted=("three",))
    hub = hub_of(guard=rules)
    hub.add_port(P4, TRUNK, kinds=ALL_KINDS)
    five, six = PortId(5), PortId(6)
    hub.add_port(five, PortRules(user="five", policy=FREE))
    hub.add_port(six, PortRules(monitor=True))
    for name in ("discover", "solicit"):
        for count in (1, 3):
            out = hub.forward([LAWFUL[name]] * count + [LAWFUL["ARP request"]], P2, 1.0)
            assert {port: len(frames) for port, frames in out.items()} == {
                P1: count + 1, P3: count + 1, P4: count + 1, five: 1, six: count + 1
            }  # fmt: skip
    renewal = ether(D, B, IP(src=MINE, dst="10.0.0.9"), UDP(sport=68, dport=67), BOOTP(op=1))
    assert five not in hub.forward([renewal], P2, 2.0), "nor is it flooded to all when its server is not known"
    assert hub.forward([offer(B, C)], P3, 3.0)[P2] == [offer(B, C)]
    assert set(hub.forward([LAWFUL["discover"]], P4, 4.0)) == {P1, P3, six}, "from another worker"


def test_a_network_header_is_found_behind_everything() -> None:
    data = offer()
    for kind in (b"", b"\x81\0\0\5", b"\x88\xa8\0\5\x81\0\0\6"):
        made = data[:12] + kind + data[12:]
        assert network(made) == (0x0800, 14 + len(kind))
    assert network(C + B + b"\x81\0") == (0x8100, 14)
    assert network(ALL + ZERO + A[:2]) == (0x0200, 14)
