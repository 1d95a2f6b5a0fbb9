"""Where packets lie in a buffer, as columns: what compiled code fills and reads."""

from collections.abc import Iterator
from typing import Any


class Packets:
    """Packets of one read; a sequence of (time s, offset, bytes captured, bytes on the wire)."""

    __slots__ = ("captured", "count", "lengths", "offsets", "times")

    def __init__(self, room: int) -> None:
        """Room for so many, and none yet."""
        self.times: Any = memoryview(bytearray(8 * room)).cast("d")
        self.offsets: Any = memoryview(bytearray(8 * room)).cast("q")
        self.captured: Any = memoryview(bytearray(8 * room)).cast("q")
        self.lengths: Any = memoryview(bytearray(8 * room)).cast("q")
        self.count = 0

    @property
    def columns(self) -> tuple[Any, Any, Any, Any]:
        """Seconds, offsets, bytes captured, bytes on the wire; longer than `count`."""
        return self.times, self.offsets, self.captured, self.lengths

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[float, int, int, int]:
        if not -self.count <= index < self.count:
            raise IndexError(index)
        index %= self.count
        return self.times[index], self.offsets[index], self.captured[index], self.lengths[index]

    def __iter__(self) -> Iterator[tuple[float, int, int, int]]:
        count = self.count
        return zip(self.times[:count], self.offsets[:count], self.captured[:count], self.lengths[:count], strict=True)
