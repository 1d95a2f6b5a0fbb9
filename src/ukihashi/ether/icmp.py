"""Echo requests and replies of ICMP (RFC 792) and ICMPv6 (RFC 4443, section 4): type, code, checksum, identifier and
sequence number, then a payload, which is empty here."""

import struct
from typing import Final

HEADER: Final = struct.Struct("!BBHHH")
REQUEST: Final = {4: 8, 6: 128}
REPLY: Final = {4: 0, 6: 129}


def echo_request(version: int, identifier: int, sequence: int) -> bytes:
    """The smallest Echo Request, 8 bytes. IPv6's checksum covers addresses too: the kernel's raw socket sets it."""
    bare = HEADER.pack(REQUEST[version], 0, 0, identifier, sequence)
    return bare if version == 6 else HEADER.pack(REQUEST[4], 0, checksum(bare), identifier, sequence)


def echo_reply(version: int, packet: bytes) -> tuple[int, int] | None:
    """Identifier and sequence number of an Echo Reply; None for anything else.

    Args:
        packet: what a raw socket gave: with the IP header in IPv4, without it in IPv6.
    """
    start = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    if len(packet) < start + HEADER.size:
        return None
    kind, code, _checksum, identifier, sequence = HEADER.unpack_from(packet, start)
    return (identifier, sequence) if (kind, code) == (REPLY[version], 0) else None


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
