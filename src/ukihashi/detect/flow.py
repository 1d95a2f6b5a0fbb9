"""TCP connections: which are known, what is known of them, and who is told.

A flow is OPENING (its first turns are recorded), then WATCHED (its messages after silences are recorded), BOTH (turns
and messages are; for tunnels that open inside an older connection) or DEAD (nothing is; the fate of nearly all). The
`Watcher` decides which. The numbers of all flows lie in columns, where `detect.kernel` counts; objects are made of the
flows alone that the watcher is told of, and they read the columns.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from ukihashi.detect import columns as c
from ukihashi.detect import growth
from ukihashi.detect.columns import HEAD, State, alone, make_state
from ukihashi.detect.growth import BOTH, COUPLED_S, DEAD, GAP_S, LONG_TURN, OPENING, PAUSE_S, WATCHED
from ukihashi.detect.half import Crumb, Half, Kept, Message, Turn
from ukihashi.detect.kernel import AGE_S, DEAD_AGE_S, forget, run, sweep
from ukihashi.detect.layers import Buffer
from ukihashi.detect.packets import Packets
from ukihashi.detect.slots import remove

__all__ = (
    "AGE_S", "BOTH", "COUPLED_S", "DEAD", "DEAD_AGE_S", "GAP_S", "HEAD", "LONG_TURN", "MAX_FLOWS", "MAX_KEPT",
    "OPENING", "PAUSE_S", "PLAIN", "WATCHED", "Crumb", "Engine", "Flow", "FlowTable", "Half",
    "Kept", "Message", "Turn", "Watcher",
)  # fmt: skip

MAX_TURNS: Final = 64  # kept of a flow whose turns are recorded for long, the oldest half dropped
MAX_FLOWS: Final = 65_536
MAX_KEPT: Final = 32 << 20  # bytes; the packets of all flows that are kept for evidence
TICK_S: Final = 1.0
SWEEP_S: Final = 10.0


class Flow:
    """One TCP connection. `client` and `server` are its directions: from the client, from the server."""

    __slots__ = ("__weakref__", "_at", "_gone", "_growing", "_halves", "_state", "_times_at", "_turns", "case")

    def __init__(self, state: State, number: int, gone: Callable[["Flow"], None]) -> None:
        self._state, self._at, self._times_at = state, number * c.FLOW, number * c.FLOW_TIMES
        self._gone = gone  # called when the flow is dropped
        first, second = self._halves = (Half(state, 2 * number), Half(state, 2 * number + 1))
        first.flow = second.flow = self
        first.peer, second.peer = second, first
        self.case: object = None  # the watcher's own
        self._turns: list[Turn] = []
        self._growing: Turn | None = None  # the last of them, while it grows
        self._take_turns(number)

    def _take_turns(self, number: int) -> None:
        """Make objects of the turns that were counted before anybody was told."""
        state, row = self._state, number * c.TURNS
        count = state.flows[self._at + c.COUNT]
        last_side = state.flows[self._at + c.SIDE]
        for place in range(count):
            side = last_side ^ (count - 1 - place & 1)
            self._turns.append(self._read(Turn(0.0, toward_server=side == self._client), row + place, place))
        if count:
            self._growing = self._turns[-1]

    def _read(self, turn: Turn, row: int, place: int) -> Turn:
        state = self._state
        numbers, times = row * c.TURN, row * c.TURN_TIMES
        turn.begin, turn.end = state.turn_times[times + c.TURN_BEGIN], state.turn_times[times + c.TURN_END]
        turn.size, turn.first = state.turns[numbers + c.SIZE], state.turns[numbers + c.FIRST]
        turn.cut = state.turns[numbers + c.CUT] != 0
        if not turn.head and place < c.HEADS:
            head = (self._at // c.FLOW * c.HEADS + place) * c.HEAD
            turn.head = bytes(state.heads[head : head + state.turns[numbers + c.HEAD_SIZE]])
        return turn

    def half(self, side: int) -> Half:
        """The direction seen first (0), or the other."""
        return self._halves[side]

    @property
    def _client(self) -> int:
        return int(self._state.flows[self._at + c.CLIENT])

    @property
    def client(self) -> Half:
        """The direction from the client."""
        return self._halves[self._client]

    @property
    def server(self) -> Half:
        """The direction from the server."""
        return self._halves[self._client ^ 1]

    @property
    def turns(self) -> list[Turn]:
        """Its turns, oldest first. Assign a list to replace them; don't take out the last of this one."""
        if self._state.flows[self._at + c.COUNT]:
            if self._growing is None:
                if len(self._turns) >= MAX_TURNS:
                    del self._turns[: MAX_TURNS // 2]
                side = self._state.flows[self._at + c.SIDE]
                self._growing = Turn(0.0, toward_server=side == self._client)
                self._turns.append(self._growing)
            place = self._state.flows[self._at + c.COUNT] - 1
            self._read(self._growing, self._at // c.FLOW * c.TURNS + place, place)
        return self._turns

    @turns.setter
    def turns(self, turns: list[Turn]) -> None:
        self._turns = turns
        self.complete()

    def complete(self) -> None:
        """The last turn doesn't grow any more."""
        self._growing = None
        self._state.flows[self._at + c.COUNT] = 0

    @property
    def stage(self) -> int:
        """OPENING, WATCHED, DEAD or BOTH."""
        return int(self._state.flows[self._at + c.STAGE])

    @property
    def mss(self) -> int:
        """Maximum segment size, bytes."""
        return int(self._state.flows[self._at + c.MSS])

    @property
    def small(self) -> int:
        """Bytes; segments up to this size are kept as crumbs while messages are recorded. 0 = none is."""
        return int(self._state.flows[self._at + c.SMALL]) & 0xFFFF

    @small.setter
    def small(self, size: int) -> None:
        self._state.flows[self._at + c.SMALL] = self.noise << 16 | size

    @property
    def noise(self) -> int:
        """Bytes; segments up to this size neither are messages nor end a silence. 0 = all do."""
        return int(self._state.flows[self._at + c.SMALL]) >> 16

    @noise.setter
    def noise(self, size: int) -> None:
        self._state.flows[self._at + c.SMALL] = size << 16 | self.small

    def _bit(self, bit: int) -> bool:
        return bool(self._state.flows[self._at + c.BITS] & bit)

    @property
    def closed(self) -> bool:
        """A FIN or RST was seen, or it was forgotten."""
        return self._bit(c.CLOSED)

    @property
    def syn(self) -> bool:
        """Its begin was seen: the roles are certain."""
        return self._bit(c.SYN_SEEN)

    @property
    def undecided(self) -> bool:
        """Nothing seen yet that tells whether this is the begin."""
        return self._bit(c.UNDECIDED)

    @property
    def begin(self) -> float:
        """Time of the first packet, seconds."""
        return float(self._state.times[self._times_at + c.BEGIN])

    @property
    def last(self) -> float:
        """Time of the last packet, seconds."""
        return float(self._state.times[self._times_at + c.LAST])

    @property
    def watched(self) -> float:
        """Since when messages are recorded, seconds."""
        return float(self._state.times[self._times_at + c.WATCHED_SINCE])

    @property
    def lost(self) -> int:
        """Bytes of both directions that the capture missed."""
        return self._halves[0].lost + self._halves[1].lost

    def watch(self, time: float, *, turns: bool = False) -> None:
        """Record messages from now on, instead of turns or besides them."""
        state, number = self._state, self._at // c.FLOW
        state.flows[self._at + c.STAGE] = BOTH if turns else WATCHED
        state.times[self._times_at + c.WATCHED_SINCE] = time
        for half in (2 * number, 2 * number + 1):
            state.halves[half * c.HALF + c.SENDS] = 0
            state.half_times[half * c.HALF_TIMES + c.LONGEST] = 0.0

    def drop(self) -> None:
        """Look at nothing more of it."""
        growth.drop(self._state, self._at // c.FLOW)
        self._turns, self._growing, self.case = [], None, None
        for half in self._halves:
            half.clear()
        self._gone(self)

    def close(self) -> None:
        """No packet more belongs to it."""
        self._state.flows[self._at + c.BITS] |= c.CLOSED

    def swap(self) -> None:
        """The other side turned out to be the client."""
        self._state.flows[self._at + c.CLIENT] ^= 1
        self.turn_around()

    def turn_around(self) -> None:
        """The directions have been swapped: so are those of its turns."""
        for turn in self._turns:
            turn.toward_server = not turn.toward_server

    def leave(self) -> None:
        """Its rows get used for another flow: go on with a copy."""
        self._state = alone(self._state, self._at // c.FLOW)
        self._at = self._times_at = 0
        for number, half in enumerate(self._halves):
            half.move(self._state, number)

    @property
    def number(self) -> int:
        """Its row in the columns."""
        return self._at // c.FLOW

    @property
    def kept(self) -> tuple[int, int]:
        """Number of the packet of it that was kept last (0 = none), and the flow's serial number."""
        return self._state.flows[self._at + c.KEPT], self._state.flows[self._at + c.SERIAL]


class Watcher(Protocol):
    """Who is told; each method may call `watch` or `drop` on the flow."""

    def turned(self, flow: Flow, time: float) -> None:
        """The last of `flow.turns` is complete, or longer than LONG_TURN (stages OPENING and BOTH).

        With a sieve, only of turns that it lets through; and a flow told of in vain may be another object next time.
        """

    def joined(self, flow: Flow, time: float) -> None:
        """The flow began before the capture; it is WATCHED now."""

    def spoke(self, half: Half, time: float) -> None:
        """A message after a silence begins (stages WATCHED and BOTH); all earlier ones are complete."""

    def closed(self, flow: Flow, time: float) -> None:
        """FIN, RST, forgotten, or replaced by a new connection of the same ports. Of flows told of before."""

    def tick(self, now: float) -> None:
        """About once a second of capture time."""


class Engine(NamedTuple):
    """The functions of `detect.kernel`, as they are or compiled, and how they want their columns."""

    run: Callable[..., int]
    forget: Callable[[Any, int], int]
    sweep: Callable[[Any, float], int]
    remove: Callable[[Any, int], None]
    state: Callable[[State], Any]  # all columns
    packets: Callable[..., tuple[Any, ...]]  # buffer, times, offsets, captured, lengths, link types


PLAIN: Final = Engine(run, forget, sweep, remove, lambda state: state, lambda *columns: columns)


class FlowTable:
    """All connections now known, at most `limit`: when full, the eighth that was silent longest is forgotten."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        limit: int = MAX_FLOWS,
        sieve: Sequence[int] = (),
        max_kept: int = MAX_KEPT,
        engine: Engine = PLAIN,
    ) -> None:
        """Begin with no connection.

        Args:
            sieve: which openings the watcher waits for (`detect.sieve`); none = it is told of all flows with data.
            max_kept: bytes of packets that are kept, see `headers`.
            engine: what counts; `detect.compiled` has a faster one.
        """
        self._watcher = watcher
        self._state = make_state(min(limit, c.MAX_FLOWS), max_kept, tuple(sieve), hash("a number of this process"))
        self._flows: dict[int, Flow] = {}  # those that somebody was told of and that aren't dead
        self._dead: WeakValueDictionary[int, Flow] = WeakValueDictionary()  # and those that are, while anybody asks
        self._next_sweep = 0.0
        self.use(engine)

    def use(self, engine: Engine) -> None:
        """Count with this one from now on."""
        self._engine = engine
        self._columns = engine.state(self._state)

    def __len__(self) -> int:
        return int(self._state.registers[c.FLOWS])

    @property
    def opened(self) -> int:
        """Connections seen so far."""
        return int(self._state.registers[c.OPENED])

    @property
    def forgotten(self) -> int:
        """Of those, dropped because the table was full."""
        return int(self._state.registers[c.FORGOTTEN])

    @property
    def missed(self) -> int:
        """Bytes the capture lost, by the sequence numbers."""
        return int(self._state.registers[c.MISSED])

    @property
    def bytes(self) -> int:
        """Payload of all connections while they were followed, also what the capture lost."""
        return int(self._state.registers[c.BYTES])

    def take(self, link_type: int, buffer: Buffer, packets: Sequence[tuple[float, int, int, int]] | Packets) -> None:
        """Account for packets (time, offset in `buffer`, bytes captured, bytes on the wire), in order of capture."""
        if isinstance(packets, Packets):
            self.take_columns(buffer, *packets.columns, (link_type,), len(packets))
        elif packets:
            times, offsets, captured, lengths = zip(*packets, strict=True)
            self.take_columns(buffer, times, offsets, captured, lengths, (link_type,), len(packets))

    def take_columns(
        self, buffer: Any, times: Any, offsets: Any, captured: Any, lengths: Any, links: Any, count: int
    ) -> None:
        """The same, from columns; `links` has a link type for each packet, or one for all. O(1) each."""
        state = self._state
        count_packets, columns = self._engine.run, self._columns
        packets = self._engine.packets(buffer, times, offsets, captured, lengths, links)
        state.registers[c.INDEX] = state.registers[c.PHASE] = 0
        while event := count_packets(columns, *packets, count):
            self._tell(event, state.clock[c.NOW])

    def _tell(self, event: int, time: float) -> None:
        state = self._state
        registers = state.registers
        if event == growth.TICK:
            self.advance(time)
            return
        if event == growth.FULL:
            self._make_room(time)
            return
        number = registers[c.EVENT_FLOW]
        if event == growth.FORGET:
            self._forget(number, time)
            return
        flow = self._flow(number)
        if event == growth.TURNED:
            if flow.turns:
                count = state.flows[number * c.FLOW + c.COUNT]
                flow.complete()
                self._watcher.turned(flow, time)
                self._forget_telling(flow, count)
        elif event == growth.LONG:
            if flow.turns:
                self._watcher.turned(flow, time)
        elif event == growth.SPOKEN:
            half = flow.half(registers[c.G_HALF] & 1)
            coupled = state.halves[registers[c.G_HALF] * c.HALF + c.COUPLED] != 0
            before = registers[c.OLD_SIZE], registers[c.OLD_COUPLED]
            half.began(time, state.clock[c.EVENT_GAP], registers[c.G_NEW], coupled=coupled, before=before)
            self._watcher.spoke(half, time)
        elif event == growth.CRUMB:
            half = flow.half(registers[c.G_HALF] & 1)
            wait, quiet = state.clock[c.EVENT_WAIT], state.clock[c.EVENT_GAP]
            half.crumbs.append(Crumb(time, registers[c.G_LENGTH], wait, quiet, registers[c.EVENT_PASSED]))
        elif event == growth.JOINED:
            flow.turns = []
            flow.watch(time)
            self._watcher.joined(flow, time)
        elif event == growth.SWAPPED:
            flow.turn_around()
        else:
            self._close(flow, time)

    def advance(self, now: float) -> None:
        """Time passes, with or without packets: call it about once a second."""
        clock = self._state.clock
        if now < clock[c.TICK_AT]:
            return
        clock[c.TICK_AT] = now + TICK_S
        self._watcher.tick(now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self._forget_out(self._engine.sweep(self._columns, now), None)

    def headers(self, flow: Flow) -> list[Kept]:
        """The packets of `flow` that are kept, oldest first.

        All until it was dropped that brought anything: data, an acknowledgement of data that was not captured, an end;
        but for those too long ago.
        """
        state, found = self._state, list[Kept]()
        number, serial = flow.kept
        packets = len(state.kept_times)
        first_byte = state.registers[c.KEPT_BYTES] - len(state.kept_bytes)
        while number > max(0, state.registers[c.KEPT_COUNT] - packets):
            place = (number - 1) % packets
            row = place * c.PACKET
            where, size = state.kept[row + c.WHERE], state.kept[row + c.CAPTURED]
            if state.kept[row + c.WHOSE] != serial or where < first_byte:
                break
            at = where % len(state.kept_bytes)
            data = bytes(state.kept_bytes[at : at + size])
            found.append(Kept(state.kept_times[place], state.kept[row + c.LINK], state.kept[row + c.WIRE], data))
            number = state.kept[row + c.BEFORE]
        return found[::-1]

    def _flow(self, number: int) -> Flow:
        flow = self._flows.get(number)
        if flow is None:
            flow = self._flows[number] = Flow(self._state, number, self._dropped)
        return flow

    def _forget_telling(self, flow: Flow, count: int) -> None:
        """Sift a TLS flow further on, whose `count` turns were told in vain: as if nobody had been told."""
        if (
            len(self._state.sieve)
            and flow.stage == OPENING
            and flow.case is None
            and count == len(flow.turns) < c.TURNS - 1
            and flow.turns[0].head[:1] == b"\x16"
        ):
            row = flow.number * c.FLOW
            self._state.flows[row + c.COUNT] = count
            self._state.flows[row + c.BITS] &= ~c.TOLD
            del self._flows[flow.number]

    def _dropped(self, flow: Flow) -> None:
        if self._flows.pop(flow.number, None) is not None:
            self._dead[flow.number] = flow

    def _close(self, flow: Flow, time: float) -> None:
        if not flow.closed:
            flow.close()
            if flow.stage in (OPENING, BOTH) and flow.turns:
                self._watcher.turned(flow, time)
            if flow.stage != DEAD:
                self._watcher.closed(flow, time)
                flow.drop()

    def _forget(self, number: int, time: float) -> None:
        flow = self._dead.pop(number, None) or self._flows.get(number)
        if flow is None and self._state.flows[number * c.FLOW + c.STAGE] != DEAD:
            flow = self._flow(number)
        if flow is not None:
            self._close(flow, time)
            self._flows.pop(number, None)
            self._dead.pop(number, None)
            flow.leave()
        self._engine.remove(self._columns, number)

    def _forget_out(self, count: int, time: float | None) -> None:
        """The first `count` of the column `out`; `time`: when, or None = when each was last heard."""
        for number in list(self._state.out[:count]):
            last = self._state.times[number * c.FLOW_TIMES + c.LAST]
            self._forget(number, last if time is None else time)

    def _make_room(self, time: float) -> None:
        limit = self._state.registers[c.LIMIT]
        last = self._state.times[c.LAST :: c.FLOW_TIMES].tolist()
        count = max(1, limit // 8)
        for place, number in enumerate(sorted(range(limit), key=last.__getitem__)[:count]):
            self._state.out[place] = number
        self._state.registers[c.FORGOTTEN] += count
        self._forget_out(self._engine.forget(self._columns, count), time)
