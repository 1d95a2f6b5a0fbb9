"""What is known of one direction of a connection: its numbers, read from the columns, its turns and messages."""

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ukihashi.detect import columns as c
from ukihashi.detect.columns import State

if TYPE_CHECKING:
    from ukihashi.detect.flow import Flow

MAX_MESSAGES: Final = 128  # kept per direction, oldest dropped
MAX_CRUMBS: Final = 64  # kept per direction, oldest dropped


class Kept(NamedTuple):
    """A packet that was kept: its headers, and of its payload what begins a turn."""

    time: float  # seconds
    link_type: int
    wire_length: int  # bytes
    data: bytes  # the first ones


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

    __slots__ = ("_at", "_messages", "_newest", "_state", "_times_at", "crumbs", "flow", "key", "peer")

    flow: "Flow"
    peer: "Half"

    def __init__(self, state: State, number: int) -> None:
        self._state, self._at, self._times_at = state, number * c.HALF, number * c.HALF_TIMES
        self.key = _key(state, number)  # source and destination address, then the ports, as on the wire
        self._messages: deque[Message] = deque(maxlen=MAX_MESSAGES)
        self._newest: Message | None = None
        self.crumbs: deque[Crumb] = deque(maxlen=MAX_CRUMBS)

    @property
    def high(self) -> int:
        """Next sequence number, -1 = not known yet."""
        return int(self._state.halves[self._at + c.HIGH])

    @property
    def isn(self) -> int:
        """Sequence number of its SYN, -1 = not seen."""
        return int(self._state.halves[self._at + c.ISN])

    @property
    def total(self) -> int:
        """Bytes."""
        return int(self._state.halves[self._at + c.TOTAL])

    @property
    def lost(self) -> int:
        """Bytes that the capture missed."""
        return int(self._state.halves[self._at + c.LOST])

    @property
    def sends(self) -> int:
        """Messages since watching began."""
        return int(self._state.halves[self._at + c.SENDS])

    @property
    def heard(self) -> float:
        """When the last new data came, or the flow began; seconds."""
        return float(self._state.half_times[self._times_at + c.HEARD])

    @property
    def spoke(self) -> float:
        """Begin of the last message, after a pause of any length; seconds."""
        return float(self._state.half_times[self._times_at + c.SPOKE])

    @property
    def longest(self) -> float:
        """Longest silence since watching began, seconds."""
        return float(self._state.half_times[self._times_at + c.LONGEST])

    @property
    def message(self) -> Message | None:
        """The last message, if it came after a silence and still goes on."""
        self._refresh()
        return self._newest if self._state.halves[self._at + c.TALKS] else None

    @property
    def messages(self) -> deque[Message]:
        """The messages after silences, oldest first."""
        self._refresh()
        return self._messages

    def _refresh(self) -> None:
        if self._newest is not None:
            self._newest.size = self._state.halves[self._at + c.MESSAGE_SIZE]
            self._newest.coupled = self._state.halves[self._at + c.COUPLED] != 0

    def began(self, time: float, gap: float, size: int, *, coupled: bool, before: tuple[int, int]) -> None:
        """A message begins; `before`: size and coupling that the one before it ended with."""
        if self._newest is not None:
            self._newest.size, self._newest.coupled = before[0], before[1] != 0
        self._newest = Message(time, gap, size, coupled=coupled)
        self._messages.append(self._newest)

    def clear(self) -> None:
        """Forget its messages."""
        self._messages.clear()
        self.crumbs.clear()
        self._newest = None

    def move(self, state: State, number: int) -> None:
        """Its numbers are elsewhere now."""
        self._state, self._at, self._times_at = state, number * c.HALF, number * c.HALF_TIMES


def _key(state: State, half: int) -> bytes:
    row = (half >> 1) * c.KEY
    words = 1 if state.keys[row + c.VERSION] == 4 else 4
    first, second = (
        b"".join(state.keys[row + c.ADDRESSES + 2 * word + side].to_bytes(4) for word in range(words))
        for side in (0, 1)
    )
    ports = int(state.keys[row + c.PORTS]).to_bytes(4)
    return first + second + ports if half & 1 == 0 else second + first + ports[2:] + ports[:2]
