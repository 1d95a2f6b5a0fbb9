"""What would have changed a verdict: the packets that were kept are judged again, with one piece changed.

Nothing is assumed about the rules: the same flow table and the same detector read the edited packets. Bounds are found
by halving, so each is true for the detector as it is, not for a description of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from ukihashi.detect.decode import ACK, SYN, Segment, as_packets, reverse, segments
from ukihashi.detect.flow import FlowTable
from ukihashi.detect.model import SOFT_ABOVE, SOFT_BELOW
from ukihashi.detect.record import Endpoint, Finding, Packet, Step, Verdict
from ukihashi.detect.verdict import Detector

BUDGET: Final = 80_000  # work for one finding, see `Replay.spent`: about three seconds
MAX_BYTES: Final = 60_000  # a turn is not made larger
MAX_WAIT_S: Final = 120.0
FAR_S: Final = 300.0  # how much later a further connection is tried
MAX_FLOWS: Final = 1024
_ROUNDING_S: Final = 1e-6  # a file of packets has nanoseconds, but seconds in a float have less
_LEAST_WORK: Final = 100  # segments; fewer count as so many, for what a judgement costs besides
_TIMER_WORK: Final = 0.15  # each message is weighed together with all before it
THIN_ABOVE: Final = 400  # segments
_BURST_S: Final = 0.02  # shorter than the pause between two messages
_MASK: Final = 0xFFFFFFFF


class Change(NamedTuple):
    """One piece changed, and what the detector says then."""

    kind: str  # see `changes`
    name: str  # of the turn, or ""
    was: float  # bytes or seconds, as it was measured
    bound: float  # beyond this the verdict is another; nan = the piece was left out
    verdict: Verdict | None  # None: not found
    connection: int = 0  # of the turn, index in `Finding.connections`


class Replay:
    """The TCP segments of a finding's packets; they can be judged any number of times."""

    def __init__(self, packets: Sequence[Packet], *, ssh_clients: Sequence[str] = ()) -> None:
        """`ssh_clients`: the patterns that the detector had."""
        self._ssh_clients = ssh_clients
        buffer, read = bytearray(), list[Segment]()
        for time, link_type, length, data in packets:
            for segment in segments(link_type, data, [(time, 0, len(data), length)]):
                read.append(_moved(segment, len(buffer)))
            buffer += data
        self.buffer = bytes(buffer)
        self.segments: tuple[Segment, ...] = tuple(read)
        self.messages = 0  # of its timeline
        self.spent = 0.0  # work so far, in segments

    def judge(self, edited: Iterable[Segment] | None, until: float, *, ticks: bool = True) -> list[Finding]:
        """What is found in the edited segments (None: in the true ones) by `until`.

        Args:
            ticks: rules that wait are tried each second; else only at `until`, as a verdict's replay needs it.
        """
        read = sorted(self.segments if edited is None else edited, key=lambda segment: segment[0])
        self.spent += max(len(read), _LEAST_WORK) + _TIMER_WORK * self.messages**2
        detector = (Detector if ticks else _Still)(ssh_clients=self._ssh_clients)
        until += _ROUNDING_S
        table = FlowTable(detector, limit=MAX_FLOWS)
        table.take(*as_packets([segment for segment in read if segment[0] <= until], self.buffer))
        Detector.tick(detector, until)
        detector.finish(until)
        return [found for found in detector.drain() if isinstance(found, Finding)]


class _Still(Detector):
    """Time passes only when told."""

    def tick(self, now: float) -> None:
        """Not yet."""


def _moved(segment: Segment, by: int) -> Segment:
    """With offsets into a buffer that begins `by` bytes earlier."""
    time, key, sequence, acknowledged, flags, length, tcp, data, end = segment
    return time, key, sequence, acknowledged, flags, length, tcp + by, data + by, end + by


def same_ends(found: Iterable[Finding], finding: Finding) -> Finding | None:
    """The surest of `found` about the same client and server; of several sessions the one that begins nearest."""
    return nearest(found, finding.client, finding.server, finding.begin)


def nearest(found: Iterable[Finding], client: Endpoint, server: Endpoint, begin: float) -> Finding | None:
    """See `same_ends`."""
    same = [one for one in found if one.client == client and one.server == server]
    return min(same, key=lambda one: (one.verdict is not Verdict.CONFIRMED, abs(one.begin - begin)), default=None)


def replay(packets: Sequence[Packet], finding: Finding) -> Finding | None:
    """The verdict on the packets kept of a finding, reached at the moment it was reached first."""
    return same_ends(Replay(packets).judge(None, finding.decided, ticks=False), finding)


