"""Dialogues as they look through SSH: some 40 bytes more a message, rounded, other channels' small turns between."""

from collections.abc import Iterable, Sequence
from typing import Final

from ukihashi.detect import model
from ukihashi.detect.flow import Message, Turn

WRAP: Final = 44  # bytes that SSH adds to a message; less, or with other ciphers more, the spans have room for
HELLO: Final = model.Span(230, 2500)  # bytes of the client hello inside
HELLO_AGAIN: Final = model.Span(100, 2500)  # of a further connection's, which compression shrinks
FLIGHT_MIN: Final = 800  # bytes of the server's hello and certificate
FLIGHT_AGAIN_MIN: Final = 150
FLIGHT_OWN_MIN: Final = 400
SMALL_TURN: Final = 120  # bytes; key strokes, window adjustments, keep-alives of SSH itself
NOISE_COST: Final = 1.0  # of a reading without the small turns
REACH: Final = 48  # turns looked back
PLACES: Final = (5, 7, 9)  # where the client hello may stand, turns before the welcome
LONGEST: Final = 12  # turns from a client hello to the welcome
_LOGINS: Final = range(330 - model.SOFT_BELOW, 4200 + model.SOFT_ABOVE + 4 * WRAP)
_ANSWERS: Final = range(300 - model.SOFT_BELOW, 1750 + model.SOFT_ABOVE + 4 * WRAP)


Reading = tuple[Sequence[Turn], float]
"""Turns as they are inside SSH, and what this way of reading them costs."""


def best_reading(
    readings: Sequence[Reading], dialogues: Sequence[model.Dialogue], hello: model.Span, flight: int
) -> tuple[float, Sequence[Turn]]:
    """The best dialogue that ends with the last turn, and its turns from the client hello on."""
    best, where = model.IMPOSSIBLE, readings[0][0]
    for turns, cost in readings:
        for place in PLACES:
            at = len(turns) - 1 - place
            if (
                at >= 0
                and hello.low <= turns[at].size + WRAP <= hello.high
                and turns[at + 1].size + WRAP >= flight
                and _are_preliminaries(turns[at + 2 : at + place - 3])
            ):
                score = model.best_score(turns, at, dialogues) - cost
                if score > best:
                    best, where = score, turns[at:]
    return best, where


def _are_preliminaries(turns: Sequence[Turn]) -> bool:
    """Between the hellos and C1: TLS 1.2's key exchange, tickets that cut C1, a probe of SoftEther's; all small."""
    return all(
        (answer.size <= 350 and asked.size <= 3000) or (answer.size <= 700 and asked.size <= 700)
        for asked, answer in zip(turns[::2], turns[1::2], strict=False)
    )


def unwrapped(turns: Sequence[Turn]) -> list[Turn]:
    """The turns as they are inside SSH, about."""
    inside = []
    for turn in turns:
        one = Turn(turn.begin, toward_server=turn.toward_server)
        one.end = turn.end
        one.size, one.first = max(1, turn.size - WRAP), max(1, turn.first - WRAP)
        inside.append(one)
    return inside


def may_end_a_dialogue(turns: Sequence[Turn]) -> bool:
    """Could the last two turns before the last be an answer and a login? Nearly none are."""
    return len(turns) > PLACES[0] and turns[-2].size in _LOGINS and turns[-3].size in _ANSWERS


def without_noise(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without the small ones, neighbours joined; nothing if there are no small ones."""
    kept = list[Turn]()
    for turn in turns:
        if turn.size <= SMALL_TURN:
            continue
        if kept and kept[-1].toward_server == turn.toward_server:
            joined = Turn(kept[-1].begin, toward_server=turn.toward_server)
            joined.end, joined.size, joined.first = turn.end, kept[-1].size + turn.size, kept[-1].first
            kept[-1] = joined
        else:
            kept.append(turn)
    return kept if len(kept) != len(turns) and kept and not kept[-1].toward_server else []


def messages_inside(messages: Iterable[Message]) -> list[Message]:
    """The messages as they are inside SSH, about."""
    return [Message(m.time, m.gap, max(1, m.size - WRAP), coupled=m.coupled) for m in messages]
