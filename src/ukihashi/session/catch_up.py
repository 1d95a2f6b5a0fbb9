"""Until when more may wait for a link than usual: while it is away, and until what waited then has gone out.

Without an end to it, a stream that fills any buffer would keep it full for ever, and every other packet would wait
behind it (D12). So a round lasts until all that waited at its beginning is out; another follows only if what came
meanwhile is at most half of that. A flow of even rate is caught up with in a few rounds; one that takes all it can get
stops after the first.
"""


class CatchUp:
    """Counts in frames: `cursor` is the next one to be sent, `end` the next one to come. Pure."""

    __slots__ = ("_mark", "_size")

    def __init__(self) -> None:
        self._mark = 0
        self._size = 0  # frames of this round; 0: nothing to catch up with

    def begin(self, cursor: int, end: int) -> None:
        """The link is there again."""
        self._mark, self._size = end, end - cursor

    def lasts(self, cursor: int, end: int) -> bool:
        """More than usual may still wait."""
        if not self._size or cursor < self._mark:
            return bool(self._size)
        left = end - cursor
        if 2 * left > self._size:
            left = 0
        self._mark, self._size = end, left
        return bool(left)
