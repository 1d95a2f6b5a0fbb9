"""TCP connections from their segments: how many bytes went which way, when, in which turns.

Per direction only the highest sequence number is kept; growth is new data, so repeats and reordering change nothing.
When the other side acknowledges more than was seen, the missing bytes are credited *before* that packet: turns stay
right under capture loss, with one direction captured and with any snap length.

A flow is OPENING (its first turns are recorded), then WATCHED (its messages after silences are recorded), BOTH (turns
and messages are; for tunnels that open inside an older connection) or DEAD (nothing is; the fate of nearly all). The
`Watcher` decides which.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from ukihashi.detect.decode import ACK, FIN, RST, SYN, Segment, reverse

OPENING: Final = 0
WATCHED: Final = 1
DEAD: Final = 2
BOTH: Final = 3

PAUSE_S: Final = 0.03  # data after a longer pause is another message
GAP_S: Final = 0.95  # a message after a shorter silence tells nothing about timers
COUPLED_S: Final = 0.35  # a message this close to one of the other side may be its answer
MAX_MESSAGES: Final = 128  # kept per direction, oldest dropped
MAX_CRUMBS: Final = 64  # kept per direction, oldest dropped
LONG_TURN: Final = 60_000  # bytes; a longer turn is judged before it ends
MAX_TURNS: Final = 64  # kept of a flow whose turns are recorded for long, the oldest half dropped
MAX_FLOWS: Final = 65_536
AGE_S: Final = 300.0  # a silent connection is forgotten
DEAD_AGE_S: Final = 900.0  # longer for one that was cleared: it must not come back as one that began unseen
TICK_S: Final = 1.0
HEAD: Final = 96  # bytes kept of a turn's beginning, to tell the outer layer

_TURNING: Final = (OPENING, BOTH)
_TALKING: Final = (WATCHED, BOTH)
_MASK: Final = 0xFFFFFFFF
_WINDOW: Final = 1 << 30  # a larger step of a sequence number is no growth (RFC 7323: windows stay below)
_DEFAULT_MSS: Final = 1460


class Turn:
    """All payload bytes of one direction until the other direction sends some."""

    __slots__ = ("begin", "cut", "end", "first", "head", "size", "toward_server")

    def __init__(self, begin: float, *, toward_server: bool) -> None:
        self.toward_server = toward_server
        self.begin = begin  # seconds, first byte
        self.end = begin  # seconds, last byte
        self.size = 0  # bytes
        self.first = 0  # bytes up to the first segment that was not full
        self.cut = False  # such a segment was seen
        self.head = b""  # its first bytes, if the packet that carried them was captured


class Message:
    """Data of one direction after a silence of that direction."""

    __slots__ = ("coupled", "gap", "size", "time")

    def __init__(self, time: float, gap: float, size: int, *, coupled: bool) -> None:
        self.time = time  # seconds
        self.gap = gap  # seconds of silence before it
        self.size = size  # bytes; grows while it goes on
        self.coupled = coupled  # a message of the other side began within COUPLED_S before or after


class Crumb:
    """A segment of `Flow.small` bytes or less: what a program says by itself, as no user's data is so short."""

    __slots__ = ("passed", "quiet", "size", "time", "wait")

    def __init__(self, time: float, size: int, wait: float, quiet: float, passed: int) -> None:
        self.time = time  # seconds
        self.size = size  # bytes
        self.wait = wait  # seconds since the other side's first data after the crumb before this, -1 = there was none
        self.quiet = quiet  # seconds since its last data
        self.passed = passed  # its bytes after the crumb before this; crumbs of its own count as bytes, not as data


