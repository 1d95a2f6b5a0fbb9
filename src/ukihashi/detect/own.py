"""Our own family behind a login dialogue like ours: keep-alives of the silent, acknowledgements of the busy.

Two ends of ours acknowledge records by a control record of 17 bytes: 1 s after the first that is not acknowledged, or
once 256 KiB of them have come (docs/protocol.md, section 5). So a direction is either silent for 5 s now and then, and
its keep-alives show, or records come to it, and its acknowledgements do: a short segment of always the same size, never
sooner than 1 s after the other side spoke again.
"""

from collections.abc import Iterator, Sequence
from math import log
from typing import Final, NamedTuple

from ukihashi.detect import model
from ukihashi.detect.evidence import (
    OWN_BEYOND,
    OWN_DISTINCT,
    answering,
    never_silent,
    own_timer,
    timer_shape,
)
from ukihashi.detect.flow import Crumb, Flow, Message
from ukihashi.detect.model import Timing
from ukihashi.detect.reasons import timer_reason
from ukihashi.detect.record import Family, Piece, Reason, Verdict
from ukihashi.errors import N_

ACK_S: Final = 1.0
ACK_BYTES: Final = 256 * 1024
RECORD: Final = 17  # bytes of an acknowledgement without TLS

# Which segments a flow keeps (`Flow.small`), and which of them can be acknowledgements.
SMALL: Final = 70  # bytes; with TLS no frame is so short
SMALL_SSH: Final = 104
SIZES: Final = tuple(RECORD + more for more in (22, 29, 21, 52))  # TLS 1.3; 1.2 with GCM, ChaCha20, CBC and SHA-1
SIZES_SSH: Final = range(72, SMALL_SSH + 1)  # a window adjustment is shorter with the same ciphers

# The law. NARROW_S: of a constant way from where we look to the end and back, which is not known.
EARLIEST_S: Final = 0.94  # a lost packet and a mirror of one direction make it look up to a delayed ACK too early
FARTHEST_S: Final = 1.6
NARROW_S: Final = 0.05
EDGE_S: Final = 0.003
_MOST_BYTES: Final = 600_000  # a read may bring as much again
_IN_TIME: Final = log(0.7 / (NARROW_S + EDGE_S) * log(600))
_LATER: Final = log(0.28 * log(600) / log(32))  # others went with data, which nobody sees
_TOO_SOON: Final = -4.0
_UNASKED: Final = -4.0  # the other side said nothing since
_MOST: Final = 3.5
_CHOICE_COST: Final = 3.0  # of choosing the way's length and the size

# Rules.
BOTH_WAYS: Final = 6  # acknowledgements, two at least each way
ONE_WAY: Final = 10
BOTH_MIN: Final = 14.0
ONE_MIN: Final = 15.0
KEPT: Final = 0.4  # share of them in time; the rest may follow one that went with data
APART: Final = 0.6  # share that came while the other side went on speaking, so that they were no answers
APART_LEAST: Final = 0.25  # the same, if the score is
SURE: Final = 25.0
MIXED_MIN: Final = 16.0  # of acknowledgements and keep-alives together
MIXED: Final = 8
LOGIN_ALONE: Final = 7.2  # as with SoftEther's
LOGIN_STANDARD: Final = 6.7  # for what a SoftEther server's law proves: other programs' clocks can resemble it
STANDARD_MIN: Final = 8.0
STANDARD_GAPS: Final = 7
COUPLED_MAX: Final = 0.85
PROBABLE_AFTER_S: Final = 75.0
APART_SIZES: Final = 4  # different ones of messages that answer nothing: no mere beat has so many
STREAM_S: Final = 3.0  # who is never silent for longer is busy
DEAD_S: Final = 15.5  # an end that hears nothing for 15 s holds the connection for cut

TIMERS: Final = N_("keep-alive timers")
ACKNOWLEDGEMENTS: Final = N_("acknowledgements of records")
NEVER_SILENT: Final = N_("never silent for long")


class Acks(NamedTuple):
    """What the short segments of one size in one direction say about our law."""

    score: float = 0.0  # natural log
    number: int = 0
    kept: float = 0.0  # share in time, or after enough bytes
    apart: float = 0.0  # share that came while the other side spoke
    late_s: float = 0.0  # from our law's second to what was measured: the way to the end and back
    size: int = 0  # bytes


