import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.scene import ethernet
from ukihashi.detect.decode import Segment, as_packets, reverse, segments
from ukihashi.detect.layers import LINK_TYPES, MAX_TUNNELS

PAYLOAD = b"payload of twenty-two."
TCP = struct.pack("!HHIIBBHHH", 50000, 443, 7, 9, 0x50, 0x18, 0, 0, 0) + PAYLOAD
V4, V6 = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")


def one(link_type: int, frame: bytes, *, captured: int | None = None) -> Segment | None:
    size = len(frame) if captured is None else captured
    found = segments(link_type, b"###" + frame[:size], [(1.5, 3, size, len(frame))])
    return found[0] if found else None


def key(ends: tuple[str, str]) -> bytes:
    return ip_address(ends[0]).packed + ip_address(ends[1]).packed + struct.pack("!HH", 50000, 443)


def v6(extensions: bytes, first: int) -> bytes:
    tcp = extensions + TCP
    return struct.pack("!IHBB", 6 << 28, len(tcp), first, 64) + b"".join(ip_address(a).packed for a in V6) + tcp


IP4, IP6 = ethernet(*V4, TCP)[14:], ethernet(*V6, TCP)[14:]
HOP, ROUTING, OPTIONS = (bytes([n, 0]) + bytes(6) for n in (43, 60, 6))
CASES = {
    "ethernet": (1, ethernet(*V4, TCP), V4),
    "ethernet, IPv6": (1, ethernet(*V6, TCP), V6),
    "802.1Q": (1, ethernet(*V4, TCP, tags=(7,)), V4),
    "QinQ, IPv6": (1, ethernet(*V6, TCP, tags=(7, 8)), V6),
    "PPPoE": (1, bytes(12) + b"\x88\x64\x11\x00\x00\x01" + struct.pack("!HH", len(IP4) + 2, 0x21) + IP4, V4),
    "cooked": (113, bytes(14) + b"\x08\x00" + IP4, V4),
    "cooked 2, IPv6": (276, b"\x86\xdd" + bytes(18) + IP6, V6),
    "raw": (101, IP4, V4),
    "raw, IPv6": (229, IP6, V6),
    "loopback": (0, b"\x02\x00\x00\x00" + IP4, V4),
    "loopback of BSD, IPv6": (108, b"\x00\x00\x00\x1c" + IP6, V6),
    "three extension headers": (101, v6(HOP + ROUTING + OPTIONS, 0), V6),
    "first fragment, IPv6": (101, v6(b"\x06\x00\x00\x01\x00\x00\x00\x07", 44), V6),
    "authentication header": (101, v6(b"\x06\x04" + bytes(22), 51), V6),
    "IPv4 options": (101, b"\x47" + IP4[1:2] + struct.pack("!H", len(IP4) + 8) + IP4[4:20] + bytes(8) + TCP, V4),
}


def ip4(protocol: int, body: bytes, *, fragment: int = 0) -> bytes:
    """An IPv4 packet of a mirror."""
    ends = b"\xc0\0\2\1\xc0\0\2\2"
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0) + ends + body


def ip6(protocol: int, body: bytes) -> bytes:
    return struct.pack("!IHBB32x", 6 << 28, len(body), protocol, 64) + body


def udp(port: int, body: bytes) -> bytes:
    return struct.pack("!HHHH", 50000, port, 8 + len(body), 0) + body


