"""What the policies do with frames, measured at a real server and at our hub by the same code (protocol appendix B)."""

import secrets
from collections.abc import Iterator
from typing import Any, Final

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Reply, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from lab.beside import BROADCAST, Side, beside, frame, mac
from lab.net import Net
from lab.plain import Plain, turn

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnserver", "vpncmd"), pytest.mark.timeout(300)]

SETTLE_S: Final = 0.5
STEP_S: Final = 0.07  # between two frames, or they would be a storm
ALL6: Final = bytes.fromhex("333300000001")
FILTERS: Final = (
    *("DHCPFilter", "DHCPv6Filter", "DHCPNoServer", "DHCPv6NoServer", "NoServer", "NoServerV6", "ArpDhcpOnly"),
    *("RSandRAFilter", "RAFilter", "FilterIPv4", "FilterIPv6", "FilterNonIP", "DHCPForce"),
)
POLICIES: Final[dict[str, dict[str, int | bool]]] = {
    **{name.lower(): {name: True} for name in FILTERS},
    "noroutingv6": {"NoRoutingV6": True},
    "checks": {"CheckMac": True, "CheckIP": True, "CheckIPv6": True},
    "private": {"PrivacyFilter": True},
    "hidden": {"PrivacyFilter": True},
    "five": {"VLanId": 5},
    "also5": {"VLanId": 5},
}


@pytest.fixture(scope="module")
def sides() -> Iterator[list[Side]]:
    with Net() as net, beside(net, POLICIES) as both:
        yield both


def made(to: bytes, by: bytes, *layers: Any) -> bytes:
    packet = Ether(dst=to.hex(":"), src=by.hex(":"))
    for layer in layers:
        packet /= layer
    return bytes(packet / Raw(secrets.token_bytes(8)))  # like no other


def traffic(to: bytes, by: bytes, number: int) -> dict[str, bytes]:
    """One frame of each kind, to one station and, named `*`, to all."""
    four = IP(src=f"10.0.0.{number}", dst="10.0.0.99")
    six = IPv6(src=f"fe80::{number}", dst="fe80::99")
    both = {
        "discover": (four, UDP(sport=68, dport=67), BOOTP(op=1), DHCP(options=[("message-type", 1), "end"])),
        "offer": (four, UDP(sport=67, dport=68), BOOTP(op=2), DHCP(options=[("message-type", 2), "end"])),
        "solicit": (six, UDP(sport=546, dport=547), DHCP6_Solicit()),
        "reply6": (six, UDP(sport=547, dport=546), DHCP6_Reply()),
        "syn": (four, TCP(flags="S")),
        "syn_ack": (four, TCP(flags="SA")),
        "syn_ack6": (six, TCP(flags="SA")),
        "ping": (four, ICMP()),
        "ping6": (six, ICMPv6EchoRequest()),
        "rs": (six, ICMPv6ND_RS()),
        "ra": (six, ICMPv6ND_RA(routerlifetime=0)),
        "ns": (six, ICMPv6ND_NS(tgt="fe80::99")),
        "arp": (ARP(hwsrc=by.hex(":"), psrc=f"10.0.0.{number}", pdst="10.0.0.99"),),
    }
    found = {kind: made(to, by, *layers) for kind, layers in both.items()}
    found |= {f"{kind}*": made(ALL6 if IPv6 in layers[0] else BROADCAST, by, *layers) for kind, layers in both.items()}
    return found | {"other": frame(to, by), "other*": frame(BROADCAST, by)}


def heard(everybody: list[Plain], sender: Plain, receiver: Plain, frames: dict[str, bytes]) -> set[str]:
    """Which of the frames come."""
    for one in frames.values():
        sender.send(one)
        turn(everybody, STEP_S)
    turn(everybody, SETTLE_S)
    came = set(receiver.frames)
    return {kind for kind, one in frames.items() if one in came}


@pytest.mark.parametrize("policy", FILTERS)
def test_a_filter_stops_the_same(sides: list[Side], policy: str) -> None:
    found = {}
    for side in sides:
        with side.join("a", bridge=True) as other, side.join(policy.lower(), bridge=True) as member:
            a, b, everybody = mac(1), mac(2), [other, member]
            for client, station in ((other, a), (member, b)):
                client.send(frame(BROADCAST, station))
                turn(everybody, SETTLE_S)
            sent, back = traffic(a, b, 2), traffic(b, a, 1)
            out, into = heard(everybody, member, other, sent), heard(everybody, other, member, back)
            found[side.name] = sorted(set(sent) - out), sorted(set(back) - into)
    print(policy, found)
    assert found["ukihashi"] == found["vpnserver"]
