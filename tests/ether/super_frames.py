"""Super-frames to test with, and a slow, obvious splitter to compare with: everything read, cut and reckoned anew."""

import struct
from typing import NamedTuple

from hypothesis import strategies as st

from ukihashi.ether.icmp import checksum
from ukihashi.ether.offload import (
    ECN,
    NEEDS_CHECKSUM,
    NO_SPLIT,
    OFFLOAD,
    TCP_CHECKSUM,
    TCP_IPV4,
    TCP_IPV6,
    UDP_CHECKSUM,
    UDP_SPLIT,
    SuperFrame,
)

MACS = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01"
TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80


class Packet(NamedTuple):
    """What is sent: a TCP or UDP packet, maybe far too long for the line."""

    version: int = 4
    protocol: int = TCP
    data: bytes = b"data"
    each: int = 0  # bytes of a segment; 0: not to be split
    tag: bytes = b""  # of a VLAN
    ip_options: bytes = b""  # IPv6: extension headers, whole
    options: bytes = b""  # of TCP
    identification: int = 1
    sequence: int = 1000
    flags: int = ACK | PSH

    @property
    def ends(self) -> bytes:
        """Both addresses."""
        return bytes([10, 0, 0, 1, 10, 0, 0, 2]) if self.version == 4 else bytes(range(32))

    def transport(self, data: bytes, sequence: int, flags: int, check: int) -> bytes:
        """A TCP or UDP packet."""
        if self.protocol == UDP:
            return struct.pack("!HHHH", 40000, 53, 8 + len(data), check) + data
        size = (20 + len(self.options)) // 4 << 4
        head = struct.pack("!HHIIBBHHH", 40000, 443, sequence, 77, size, flags, 500, check, 0)
        return head + self.options + data

    def frame(self, inner: bytes, identification: int) -> bytes:
        """The frame around it."""
        if self.version == 6:
            first, more = (
                (60, bytes([self.protocol]) + self.ip_options[1:]) if self.ip_options else (self.protocol, b"")
            )
            head = struct.pack("!IHBB", 6 << 28, len(more) + len(inner), first, 64) + self.ends + more
            return MACS + self.tag + b"\x86\xdd" + head + inner
        size = 20 + len(self.ip_options)
        head = struct.pack(
            "!BBHHHBB", 0x40 | size // 4, 0, size + len(inner), identification, 0x4000, 64, self.protocol
        )
        check = checksum(head + b"\0\0" + self.ends + self.ip_options)
        return MACS + self.tag + b"\x08\0" + head + check.to_bytes(2, "big") + self.ends + self.ip_options + inner

    def pseudo(self, size: int) -> bytes:
        """What the checksum covers beside the packet."""
        if self.version == 4:
            return self.ends + struct.pack("!HH", self.protocol, size)
        return self.ends + struct.pack("!II", size, self.protocol)

    def unfinished(self) -> SuperFrame:
        """As the kernel leaves it to a device: the field holds the sum of the pseudo-header."""
        bare = self.transport(self.data, self.sequence, self.flags, 0)
        check = ~checksum(self.pseudo(len(bare))) & 0xFFFF
        inner = self.transport(self.data, self.sequence, self.flags, check)
        frame = self.frame(inner, self.identification)
        if not self.each:
            split = NO_SPLIT
        elif self.protocol == UDP:
            split = UDP_SPLIT
        else:
            split = (TCP_IPV4 if self.version == 4 else TCP_IPV6) | (ECN if self.flags & CWR else 0)
        start = len(frame) - len(inner)
        head = start + len(bare) - len(self.data) if self.each else 0
        offset = UDP_CHECKSUM if self.protocol == UDP else TCP_CHECKSUM
        return SuperFrame(frame + OFFLOAD.pack(NEEDS_CHECKSUM, split, head, self.each, start, offset))

    def finished(self) -> list[bytes]:
        """The frames that go out on a line."""
        each = self.each or len(self.data) or 1
        pieces = [self.data[at : at + each] for at in range(0, len(self.data), each)] or [b""]
        frames = []
        for number, data in enumerate(pieces):
            flags = self.flags
            if number:
                flags &= ~CWR
            if number < len(pieces) - 1:
                flags &= ~(FIN | PSH)
            sequence = (self.sequence + number * each) % (1 << 32)
            bare = self.transport(data, sequence, flags, 0)
            covered = self.pseudo(len(bare)) + bare
            check = checksum(covered + bytes(len(covered) % 2))
            if self.protocol == UDP or len(pieces) == 1:
                check = check or 0xFFFF
            inner = self.transport(data, sequence, flags, check)
            frames.append(self.frame(inner, (self.identification + number) % (1 << 16)))
        return frames


@st.composite
def packets(draw: st.DrawFn, *, split: bool | None = None, most: int = 3000) -> Packet:
    """Any packet that may be sent; `most` bytes of data, in at most 128 segments."""
    data = draw(st.binary(max_size=24)) * draw(st.integers(1, max(1, most // 24)))
    each = 0
    if split is not False:
        some, is_split = draw(st.integers(max(1, -(-len(data) // 128)), 1448)), draw(st.booleans())
        each = some if split or is_split else 0
    version = draw(st.sampled_from((4, 6)))
    ip_options = b"\1" * (4 * draw(st.integers(0, 3))) if version == 4 else draw(st.sampled_from((b"", bytes(8))))
    return Packet(
        version=version,
        protocol=draw(st.sampled_from((TCP, UDP))),
        data=data[:1400] if not each else data,
        each=each,
        tag=draw(st.sampled_from((b"", b"\x81\0\x60\5", b"\x88\xa8\0\7"))),
        ip_options=ip_options,
        options=b"\1" * (4 * draw(st.integers(0, 10))),
        identification=draw(st.integers(0, 65535)),
        sequence=draw(st.integers(0, (1 << 32) - 1)),
        flags=draw(st.integers(0, 255)),
    )
