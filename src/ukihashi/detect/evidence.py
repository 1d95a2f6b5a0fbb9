"""What several rules ask of a flow: the shape of its timers, who it is, and a finding about it."""

from collections.abc import Callable, Iterable, Sequence
from math import exp
from typing import Final

from ukihashi.detect import model
from ukihashi.detect.features import Outer
from ukihashi.detect.flow import COUPLED_S, Flow, Half, Message
from ukihashi.detect.model import Timing
from ukihashi.detect.record import Connection, Endpoint, Family, Finding, Packet, Reason, Verdict

# Rule 3, SoftEther.
SILENT_S: Final = 10.7  # half the usual session timeout, and a margin
SENDS_MIN: Final = 12
SMALL: Final = 640  # bytes

# Our own law's further conditions (docs/detection.md, section 3).
OWN_TIMER_MIN: Final = 12.0
OWN_DISTINCT: Final = 0.75
OWN_SPREAD: Final = 75.0  # bytes; 148 is the deviation of the law, 75 the lowest that six draws reach
OWN_BEYOND: Final = 0.1
OWN_ANSWERING: Final = 0.4


Headers = Callable[[Flow], Sequence[Packet]]
"""Gives the packets that were kept of a flow: of each its first bytes."""


def no_headers(flow: Flow) -> Sequence[Packet]:
    """Nothing is kept."""
    del flow
    return ()


def evidence_packets(packets: Iterable[Packet], until: float) -> tuple[Packet, ...]:
    """In order of time, none later than the verdict."""
    return tuple(sorted((packet for packet in packets if packet[0] <= until), key=lambda packet: packet[0]))


def timer_shape(timing: Timing) -> bool:
    """Rule 2's further conditions."""
    return 0.2 <= timing.atom <= 0.85 and timing.coupled <= 0.5 and timing.distinct >= 0.7


def own_timer(
    timing: Timing, directions: Sequence[Sequence[Message]], together: float, *, distinct: float = OWN_DISTINCT
) -> bool:
    """Do the silences of both directions follow our law, with sizes drawn at random? `together`: see `answering`."""
    if timing.gaps < 6 or timing.score < OWN_TIMER_MIN or not own_shape(timing, distinct):
        return False
    each = [model.ukihashi_timing([messages]) for messages in directions]
    fewest = min(one.gaps for one in each)
    if together <= OWN_ANSWERING:
        return fewest >= 2 or timing.gaps >= 8
    # Data that passes sets both timers back at once, so that they beat together: then the sizes must carry it.
    return fewest >= 5 and all(own_shape(one, distinct) for one in each)


def answering(flow: Flow, now: float) -> float:
    """How much of what the more independent side says comes beside words of the other, beyond chance: 0..1.

    Near 1 both sides speak only together, as question and answer do.
    """
    least = 1.0
    for half in (flow.client, flow.server):
        messages = complete(half)
        if len(messages) >= 3:
            share = sum(message.coupled for message in messages) / len(messages)
            rate = half.peer.sends / max(now - flow.watched, 1.0)
            least = min(least, share - (1.0 - exp(-2 * COUPLED_S * rate)))
    return least


def own_shape(timing: Timing, distinct: float = OWN_DISTINCT) -> bool:
    """Sizes drawn at random, and no silence beyond the law."""
    return timing.distinct >= distinct and timing.spread >= OWN_SPREAD and timing.beyond <= OWN_BEYOND


def never_silent(flow: Flow, directions: Sequence[Sequence[Message]], now: float) -> bool:
    """Rule 3: no silence beyond the law since `flow` is watched, and small uncoupled messages in both directions."""
    for half in (flow.client, flow.server):
        if half.sends < SENDS_MIN or half.longest > SILENT_S or now - half.heard > SILENT_S:
            return False
    small = [sum(m.size <= SMALL and not m.coupled for m in messages) for messages in directions]
    return min(small) >= 2 and sum(small) >= 7


def complete(half: Half) -> list[Message]:
    """The messages of a direction, without one that may still grow."""
    messages = list(half.messages)
    return messages[:-1] if half.message is not None else messages


def session_key(flow: Flow) -> bytes:
    """Client address, server address, server port."""
    key = flow.client.key
    return key[:-4] + key[-2:]


def ends_of(flow: Flow) -> tuple[Endpoint, Endpoint]:
    """Client and server."""
    key = flow.client.key
    size = (len(key) - 4) // 2
    return (
        Endpoint(key[:size], int.from_bytes(key[-4:-2])),
        Endpoint(key[size : 2 * size], int.from_bytes(key[-2:])),
    )


def connection_of(flow: Flow) -> Connection:
    """What a finding says of a flow."""
    return Connection(ends_of(flow)[0], flow.begin)


def make_finding(
    flow: Flow,
    connections: Sequence[Connection],
    now: float,
    rule: str,
    reasons: tuple[Reason, ...],
    directions: Iterable[Sequence[Message]],
) -> Finding:
    """A CONFIRMED finding of the SoftEther family over plain TCP; the caller replaces what is different."""
    messages = [message for messages in directions for message in messages if message.gap >= 1.9]
    return Finding(
        family=Family.SOFTETHER,
        verdict=Verdict.CONFIRMED,
        outer=Outer.TCP,
        client=connections[0].client,
        server=ends_of(flow)[1],
        target="",
        begin=connections[0].begin,
        decided=now,
        rule=rule,
        score=sum(reason.score for reason in reasons),
        reasons=reasons,
        turns=(),
        gaps=tuple(message.gap for message in messages[:64]),
        sizes=tuple(message.size for message in messages[:64]),
        connections=tuple(connections),
        lost=flow.lost,
    )
