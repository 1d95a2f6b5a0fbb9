"""Read capture files: pcap (both byte orders, micro- and nanoseconds) and pcapng, plain or gzip, as a stream.

Memory stays below a few MiB whatever the file: one chunk and at most one incomplete packet are held.
Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

import gzip
import io
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ukihashi.capture import walk
from ukihashi.capture.batch import Batch
from ukihashi.capture.walk import DAMAGED, MAX_BLOCK, MAX_CAPTURED, OTHER_BLOCK, OTHER_LINK, USED_UP
from ukihashi.detect import compiled
from ukihashi.detect.packets import Packets
from ukihashi.errors import N_, InputUnreadable

__all__ = ("CHUNK", "MAX_BLOCK", "MAX_CAPTURED", "MAX_INTERFACES", "CaptureFile")

CHUNK: Final = 1 << 20  # bytes asked for at a time
LARGE: Final = 1500 * compiled.WORTH_IT  # bytes of a file that surely has so many packets
ROOM: Final = 8192  # packets of one batch at most
MAX_INTERFACES: Final = 4096  # descriptions in one pcapng section

_PCAP_MAGIC: Final = {
    b"\xa1\xb2\xc3\xd4": (True, 1e-6),
    b"\xd4\xc3\xb2\xa1": (False, 1e-6),
    b"\xa1\xb2\x3c\x4d": (True, 1e-9),
    b"\x4d\x3c\xb2\xa1": (False, 1e-9),
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SECTION_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_ORDERS: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14


class _Walkers(NamedTuple):
    """What finds the packets, and how it wants its buffer."""

    pcap: Callable[..., tuple[int, int, int]]
    pcapng: Callable[..., tuple[int, int, int, int]]
    column: Callable[[Any], Any]


_PLAIN: Final = _Walkers(walk.walk_pcap, walk.walk_pcapng, lambda column: column)


def _compiled() -> _Walkers:
    functions = compiled.functions(walk)
    return _Walkers(functions["walk_pcap"], functions["walk_pcapng"], compiled.array)


class _Interface(NamedTuple):
    link_type: int
    snap_length: int  # 0 = no limit
    tick: float  # seconds
    offset: float  # seconds


def _size(file: io.BufferedReader) -> int:
    """Bytes of a file that lies on a disk; 0 of anything else."""
    try:
        about = os.fstat(file.fileno())
    except OSError:  # no file at all
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


class CaptureFile:
    """The packets of one capture file, in batches; iterate once.

    `packets` and `offset` (bytes of the uncompressed stream) say how far it was read, also after an error.
    """

    def __init__(self, file: io.BufferedReader, name: str) -> None:
        self.name: Final = name
        self.packets = 0
        self.offset = 0
        self.is_large: Final = _size(file) >= LARGE  # compiled code is worth its loading from the first packet on
        self._file: io.BufferedReader | gzip.GzipFile = file
        self._rest: bytes | bytearray = b""
        self._walkers = _PLAIN

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

    def _hurry(self) -> None:
        """A large file is worth compiled code."""
        wanted = self.is_large or self.packets >= compiled.WORTH_IT
        if self._walkers is _PLAIN and wanted and compiled.is_ready():
            self._walkers = _compiled()

    def _peek(self) -> bytes:
        try:
            return self._file.peek(2)[:2]
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self, size: int) -> bytes:
        """At most `size` bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self._read_into(memoryview(buffer))])

    def _read_into(self, view: memoryview) -> int:
        """What one read gives, so that nothing before damaged gzip data is lost; the number of bytes."""
        try:
            return self._file.readinto1(view)
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

    def _more(self, used: int) -> bytearray:
        """Forget `used` bytes and read on: what was left, with the next chunk behind it; empty at the end.

        Raises:
            InputUnreadable: the file ends inside a packet.
        """
        rest = self._rest[used:]
        self.offset += used
        buffer = bytearray(len(rest) + CHUNK)
        buffer[: len(rest)] = rest
        self._rest = b""
        with memoryview(buffer) as view:
            size = self._read_into(view[len(rest) :])
        if not size and rest:
            raise self._damaged(0)
        del buffer[len(rest) + size :]
        self._rest = buffer
        return buffer

    def _pcap(self, big: bool, tick: float) -> Iterator[Batch]:
        buffer = self._more(0)
        while len(buffer) < 24:
            buffer = self._more(0)
        link_type = struct.unpack_from(">I" if big else "<I", buffer, 20)[0] & 0xFFFF  # above: tells of checksums
        offset = 24
        while buffer:
            why, column = OTHER_LINK, self._walkers.column
            view = column(buffer)
            while why == OTHER_LINK:
                found = Packets(ROOM)
                offset, found.count, why = self._walkers.pcap(
                    view, offset, len(buffer), big, tick, *map(column, found.columns)
                )
                if found.count == ROOM:
                    why = OTHER_LINK
                self.packets += found.count
                if found.count:
                    yield Batch(link_type, buffer, found)
            if why == DAMAGED:
                raise self._damaged(offset)
            self._hurry()
            del view
            buffer, offset = self._more(offset), 0

    def _pcapng(self) -> Iterator[Batch]:
        order, interfaces, now, found = "<", list[_Interface](), 0.0, Packets(ROOM)
        columns: list[Any] = [memoryview(bytearray(8 * MAX_INTERFACES)).cast("q") for _ in range(2)]
        columns += [memoryview(bytearray(8 * MAX_INTERFACES)).cast("d") for _ in range(2)]
        buffer, offset = self._more(0), 0
        while buffer:
            why, column, end = OTHER_LINK, self._walkers.column, len(buffer)
            view, described = column(buffer), [*map(column, columns)]
            while why in (OTHER_LINK, OTHER_BLOCK):
                offset, found.count, why, source = self._walkers.pcapng(
                    view, offset, end, order == ">", now, *described, len(interfaces), *map(column, found.columns)
                )
                self.packets += found.count
                if found.count == ROOM and why != DAMAGED:
                    why = OTHER_LINK
                if found.count:
                    now = found[-1][0]
                    yield Batch(interfaces[source].link_type, buffer, found)
                    found = Packets(ROOM)
                while why == OTHER_BLOCK:  # there may be many, one behind the other
                    order, size = self._other_block(order, buffer, offset, interfaces)
                    if offset + size > end:
                        why = USED_UP
                        break
                    offset += size
                    if interfaces:
                        for one, value in zip(columns, interfaces[-1], strict=True):
                            one[len(interfaces) - 1] = value
                    if not _is_other(order, buffer, offset):
                        break
            if why == DAMAGED:
                raise self._damaged(offset)
            self._hurry()
            del view
            buffer, offset = self._more(offset), 0

    def _other_block(self, order: str, buffer: bytearray, offset: int, interfaces: list[_Interface]) -> tuple[str, int]:
        """Read a section's or an interface's begin; the byte order from then on, and the block's size.

        Raises:
            InputUnreadable: it can't be true.
        """
        is_section = buffer.startswith(_SECTION_MAGIC, offset)
        if is_section:
            order = _ORDERS.get(bytes(buffer[offset + 8 : offset + 12]), "")
            interfaces.clear()
        size = struct.unpack_from(order + "I", buffer, offset + 4)[0] if order else 0
        if size < 12 or size % 4 or size > MAX_BLOCK:
            raise self._damaged(offset)
        if not is_section and offset + size <= len(buffer):
            if len(interfaces) >= MAX_INTERFACES or size < 20:
                raise self._damaged(offset)
            interfaces.append(_describe(order, buffer, offset + 8, offset + size - 4))
        return order, size


def _is_other(order: str, buffer: bytearray, offset: int) -> bool:
    """Does a section or an interface begin here?"""
    if offset + 12 > len(buffer):
        return False
    kind = struct.unpack_from(order + "I", buffer, offset)[0]
    return kind in (walk.SECTION_BLOCK, walk.INTERFACE_BLOCK)


def _describe(order: str, buffer: bytearray, body: int, stop: int) -> _Interface:
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
