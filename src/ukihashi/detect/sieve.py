"""Which connections are worth a call: those in which an opening dialogue that we know could just have ended.

The numbers are the model's. Who is sieved out would have had no score; a test compares the two.
"""

from typing import Final

from ukihashi.detect import model
from ukihashi.detect.model import Dialogue
from ukihashi.detect.verdict import FURTHERS, LOGINS


def _sizes(dialogue: Dialogue) -> tuple[int, ...]:
    edges = [(span.low - model.SOFT_BELOW, span.high + model.SOFT_ABOVE) for span in dialogue]
    return tuple(edge for pair in edges for edge in pair)


def _known() -> tuple[Dialogue, ...]:
    return tuple(dict.fromkeys(one for table in (LOGINS, FURTHERS) for several in table.values() for one in several))


# As `columns.SIEVE` says.
OPENINGS: Final = (
    model.FIRST_WINDOW,
    model.LAST_WINDOW,
    model.WINDOW_TURNS,
    model.SPLIT_MAX,
    len(_known()),
    *(size for dialogue in _known() for size in _sizes(dialogue)),
)