def changes(finding: Finding, *, ssh_clients: Sequence[str] = ()) -> list[Change]:
    """What would have changed the verdict, one piece at a time; [] where its packets were not kept.

    Kinds: "without further" (connections left out), "further later" (seconds after the first one), "larger" and
    "smaller" (bytes of a turn), "slower" (seconds before a turn), "equal sizes", "equal waits" and "answered" (of the
    messages after silences), "silence" (seconds, in both directions).
    """
    play = Replay(finding.packets, ssh_clients=ssh_clients)
    if not play.segments or _verdict(play.judge(None, finding.decided), finding) is not finding.verdict:
        return []
    play.messages = sum(step.kind == "message" for step in finding.timeline)
    if len(play.segments) > THIN_ABOVE:
        full, opened = play.segments, max([step.time for step in finding.timeline if step.kind == "turn"], default=0.0)
        play.segments = _thin(full, opened)
        if _verdict(play.judge(None, finding.decided), finding) is not finding.verdict:
            play.segments = full
    found = list[Change]()
    for change in _tries(play, finding):
        if change is not None:
            found.append(change)
        if play.spent > BUDGET:
            break
    return found


def _thin(read: Sequence[Segment], opened: float) -> tuple[Segment, ...]:
    """Without what lies inside a burst of one direction after `opened`; the sequence numbers tell of it still."""
    following: dict[bytes, float] = {}
    kept = list[Segment]()
    for segment in reversed(read):
        time, key, flags, length = segment[0], segment[1], segment[4], segment[5]
        if time <= opened or flags & ~ACK & 0x07 or (length and following.get(key, time + 1) - time >= _BURST_S):
            kept.append(segment)
        if length:
            following[key] = time
    kept.reverse()
    before: dict[bytes, float] = {}
    first = list[Segment]()
    for segment in read:
        time, key, length = segment[0], segment[1], segment[5]
        if time > opened and length and time - before.get(key, -1.0) >= _BURST_S:
            first.append(segment)
        if length:
            before[key] = time
    return tuple(sorted({*kept, *first}, key=lambda segment: segment[0]))


def _verdict(found: Iterable[Finding], finding: Finding) -> Verdict | None:
    one = same_ends(found, finding)
    return one.verdict if one is not None else None


def _tries(play: Replay, finding: Finding) -> Iterator[Change | None]:
    keys = [_key(connection.client, finding.server) for connection in finding.connections]
    known = [step for step in finding.timeline if step.connection < len(keys)]
    turns = [step for step in known if step.name in {"C1", "S1", "C2", "S2"}]
    joined = any(reason.name.startswith("further connection") for reason in finding.reasons)
    if joined:
        yield _without(play, finding, keys)
        yield _later(play, finding, keys)
    growth = _growth(play.segments)
    messages = [step for step in known if step.kind == "message"]
    if messages and not joined:
        yield from _messages(play, finding, growth, keys, messages)
    for step in turns:
        yield _resized(play, finding, growth, keys, step, MAX_BYTES, "larger")
        yield _resized(play, finding, growth, keys, step, 1, "smaller")
        if step.name == "S1" and step.connection == turns[0].connection:
            yield _slower(play, finding, step)


def _key(client: Endpoint, server: Endpoint) -> bytes:
    return client.address + server.address + client.port.to_bytes(2) + server.port.to_bytes(2)


def _changed(
    play: Replay, finding: Finding, kind: str, name: str, was: float, edited: Iterable[Segment], until: float
) -> Change | None:
    verdict = _verdict(play.judge(edited, until), finding)
    return Change(kind, name, was, float("nan"), verdict) if verdict is not finding.verdict else None


def _without(play: Replay, finding: Finding, keys: Sequence[bytes]) -> Change | None:
    first = {keys[0], reverse(keys[0])}
    kept = [segment for segment in play.segments if segment[1] in first]
    return _changed(play, finding, "without further", "", len(keys) - 1, kept, finding.decided)


def _later(play: Replay, finding: Finding, keys: Sequence[bytes]) -> Change | None:
    first = {keys[0], reverse(keys[0])}

    def edit(by: float) -> tuple[list[Segment], float]:
        moved = [(one if one[1] in first else (one[0] + by, *one[1:])) for one in play.segments]
        return moved, finding.decided + by

    was = finding.connections[-1].begin - finding.begin
    return _halve(play, finding, edit, "further later", "", was, was, was + FAR_S, 0.5)