def acknowledgements(crumbs: Sequence[Crumb], size: int) -> Acks:
    """Judge those of `crumbs` that have this size."""
    found = list(_waits(crumbs, size))
    if len(found) < 2:
        return Acks(size=size)
    waits = sorted(wait for wait, _, _ in found if EARLIEST_S <= wait <= FARTHEST_S)
    near = [sum(start - EDGE_S <= wait <= start + NARROW_S for wait in waits) for start in waits]
    start = waits[near.index(max(near))] if waits else ACK_S
    score, kept, apart = -_CHOICE_COST, 0, 0
    for wait, passed, quiet in found:
        apart += quiet < wait / 2
        if wait < 0:
            score += _UNASKED
        elif start - EDGE_S <= wait <= start + NARROW_S:
            kept += 1
            score += min(_MOST, _IN_TIME + log(wait))
        elif wait < EARLIEST_S and passed < ACK_BYTES:
            score += _TOO_SOON
        elif wait < EARLIEST_S and passed <= _MOST_BYTES:
            kept += 1
            score += min(_MOST, log(0.9 / (_MOST_BYTES - ACK_BYTES) * passed * log(3000)))
        else:
            score += _LATER
    return Acks(score, len(found), kept / len(found), apart / len(found), start - ACK_S, size)


def _waits(crumbs: Sequence[Crumb], size: int) -> Iterator[tuple[float, int, float]]:
    """Of each one of `size`: the wait since the other side's first data after the one before, its bytes, its quiet."""
    prompted, passed = -1.0, 0
    for crumb in crumbs:
        if crumb.wait >= 0 and prompted < 0:
            prompted = crumb.time - crumb.wait
        passed += crumb.passed
        if crumb.size == size:
            yield (crumb.time - prompted if prompted >= 0 else -1.0), passed, crumb.quiet
            prompted, passed = -1.0, 0


class Proof(NamedTuple):
    """Enough for a line."""

    rule: str
    family: Family  # SOFTETHER: a card of ours at a SoftEther server
    reasons: tuple[Reason, ...]
    verdict: Verdict = Verdict.CONFIRMED


class Opened(NamedTuple):
    """A login dialogue like ours, and what followed."""

    flow: Flow
    login: float  # its score
    since: float  # when it had ended, seconds
    directions: Sequence[Sequence[Message]]  # from client and server, as they are inside whatever wraps them
    ssh: bool = False  # that is SSH
    distinct: float = OWN_DISTINCT  # least share of distinct sizes of keep-alives


def prove(opened: Opened, now: float, *, last: bool = False) -> Proof | None:
    """Do keep-alives and acknowledgements follow our law, or that of SoftEther where our card is at such a server?

    Args:
        last: nothing more comes.
    """
    flow, directions = opened.flow, opened.directions
    timing = model.ukihashi_timing(directions)
    if _stands_still(opened, now) <= 1:
        together = answering(flow, now)
        if own_timer(timing, directions, together, distinct=opened.distinct):
            return Proof("own", Family.UKIHASHI, (timer_reason(TIMERS, timing, own=True),))
    crumbs = [
        tuple(crumb for crumb in half.crumbs if crumb.time >= opened.since) for half in (flow.client, flow.server)
    ]
    sizes = SIZES_SSH if opened.ssh else SIZES
    seen = {crumb.size for each in crumbs for crumb in each}
    acks = max(
        ((acknowledgements(crumbs[0], size), acknowledgements(crumbs[1], size)) for size in sizes if size in seen),
        key=lambda pair: sum(one.score for one in pair if one.number),
        default=(Acks(), Acks()),
    )
    proof = _acknowledged(acks) or _mixed(acks, timing, opened.distinct)
    standard = model.softether_timing(directions)
    proof = proof or _standard(opened, standard, timing.score)
    if proof is not None or opened.login < LOGIN_ALONE:
        return proof
    at_ours = any(one.number >= 2 for one in acks) or timing.score > max(0.0, standard.score)
    return _alone(opened, now, at_ours=at_ours, last=last)


