"""ARP for IPv4 over Ethernet (RFC 826)."""

import struct
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from ukihashi.ether.frame import ARP, BROADCAST, HEADER, NO_MAC, payload

_BODY: Final = struct.Struct("!HHBBH6s4s6s4s")
LENGTH: Final = _BODY.size  # 28 bytes
REQUEST: Final = 1
REPLY: Final = 2


class Arp(NamedTuple):
    """Who says which address is whose."""

    operation: int
    sender_mac: bytes
    sender: IPv4Address
    target_mac: bytes
    target: IPv4Address


def parse(frame: bytes) -> Arp | None:
    """The ARP in `frame` (14 bytes or more), tagged or not; None if it is something else or cut short."""
    kind, start = payload(frame)
    if kind != ARP or len(frame) - start < LENGTH:
        return None
    hardware, protocol, mac_size, ip_size, operation, mac, ip, target_mac, target = _BODY.unpack_from(frame, start)
    if (hardware, protocol, mac_size, ip_size) != (1, 0x0800, 6, 4):
        return None
    return Arp(operation, mac, IPv4Address(ip), target_mac, IPv4Address(target))


def is_cut_short(frame: bytes) -> bool:
    """An ARP frame without room for its body: the hub drops it (protocol 18.1)."""
    kind, start = payload(frame)
    return kind == ARP and len(frame) - start < LENGTH


def request(sender_mac: bytes, sender: IPv4Address, target: IPv4Address) -> bytes:
    """A frame that asks everybody who has `target`."""
    return _frame(BROADCAST, Arp(REQUEST, sender_mac, sender, NO_MAC, target))


def reply(to: Arp, mac: bytes) -> bytes:
    """A frame that answers the request `to`: `mac` has its target."""
    return _frame(to.sender_mac, Arp(REPLY, mac, to.target, to.sender_mac, to.sender))


def announcement(mac: bytes, ip: IPv4Address) -> bytes:
    """A frame that tells everybody that `mac` has `ip` (RFC 5227, section 2.3)."""
    return _frame(BROADCAST, Arp(REQUEST, mac, ip, NO_MAC, ip))


def _frame(destination: bytes, arp: Arp) -> bytes:
    head = destination + arp.sender_mac + ARP.to_bytes(2, "big")
    assert len(head) == HEADER
    return head + _BODY.pack(
        1, 0x0800, 6, 4, arp.operation, arp.sender_mac, arp.sender.packed, arp.target_mac, arp.target.packed
    )