def _slower(play: Replay, finding: Finding, step: Step) -> Change | None:
    def edit(by: float) -> tuple[list[Segment], float]:
        moved = [((one[0] + by, *one[1:]) if one[0] >= step.time else one) for one in play.segments]
        return moved, finding.decided + by

    found = _halve(play, finding, edit, "slower", step.name, step.seconds, step.seconds, MAX_WAIT_S, 0.05)
    return found._replace(connection=step.connection) if found is not None else None


def _halve(
    play: Replay,
    finding: Finding,
    edit: Callable[[float], tuple[list[Segment], float]],
    kind: str,
    name: str,
    was: float,
    low: float,
    high: float,
    step: float,
    guesses: Iterable[float] = (),
) -> Change | None:
    """The value between `low` (the verdict holds) and `high` where it changes; `edit` is given value - `was`.

    `guesses` are values that may be it: two judgements show it.
    """

    def verdict(value: float) -> Verdict | None:
        return _verdict(play.judge(*edit(value - was)), finding)

    then = verdict(high)
    if then is finding.verdict:
        return None
    for guess in sorted(guesses, key=lambda value: -abs(value - was)):  # the farthest is true for all beyond it
        if min(low, high) < guess < max(low, high) and verdict(guess) is finding.verdict:
            beyond = verdict(guess + (step if high > low else -step))
            if beyond is not finding.verdict:
                return Change(kind, name, was, guess, beyond)
    while abs(high - low) > step and play.spent <= BUDGET:
        middle = (low + high) / 2
        now = verdict(middle)
        if now is finding.verdict:
            low = middle
        else:
            high, then = middle, now
    return Change(kind, name, was, low, then)


# -- sizes: the sequence numbers of a direction are stretched or cut --------------------------------------------------


