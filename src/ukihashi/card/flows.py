"""Frames that wait for a full link, each flow by itself (the ideas of RFC 8290): what is sparse passes what fills.

Flows are served in turn, each a quantum of bytes; one that has just begun comes first. Within a flow order is kept.
When there is no more room, the oldest frame of a longest flow goes: its sender hears of it soonest so. Pure.
"""

import struct
from collections import deque
from typing import Final

from ukihashi.card.tally import LONG
from ukihashi.tap.device import Batch

QUANTUM: Final = 16_384  # bytes that one flow sends before the next has its turn
OVERHEAD: Final = 256  # bytes that a frame costs beside its own, so that many small ones can't outgrow the bound

_LONG: Final = 4 + LONG  # bytes of a block; longer ones hold a frame that is still to be split
_U32: Final = struct.Struct("!I")
_LENGTH: Final = (1 << 31) - 1  # bits of a block's size that are a length
_IPV4: Final = b"\x08\x00"
_IPV6: Final = b"\x86\xdd"
_PORTS4, _PORTS6 = 38, 58  # bytes of a frame through its ports; a shorter one, which is broken, has no flow of its own
_WITH_PORTS: Final = frozenset((6, 17))  # TCP, UDP


class _Flow:
    __slots__ = ("blocks", "bytes", "deficit", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.blocks = deque[memoryview]()
        self.bytes = 0  # with overhead
        self.deficit = QUANTUM


class FlowQueue:
    """Blocks as they go on the wire; at most about `limit` bytes of them wait."""

    __slots__ = ("_flows", "_limit", "_longest", "_new", "_old", "bytes", "dropped", "frames")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._flows: dict[bytes, _Flow] = {}
        self._new = deque[_Flow]()
        self._old = deque[_Flow]()
        self._longest: _Flow | None = None  # about: looked at when something is added to a flow
        self.frames = 0  # that wait
        self.bytes = 0  # of them, with overhead
        self.dropped = 0  # frames that had to make room, so far

    def put(self, data: bytes) -> None:
        """Let the frames of an encoded batch wait."""
        view, at, end, flows = memoryview(data), 4, len(data), self._flows
        while at < end:
            start, at = at, at + 4 + (_U32.unpack_from(data, at)[0] & _LENGTH)
            key = _key(data, start + 4, at)
            flow = flows.get(key)
            if flow is None:
                flow = flows[key] = _Flow(key)
                self._new.append(flow)
            flow.blocks.append(view[start:at])
            size = at - start + OVERHEAD
            flow.bytes += size
            self.bytes += size
            self.frames += 1
            if self._longest is None or flow.bytes > self._longest.bytes:
                self._longest = flow
            while self.bytes > self._limit and self.frames > 1:
                self._make_room(flow)

    def take(self, limit: int) -> Batch:
        """Whole frames of about `limit` bytes as one encoded batch; at least one if any waits."""
        parts: list[bytes | memoryview] = [b""]
        size, long, new, old = 0, 0, self._new, self._old
        while size < limit and self.frames:
            line = new or old
            flow = line[0]
            if not flow.blocks:  # it has been served, and nothing came since
                line.popleft()
                if line is new:
                    old.append(flow)  # else one that comes and goes would always be first
                else:
                    del self._flows[flow.key]
            elif flow.deficit <= 0:
                line.popleft()
                flow.deficit += QUANTUM
                old.append(flow)
            else:
                block = self._pop(flow)
                flow.deficit -= len(block)
                size += len(block)
                long += len(block) > _LONG
                parts.append(block)
        count = len(parts) - 1
        parts[0] = _U32.pack(count)
        if not self.frames:
            self._flows.clear()
            new.clear()
            old.clear()
            self._longest = None
        return Batch(b"".join(parts) if count else b"", count, long, 0)

    def _make_room(self, other: _Flow) -> None:
        longest = self._longest if self._longest is not None and self._longest.blocks else other
        self._pop(longest)
        self.dropped += 1

    def _pop(self, flow: _Flow) -> memoryview:
        block = flow.blocks.popleft()
        size = len(block) + OVERHEAD
        flow.bytes -= size
        self.bytes -= size
        self.frames -= 1
        return block


def _key(data: bytes, at: int, end: int) -> bytes:
    """Addresses and ports of TCP and UDP, else as much of the frame as keeps together what belongs so."""
    kind, size = data[at + 12 : at + 14], end - at
    if kind == _IPV4 and size >= _PORTS4:
        if data[at + 14] == 0x45 and data[at + 23] in _WITH_PORTS and not (data[at + 20] & 0x3F or data[at + 21]):
            return data[at + 23 : at + 24] + data[at + 26 : at + 38]
        return data[at + 26 : at + 34]
    if kind == _IPV6 and size >= _PORTS6:
        return data[at + 20 : at + (58 if data[at + 20] in _WITH_PORTS else 21)]
    return data[at : at + 14]