class Half:
    """One direction of a flow."""

    __slots__ = (
        "counted",
        "crumbs",
        "flow",
        "heard",
        "high",
        "isn",
        "key",
        "longest",
        "lost",
        "message",
        "messages",
        "peer",
        "prompted",
        "sends",
        "spoke",
        "total",
    )

    flow: "Flow"
    peer: "Half"

    def __init__(self, key: bytes, time: float) -> None:
        self.key = key
        self.high = -1  # next sequence number, -1 = not known yet
        self.isn = -1  # sequence number of its SYN, -1 = not seen
        self.heard = time  # last new data, or the begin
        self.spoke = 0.0  # begin of the last message, after a pause of any length
        self.sends = 0  # messages since watching began
        self.longest = 0.0  # longest silence since watching began
        self.total = 0  # bytes
        self.lost = 0  # bytes that the capture missed
        self.message: Message | None = None  # the last one, if it came after a silence
        self.messages: deque[Message] = deque(maxlen=MAX_MESSAGES)
        self.crumbs: deque[Crumb] = deque(maxlen=MAX_CRUMBS)
        self.prompted = -1.0  # when the other side first spoke after our last crumb, -1 = not yet
        self.counted = 0  # total of the other side at our last crumb


class Flow:
    """One TCP connection. `client` and `server` are its directions: from the client, from the server."""

    __slots__ = (
        "begin",
        "case",
        "client",
        "closed",
        "last",
        "mss",
        "server",
        "small",
        "stage",
        "syn",
        "turns",
        "undecided",
        "watched",
    )

    def __init__(self, client: Half, server: Half, time: float, *, syn: bool) -> None:
        self.client, self.server = client, server
        client.flow = server.flow = self
        client.peer, server.peer = server, client
        self.begin = time
        self.last = time
        self.syn = syn  # its begin was seen: the roles are certain
        self.undecided = not syn  # nothing seen yet that tells whether this is the begin
        self.stage = OPENING
        self.closed = False
        self.watched = time  # since when messages are recorded
        self.mss = _DEFAULT_MSS
        self.small = 0  # bytes; shorter segments are kept as crumbs while messages are recorded. 0 = none is
        self.turns: list[Turn] = []
        self.case: object = None  # the watcher's own

    @property
    def lost(self) -> int:
        """Bytes of both directions that the capture missed."""
        return self.client.lost + self.server.lost

    def watch(self, time: float, *, turns: bool = False) -> None:
        """Record messages from now on, instead of turns or besides them."""
        self.stage = BOTH if turns else WATCHED
        self.watched = time
        for half in (self.client, self.server):
            half.sends, half.longest = 0, 0.0

    def drop(self) -> None:
        """Look at nothing more of it."""
        self.stage = DEAD
        self.turns = []
        self.case = None
        for half in (self.client, self.server):
            half.messages.clear()
            half.crumbs.clear()
            half.message = None

    def swap(self) -> None:
        """The other side turned out to be the client."""
        self.client, self.server = self.server, self.client
        for turn in self.turns:
            turn.toward_server = not turn.toward_server


class Watcher(Protocol):
    """Who is told; each method may call `watch` or `drop` on the flow."""

    def turned(self, flow: Flow, time: float) -> None:
        """The last of `flow.turns` is complete, or longer than LONG_TURN (stages OPENING and BOTH)."""

    def joined(self, flow: Flow, time: float) -> None:
        """The flow began before the capture; it is WATCHED now."""

    def spoke(self, half: Half, time: float) -> None:
        """A message after a silence begins (stages WATCHED and BOTH); all earlier ones are complete."""

    def closed(self, flow: Flow, time: float) -> None:
        """FIN, RST, forgotten, or replaced by a new connection of the same ports."""

    def tick(self, now: float) -> None:
        """About once a second of capture time."""


