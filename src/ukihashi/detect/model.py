"""How likely a flow's numbers are under a tunnel's law against anything else: sums of natural-log likelihood ratios.

The laws were measured; docs/detection.md says how. `SOFTETHER` is today's SoftEther SSL-VPN protocol, `UKIHASHI` what
two ends of ours speak. All else is taken as log-uniform in size and in silence, which favours no kind of traffic.
"""

from collections.abc import Iterable, Sequence
from math import log, sqrt
from typing import Final, NamedTuple

from ukihashi.detect.flow import Message, Turn

IMPOSSIBLE: Final = -15.0

# Sizes. In the model: uniform over the span, SOFT of the mass just outside. Elsewhere: log-uniform 20 .. 60000 bytes.
SOFT: Final = 0.02
SOFT_BELOW: Final = 60  # bytes
SOFT_ABOVE: Final = 400  # bytes
_LOG_SIZES: Final = log(60_000 / 20)

# Silences elsewhere: log-uniform over a factor of 600.
_LOG_GAPS: Final = log(600)


class Span(NamedTuple):
    """Bytes on the wire that a turn can have."""

    low: int
    high: int


class Dialogue(NamedTuple):
    """The four turns behind the TLS handshake: request, hello, login, welcome (or those of a further connection)."""

    c1: Span
    s1: Span
    c2: Span
    s2: Span


SOFTETHER_LOGIN: Final = Dialogue(Span(1555, 3720), Span(300, 1750), Span(2300, 4200), Span(1700, 3700))
SOFTETHER_FURTHER: Final = Dialogue(Span(1555, 3720), Span(300, 1750), Span(330, 1700), Span(230, 1650))
# A request of ours has no padding, which narrows it down; a long host name makes it longer.
UKIHASHI_LOGIN: Final = Dialogue(Span(155, 300), Span(305, 1440), Span(1150, 2600), Span(1870, 3130))
UKIHASHI_FURTHER: Final = Dialogue(Span(155, 300), Span(305, 1440), Span(380, 1580), Span(225, 1350))
# A SoftEther client at a hub of ours, and our card at a SoftEther server: each side as at home.
SOFTETHER_AT_OURS: Final = SOFTETHER_LOGIN._replace(s2=UKIHASHI_LOGIN.s2)
OURS_AT_SOFTETHER: Final = UKIHASHI_LOGIN._replace(s1=SOFTETHER_LOGIN.s1, s2=SOFTETHER_LOGIN.s2)

FIRST_WINDOW: Final = 2  # turns behind the client hello
LAST_WINDOW: Final = 8  # TLS 1.2 needs two more turns; a probe pair may come first
WINDOW_TURNS: Final = LAST_WINDOW + 6  # turns behind the client hello after which no window can begin
SPLIT_MAX: Final = 700  # bytes; TLS 1.3 session tickets that cut the first request in two
_SPLIT_COST: Final = 0.7


def size_score(size: int, span: Span) -> float:
    """ln(P(size | span) / P(size | anything)); IMPOSSIBLE outside the soft edges."""
    if span.low <= size <= span.high:
        density = (1 - SOFT) / (span.high - span.low)
    elif span.low - SOFT_BELOW <= size <= span.high + SOFT_ABOVE:
        density = SOFT / (SOFT_BELOW + SOFT_ABOVE)
    else:
        return IMPOSSIBLE
    return log(density * max(size, 20) * _LOG_SIZES)


def _delay_cost(delay: float, free: float) -> float:
    """Less 2 a second beyond `free` seconds: a dialogue of programs goes at network speed."""
    return -2.0 * max(0.0, delay - free)


class Window(NamedTuple):
    """Turns of a connection read as a dialogue, and what that reading is worth."""

    turns: tuple[Turn, Turn, Turn, Turn]  # the last turn of each part
    sizes: tuple[int, int, int, int]  # bytes; a part can be two turns, or only the begin of one
    pieces: tuple[float, float, float, float]  # score of each size
    late: float  # cost of the waits, 0 or less
    split: float  # cost of reading two turns as one, 0 or less

    @property
    def score(self) -> float:
        """Natural log; not below IMPOSSIBLE."""
        return max(IMPOSSIBLE, sum(self.pieces) + self.late) + self.split


