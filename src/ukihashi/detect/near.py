"""How near one connection came to what the rules look for, also where nothing was found.

The connection is watched whole: every place where an opening dialogue could end is scored by every law, and all of its
silences are weighed by both keep-alive laws. The scores are those of `model`, the least ones those of `verdict`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ukihashi.detect import model
from ukihashi.detect.evidence import complete, ends_of
from ukihashi.detect.features import beginning, is_ssh
from ukihashi.detect.flow import Flow, Half
from ukihashi.detect.model import Dialogue
from ukihashi.detect.reasons import Opening, dialogue_reason, steps, timer_reason
from ukihashi.detect.record import Endpoint, Family, Piece, Reason, Step
from ukihashi.detect.verdict import (
    FURTHER_MIN,
    FURTHERS,
    LOGIN_MIN,
    LOGINS,
    OWN_FURTHER_MIN,
    OWN_LOGIN_MIN,
    TIMER_MIN,
)
from ukihashi.errors import N_

MIDSTREAM_MIN: Final = 28.0  # of keep-alives alone, where the begin was not seen (midstream.py)
TIMERS: Final = {Family.SOFTETHER: model.softether_timing, Family.UKIHASHI: model.ukihashi_timing}
_GOALS: Final[tuple[tuple[Family, str, Mapping[Family, Sequence[Dialogue]], float], ...]] = (
    (Family.SOFTETHER, N_("login dialogue"), LOGINS, LOGIN_MIN),
    (Family.SOFTETHER, N_("further connection"), FURTHERS, FURTHER_MIN),
    (Family.UKIHASHI, N_("login dialogue"), LOGINS, OWN_LOGIN_MIN),
    (Family.UKIHASHI, N_("further connection"), FURTHERS, OWN_FURTHER_MIN),
)


class Goal(NamedTuple):
    """One thing that a rule looks for, and how near the connection came."""

    family: Family
    reason: Reason
    least: float  # score that the rule asks for

    @property
    def reached(self) -> bool:
        """It is enough."""
        return self.reason.score >= self.least

    @property
    def lacking(self) -> tuple[Piece, ...]:
        """Pieces that speak against it."""
        return tuple(piece for piece in self.reason.pieces if piece.score < 0 or not _inside(piece))


def _inside(piece: Piece) -> bool:
    return piece.unit not in {"bytes", "share"} or piece.low <= piece.measured <= piece.high


class Near(NamedTuple):
    """What one connection showed."""

    client: Endpoint
    server: Endpoint
    begin: float  # seconds since 1970 UTC
    seen: bool  # its begin was captured
    kind: str  # "tls", "ssh" or "" for what no rule reads
    turns: int
    goals: tuple[Goal, ...]  # the nearest first
    timeline: tuple[Step, ...]


class Watch:
    """A `flow.Watcher` of one connection; `near` says what it showed."""

    def __init__(self) -> None:
        self._done: Near | None = None  # what it was when it closed
        self._flow: Flow | None = None
        self._kind = ""
        self._turns = 0
        self._best: dict[int, tuple[float, Opening]] = {}

    def turned(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        self._watch(flow, time)
        self._turns += 1
        turns = flow.turns
        start = beginning(turns)
        if start is None or start.hello < 0:
            self._kind = "ssh" if is_ssh(turns) else self._kind
            return
        self._kind = "tls"
        for place, (family, _name, dialogues, _least) in enumerate(_GOALS):
            opening = Opening.read(flow.begin, turns, start.hello, dialogues[family])
            if opening.window is not None:
                score = opening.window.score
                if place not in self._best or score > self._best[place][0]:
                    self._best[place] = score, opening

    def joined(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        del time
        self._flow = flow

    def spoke(self, half: Half, time: float) -> None:
        """See `flow.Watcher`."""

    def closed(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`: its messages are read before they go."""
        del time
        self._flow = flow
        self._done = self._read(flow)

    def tick(self, now: float) -> None:
        """See `flow.Watcher`."""

    def near(self) -> Near | None:
        """What was seen; None if it carried no data."""
        if self._done is not None:
            return self._done
        return self._read(self._flow) if self._flow is not None else None

    def _watch(self, flow: Flow, time: float) -> None:
        if self._flow is None:
            self._flow = flow
            flow.watch(time, turns=True)

    def _read(self, flow: Flow) -> Near:
        client, server = ends_of(flow)
        goals = [
            Goal(family, self._reason(place, name, dialogues[family]), least)
            for place, (family, name, dialogues, least) in enumerate(_GOALS)
        ]
        directions = [complete(flow.client), complete(flow.server)]
        for family, law in TIMERS.items():
            timing = law(directions)
            if timing.gaps:
                reason = timer_reason(N_("keep-alive timers"), timing, own=family is Family.UKIHASHI)
                goals.append(Goal(family, reason, TIMER_MIN if flow.syn else MIDSTREAM_MIN))
        goals.sort(key=lambda goal: goal.least - goal.reason.score)
        best = max(self._best.values(), key=lambda entry: entry[0], default=None)
        return Near(
            client,
            server,
            flow.begin,
            flow.syn,
            self._kind,
            self._turns,
            tuple(goals),
            steps({0: best[1]} if best is not None else {}, {0: flow}),
        )

    def _reason(self, place: int, name: str, dialogues: Sequence[Dialogue]) -> Reason:
        if place not in self._best:
            return Reason(name, model.IMPOSSIBLE)
        score, opening = self._best[place]
        return dialogue_reason(name, score, opening, dialogues)
