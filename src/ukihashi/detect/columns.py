"""The state of a flow table: plain columns of numbers in memory that the system gives only where it is touched.

The same memory is read by Python, number by number, and by compiled code. Each flow has a row in `flows` and `times`,
each of its two directions one in `halves` and `half_times`. A direction's number is twice the flow's, plus its side: 0
for who was seen first.
"""

from mmap import mmap
from typing import Any, Final, NamedTuple, cast

# A row of `flows`.
FLOW: Final = 9
STAGE, BITS, CLIENT, MSS, COUNT, SIDE, SERIAL, KEPT, SMALL = range(9)
CLOSED, SYN_SEEN, UNDECIDED, TOLD, LIVE = 1, 2, 4, 8, 16  # of BITS

# A row of `times`, seconds.
FLOW_TIMES: Final = 4
BEGIN, LAST, WATCHED_SINCE = range(3)

# A row of `halves`.
HALF: Final = 9
HIGH, ISN, TOTAL, LOST, SENDS, TALKS, MESSAGE_SIZE, COUPLED, COUNTED = range(9)

# A row of `half_times`, seconds.
HALF_TIMES: Final = 5
HEARD, SPOKE, LONGEST, MESSAGE_TIME, PROMPTED = range(5)

# A row of `keys`: ports as they stand on the wire, IP version, then source and destination, 32 bits each in turn, as
# side 0 sends; last the hash.
KEY: Final = 12
PORTS, VERSION, ADDRESSES, HASH = 0, 1, 2, 10

# Turns of a flow that nobody was told of yet; of one that was told only the first row is used.
TURNS: Final = 16
TURN: Final = 4
SIZE, FIRST, CUT, HEAD_SIZE = range(4)
TURN_TIMES: Final = 2
TURN_BEGIN, TURN_END = range(2)
HEADS: Final = 2  # turns whose first bytes are kept
HEAD: Final = 96  # bytes kept of a turn's beginning, to tell the outer layer

# A row of `kept`: the packet before it of the same flow, the flow's serial number, where its bytes are, how many, the
# length on the wire, the link type.
PACKET: Final = 6
BEFORE, WHOSE, WHERE, CAPTURED, WIRE, LINK = range(6)
MAX_KEPT_PACKET: Final = 512  # bytes
KEPT_PER_PACKET: Final = 192  # bytes of the limit for each packet, its row included

# `registers`.
REGISTERS: Final = 32
INDEX, PHASE, STEP, G_HALF, G_NEW, G_LENGTH, G_HEAD, G_HEAD_SIZE, EVENT_FLOW, OLD_SIZE, OLD_COUPLED = range(11)
USED, FREE, FLOWS, LIMIT, MASK, SEED, OPENED, FORGOTTEN, MISSED, KEPT_COUNT, KEPT_BYTES, EVENT_PASSED, BYTES = range(
    11, 24
)

# `clock`, seconds.
CLOCK: Final = 4
TICK_AT, NOW, EVENT_GAP, EVENT_WAIT = range(4)

# `sieve`: nothing, or these and then the dialogues, each with the smallest and largest size of its four turns.
SIEVE: Final = 5
WINDOW_FIRST, WINDOW_LAST, WINDOW_END, SPLIT_MAX, DIALOGUES = range(5)

MAX_FLOWS: Final = (1 << 24) - 2  # a slot has 24 bits for a flow


class State(NamedTuple):
    """All columns; of memoryviews for Python, of arrays over the same memory for compiled code."""

    registers: Any
    clock: Any
    slots: Any  # hash table: hash and flow + 1; open addressing
    free: Any  # rows that can be used again
    out: Any  # flows that somebody has to be told of
    keys: Any
    flows: Any
    times: Any
    halves: Any
    half_times: Any
    turns: Any
    turn_times: Any
    heads: Any
    kept: Any
    kept_times: Any
    kept_bytes: Any
    sieve: Any


def _column(count: int, kind: str) -> "memoryview[Any]":
    """Zeros. The memory belongs to what is returned."""
    size = 1 if kind == "B" else 8
    whole: Any = memoryview(mmap(-1, max(1, count * size)))[: count * size]
    return cast("memoryview[Any]", whole.cast(kind))


def make_state(limit: int, max_kept: int, sieve: tuple[int, ...], seed: int) -> State:
    """Room for `limit` flows and `max_kept` bytes of packets."""
    slots = 16
    while slots < 2 * limit:
        slots *= 2
    packets = max_kept // KEPT_PER_PACKET
    data = packets * (KEPT_PER_PACKET - 8 * (PACKET + 1))
    if data < 2 * MAX_KEPT_PACKET:
        packets = data = 0
    state = State(
        registers=_column(REGISTERS, "q"),
        clock=_column(CLOCK, "d"),
        slots=_column(slots, "q"),
        free=_column(limit, "q"),
        out=_column(limit, "q"),
        keys=_column(limit * KEY, "q"),
        flows=_column(limit * FLOW, "q"),
        times=_column(limit * FLOW_TIMES, "d"),
        halves=_column(limit * 2 * HALF, "q"),
        half_times=_column(limit * 2 * HALF_TIMES, "d"),
        turns=_column(limit * TURNS * TURN, "q"),
        turn_times=_column(limit * TURNS * TURN_TIMES, "d"),
        heads=_column(limit * HEADS * HEAD, "B"),
        kept=_column(packets * PACKET, "q"),
        kept_times=_column(packets, "d"),
        kept_bytes=_column(data, "B"),
        sieve=_column(len(sieve), "q"),
    )
    for place, number in enumerate(sieve):
        state.sieve[place] = number
    state.registers[LIMIT] = limit
    state.registers[MASK] = slots - 1
    state.registers[SEED] = seed & 0xFFFFFFFF | 1
    return state


def alone(state: State, flow: int) -> State:
    """A copy of one flow's rows, as flow 0 of a state of its own."""

    def rows(column: Any, size: int) -> list[Any]:
        return list(column[flow * size : (flow + 1) * size])

    return state._replace(
        flows=rows(state.flows, FLOW),
        times=rows(state.times, FLOW_TIMES),
        halves=rows(state.halves, 2 * HALF),
        half_times=rows(state.half_times, 2 * HALF_TIMES),
        turns=rows(state.turns, TURNS * TURN),
        turn_times=rows(state.turn_times, TURNS * TURN_TIMES),
        heads=bytes(state.heads[flow * HEADS * HEAD : (flow + 1) * HEADS * HEAD]),
    )
