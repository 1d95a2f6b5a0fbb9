"""Where in a frame stands what the switch's decisions are about, beside its header."""

from typing import Final

from ukihashi.ether.frame import ARP, BROADCAST, HEADER, IPV4, IPV6, NO_MAC, TAG, payload

_IPV4_TYPE: Final = IPV4.to_bytes(2, "big")
_IPV6_TYPE: Final = IPV6.to_bytes(2, "big")
_BPDU: Final = b"\x42\x42\x03\0\0"  # LLC and the protocol (802.1D, 9.3.1)

NOTHING: Final = slice(0, 0)
# Where the sender's address of IP stands, and where both addresses stand, by the header's length and its type.
SENDERS: Final = {
    size: {_IPV4_TYPE: slice(size + 12, size + 16), _IPV6_TYPE: slice(size + 8, size + 24)}
    for size in (HEADER, HEADER + TAG)
}
_PAIRS: Final = {
    size: {_IPV4_TYPE: slice(size + 12, size + 20), _IPV6_TYPE: slice(size + 8, size + 40)}
    for size in (HEADER, HEADER + TAG)
}


def deciding(head: bytes, *, flooded: bool, exact: bool) -> slice | None:
    """What beside the header a decision is about: a flood counts by both addresses (18.4)."""
    if flooded:
        return _PAIRS[len(head)].get(head[-2:])
    return SENDERS[len(head)].get(head[-2:]) if exact else None


def ip_addresses(frame: bytes) -> bytes:
    """Both addresses of IP; b"" without them, or if they are cut short."""
    kind, start = payload(frame)
    if kind == IPV4 and len(frame) >= start + 20:
        return frame[start + 12 : start + 20]
    return frame[start + 8 : start + 40] if kind == IPV6 and len(frame) >= start + 40 else b""


def source_address(frame: bytes) -> bytes:
    """The sender's, of an ARP too; b"" without one."""
    kind, start = payload(frame)
    if kind == ARP:
        return frame[start + 14 : start + 18]
    both = ip_addresses(frame)
    return both[: len(both) // 2]


def bridge(frame: bytes) -> bytes:
    """The MAC in the bridge identifier of a configuration BPDU; b"" if there is none."""
    if not frame.startswith(_BPDU, 14) or len(frame) < 42 or frame[20] & 0x80:  # 0x80: topology change
        return b""
    found = frame[36:42]
    return b"" if found in (NO_MAC, BROADCAST) else found
