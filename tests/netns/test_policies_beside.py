"""What the policies do with frames, measured at a real server and at our hub by the same code (protocol appendix B)."""

import secrets
from collections.abc import Iterator
from typing import Any, Final

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Reply, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
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
SOME: Final = ("DHCPFilter", "NoServer", "RAFilter")  # the others only at full length
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


@pytest.mark.parametrize(
    "policy", [name if name in SOME else pytest.param(name, marks=pytest.mark.soak) for name in FILTERS]
)
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


def four(by: bytes, address: str, to: bytes = BROADCAST) -> bytes:
    return made(to, by, IP(src=address, dst="10.0.0.99"), UDP())


def six(by: bytes, address: str, to: bytes = BROADCAST) -> bytes:
    return made(to, by, IPv6(src=address, dst="fe80::99"), UDP())


def claim(by: bytes, address: str) -> bytes:
    return made(BROADCAST, by, ARP(hwsrc=by.hex(":"), psrc=address, pdst="10.0.0.99"))


@pytest.mark.soak
def test_a_member_has_as_many_addresses(sides: list[Side]) -> None:
    found: dict[str, Any] = {}
    for side in sides:
        with side.join("a", bridge=True) as other, side.join("b") as member, side.join("noroutingv6") as narrow:
            everybody, by = [other, member, narrow], mac(20)
            told = {f"10.1.0.{n}": four(by, f"10.1.0.{n}") for n in range(1, 7)}
            told = {f"public {n}": four(by, f"8.8.4.{n}") for n in range(1, 7)} | told
            told |= {f"late {n}": four(by, f"8.8.8.{n}") for n in range(1, 4)} | {"zero": four(by, "0.0.0.0")}
            told |= {f"fe80::{n}": six(by, f"fe80::{n}") for n in range(1, 7)}
            # from another station, or a storm would be seen in it
            more = {f"fe80::{n}": six(mac(21), f"fe80::2:{n}") for n in range(1, 18)}
            more = {f"ula {n}": six(mac(22), f"fd00::{n}") for n in range(1, 4)} | more
            more |= {f"late {n}": six(mac(22), f"fd00::1:{n}") for n in range(1, 4)}
            found[side.name] = (
                [kind for kind in told if kind in heard(everybody, member, other, told)],
                [kind for kind in more if kind in heard(everybody, narrow, other, more)],
            )
    print(found)
    assert found["ukihashi"] == found["vpnserver"]


def test_stations_and_addresses_of_others_are_not_taken(sides: list[Side]) -> None:
    found = {}
    for side in sides:
        with side.join("a", bridge=True) as other, side.join("checks", bridge=True) as member:
            everybody, a, b = [other, member], mac(30), mac(31)
            for one in (frame(BROADCAST, a), claim(a, "10.2.0.1"), six(a, "fe80::30"), four(a, "8.8.4.4")):
                other.send(one)
                turn(everybody, SETTLE_S)
            sly = {
                "station": frame(BROADCAST, a),
                "arp": claim(b, "10.2.0.1"),
                "ip": four(b, "10.2.0.1"),
                "ip6": six(b, "fe80::30"),
                "public": four(b, "8.8.4.4"),
                "na": made(BROADCAST, b, IPv6(src="fe80::31", dst="ff02::1"), ICMPv6ND_NA(tgt="fe80::30")),
                "own": four(b, "10.2.0.2"),
            }
            found[side.name] = sorted(heard(everybody, member, other, sly))
    print(found)
    assert "na" in found["vpnserver"]  # we do more
    assert [kind for kind in found["vpnserver"] if kind != "na"] == found["ukihashi"]


@pytest.mark.soak
def test_private_members_hear_nothing_of_each_other(sides: list[Side]) -> None:
    found = {}
    for side in sides:
        with (
            side.join("private", bridge=True) as one,
            side.join("hidden", bridge=True) as two,
            side.join("a", bridge=True) as other,
        ):
            everybody, a, b = [one, two, other], mac(40), mac(41)
            for client, station in ((one, a), (two, b)):
                client.send(frame(BROADCAST, station))
                turn(everybody, SETTLE_S)
            told = {
                kind: data for kind, data in traffic(b, a, 4).items() if kind.rstrip("*") in ("arp", "ping", "other")
            }
            told["unknown"] = frame(mac(49), a)
            into = heard(everybody, one, two, told)
            found[side.name] = sorted(into), sorted(kind for kind, data in told.items() if data in other.frames)
    print(found)
    assert found["ukihashi"] == found["vpnserver"]


@pytest.mark.soak
def test_members_of_a_vlan_are_among_themselves(sides: list[Side]) -> None:
    found = {}
    for side in sides:
        with (
            side.join("five", bridge=True) as one,
            side.join("also5", bridge=True) as two,
            side.join("a", bridge=True) as other,
        ):
            everybody, a, c = [one, two, other], mac(50), mac(52)
            hello, outside = frame(BROADCAST, a), frame(BROADCAST, c)
            nested = made(BROADCAST, a, Dot1Q(vlan=6), IP(src="10.3.0.1"), UDP())
            known = [hello, outside, nested]
            inside = outside[:12] + b"\x81\x00\x00\x05" + outside[12:]
            for _ in range(10):  # a real server may let the first frames fall to those who have just come
                two.send(frame(BROADCAST, mac(53)))
                turn(everybody, SETTLE_S)
                if one.frames and other.frames:
                    break
            for client, data in ((one, hello), (other, outside), (other, inside), (one, nested)):
                client.send(data)
                turn(everybody, SETTLE_S)

            def names(client: Plain, known: list[bytes] = known) -> list[str]:
                tagged = [data[:12] + b"\x81\x00\x00\x05" + data[12:] for data in known]
                return [
                    f"{known.index(data)}" if data in known else f"{tagged.index(data)} tagged"
                    for data in client.frames
                    if data in known or data in tagged
                ]

            found[side.name] = [names(client) for client in everybody]
    print(found)
    assert found["ukihashi"] == found["vpnserver"]