def _stands_still(opened: Opened, now: float) -> int:
    """How often nothing came for longer than our law allows; many for a silence that no session outlives."""
    limit = model.UKIHASHI_WAIT_S + model.UKIHASHI_LOST_S
    halves = opened.flow.client, opened.flow.server
    if any(half.longest > DEAD_S or now - half.heard > limit for half in halves):
        return 99
    return max(sum(message.gap > limit for message in messages) for messages in opened.directions)


def _standard(opened: Opened, timing: Timing, own: float) -> Proof | None:
    """SoftEther's law, which must explain the silences better than ours, whose score is `own`."""
    if opened.login < LOGIN_STANDARD or timing.gaps < STANDARD_GAPS or timing.score < max(STANDARD_MIN, own):
        return None
    if timing.beyond or not timer_shape(timing):
        return None
    return Proof("2, our card", Family.SOFTETHER, (timer_reason(TIMERS, timing),))


def _alone(opened: Opened, now: float, *, at_ours: bool, last: bool) -> Proof | None:
    """The login and a minute without a silence; `at_ours`: something looks like a hub of ours."""
    family = Family.UKIHASHI if at_ours else Family.SOFTETHER
    messages = [message for messages in opened.directions for message in messages]
    apart = {message.size for message in messages if not message.coupled}
    streams = max(half.longest for half in (opened.flow.client, opened.flow.server)) <= STREAM_S
    if len(apart) < APART_SIZES and not streams:
        return None
    coupled = sum(message.coupled for message in messages) / len(messages) if len(messages) >= 4 else 0.0
    if coupled <= COUPLED_MAX and never_silent(opened.flow, opened.directions, opened.since, now):
        rule = "own, never silent" if at_ours else "3, our card"
        return Proof(rule, family, (Reason(NEVER_SILENT, 0.0),))
    if last or now - opened.since >= PROBABLE_AFTER_S:
        return Proof("own, alone" if at_ours else "4, our card", family, (), Verdict.PROBABLE)
    return None


def _acknowledged(acks: tuple[Acks, Acks]) -> Proof | None:
    score = sum(one.score for one in acks)
    enough = min(one.number for one in acks) >= 2 and sum(one.number for one in acks) >= BOTH_WAYS
    if enough and score >= BOTH_MIN and min(one.kept for one in acks) >= KEPT:
        return Proof("own, acknowledged", Family.UKIHASHI, (_reason(acks),))
    for one in acks:
        apart = APART_LEAST if one.score >= SURE else APART
        if one.number >= ONE_WAY and one.score >= ONE_MIN and one.kept >= KEPT and one.apart >= apart:
            return Proof("own, acknowledged", Family.UKIHASHI, (_reason((one,)),))
    return None


def _mixed(acks: tuple[Acks, Acks], timing: Timing, distinct: float) -> Proof | None:
    """Some of each."""
    told = tuple(one for one in acks if one.score > 0 and one.kept >= KEPT)
    if not told or timing.gaps < 2 or timing.score <= 0 or timing.beyond > OWN_BEYOND or timing.distinct < distinct:
        return None
    score = timing.score + sum(one.score for one in told)
    count = timing.gaps + sum(one.number for one in told)
    if score < MIXED_MIN or count < MIXED or sum(one.number for one in told) < 3:
        return None
    return Proof("own, mixed", Family.UKIHASHI, (timer_reason(TIMERS, timing, own=True), _reason(told)))


def _reason(acks: Sequence[Acks]) -> Reason:
    score = sum(one.score for one in acks)
    count = sum(one.number for one in acks)
    in_time = sum(one.kept * one.number for one in acks) / count
    first = acks[0]
    nowhere = float("nan")
    pieces = (
        Piece("acknowledgements", count, "count", BOTH_WAYS, 0, nowhere, score),
        Piece("size", first.size, "bytes", first.size, first.size, nowhere, 0.0),
        Piece("in time", in_time, "share", KEPT, 1.0, nowhere, 0.0),
        Piece("wait", ACK_S + first.late_s, "seconds", EARLIEST_S, FARTHEST_S, nowhere, 0.0),
    )
    return Reason(ACKNOWLEDGEMENTS, score, pieces)
