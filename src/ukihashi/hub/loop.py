"""The worker's event loop: one epoll, one heap of timers, one list of things to do at the end of each turn.

A turn: wait, handle what is ready, run due timers, then the end-of-turn calls. Data that arrives in one turn for one
destination is therefore written in one piece (docs/performance.md: cost is per write, not per frame). Before timers run
everything that is ready has been handled: one that judges by silence never overlooks what is already here.

Last, a little of what may wait (`Lane`): a TLS handshake costs as much as a thousand frames, so a flood of strangers
delays each turn, and with it the data of sessions, by one handshake and no more.
"""

import heapq
import itertools
import select
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import structlog

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
GONE: Final = select.EPOLLHUP | select.EPOLLERR
EVENTS_A_TURN: Final = 128  # more wait for the next turn, so that timers and queues are served in between
LOGGED_FAULTS: Final = 20  # faults of ours that are logged with a trace; a loop of them must not fill a disk

Item = TypeVar("Item", bound=Hashable)
_log = structlog.get_logger()


class Timer:
    """One call to come. `cancel` makes it nothing; cheap, the heap entry stays until it is due."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Don't call any more."""
        self._call = None

    def fire(self) -> None:
        """Call, once, unless cancelled."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Lane:
    """Work that can wait while data can't: so many pieces in a turn of the loop and no more.

    Everybody's is done in its order, one piece of each in turn: who brings much waits for himself.
    """

    __slots__ = ("_a_turn", "_of")

    def __init__(self, a_turn: int) -> None:
        self._a_turn = a_turn
        self._of: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()  # by whose it is; nobody has none

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __bool__(self) -> bool:
        return bool(self._of)

    def put(self, call: Callable[[], None], whose: str = "") -> None:
        """Call at the end of this turn or of one that follows."""
        self._of.setdefault(whose, deque()).append(call)

    def take(self) -> list[Callable[[], None]]:
        """What one turn does of it."""
        calls: list[Callable[[], None]] = []
        while self._of and len(calls) < self._a_turn:
            whose, theirs = self._of.popitem(last=False)
            calls.append(theirs.popleft())
            if theirs:
                self._of[whose] = theirs
        return calls


class Loop:
    """Calls back when a descriptor is ready or a time has come. `now` is the monotonic time this turn began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()  # timers of one moment fire in the order they were set
        self._turn_ends: list[Callable[[], bool]] = []
        self._lanes: list[Lane] = []
        self._hurry = False
        self.now = clock()
        self.faults = 0  # exceptions that reached the loop: faults of ours, each dropped one event

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` whenever `fd` is ready (level-triggered)."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on a watched `fd`; 0 leaves errors and hang-up."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed. Unknown ones are ignored."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call at the monotonic time `when` or soon after."""
        timer = Timer(call)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def at_turn_end(self, call: Callable[[], bool]) -> None:
        """Call at the end of each turn, maybe twice; True from it asks for the next turn at once."""
        self._turn_ends.append(call)

    def lane(self, a_turn: int) -> Lane:
        """A lane of which `a_turn` pieces are done in each turn, when all else is; then the turn ends once more."""
        lane = Lane(a_turn)
        self._lanes.append(lane)
        return lane

    def turn(self, longest_s: float = 3600.0) -> None:
        """Wait at most `longest_s`, then handle everything that is ready or due."""
        wait = 0.0 if self._hurry else longest_s
        if self._timers:
            wait = min(wait, max(0.0, self._timers[0][0] - self._clock()))
        ready = self._epoll.poll(wait, EVENTS_A_TURN)
        self.now = self._clock()
        self._handle(ready)
        if self._timers and self._timers[0][0] <= self.now:
            self._handle_all_ready({fd for fd, events in ready if events & READ})
            while self._timers and self._timers[0][0] <= self.now:
                self._guarded(heapq.heappop(self._timers)[2].fire)
        self._hurry = False
        self._end_turn()
        could_wait = [call for lane in self._lanes for call in lane.take()]
        if could_wait:
            for call in could_wait:
                self._guarded(call)
            self._end_turn()  # for what they did
            self._hurry |= any(self._lanes)

    def _end_turn(self) -> None:
        for turn_end in self._turn_ends:
            self._hurry |= turn_end()

    def _handle_all_ready(self, heard: set[int]) -> None:
        """Whatever came before `now` is handled before a timer may judge by it that nothing came.

        A process that stood still (SIGSTOP, a suspended machine) wakes anywhere, also between the wait and the look at
        the clock. Who was `heard` in this turn has had its share of it, however much more it has to say.
        """
        for _ in range(len(self._handlers) // EVENTS_A_TURN + 1):
            ready = self._epoll.poll(0, EVENTS_A_TURN)
            self._handle([(fd, events) for fd, events in ready if fd not in heard])
            heard.update(fd for fd, events in ready if events & READ)
            if len(ready) < EVENTS_A_TURN:
                return

    def _handle(self, ready: list[tuple[int, int]]) -> None:
        find = self._handlers.get
        for fd, events in ready:
            handler = find(fd)  # an earlier handler of this turn may have closed it
            if handler is not None:
                try:
                    handler(events)
                except Exception:  # noqa: BLE001 - as `_guarded`, which would cost a function object an event
                    self._count_fault()

    def close(self) -> None:
        """Let go of the epoll descriptor."""
        self._epoll.close()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - a fault that one peer can trigger must not end everybody's sessions
            self._count_fault()

    def _count_fault(self) -> None:
        """Call while the exception is handled."""
        self.faults += 1
        if self.faults <= LOGGED_FAULTS:
            _log.exception("internal error")


class Deadlines(Generic[Item]):
    """Items that must each move on within the same span; oldest first. One coarse look instead of a timer each."""

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s  # another value holds for those restarted from then on
        self._items: OrderedDict[Item, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: Item) -> bool:
        return item in self._items

    def restart(self, item: Item, now: float) -> None:
        """Put `item` in, or give it its whole span again."""
        self._items[item] = now + self.span_s
        self._items.move_to_end(item)

    def drop(self, item: Item) -> None:
        """Take it out, if it is in."""
        self._items.pop(item, None)

    def pop_oldest(self) -> Item | None:
        """Take out the one that has not moved for longest."""
        return self._items.popitem(last=False)[0] if self._items else None

    def pop_expired(self, now: float) -> list[Item]:
        """Take out all whose time is over."""
        expired = []
        for item, deadline in self._items.items():
            if deadline > now:
                break
            expired.append(item)
        for item in expired:
            del self._items[item]
        return expired

    def items(self) -> list[Item]:
        """All, oldest first."""
        return list(self._items)