class FlowTable:
    """All connections now known, at most `limit`: when full, the eighth that was silent longest is forgotten."""

    def __init__(self, watcher: Watcher, *, limit: int = MAX_FLOWS) -> None:
        self.opened = 0  # connections seen so far
        self.forgotten = 0  # of those, dropped because the table was full
        self.missed = 0  # bytes the capture lost, by the sequence numbers
        self._watcher = watcher
        self._limit = limit
        self._halves: dict[bytes, Half] = {}
        self._next_tick = 0.0
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._halves) // 2

    def take(self, segments: Iterable[Segment], buffer: bytes | bytearray | memoryview) -> None:
        """Account for `segments`, whose offsets point into `buffer`, in order of capture. O(1) each."""
        known = self._halves.get
        for time, key, sequence, acknowledged, flags, length, tcp, data, end in segments:
            if time >= self._next_tick:
                self.advance(time)
            half = known(key)
            if half is None or flags & SYN:
                half = self._begin(
                    half, time, key, sequence, acknowledged, flags, bytes(buffer[tcp + 20 : min(data, end)])
                )
                if half is None:
                    continue
            flow = half.flow
            flow.last = time
            if flow.stage == DEAD:
                if flags & (FIN | RST):
                    flow.closed = True
                continue
            peer = half.peer
            if flags & ACK:
                if peer.high < 0:
                    peer.high = acknowledged
                else:
                    missing = (acknowledged - peer.high) & _MASK
                    if missing == 1:  # a FIN that was not captured: it takes a number, but is no byte
                        peer.high = acknowledged
                    elif 0 < missing < _WINDOW:
                        peer.high = acknowledged
                        self._grow(flow, peer, missing, time, 0, b"")
            stop = (sequence + length) & _MASK
            if stop != half.high and not flags & RST:
                new = (stop - half.high) & _MASK if half.high >= 0 else length
                if 0 < new < _WINDOW:
                    half.high = stop
                    if new > length:
                        half.lost += new - length
                        self.missed += new - length
                    head = b""
                    if flow.stage in _TURNING:
                        head = bytes(buffer[data : min(data + min(length, HEAD), end)])
                    self._grow(flow, half, new, time, length, head)
            if flags & (FIN | RST):
                if flags & FIN and half.high >= 0:
                    half.high = (sequence + length + 1) & _MASK  # a FIN takes a number, but is no byte
                self._close(flow, time)

    def advance(self, now: float) -> None:
        """Time passes, with or without packets: call it about once a second."""
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        self._watcher.tick(now)
        if now >= self._next_sweep:
            self._next_sweep = now + 10 * TICK_S
            self._sweep(now)

    def _grow(self, flow: Flow, half: Half, new: int, time: float, length: int, head: bytes) -> None:
        """`new` bytes of `half`; `length` = payload of the packet that brought them, 0 if only acknowledged."""
        half.total += new
        if flow.stage in _TURNING:
            if flow.undecided and head:
                self._decide(flow, half, time, head)
            if flow.stage in _TURNING:
                self._turn(flow, half, new, time, length, head)
        if flow.small and flow.stage in _TALKING:
            _crumble(flow, half, new, time, length)
        silence = time - half.heard
        half.heard = time
        if silence < PAUSE_S:
            if half.message is not None:
                half.message.size += new
            return
        half.message = None
        if flow.stage not in _TALKING:
            return
        peer = half.peer
        half.sends += 1
        half.longest = max(half.longest, min(silence, time - flow.watched))
        half.spoke = time
        coupled = time - peer.spoke <= COUPLED_S
        if coupled and peer.message is not None and time - peer.message.time <= COUPLED_S:
            peer.message.coupled = True
        if silence >= GAP_S:
            half.message = Message(time, silence, new, coupled=coupled)
            half.messages.append(half.message)
            self._watcher.spoke(half, time)

    def _turn(self, flow: Flow, half: Half, new: int, time: float, length: int, head: bytes) -> None:
        toward_server = half is flow.client
        turns = flow.turns
        if not turns or turns[-1].toward_server != toward_server:
            if turns:
                self._watcher.turned(flow, time)
                if flow.stage not in _TURNING:
                    return
                turns = flow.turns
                if len(turns) >= MAX_TURNS:
                    del turns[: MAX_TURNS // 2]
            turns.append(Turn(time, toward_server=toward_server))
        turn = turns[-1]
        if not turn.size and new == length:
            turn.head = head
        turn.size += new
        turn.end = time
        if not turn.cut:
            turn.first += new
            # A full segment is the MSS, less 12 bytes when timestamps are on (RFC 7323); a driver may join several.
            turn.cut = bool(length and length % flow.mss and length % (flow.mss - 12))
        if turn.size > LONG_TURN >= turn.size - new:
            self._watcher.turned(flow, time)

    def _decide(self, flow: Flow, half: Half, time: float, head: bytes) -> None:
        """Is the first data of a flow without SYN the begin of a connection? Its sender's role tells."""
        flow.undecided = False
        if head[:2] == b"\x16\x03" and len(head) > 5 and head[5] in (1, 2):  # TLS: client hello, server hello
            client = half if head[5] == 1 else half.peer
        elif head.startswith((b"CONNECT ", b"\x05\x01\x00", b"\x05\x02", b"\x04\x01", b"SSH-2.0-")):
            client = half if not head.startswith(b"SSH-") else flow.client
        else:
            flow.turns = []
            flow.watch(time)
            self._watcher.joined(flow, time)
            return
        flow.syn = True
        if client is not flow.client:
            flow.swap()

    def _begin(
        self, half: Half | None, time: float, key: bytes, sequence: int, acknowledged: int, flags: int, options: bytes
    ) -> Half | None:
        """The direction a packet belongs to when the flow is new or the packet is a SYN; None: nothing to keep."""
        if half is not None:  # a SYN of a connection we know
            if half.isn == sequence or (half.isn < 0 and flags & ACK and half.flow.syn and half is half.flow.server):
                if half.isn < 0:
                    half.isn, half.high = sequence, (sequence + 1) & _MASK
                    half.flow.mss = min(half.flow.mss, _mss(options))
                return half
            self._forget(half.flow, time)
        if not flags & SYN and (not flags & ACK or flags & RST):
            return None
        if len(self) >= self._limit:
            self._make_room(time)
        sender, other = Half(key, time), Half(reverse(key), time)
        if flags & SYN:
            sender.isn, sender.high = sequence, (sequence + 1) & _MASK
            from_client = not flags & ACK
        else:
            sender.high = sequence
            from_client = _port(key, -4) >= _port(key, -2)  # the lower port serves, unless a handshake says otherwise
        if flags & ACK:
            other.high = acknowledged
        client, server = (sender, other) if from_client else (other, sender)
        flow = Flow(client, server, time, syn=bool(flags & SYN))
        flow.mss = _mss(options) if flags & SYN else _DEFAULT_MSS
        self._halves[key], self._halves[other.key] = sender, other
        self.opened += 1
        return sender

    def _close(self, flow: Flow, time: float) -> None:
        if not flow.closed:
            flow.closed = True
            if flow.stage in _TURNING and flow.turns:
                self._watcher.turned(flow, time)
            if flow.stage != DEAD:
                self._watcher.closed(flow, time)
                flow.drop()

    def _forget(self, flow: Flow, time: float) -> None:
        self._close(flow, time)
        del self._halves[flow.client.key], self._halves[flow.server.key]

    def _sweep(self, now: float) -> None:
        """Forget connections that were silent for long."""
        flows = [half.flow for half in self._halves.values() if half is half.flow.client]
        for flow in flows:
            if now - flow.last > (DEAD_AGE_S if flow.stage == DEAD else AGE_S):
                self._forget(flow, flow.last)

    def _make_room(self, time: float) -> None:
        flows = sorted(
            (half.flow for half in self._halves.values() if half is half.flow.client), key=lambda flow: flow.last
        )
        for flow in flows[: max(1, self._limit // 8)]:
            self._forget(flow, time)
            self.forgotten += 1


def _crumble(flow: Flow, half: Half, new: int, time: float, length: int) -> None:
    """Keep a short segment; `length` and `new` as in `FlowTable._grow`."""
    peer = half.peer
    if 0 < length <= flow.small and new == length:
        wait = time - half.prompted if half.prompted >= 0 else -1.0
        half.crumbs.append(Crumb(time, length, wait, time - peer.heard, peer.total - half.counted))
        half.prompted, half.counted = -1.0, peer.total
    elif peer.prompted < 0:
        peer.prompted = time


def _port(key: bytes, at: int) -> int:
    """Source port at -4, destination port at -2."""
    return key[at] << 8 | key[at + 1]


def _mss(options: bytes) -> int:
    """The maximum segment size among the TCP options of a SYN (RFC 9293, 3.7.1), or the usual one."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2:
            break
        if options[at] == 2 and options[at + 1] == 4 and at + 4 <= len(options):
            return max(64, options[at + 2] << 8 | options[at + 3])
        at += options[at + 1]
    return _DEFAULT_MSS