def dialogue_score(turns: Sequence[Turn], hello: int, dialogue: Dialogue) -> float:
    """Score of the dialogue whose last turn is the last of `turns`; IMPOSSIBLE if no window ends there.

    Args:
        turns: complete turns of a connection, the client hello at index `hello`.
    """
    last = turns[-1]
    if last.toward_server or len(turns) < 4:
        return IMPOSSIBLE
    # Nearly all end here: no reading of these two turns could be worth anything.
    (low, high), (least, most) = dialogue.c2, dialogue.s2
    if not low - SOFT_BELOW <= turns[-2].size <= high + SOFT_ABOVE:
        return IMPOSSIBLE
    if not (
        least - SOFT_BELOW <= last.size <= most + SOFT_ABOVE or least - SOFT_BELOW <= last.first <= most + SOFT_ABOVE
    ):
        return IMPOSSIBLE
    window = best_window(turns, hello, dialogue)
    return window.score if window is not None else IMPOSSIBLE


def best_window(turns: Sequence[Turn], hello: int, dialogue: Dialogue) -> Window | None:
    """The reading that `dialogue_score` takes; None if no window ends with the last turn."""
    end = len(turns) - 1
    if turns[end].toward_server:
        return None
    best = None
    start = end - 3
    if FIRST_WINDOW <= start - hello <= LAST_WINDOW:
        c1, s1, c2, s2 = turns[start:]
        best = _window(dialogue, (c1.size, s1.size, c2.size), (c1, s1, c2, s2), turns[hello])
    start = end - 5
    if FIRST_WINDOW <= start - hello <= LAST_WINDOW and turns[start + 1].size <= SPLIT_MAX:
        c1, t1, c1b, s1, c2, s2 = turns[start:]
        sizes = (c1.size + c1b.size, t1.size + s1.size, c2.size)
        split = _window(dialogue, sizes, (c1b, s1, c2, s2), turns[hello])._replace(split=-_SPLIT_COST)
        if best is None or split.score > best.score:
            best = split
    return best


def best_score(turns: Sequence[Turn], hello: int, dialogues: Sequence[Dialogue]) -> float:
    """The best `dialogue_score` of several hypotheses."""
    return max(dialogue_score(turns, hello, dialogue) for dialogue in dialogues)


def _window(
    dialogue: Dialogue, sizes: tuple[int, int, int], turns: tuple[Turn, Turn, Turn, Turn], hello: Turn
) -> Window:
    c1, s1, c2, s2 = turns
    answer = max((s2.size, s2.first), key=lambda size: size_score(size, dialogue.s2))
    first, second, third = map(size_score, sizes, dialogue[:3])
    late = (
        _delay_cost(s1.begin - c1.end, 1.5)
        + _delay_cost(c2.begin - s1.end, 1.5)
        + _delay_cost(s2.begin - c2.end, 4.0)
        + _delay_cost(c1.begin - hello.end, 4.0)
    )
    pieces = (first, second, third, size_score(answer, dialogue.s2))
    return Window(turns, (*sizes, answer), pieces, max(-8.0, late), 0.0)


# Keep-alives. T is the session timeout; the sender waits max(T/5, random below T/2), at most one poll (256 ms) longer.
TIMEOUTS_S: Final = (20.0, 30.0, 40.0, 15.0, 10.0, 60.0, 25.0, 50.0)
OTHER_TIMEOUT_COST: Final = 3.0
EARLY_S: Final = 0.05
ATOM_S: Final = 0.30  # width of the atom at T/5
TAIL_S: Final = 0.35  # beyond T/2
_KEEPALIVE_SIZE: Final = Span(22, 600)  # 8 + 0..511 bytes of ours in TLS records of 22..57 bytes more
_CLIP: Final = (-6.0, 3.5)


