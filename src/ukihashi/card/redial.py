"""When to dial for a session whose link is silent or cut, and which dials to give up (D7). Time is an argument.

    silent        dial at once, then every `pace` seconds, beside the link that may still live
    cut           dial at once; if that fails at once, again after FIRST_AGAIN_S; then every `pace` seconds
    hub asked     the next dial `pace` seconds later, so that a slow answer has its time
    `grace` over  the hub has forgotten the session: log in afresh

Seconds from one dial to the next count from the start of the former, so a refusal does not make dialling faster. At
most MOST dials are open; the oldest makes room. One that got a connection and was given up nevertheless was too slow
for this path or this hub: the pace then doubles, twice at most.

Where several `paths` may lead to the hub, each dial takes the next; the first of each start BESIDE_S apart, and as many
may be open.
"""

from typing import Final

MOST: Final = 2  # dials open beside the old link
BESIDE_S: Final = 0.3  # from a dial over one path to the first over the next
FIRST_AGAIN_S: Final = 0.25  # from the first dial after a cut to the second; also the least between any two
SLOWER: Final = 2  # times that the pace is doubled
BRIEF_S: Final = 1.0  # a link that lived shorter is no success
BRIEF_MOST: Final = 8  # such links in a row, then dials after a cut keep the pace


class Redial:
    """The schedule of one session; quiet as long as its link is well."""

    def __init__(self, *, pace: float) -> None:
        self.pace = pace  # seconds; may be changed at any time
        self.paths = 1  # that lead to the hub, or might; each dial takes the next
        self.open: dict[int, bool] = {}  # attempt -> its TCP connection came about; the oldest first
        self._due: float | None = None  # None: the link is well
        self._begun = float("-inf")  # when the last dial started
        self._tries = 0  # dials since the link became silent or was cut
        self._slow = 0  # dials in a row that were given up though connected
        self._opened = float("-inf")
        self._brief = 0
        self._until: float | None = None

    # -- what happens to the link ---------------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """A link carries the session; nothing else is needed."""
        self._opened = now
        self._rest()

    def suspect(self, now: float) -> None:
        """The link is silent."""
        if self._due is None:
            self._due, self._tries = max(now, self._begun + FIRST_AGAIN_S), 0

    def recovered(self) -> None:
        """It spoke after all."""
        self._rest()

    def cut(self, now: float, grace: float) -> None:
        """The link is gone; the hub keeps the session for `grace` seconds."""
        self._brief = self._brief + 1 if now - self._opened < BRIEF_S else 0
        self._until = now + grace
        self._tries = 0
        self._due = max(now, self._begun + (self._pause if self._brief > BRIEF_MOST else FIRST_AGAIN_S))

    # -- what happens to dials ------------------------------------------------------------------------------------

    def dial(self, attempt: int, now: float) -> list[int]:
        """A dial starts; gives those to be given up for it."""
        gone = list(self.open)[: max(0, len(self.open) - max(MOST, self.paths) + 1)]
        for old in gone:
            self._slow = self._slow + 1 if self.open.pop(old) else 0
        self.open[attempt] = False
        self._begun = now
        self._tries += 1
        self._due = now + (BESIDE_S if self._tries < self.paths else self._pause)
        return gone

    def connected(self, attempt: int) -> None:
        """Its TCP connection came about, at least to the first machine on the way. A second call does nothing."""
        if attempt in self.open:
            self.open[attempt] = True

    def asked(self, attempt: int, now: float, grace: float) -> None:
        """The hub was asked over it; the old link is given up, so for us the session is cut from now on."""
        if attempt in self.open:
            self._due = now + self._pause
            self._until = now + grace if self._until is None else self._until

    def failed(self, attempt: int) -> None:
        """It came to nothing."""
        if self.open.pop(attempt, None) is not None and self._tries <= self.paths and self._due is not None:
            self._due = min(self._due, self._begun + FIRST_AGAIN_S)

    # -- what to do -----------------------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Start a dial."""
        return self._due is not None and now >= self._due

    def is_over(self, now: float) -> bool:
        """The session can't be resumed any more."""
        return self._until is not None and now >= self._until

    def wait(self, now: float) -> float | None:
        """Seconds until one of the two; None: nothing to wait for."""
        times = [at for at in (self._due, self._until) if at is not None]
        return max(0.0, min(times) - now) if times else None

    @property
    def _pause(self) -> float:
        return self.pace * 2.0 ** min(self._slow, SLOWER)

    def _rest(self) -> None:
        self.open.clear()
        self._due = self._until = None
        self._slow = 0
