"""The parts of a reason, the steps of a timeline: what was measured, what the tunnel has, how usual it is elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from math import log, nan
from typing import Final, NamedTuple

from ukihashi.detect import model
from ukihashi.detect.flow import Flow, Turn
from ukihashi.detect.model import Dialogue, Span, Timing, Window
from ukihashi.detect.record import Piece, Reason, Step

PARTS: Final = ("C1", "S1", "C2", "S2")
MAX_OPENINGS: Final = 8  # connections whose opening a timeline shows
_SIZES: Final = Span(20, 60_000)  # log-uniform elsewhere, as model.py says
_GAPS_FACTOR: Final = 600.0


class Opening(NamedTuple):
    """The opening dialogue of one connection."""

    begin: float  # seconds, of the connection
    turns: tuple[Turn, ...]  # all of its turns
    hello: int  # index of the one with the client's TLS hello
    window: Window | None  # how it was read

    @classmethod
    def read(cls, begin: float, turns: Sequence[Turn], hello: int, dialogues: Sequence[Dialogue]) -> "Opening":
        """The best reading of `turns` by one of `dialogues`."""
        windows = [window for one in dialogues if (window := model.best_window(turns, hello, one)) is not None]
        best = max(windows, key=lambda window: window.score, default=None)
        return cls(begin, tuple(turns), hello, best)


def dialogue_reason(name: str, score: float, opening: Opening | None, dialogues: Sequence[Dialogue]) -> Reason:
    """A reason of `score` with a piece for each part of the dialogue that reaches it."""
    window = opening.window if opening is not None else None
    if window is None:
        return Reason(name, score)
    spans = min(dialogues, key=lambda one: _distance(one, window))
    pieces = [
        Piece(part, size, "bytes", span.low, span.high, elsewhere(span), piece)
        for part, size, span, piece in zip(PARTS, window.sizes, spans, window.pieces, strict=True)
    ]
    if window.late:
        pieces.append(Piece("waits", window.late / -2.0, "seconds", 0.0, 0.0, nan, window.late))
    if window.split:
        pieces.append(Piece("tickets", 1, "count", 0, 1, nan, window.split))
    rest = score - window.score
    if abs(rest) >= 0.005:
        pieces.append(Piece("other connection", 1, "count", 0, 1, nan, rest))
    return Reason(name, score, tuple(pieces))


def _distance(dialogue: Dialogue, window: Window) -> float:
    """0 for the dialogue that `window` was read by."""
    scores = [model.size_score(size, span) for size, span in zip(window.sizes, dialogue, strict=True)]
    return sum(abs(one - other) for one, other in zip(scores, window.pieces, strict=True))


def timer_reason(name: str, timing: Timing, *, own: bool = False) -> Reason:
    """A reason with what the silences before messages showed; `own`: by our law, else by SoftEther's."""
    every = Piece("silences", timing.gaps, "count", 6, 0, nan, timing.score)
    sizes = Piece("different sizes", timing.distinct, "share", 0.7, 1.0, nan, 0.0)
    if own:
        low, high = model.UKIHASHI_WAIT_S - model.EARLY_S, model.UKIHASHI_WAIT_S + model.UKIHASHI_LATE_S
        exact = Piece("exact wait", timing.atom, "share of seconds", low, high, _silences(low, high), 0.0)
        return Reason(name, timing.score, (every, exact, sizes))
    low, high = timing.timeout_s / 5 - model.EARLY_S, timing.timeout_s / 5 + model.ATOM_S
    end = timing.timeout_s / 2 + model.TAIL_S
    pieces = (
        every,
        Piece("timeout", timing.timeout_s, "seconds", low, end, _silences(low, end), 0.0),
        Piece("shortest wait", timing.atom, "share", 0.2, 0.85, _silences(low, high), 0.0),
        Piece("too long", timing.beyond, "share", 0.0, 0.1, nan, 0.0),
        Piece("answered at once", timing.coupled, "share", 0.0, 0.5, nan, 0.0),
        sizes,
    )
    return Reason(name, timing.score, pieces)


def _silences(low: float, high: float) -> float:
    """Share of other traffic's silences between `low` and `high` seconds, by the model."""
    return log(high / low) / log(_GAPS_FACTOR)


def elsewhere(span: Span) -> float:
    """Share of other traffic's turns whose size lies in `span`, by the model."""
    low, high = max(span.low, _SIZES.low), min(span.high, _SIZES.high)
    return log(high / low) / log(_SIZES.high / _SIZES.low)


def steps(openings: Mapping[int, Opening], flows: Mapping[int, Flow]) -> tuple[Step, ...]:
    """The timeline: how connections began, their opening turns, the messages of `flows`; by index of connection."""
    found = list[Step]()
    for index in sorted({*openings, *flows}):
        if index not in openings:
            found.append(Step(flows[index].begin, "connection", index, True, 0, 0.0))
            continue
        opening = openings[index]
        found.append(Step(opening.begin, "connection", index, True, 0, 0.0))
        found.extend(_turns(index, opening))
    for index, flow in flows.items():
        for half in (flow.client, flow.server):
            found.extend(
                Step(message.time, "message", index, half is flow.client, message.size, message.gap)
                for message in half.messages
            )
    return tuple(sorted(found, key=lambda step: step.time))


def _turns(index: int, opening: Opening) -> Iterator[Step]:
    names = dict(zip(map(id, opening.window.turns), PARTS, strict=True)) if opening.window is not None else {}
    before = opening.begin
    for place, turn in enumerate(opening.turns):
        name = "hello" if place == opening.hello else names.get(id(turn), "")
        yield Step(turn.begin, "turn", index, turn.toward_server, turn.size, max(0.0, turn.begin - before), name)
        before = turn.end
