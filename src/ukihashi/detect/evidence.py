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
SILENCE_TEST_S: Final = 60.0
STALL_S: Final = 20.0  # the usual session timeout: a session does not outlive a longer one
BUSY_S: Final = 2.0  # a direction that is never silent for longer carries a stream, as of a voice
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


def never_silent(flow: Flow, directions: Sequence[Sequence[Message]], since: float, now: float) -> bool:
    """Rule 3: for a minute no silence beyond the law, and small uncoupled messages in both directions, or a stream.

    A longer silence of one direction begins the minute anew; one that both share is a path that stood still, and is
    left out of it. `since`: when the opening had matched.
    """
    for half in (flow.client, flow.server):
        if half.sends < SENDS_MIN or now - half.heard > SILENT_S:
            return False
    holes = [
        [(max(message.time - message.gap, since), message.time) for message in half.messages]
        for half in (flow.client, flow.server)
    ]
    one, other = ([hole for hole in each if hole[1] - hole[0] > SILENT_S] for each in holes)
    begin, still = since, 0.0
    if len(one) == len(other) == 1 and _is_same_hole(one[0], other[0]):
        still = max(one[0][1], other[0][1]) - min(one[0][0], other[0][0])
    elif one or other:
        begin = max(end for _, end in (*one, *other))
    if now - begin - still < SILENCE_TEST_S:
        return False
    busy = [half.longest <= BUSY_S for half in (flow.client, flow.server)]
    beside = _beside_stream(flow)
    small = [
        sum(m.size <= SMALL and (free or not m.coupled) and m.time >= begin for m in messages)
        for free, messages in zip(beside, directions, strict=True)
    ]
    return all(count >= 2 or flows for count, flows in zip(small, busy, strict=True)) and (sum(small) >= 7 or all(busy))


def coupling(flow: Flow, directions: Sequence[Sequence[Message]]) -> float:
    """Share of messages that came beside one of the other side: 1 for question and answer. 0 if there are too few.

    Beside a stream, as of a voice, every message comes beside something: those do not count.
    """
    counted = [
        m.coupled for free, messages in zip(_beside_stream(flow), directions, strict=True) if not free for m in messages
    ]
    return sum(counted) / len(counted) if len(counted) >= 4 else 0.0


def _beside_stream(flow: Flow) -> tuple[bool, bool]:
    """Of client and server: does the other side send a stream, and this one not?"""
    client, server = flow.client.longest <= BUSY_S, flow.server.longest <= BUSY_S
    return server and not client, client and not server


def _is_same_hole(one: tuple[float, float], other: tuple[float, float]) -> bool:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    longest = max(one[1] - one[0], other[1] - other[0])
    return longest <= STALL_S and shared >= 0.75 * longest


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