class _Stream:
    """The new data of one direction, as the flow table accounts for it; numbers count from the first byte."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.high = 0
        self.grown: list[tuple[float, int]] = []  # time, first byte

    def reach(self, time: float, number: int) -> None:
        """Data up to `number` was seen or acknowledged."""
        stop = _relative(number, self.base)
        if stop > self.high:
            self.grown.append((time, self.high))
            self.high = stop


def _relative(number: int, base: int) -> int:
    value = (number - base) & _MASK
    return value if value < 1 << 31 else value - (1 << 32)


def _growth(read: Iterable[Segment]) -> dict[bytes, _Stream]:
    streams: dict[bytes, _Stream] = {}
    for time, key, sequence, acknowledged, flags, length, *_offsets in read:
        if flags & SYN or key not in streams:
            streams[key] = _Stream((sequence + (1 if flags & SYN else 0)) & _MASK)
        back = reverse(key)
        if flags & ACK:
            if back not in streams:
                streams[back] = _Stream(acknowledged)
            streams[back].reach(time, acknowledged)
        streams[key].reach(time, (sequence + length) & _MASK)
    return streams


class _Size(NamedTuple):
    start: int  # first byte
    old: int
    new: int


def _place(streams: dict[bytes, _Stream], key: bytes, step: Step, new: int) -> _Size | None:
    """The bytes of a turn or message."""
    stream = streams.get(key if step.toward_server else reverse(key))
    for time, first in stream.grown if stream is not None else ():
        if time >= step.time:
            return _Size(first, step.size, new)
    return None


def _resize(read: Iterable[Segment], streams: dict[bytes, _Stream], sizes: dict[bytes, list[_Size]]) -> list[Segment]:
    """`sizes` by direction, in order: the last segment of each piece grows, or its last ones shrink."""

    def moved(key: bytes, number: int) -> int:
        shift, stream = 0, streams.get(key)
        if stream is None or key not in sizes:
            return number
        at = _relative(number, stream.base)
        for start, old, new in sizes[key]:
            if at <= start:
                break
            if at < start + old:
                return (number + shift - max(0, at - start - new)) & _MASK
            shift += new - old
        return (number + shift) & _MASK

    edited = list[Segment]()
    for time, key, sequence, acknowledged, flags, length, tcp, data, end in read:
        first = sequence if flags & SYN else moved(key, sequence)
        last = moved(key, (sequence + length) & _MASK)
        size = length if flags & SYN else (last - first) & _MASK
        heard = moved(reverse(key), acknowledged) if flags & ACK else acknowledged
        edited.append((time, key, first, heard, flags, size, tcp, data, min(end, data + size)))
    return edited


def _resized(
    play: Replay,
    finding: Finding,
    streams: dict[bytes, _Stream],
    keys: Sequence[bytes],
    step: Step,
    end: int,
    kind: str,
) -> Change | None:
    key = keys[step.connection]
    place = _place(streams, key, step, step.size)
    if place is None:
        return None
    side = key if step.toward_server else reverse(key)

    def edit(by: float) -> tuple[list[Segment], float]:
        sized = place._replace(new=max(1, step.size + round(by)))
        return _resize(play.segments, streams, {side: [sized]}), finding.decided

    guesses = [
        guess
        for reason in finding.reasons
        for piece in reason.pieces
        if piece.name == step.name
        for guess in (piece.low, piece.high, piece.high + SOFT_ABOVE, piece.low - SOFT_BELOW)
    ]
    found = _halve(play, finding, edit, kind, step.name, step.size, step.size, end, 1.0, guesses)
    return found._replace(bound=round(found.bound), connection=step.connection) if found is not None else None


# -- messages after silences ----------------------------------------------------------------------------------------


def _messages(
    play: Replay,
    finding: Finding,
    streams: dict[bytes, _Stream],
    keys: Sequence[bytes],
    messages: Sequence[Step],
) -> Iterator[Change | None]:
    middle = sorted(step.size for step in messages)[len(messages) // 2]
    sizes: dict[bytes, list[_Size]] = {}
    for step in messages:
        key = keys[step.connection]
        place = _place(streams, key, step, middle)
        if place is not None:
            sizes.setdefault(key if step.toward_server else reverse(key), []).append(place)
    equal = _resize(play.segments, streams, sizes)
    yield _changed(play, finding, "equal sizes", "", middle, equal, finding.decided)

    waits = [step.seconds for step in messages]
    mean = sum(waits) / len(waits)
    for kind in ("equal waits", "answered"):
        moves: dict[bytes, list[tuple[float, float]]] = {}
        for index in {step.connection for step in messages}:
            asked = [step for step in messages if step.connection == index and step.toward_server]
            said = [step for step in messages if step.connection == index and not step.toward_server]
            if kind == "equal waits":
                moves[keys[index]] = _even(asked, mean)
                moves[reverse(keys[index])] = _even(said, mean)
            else:
                pairs = zip(asked, said, strict=False)
                moves[reverse(keys[index])] = [(answer.time, ask.time + 0.05 - answer.time) for ask, answer in pairs]
        warped = _warp(play.segments, moves, min(step.time - step.seconds for step in messages))
        until = max([finding.decided, *(segment[0] for segment in warped)])
        yield _changed(play, finding, kind, "", mean, warped, until)

    pause = sorted(step.time for step in messages)[len(messages) // 2]

    def edit(by: float) -> tuple[list[Segment], float]:
        return [((one[0] + by, *one[1:]) if one[0] >= pause else one) for one in play.segments], finding.decided + by

    longest = max(waits)
    yield _halve(play, finding, edit, "silence", "", longest, longest, longest + MAX_WAIT_S, 0.5)


def _even(messages: Sequence[Step], wait: float) -> list[tuple[float, float]]:
    """(time, move) that makes every wait the same."""
    moves, moved = list[tuple[float, float]](), 0.0
    for step in messages:
        moved += wait - step.seconds
        moves.append((step.time, moved))
    return moves


def _warp(read: Iterable[Segment], moves: dict[bytes, list[tuple[float, float]]], since: float) -> list[Segment]:
    """Each direction's data moved in time; bare acknowledgements after `since` go, others tell of nothing unsent."""
    moved = list[Segment]()
    for segment in read:
        time, key, flags, length = segment[0], segment[1], segment[4], segment[5]
        if time >= since and not length and not flags & SYN:
            continue
        by = 0.0
        for begin, move in moves.get(key, ()):
            if begin > time:
                break
            by = move
        moved.append((time + by, *segment[1:]))
    high: dict[bytes, int] = {}
    said = list[Segment]()
    for segment in sorted(moved, key=lambda one: one[0]):
        time, key, sequence, acknowledged, flags, length, *offsets = segment
        reached = high.get(reverse(key), acknowledged)
        if (acknowledged - reached) & _MASK < 1 << 31:
            acknowledged = reached
        stop = (sequence + length + (1 if flags & SYN else 0)) & _MASK
        if (stop - high.get(key, stop)) & _MASK < 1 << 31:
            high[key] = stop
        said.append((time, key, sequence, acknowledged, flags, length, offsets[0], offsets[1], offsets[2]))
    return said
