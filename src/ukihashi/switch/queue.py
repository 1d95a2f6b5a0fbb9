"""Frames that wait for one port: bounded in bytes, newest dropped, every drop counted (docs/decisions.md, D8, D12)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

QUEUE_FULL: Final = "queue_full"


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
        """More than a quarter of what may wait does, and it is the usual bound: who has no link is not waited for."""
        return self._reason == QUEUE_FULL and 4 * self.bytes > self._limit

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

    def put(self, frames: Sequence[bytes]) -> int:
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
