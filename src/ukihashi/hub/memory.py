"""One bound on what all sessions keep for cards that may come back (`resume_memory`, D8)."""

from collections import OrderedDict
from typing import Protocol


class Holder(Protocol):
    """A session that keeps records and frames."""

    def shed(self) -> int:
        """There is no memory: let go of the next part. Gives the bytes still held; never called again after 0."""


class ResumeMemory:
    """Who holds how much, and who has been cut for how long. All calls are O(1) over time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self.used = 0
        self._held: dict[Holder, int] = {}
        self._cut: OrderedDict[Holder, None] = OrderedDict()  # the one cut longest first

    def __len__(self) -> int:
        return len(self._held)

    @property
    def has_room(self) -> bool:
        """More may be kept. When nobody is cut, sessions that have a link wait for acknowledgements instead."""
        return self.used < self.limit

    def hold(self, holder: Holder, size: int) -> None:
        """`holder` holds `size` bytes now. Beyond the limit those cut longest lose what they hold."""
        self._note(holder, size)
        while self.used > self.limit and self._cut:
            oldest = next(iter(self._cut))
            left = oldest.shed()
            self._note(oldest, left)
            if not left:
                del self._cut[oldest]

    def cut(self, holder: Holder) -> None:
        """It has no link any more."""
        self._cut[holder] = None

    def linked(self, holder: Holder) -> None:
        """It has a link again."""
        self._cut.pop(holder, None)

    def forget(self, holder: Holder) -> None:
        """It has ended."""
        self.used -= self._held.pop(holder, 0)
        self._cut.pop(holder, None)

    def _note(self, holder: Holder, size: int) -> None:
        self.used += size - self._held.get(holder, 0)
        self._held[holder] = size
