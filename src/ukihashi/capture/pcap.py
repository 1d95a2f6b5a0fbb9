"""Read capture files: pcap (both byte orders, micro- and nanoseconds) and pcapng, plain or gzip, as a stream.

Memory stays below a few MiB whatever the file: one chunk and at most one incomplete packet are held.
Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from ukihashi.capture.batch import Batch, Packet
from ukihashi.errors import N_, InputUnreadable

CHUNK: Final = 1 << 20  # bytes asked for at a time
MAX_CAPTURED: Final = 1 << 18  # bytes of one packet; the limit of the tools that write these files
MAX_BLOCK: Final = 1 << 22  # bytes of one pcapng block
MAX_INTERFACES: Final = 4096  # descriptions in one pcapng section

_PCAP_MAGIC: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SECTION_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_PACKET_BLOCKS: Final = frozenset((_OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET))
_ORDERS: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14


class _Interface(NamedTuple):
    link_type: int
    snap_length: int  # 0 = no limit
    tick: float  # seconds
    offset: float  # seconds


class CaptureFile:
    """The packets of one capture file, in batches; iterate once.

    `packets` and `offset` (bytes of the uncompressed stream) say how far it was read, also after an error.
    """

    def __init__(self, file: io.BufferedReader, name: str) -> None:
        self.name: Final = name
        self.packets = 0
        self.offset = 0
        self._file: io.BufferedReader | gzip.GzipFile = file
        self._rest = b""

    def __iter__(self) -> Iterator[Batch]:
        """Give what the file holds.

        Raises:
            InputUnreadable: not a capture file, or damaged; all packets before the damage were given.
        """
        if self._peek() == _GZIP_MAGIC:
            self._file = gzip.GzipFile(fileobj=self._file)
        head = self._read(4)
        while 0 < len(head) < 4 and (more := self._read(4 - len(head))):
            head += more
        if not head:
            raise InputUnreadable(N_("{file} is empty; give a pcap or pcapng capture"), file=self.name)
        self._rest = head
        if head in _PCAP_MAGIC:
            yield from self._pcap(*_PCAP_MAGIC[head])
        elif head == _SECTION_MAGIC:
            yield from self._pcapng()
        else:
            raise InputUnreadable(
                N_("{file} is not a capture file (begins with {head}); give a pcap or pcapng capture"),
                file=self.name,
                head=head.hex(),
            )

    def _peek(self) -> bytes:
        try:
            return self._file.peek(2)[:2]
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self, size: int) -> bytes:
        """At most `size` bytes; what one read gives, so that nothing before damaged gzip data is lost."""
        try:
            return self._file.read1(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self._damaged(0) from None
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> InputUnreadable:
        return InputUnreadable(N_("{file} can't be read: {reason}"), file=self.name, reason=error.strerror)

    def _damaged(self, at: int) -> InputUnreadable:
        return InputUnreadable(
            N_("{file} is damaged at byte {offset}; {packets} packets before it were read"),
            file=self.name,
            offset=self.offset + at,
            packets=self.packets,
        )

    def _more(self, used: int) -> bytes:
        """Forget `used` bytes and read on: what was left, with the next chunk behind it; b"" at the end.

        Raises:
            InputUnreadable: the file ends inside a packet.
        """
        rest = self._rest[used:]
        self.offset += used
        self._rest = b""
        chunk = self._read(CHUNK)
        if not chunk and rest:
            raise self._damaged(0)
        self._rest = rest + chunk
        return self._rest

    def _pcap(self, order: str, tick: float) -> Iterator[Batch]:
        buffer = self._more(0)
        while len(buffer) < 24:
            buffer = self._more(0)
        link_type = struct.unpack_from(order + "I", buffer, 20)[0] & 0xFFFF  # the upper bits tell of checksums
        header = struct.Struct(order + "IIII").unpack_from
        offset = 24
        while buffer:
            packets: list[Packet] = []
            end = len(buffer)
            while offset + 16 <= end:
                seconds, ticks, captured, length = header(buffer, offset)
                body = offset + 16
                if body + captured > end or captured > MAX_CAPTURED:
                    break
                packets.append((seconds + ticks * tick, body, captured, length))
                offset = body + captured
            self.packets += len(packets)
            if packets:
                yield Batch(link_type, buffer, packets)
            if offset + 16 <= end and header(buffer, offset)[2] > MAX_CAPTURED:
                raise self._damaged(offset)
            buffer, offset = self._more(offset), 0

    def _pcapng(self) -> Iterator[Batch]:
        order, interfaces, now = "<", list[_Interface](), 0.0
        buffer, offset = self._more(0), 0
        while buffer:
            end = len(buffer)
            link_type, packets, damaged = -1, list[Packet](), False
            while offset + 12 <= end:
                if buffer.startswith(_SECTION_MAGIC, offset):
                    order, interfaces = _ORDERS.get(buffer[offset + 8 : offset + 12], ""), []
                kind, size = struct.unpack_from(order + "II", buffer, offset) if order else (0, 0)
                if size < 12 or size % 4 or size > MAX_BLOCK:
                    damaged = True
                    break
                if offset + size > end:
                    break
                body, stop = offset + 8, offset + size - 4
                if kind in _PACKET_BLOCKS:
                    found = _packet(order, buffer, kind, body, stop, interfaces, now)
                    if found is None:
                        damaged = True
                        break
                    if found[0] != link_type:
                        self.packets += len(packets)
                        if packets:
                            yield Batch(link_type, buffer, packets)
                        link_type, packets = found[0], []
                    packets.append(found[1])
                    now = found[1][0]
                elif kind == _INTERFACE:
                    if len(interfaces) >= MAX_INTERFACES or stop - body < 8:
                        damaged = True
                        break
                    interfaces.append(_describe(order, buffer, body, stop))
                offset += size
            self.packets += len(packets)
            if packets:
                yield Batch(link_type, buffer, packets)
            if damaged:
                raise self._damaged(offset)
            buffer, offset = self._more(offset), 0


def _packet(
    order: str, buffer: bytes, kind: int, body: int, stop: int, interfaces: list[_Interface], now: float
) -> tuple[int, Packet] | None:
    """The packet of one block and its link type; None if the block can't be true.

    A simple packet block has no time of its own: it gets `now`, the time of the packet before it.
    """
    if kind == _SIMPLE_PACKET:
        if stop - body < 4 or not interfaces:
            return None
        length = struct.unpack_from(order + "I", buffer, body)[0]
        captured = min(length, stop - body - 4, interfaces[0].snap_length or MAX_CAPTURED, MAX_CAPTURED)
        return interfaces[0].link_type, (now, body + 4, captured, length)
    if stop - body < 20:
        return None
    number, high, low, captured, length = struct.unpack_from(order + "5I", buffer, body)
    if kind == _OLD_PACKET:  # 16 bits of interface, then 16 bits of drop count
        number = struct.unpack_from(order + "H", buffer, body)[0]
    if captured > min(stop - body - 20, MAX_CAPTURED) or number >= len(interfaces):
        return None
    interface = interfaces[number]
    time = (high << 32 | low) * interface.tick + interface.offset
    return interface.link_type, (time, body + 20, captured, length)


def _describe(order: str, buffer: bytes, body: int, stop: int) -> _Interface:
    """An interface description block. A damaged option list ends the options, not the file."""
    link_type, _reserved, snap_length = struct.unpack_from(order + "HHI", buffer, body)
    tick, seconds = 1e-6, 0
    at = body + 8
    while at + 4 <= stop:
        code, size = struct.unpack_from(order + "HH", buffer, at)
        if code == 0 or at + 4 + size > stop:
            break
        if code == _OPTION_RESOLUTION and size >= 1:
            value = buffer[at + 4]
            tick = 2.0 ** -(value & 0x7F) if value & 0x80 else 10.0**-value
        elif code == _OPTION_OFFSET and size >= 8:
            seconds = struct.unpack_from(order + "q", buffer, at + 4)[0]
        at += 4 + (size + 3) // 4 * 4
    return _Interface(link_type, snap_length, tick, float(seconds))
