"""Frames for tests of the switch, made by scapy so that nothing of ours reads what only ours wrote."""

from ipaddress import ip_address
from typing import Any

from ukihashi.units import PortId

A, B, C, D, E, F = (bytes([2, 0, 0, 0, 0, last]) for last in range(1, 7))
ALL, GROUP, ZERO = b"\xff" * 6, b"\x01\0\x5e\0\0\x01", bytes(6)
P1, P2, P3, P4 = (PortId(number) for number in range(1, 5))


def frame(destination: bytes, source: bytes, kind: bytes = b"\x88\xb5", length: int = 60, mark: int = 0) -> bytes:
    """Of some type that nobody looks into."""
    return (destination + source + kind + bytes([mark] * 1600))[:length]


def ether(destination: bytes, source: bytes, *layers: Any) -> bytes:
    """A frame with these layers of scapy's."""
    from scapy.layers.l2 import Ether

    packet = Ether(dst=destination.hex(":"), src=source.hex(":"))
    for layer in layers:
        packet /= layer
    return bytes(packet)


def ip4(destination: bytes, source: bytes, by: str = "10.0.0.1", to: str = "10.0.0.2", payload: bytes = b"") -> bytes:
    """UDP of IPv4 by hand: fast, for tests that want many."""
    head = b"\x45\0" + (28 + len(payload)).to_bytes(2, "big") + bytes(4) + b"\x40\x11\0\0"
    addresses = ip_address(by).packed + ip_address(to).packed
    udp = b"\x30\x39\x30\x39" + (8 + len(payload)).to_bytes(2, "big") + b"\0\0"
    return destination + source + b"\x08\0" + head + addresses + udp + payload


def ip6(destination: bytes, source: bytes, by: str = "fe80::1", to: str = "fe80::2", payload: bytes = b"") -> bytes:
    """UDP of IPv6 by hand."""
    size = (8 + len(payload)).to_bytes(2, "big")
    head = b"\x60\0\0\0" + size + b"\x11\x40" + ip_address(by).packed + ip_address(to).packed
    return destination + source + b"\x86\xdd" + head + b"\x30\x39\x30\x39" + size + b"\0\0" + payload


def arp(source: bytes, by: str, about: str, destination: bytes = ALL, reply: bool = False) -> bytes:
    """Who has `about`? Or, as a reply: `by` is at `source`."""
    body = b"\0\x01\x08\0\x06\x04\0" + (b"\x02" if reply else b"\x01") + source + ip_address(by).packed
    return destination + source + b"\x08\x06" + body + ZERO + ip_address(about).packed


def tagged(data: bytes, vlan: int) -> bytes:
    """With an 802.1Q tag."""
    return data[:12] + b"\x81\0" + vlan.to_bytes(2, "big") + data[12:]
