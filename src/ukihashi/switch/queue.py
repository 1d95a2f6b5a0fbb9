"""Frames that wait for one port: bounded in bytes, newest dropped, every drop counted (docs/decisions.md, D8, D12)."""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from ukihashi.ether.frame import HEADER

QUEUE_FULL: Final = "queue_full"

CROWDED: Final = 4  # a queue is, when more waits in it than its bound divided by this
TURN: Final = 65_536  # bytes that one source sends before others have their turn
ALONE: Final = 4_096  # bytes that come alone, at most: something that asks or answers, no bulk


class PortQueue:
    """First in, first out. When a frame does not fit it is dropped; a later, smaller one may still fit."""

    __slots__ = ("_frames", "_limit", "_reason", "bytes", "dropped", "dropped_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._reason = QUEUE_FULL
        self._frames: list[bytes] = []
        self.bytes = 0  # waiting
        self.dropped: Counter[str] = Counter()  # frames by reason
        self.dropped_bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_crowded(self) -> bool:
        """Much of what may wait does, and it is the usual bound: who has no link is not waited for."""
        return self._reason == QUEUE_FULL and CROWDED * self.bytes > self._limit

    @property
    def frames(self) -> list[bytes]:
        """What waits, oldest first."""
        return list(self._frames)

    @property
    def dropped_frames(self) -> int:
        """For all reasons."""
        return self.dropped.total()

    def bound(self, limit_bytes: int, reason: str = QUEUE_FULL) -> None:
        """From now on at most `limit_bytes` wait, and what does not fit counts as `reason`. What waits stays."""
        self._limit = limit_bytes
        self._reason = reason

    def put(self, frames: Sequence[bytes], source: int = 0) -> int:  # noqa: ARG002 - whose they are: for others
        """Let `frames` wait, as many as fit; give how many were dropped."""
        size = sum(map(len, frames))
        if self.bytes + size <= self._limit:
            self._frames.extend(frames)
            self.bytes += size
            return 0
        dropped = 0
        for frame in frames:
            if self.bytes + len(frame) <= self._limit:
                self._frames.append(frame)
                self.bytes += len(frame)
            else:
                dropped += 1
                self.dropped_bytes += len(frame)
        self.dropped[self._reason] += dropped
        return dropped

    def jump(self, frame: bytes) -> None:
        """Let a frame wait before all others, whatever the bound, and in place of one of the same header that did."""
        if self._frames and self._frames[0][:HEADER] == frame[:HEADER]:
            self.bytes -= len(self._frames.pop(0))
        self._frames.insert(0, frame)
        self.bytes += len(frame)

    def take(self, limit_bytes: int | None = None) -> list[bytes]:
        """The frames that wait, oldest first: all, or as many as stay within `limit_bytes`, at least one."""
        if limit_bytes is None or self.bytes <= limit_bytes:
            frames, self._frames, self.bytes = self._frames, [], 0
            return frames
        size = count = 0
        for frame in self._frames:
            if count and size + len(frame) > limit_bytes:
                break
            size += len(frame)
            count += 1
        frames = self._frames[:count]
        del self._frames[:count]
        self.bytes -= size
        return frames

    def put_back(self, frames: Sequence[bytes], dropped: Mapping[str, int]) -> None:
        """Go on as another queue was: its frames wait whatever the bound, its drops are counted."""
        self._frames.extend(frames)
        self.bytes += sum(map(len, frames))
        self.dropped.update(dropped)

    def clear(self, reason: str) -> None:
        """Drop everything that waits, counted as `reason`."""
        self.dropped_bytes += self.bytes
        self.dropped[reason] += len(self.take())


class _Line:
    """What waits from one source."""

    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.bytes = 0

    def add(self, frames: Sequence[bytes], size: int) -> None:
        self.frames.extend(frames)
        self.bytes += size

    def take(self, about: int, most: int) -> list[bytes]:
        """The oldest frames, until there are `about` bytes of them, and never more than `most`."""
        size = count = 0
        for frame in self.frames:
            if size >= about or size + len(frame) > most:
                break
            size += len(frame)
            count += 1
        taken = self.frames[:count]
        del self.frames[:count]
        self.bytes -= size
        return taken


class FairQueue(PortQueue):
    """As `PortQueue`, with a line of its own for each port that frames come from (the idea of RFC 8290).

    The lines have their turns, and when there is no more room the longest gives way: who floods fills and shortens only
    his own. What comes alone goes ahead of all that waits. A line is that of a port, not of a flow of packets: it costs
    something for each run of frames then, and nothing for each frame.

    Frames of no source (0) are older than all others: they have waited elsewhere, and go first.
    """

    __slots__ = ("_count", "_lines")

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._lines: OrderedDict[int, _Line] = OrderedDict()  # those with frames; the first has its turn next
        self._count = 0  # of frames in them

    def __len__(self) -> int:
        return self._count + len(self._frames)

    @property
    def frames(self) -> list[bytes]:
        return self._frames + [frame for line in self._lines.values() for frame in line.frames]

    def put(self, frames: Sequence[bytes], source: int = 0) -> int:
        if not source or not frames:
            return super().put(frames)
        size = sum(map(len, frames))
        line = self._lines.get(source)
        if line is None:
            line = self._lines[source] = _Line()
            if size <= ALONE:
                self._lines.move_to_end(source, last=False)
        if self.bytes + size <= self._limit:
            line.add(frames, size)
            self.bytes += size
            self._count += len(frames)
            return 0
        before = self.dropped_frames
        place, longest = max(self._lines.items(), key=lambda one: one[1].bytes)
        for frame in frames:
            self._put_one(frame, line, longest)
        for one in {source, place}:
            if not self._lines[one].frames:
                del self._lines[one]
        return self.dropped_frames - before

    def _put_one(self, frame: bytes, line: _Line, longest: _Line) -> None:
        """Into the room there is, or into the place of the newest frames of a longer line."""
        size = len(frame)
        lacking = size - max(0, self._limit - self.bytes)
        if lacking > 0 and longest.bytes - lacking < line.bytes + size:
            self._drop(size)
            return
        while lacking > 0:
            gone = len(longest.frames.pop())
            longest.bytes -= gone
            self.bytes -= gone
            self._count -= 1
            self._drop(gone)
            lacking -= gone
        line.add((frame,), size)
        self.bytes += size
        self._count += 1

    def _drop(self, size: int) -> None:
        self.dropped[self._reason] += 1
        self.dropped_bytes += size

    def take(self, limit_bytes: int | None = None) -> list[bytes]:
        left = self.bytes if limit_bytes is None else limit_bytes
        taken = self._take_old(left) if self._frames else []
        left -= sum(map(len, taken))
        lines, old = self._lines, len(taken)
        while lines and not self._frames:
            source, line = lines.popitem(last=False)
            before = line.bytes
            if not lines and before <= left:
                part, line.frames, line.bytes = line.frames, [], 0
            else:
                part = line.take(TURN if lines else left, left if taken else max(left, len(line.frames[0])))
            if line.frames:
                lines[source] = line
            if not part:  # there is no room for its oldest
                lines.move_to_end(source, last=False)
                break
            left -= before - line.bytes
            self.bytes -= before - line.bytes
            taken += part
        self._count -= len(taken) - old
        return taken

    def _take_old(self, limit_bytes: int) -> list[bytes]:
        """Of the frames without a source."""
        in_lines = sum(line.bytes for line in self._lines.values())
        self.bytes -= in_lines
        taken = super().take(limit_bytes)
        self.bytes += in_lines
        return taken
