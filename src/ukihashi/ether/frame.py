"""Read-only views of an Ethernet II or 802.3 frame without FCS (IEEE 802.3 clause 3, 802.1Q clause 9).

Every function wants at least the 14 bytes of the header, which the switch has checked, and copies only its answer.
"""

from typing import Final

HEADER: Final = 14  # bytes
MAX_FRAME: Final = 1600  # bytes of a finished frame
TAG: Final = 4  # bytes of an 802.1Q tag
ARP: Final = 0x0806
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
VLAN: Final = 0x8100
BROADCAST: Final = b"\xff" * 6
NO_MAC: Final = bytes(6)


def destination(frame: bytes) -> bytes:
    """The 6 bytes of the receiver."""
    return frame[:6]


def source(frame: bytes) -> bytes:
    """The 6 bytes of the sender."""
    return frame[6:12]


def ether_type(frame: bytes) -> int:
    """The type or length field behind the addresses; VLAN for a tagged frame."""
    return frame[12] << 8 | frame[13]


def is_group(mac: bytes) -> bool:
    """A broadcast or multicast address."""
    return bool(mac[0] & 1)


def vlan_id(frame: bytes) -> int:
    """1..4095 of an 802.1Q tag; 0 without one, and for a tag that carries only a priority."""
    if len(frame) < HEADER + TAG or frame[12] != VLAN >> 8 or frame[13] != VLAN & 0xFF:
        return 0
    return (frame[14] & 0x0F) << 8 | frame[15]


def payload(frame: bytes) -> tuple[int, int]:
    """The type behind at most one tag, and where its data starts."""
    kind = ether_type(frame)
    if kind == VLAN and len(frame) >= HEADER + TAG:
        return frame[16] << 8 | frame[17], HEADER + TAG
    return kind, HEADER