class Timing(NamedTuple):
    """What the silences of one or more directions say about a timer."""

    score: float  # natural log
    gaps: int  # silences judged
    atom: float  # share of them at the shortest wait
    coupled: float  # share with a message of the other side close by
    distinct: float  # share of distinct sizes
    beyond: float  # share longer than the law allows
    spread: float  # standard deviation of sizes, bytes
    timeout_s: float  # the session timeout assumed


NO_TIMING: Final = Timing(0.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 20.0)


def _clip(value: float) -> float:
    return max(_CLIP[0], min(_CLIP[1], value))


def _keepalive_size(message: Message, previous: Message | None) -> float:
    size = message.size
    if not _KEEPALIVE_SIZE.low <= size <= _KEEPALIVE_SIZE.high:
        return _CLIP[0]
    score = log(size * _LOG_SIZES / 560)
    return _clip(score - (4.0 if previous is not None and previous.size == size else 0.0))


def _deviation(values: Sequence[int]) -> float:
    """Standard deviation; the library's goes through fractions and is forty times slower."""
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _summary(score: float, judged: Sequence[Message], atoms: int, beyond: int, timeout_s: float) -> Timing:
    count = len(judged)
    sizes = [message.size for message in judged]
    return Timing(
        score,
        count,
        atoms / count,
        sum(message.coupled for message in judged) / count,
        len(set(sizes)) / count,
        beyond / count,
        _deviation(sizes),
        timeout_s,
    )


def softether_timing(directions: Iterable[Sequence[Message]]) -> Timing:
    """The keep-alive law of SoftEther over the given directions, for the session timeout that fits best."""
    lists = [list(messages) for messages in directions]
    return max((_softether_timing(lists, timeout_s) for timeout_s in TIMEOUTS_S), key=lambda timing: timing.score)


def _softether_timing(directions: list[list[Message]], timeout_s: float) -> Timing:
    shortest, longest = timeout_s / 5 - EARLY_S, timeout_s / 2 + TAIL_S
    atom_end = timeout_s / 5 + ATOM_S
    body = 0.55 / (0.3 * timeout_s)
    score, atoms, beyond, judged = 0.0, 0, 0, list[Message]()
    for messages in directions:
        previous = None
        for message in messages:
            gap = message.gap
            if gap < shortest:
                continue
            if gap <= atom_end:
                density = 1.0
                atoms += 1
            elif gap <= longest:
                density = body
            else:
                density = 1.5e-5
                beyond += 1
            score += _clip(log(density * gap * _LOG_GAPS)) + _keepalive_size(message, previous)
            previous = message
            judged.append(message)
    if not judged:
        return NO_TIMING
    return _summary(score - (OTHER_TIMEOUT_COST if timeout_s != 20.0 else 0.0), judged, atoms, beyond, timeout_s)


# Between two ukihashi ends: after exactly 5 s of silence of that direction, a body of 0..511 random bytes.
UKIHASHI_WAIT_S: Final = 5.0
UKIHASHI_LATE_S: Final = 0.35  # a busy machine, a delayed acknowledgement
UKIHASHI_LOST_S: Final = 1.2  # with a repeat of a lost packet


def ukihashi_timing(directions: Iterable[Sequence[Message]]) -> Timing:
    """Our keep-alive law over the given directions. Shorter silences end with data and say nothing."""
    score, atoms, beyond, judged = 0.0, 0, 0, list[Message]()
    for messages in directions:
        previous = None
        for message in messages:
            gap = message.gap
            if gap < UKIHASHI_WAIT_S - EARLY_S:
                continue
            if gap <= UKIHASHI_WAIT_S + UKIHASHI_LATE_S:
                density = 0.95 / (UKIHASHI_LATE_S + EARLY_S)
                atoms += 1
            elif gap <= UKIHASHI_WAIT_S + UKIHASHI_LOST_S:
                density = 0.005
            else:
                density = 1e-5
                beyond += 1
            score += _clip(log(density * gap * _LOG_GAPS)) + _keepalive_size(message, previous)
            previous = message
            judged.append(message)
    return _summary(score, judged, atoms, beyond, UKIHASHI_WAIT_S) if judged else NO_TIMING
