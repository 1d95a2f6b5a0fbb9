"""Which worker takes the next connection: one of those that have the fewest.

The kernel would wake the same worker again and again. So each tells the others how much it has, and one that has more
than the least does not listen; now and then it looks all the same, in case the others can't.
"""

from typing import Final

SLACK: Final = 16  # one part in so many that a worker may have more than the least


class Balance:
    """As one worker knows it."""

    def __init__(self) -> None:
        self.own = 0
        self.others: dict[int, int] = {}

    @property
    def is_my_turn(self) -> bool:
        """Nobody has notably less."""
        least = min(self.others.values(), default=self.own)
        return self.own <= least + least // SLACK