ETHER4, ETHER6 = ethernet(*V4, TCP), ethernet(*V6, TCP, tags=(7, 8))
SESSION2, SESSION3 = b"\x10\x07\x00\x01" + bytes(4), b"\x20\x07\x00\x01" + bytes(6)
VX, GPE4 = b"\x08" + bytes(7), b"\x0c\0\0\x01" + bytes(4)
TUNNELS = {
    "GRE": (ip4(47, b"\0\0\x08\0" + IP4), V4),
    "GRE with checksum, key and number, IPv6 inside": (ip4(47, b"\xb0\0\x86\xdd" + bytes(12) + IP6), V6),
    "GRE over IPv6": (ip6(47, b"\0\0\x08\0" + IP4), V4),
    "GRE with Ethernet": (ip4(47, b"\x20\0\x65\x58" + bytes(4) + ETHER6), V6),
    "ERSPAN I": (ip4(47, b"\0\0\x88\xbe" + ETHER4), V4),
    "ERSPAN II": (ip4(47, b"\x10\0\x88\xbe" + bytes(4) + SESSION2 + ETHER6), V6),
    "ERSPAN III": (ip4(47, b"\x10\0\x22\xeb" + bytes(4) + SESSION3 + b"\0\0" + ETHER4), V4),
    "ERSPAN III with 8 bytes of the platform": (
        ip4(47, b"\x10\0\x22\xeb" + bytes(4) + SESSION3 + b"\0\1" + bytes(8) + ETHER4),
        V4,
    ),
    "ERSPAN III with IP": (ip4(47, b"\x10\0\x22\xeb" + bytes(4) + SESSION3 + b"\x08\0" + IP6), V6),
    "VXLAN": (ip4(17, udp(4789, VX + ETHER4)), V4),
    "VXLAN over IPv6, with a group": (ip6(17, udp(4789, b"\x88\0\0\x07" + bytes(4) + ETHER6)), V6),
    "VXLAN of older Linux": (ip4(17, udp(8472, VX + ETHER4)), V4),
    "VXLAN, generic, IPv4": (ip4(17, udp(4790, GPE4 + IP4)), V4),
    "VXLAN in GRE in VXLAN": (
        ip4(17, udp(4789, VX + ETHER4[:12] + b"\x08\0" + ip4(47, b"\0\0\x08\0" + ip4(17, udp(4789, VX + ETHER6))))),
        V6,
    ),
    "the first piece of ERSPAN II that was cut in two": (
        ip4(47, b"\x10\0\x88\xbe" + bytes(4) + SESSION2 + ETHER4[:-9], fragment=0x2000),
        V4,
    ),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_what_a_mirror_wraps_is_unwrapped(name: str) -> None:
    packet, ends = TUNNELS[name]
    for link_type, frame in (
        (101, packet),
        (1, bytes(12) + (b"\x08\0" if packet[0] == 0x45 else b"\x86\xdd") + packet),
    ):
        segment = one(link_type, frame)
        assert segment is not None
        assert (segment[1], segment[2], segment[5]) == (key(ends), 7, len(PAYLOAD))


@pytest.mark.parametrize(
    "packet",
    [
        ip4(47, b"\0\1\x08\0" + IP4),  # version 1: PPTP
        ip4(47, b"\x40\0\x08\0" + bytes(4) + IP4),  # with a route
        ip4(47, b"\0\0\x88\x47" + IP4),
        ip4(47, b"\x10\0\x22\xeb" + bytes(4) + SESSION3 + b"\x0c\0" + IP4),  # a frame of another kind
        ip4(17, udp(4789, bytes(8) + ETHER4)),  # no VXLAN: its flag is not set
        ip4(17, udp(4788, VX + ETHER4)),
        ip4(17, udp(4789, VX + ETHER4), fragment=1),
        ip4(17, udp(4790, b"\x0c\0\0\x04" + bytes(4) + ETHER4)),
    ],
)
def test_what_only_resembles_a_mirror_is_left_out(packet: bytes) -> None:
    assert one(101, packet) is None


def test_tunnels_in_tunnels_have_a_limit() -> None:
    packet = IP4
    for _ in range(MAX_TUNNELS):
        packet = ip4(47, b"\0\0\x08\0" + packet)
    assert one(101, packet) is not None
    assert one(101, ip4(47, b"\0\0\x08\0" + packet)) is None


@pytest.mark.parametrize("name", CASES)
def test_the_segment_is_found_whatever_lies_around_it(name: str) -> None:
    link_type, frame, ends = CASES[name]
    segment = one(link_type, frame)
    assert segment is not None
    time, found, sequence, acknowledged, flags, length, _tcp, data, end = segment
    assert (time, found, sequence, acknowledged, flags, length) == (1.5, key(ends), 7, 9, 0x18, len(PAYLOAD))
    assert (b"###" + frame)[data:end] == PAYLOAD


@pytest.mark.parametrize("name", CASES)
def test_a_short_snap_length_changes_nothing_but_the_payload_at_hand(name: str) -> None:
    link_type, frame, _ = CASES[name]
    whole, cut = one(link_type, frame), one(link_type, frame, captured=len(frame) - len(PAYLOAD))
    assert whole is not None
    assert cut is not None
    assert whole[:8] == cut[:8]
    assert cut[7] == cut[8]


@pytest.mark.parametrize("name", CASES)
def test_ethernet_padding_is_no_payload(name: str) -> None:
    link_type, frame, _ = CASES[name]
    segment = one(link_type, frame + bytes(9))
    assert segment is not None
    assert segment[5] == len(PAYLOAD)


@pytest.mark.parametrize(
    "frame",
    [
        bytes(12) + b"\x08\x06" + bytes(46),
        ethernet(*V4, TCP)[:20] + b"\x20\x01" + ethernet(*V4, TCP)[22:],  # a later fragment
        v6(b"\x06\x00\x00\x09\x00\x00\x00\x07", 44),
        ethernet(*V4, TCP)[:23] + b"\x11" + ethernet(*V4, TCP)[24:],  # UDP
        ethernet(*V4, TCP[:12] + b"\x10" + TCP[13:]),  # a TCP header of 4 bytes
        v6(HOP * 9, 0),
    ],
)
def test_what_is_no_segment_is_left_out(frame: bytes) -> None:
    assert one(1, frame) is None
    assert one(101, frame) is None


def test_a_packet_put_together_by_the_driver_has_no_length_of_its_own() -> None:
    frame = bytearray(ethernet(*V4, TCP))
    frame[16:18] = b"\0\0"
    segment = one(1, bytes(frame))
    assert segment is not None
    assert segment[5] == len(PAYLOAD)


@pytest.mark.parametrize("ends", [V4, V6])
def test_the_other_direction_has_the_reverse_key(ends: tuple[str, str]) -> None:
    other = ip_address(ends[1]).packed + ip_address(ends[0]).packed + struct.pack("!HH", 443, 50000)
    assert reverse(key(ends)) == other
    assert reverse(other) == key(ends)


@given(
    st.sampled_from([*sorted(LINK_TYPES), 147]),
    st.sampled_from([b"", *(frame for _, frame, _ in CASES.values())]),
    st.binary(max_size=80),
    st.integers(0, 120),
)
def test_hostile_bytes_never_raise_and_never_point_outside(link_type: int, head: bytes, tail: bytes, cut: int) -> None:
    data = head[:cut] + tail
    for _time, found, _seq, _ack, _flags, length, tcp, payload, end in segments(
        link_type, data, [(0.0, 0, len(data), len(data))]
    ):
        assert len(found) in (12, 36)
        assert 0 <= length <= len(data)
        assert 0 <= tcp < payload
        assert end == len(data)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cut", [0, 5])
def test_packets_made_of_segments_hold_the_same(name: str, cut: int) -> None:
    link_type, frame, _ = CASES[name]
    size = len(frame) - cut
    found = segments(link_type, frame, [(1.5, 0, size, len(frame))])
    new_type, buffer, made = as_packets(found, frame)
    again = segments(new_type, buffer, made)
    assert [segment[:6] for segment in again] == [segment[:6] for segment in found]
    assert buffer[again[0][7] : again[0][8]] == PAYLOAD[: len(PAYLOAD) - cut]
