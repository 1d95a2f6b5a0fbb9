"""A TCP relay between card and hub that breaks things when told to.

    card ---- f ---- hub            up: card to hub, down: hub to card

with FaultRelay(f, listen=(f.ipv4, 443), target=(hub.ipv4, 443)) as relay:
    relay.reset()                          # RST to both sides
    relay.black_hole("both", seconds=20)   # packets of both legs vanish, SYN, FIN and RST among them

Closing and cutting happen at the sockets of the relay. Black holes are drop rules of nftables on the relay's host, so
that no packet of that direction leaves or arrives, acknowledgements included, and what TCP sends again comes through
when they end. A command has taken effect when its method returns. The relay's thread lives on host f with its sockets.
"""

import contextlib
import itertools
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeVar

from lab.net import Host, LabError

Way = Literal["up", "down"]
Ways = Literal["up", "down", "both"]
Address = tuple[str, int]
Answer = TypeVar("Answer")

CHUNK: Final = 1 << 16  # bytes read at a time
QUEUE_MOST: Final = 1 << 20  # bytes held per connection and direction; then the source waits
EVENTS_KEPT: Final = 10_000
PIECES_KEPT: Final = 64  # of one connection: its beginning
ANSWER_S: Final = 10.0  # the thread has done a command by then, or it is dead
TURN_S: Final = 0.5  # longest sleep of the loop
AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
TABLE: Final = "ukihashi_faults"


def both(ways: Ways) -> tuple[Way, ...]:
    """The directions that a word means."""
    return ("up", "down") if ways == "both" else (ways,)


@dataclass
class Flow:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)  # (not before, bytes)
    queued: int = 0  # bytes in `waiting`
    moved: int = 0  # bytes given to the sink
    thrown_away: int = 0  # bytes read after `half_close`
    left: int | None = None  # bytes still to move, then reset
    ended: bool = False  # the source has said its last
    shut: bool = False  # the sink was told so

    def take(self, data: bytes, due: float) -> None:
        """One more piece from the source; never before an earlier one."""
        if self.shut:
            self.thrown_away += len(data)
            return
        self.waiting.append((max(due, self.waiting[-1][0]) if self.waiting else due, data))
        self.queued += len(data)


@dataclass
class Connection:
    """One connection through the relay, alive or over."""

    number: int
    began: float  # monotonic seconds
    near: socket.socket  # to the card
    far: socket.socket  # to the hub
    ports: tuple[int, int]  # of the card at the near leg, of the relay at the far leg
    flows: dict[Way, Flow]
    pieces: list[tuple[float, Way]] = field(
        default_factory=list
    )  # (monotonic seconds, direction): the first it passed on
    connected: bool = False  # the far leg is
    ended: float | None = None
    how: str = ""  # it ended

    def moved(self, way: Way) -> int:
        """Bytes forwarded so far."""
        return self.flows[way].moved

    def turn(self, number: int, way: Way) -> float | None:
        """When that side began to speak for the `number`th time, 1 = the first (monotonic); None: it has not yet."""
        begins: list[float] = []
        before = ""
        for at, side in self.pieces:
            if side == way != before:
                begins.append(at)
            before = side
        return begins[number - 1] if len(begins) >= number else None


class FaultRelay:
    """The relay; made on `host` with the block, gone with it.

    Args:
        listen: address and port there; port 0 = any.  target: where connections lead.
        seed: of the jitter.
    """

    def __init__(self, host: Host, *, listen: Address, target: Address, seed: int = 0) -> None:
        self.host: Final = host
        self.target: Final = target
        self.connections: Final[list[Connection]] = []  # all there were, oldest first
        self._living: list[Connection] = []
        self.refused = 0  # connections that `refuse` reset
        self.events: Final[deque[tuple[float, str]]] = deque(maxlen=EVENTS_KEPT)  # (monotonic seconds, what was done)
        self._family: Final = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        with host.inside():
            self._listener = socket.create_server(listen, family=self._family)
        self._listener.setblocking(False)
        self.address: Final[Address] = self._listener.getsockname()[:2]
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_out.setblocking(False)
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._random = random.Random(seed)
        self._delay: tuple[float, float] = (0.0, 0.0)  # seconds, seconds of jitter
        self._rate = 0.0  # bytes a second and direction; 0 = unlimited
        self._free_at: dict[tuple[int, Way], float] = {}  # when the rate lets the next bytes pass
        self._refuse_until = 0.0
        self._dropped: set[Way] = set()
        self._silenced: list[Connection] = []
        self._over = False
        self._thread = threading.Thread(target=self._run, name="fault relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every connection by RST and the relay; a second call does nothing."""
        if self._thread.is_alive():
            self.heal()
            self._ask(self._end)
            self._thread.join(ANSWER_S)

    # -- what is seen ------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Connection]:
        """The connections that have not ended, oldest first."""
        return self._living.copy()

    def moved(self, way: Way) -> int:
        """Bytes forwarded in that direction by all connections so far."""
        return sum(one.moved(way) for one in self.connections)

    # -- cuts --------------------------------------------------------------------------------------------------------

    def reset(self) -> int:
        """RST to both sides of every connection; how many there were."""
        return self._do("reset", lambda: self._end_all("reset", rst=True))

    def close(self) -> int:
        """FIN to both sides of every connection; what is still queued in the relay is lost."""
        return self._do("close", lambda: self._end_all("close", rst=False))

    def half_close(self, way: Way) -> int:
        """FIN in one direction of every connection; what its source still says is read and thrown away."""

        def shut() -> int:
            cut = self.alive
            for one in cut:
                flow = one.flows[way]
                flow.waiting.clear()
                flow.queued, flow.shut = 0, True
                with contextlib.suppress(OSError):
                    flow.sink.shutdown(socket.SHUT_WR)
            return len(cut)

        return self._do(f"half_close {way}", shut)

    def truncate(self, count: int, way: Way) -> int:
        """Forward exactly `count` more bytes in that direction of every connection, then RST to both sides of it."""

        def limit() -> int:
            cut = self.alive
            for one in cut:
                one.flows[way].left = count
            return len(cut)

        return self._do(f"truncate {way} after {count} B", limit)

    def kill_every(self, seconds: float) -> None:
        """Reset whatever is there every so often; 0 ends it."""

        def begin() -> None:
            self._timers = [timer for timer in self._timers if timer[1] != self._kill]
            self._period = seconds
            if seconds:
                self._timers.append((time.monotonic() + seconds, self._kill))

        self._do(f"kill_every {seconds:g} s", begin)

    def refuse(self, seconds: float) -> None:
        """New connections get a RST for so long."""

        def begin() -> None:
            self._refuse_until = time.monotonic() + seconds

        self._do(f"refuse {seconds:g} s", begin)

    # -- a bad path --------------------------------------------------------------------------------------------------

    def black_hole(self, ways: Ways, seconds: float | None = None) -> float:
        """Let no packet of that direction pass, on either leg; gives when it began (monotonic).

        It ends after `seconds`, or with `heal`.
        """

        def drop() -> float:
            self._dropped |= set(both(ways))
            self._enforce()
            began = time.monotonic()
            if seconds is not None:
                self._timers.append((began + seconds, self._heal))
            return began

        return self._do(f"black_hole {ways}", drop)

    def silence(self) -> int:
        """Let no packet of the present connections pass any more; new ones are not touched. `heal` ends it."""

        def drop() -> int:
            cut = self.alive
            self._silenced += [one for one in cut if one not in self._silenced]
            self._enforce()
            return len(cut)

        return self._do("silence", drop)

    def heal(self) -> None:
        """End every black hole and silence: what TCP still sends again passes."""
        self._ask(self._heal)

    def delay(self, milliseconds: float, jitter: float = 0.0) -> None:
        """Hold each piece so long, and up to `jitter` ms longer, drawn anew; the order stays. 0 ends it."""

        def begin() -> None:
            self._delay = milliseconds / 1000, jitter / 1000

        self._do(f"delay {milliseconds:g} ms", begin)

    def rate(self, bytes_per_s: float) -> None:
        """Let each connection and direction move so much; 0 = unlimited."""

        def begin() -> None:
            self._rate = bytes_per_s
            self._free_at.clear()

        self._do(f"rate {bytes_per_s:g} B/s", begin)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _do(self, what: str, work: Callable[[], Answer]) -> Answer:
        done = self._ask(work)
        self.events.append((time.monotonic(), what))
        return done

    def _ask(self, work: Callable[[], Answer]) -> Answer:
        """Let the relay's thread do `work`; its result."""
        if not self._thread.is_alive():
            raise LabError("the fault relay does not run")
        answer: Future[Answer] = Future()
        self._commands.append((work, answer))
        self._wake_in.send(b"!")
        return answer.result(ANSWER_S)

    def _kill(self) -> None:
        self._end_all("kill", rst=True)
        self._timers.append((time.monotonic() + self._period, self._kill))

    def _heal(self) -> None:
        self._timers = [timer for timer in self._timers if timer[1] != self._heal]
        if self._dropped or self._silenced:
            self._dropped.clear()
            self._silenced.clear()
            self._enforce()
            self.events.append((time.monotonic(), "heal"))

    def _enforce(self) -> None:
        """Make the drop rules what they should be now, in one step."""
        near, far = self.address[1], self.target[1]
        up, down = [f"tcp dport {near}"], [f"tcp sport {far}"]  # what comes in, of each direction
        up_out, down_out = [f"tcp dport {far}"], [f"tcp sport {near}"]  # what goes out
        rules = {
            "input": (up if "up" in self._dropped else []) + (down if "down" in self._dropped else []),
            "output": (up_out if "up" in self._dropped else []) + (down_out if "down" in self._dropped else []),
        }
        for one in self._silenced:
            card, own = one.ports
            rules["input"] += [f"tcp sport {card} tcp dport {near}", f"tcp sport {far} tcp dport {own}"]
            rules["output"] += [f"tcp sport {near} tcp dport {card}", f"tcp sport {own} tcp dport {far}"]
        text = f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
        for hook, matches in rules.items():
            body = "".join(f"{match} drop\n" for match in matches)
            text += f"chain {hook} {{ type filter hook {hook} priority -300;\n{body}}}\n"
        self.host.run(["nft", "-f", "-"], stdin=text + "}\n")

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self.host.inside():
            while not self._over:
                self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        self._timers, due = (
            [timer for timer in self._timers if timer[0] > now],
            [timer for timer in self._timers if timer[0] <= now],
        )
        for _at, work in due:
            work()
        poller, readers, writers, wake_at = self._interests(now)
        wait = max(0.0, min([wake_at, *(at for at, _work in self._timers)]) - time.monotonic())
        for number, event in poller.poll(wait * 1000 + 0.5):
            if number == self._wake_out.fileno():
                self._obey()
            elif number == self._listener.fileno():
                self._accept()
            else:
                if number in readers and event & ~select.POLLOUT:
                    self._read(*readers[number])
                if number in writers and event & ~select.POLLIN:
                    self._write(*writers[number])

    def _interests(
        self, now: float
    ) -> tuple[select.poll, dict[int, tuple[Connection, Way]], dict[int, tuple[Connection, Way]], float]:
        """What to wait for: a poll object, what a descriptor is read and written for, and until when at most."""
        readers: dict[int, tuple[Connection, Way]] = {}
        writers: dict[int, tuple[Connection, Way]] = {}
        wake_at = now + TURN_S
        for one in self._living:
            for way in both("both"):
                flow = one.flows[way]
                if not one.connected:
                    writers[one.far.fileno()] = one, way
                    continue
                if not flow.ended and flow.queued < QUEUE_MOST:
                    readers[flow.source.fileno()] = one, way
                if flow.waiting:
                    at = max(flow.waiting[0][0], self._free_at.get((one.number, way), 0.0))
                    if at <= now:
                        writers[flow.sink.fileno()] = one, way
                    wake_at = min(wake_at, at) if at > now else wake_at
        poller = select.poll()
        poller.register(self._wake_out, select.POLLIN)
        poller.register(self._listener, select.POLLIN)
        for number in readers.keys() | writers.keys():
            poller.register(
                number, (select.POLLIN if number in readers else 0) | (select.POLLOUT if number in writers else 0)
            )
        return poller, readers, writers, wake_at

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        while self._commands:
            work, answer = self._commands.popleft()
            try:
                answer.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is raised where the command was given
                answer.set_exception(error)

    def _accept(self) -> None:
        try:
            near, peer = self._listener.accept()
        except OSError:
            return
        if time.monotonic() < self._refuse_until:
            self.refused += 1
            _abort(near)
            return
        far = socket.socket(self._family)
        for one in (near, far):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: shows when it becomes writable
            far.connect(self.target)
        ports = (peer[1], far.getsockname()[1])
        flows: dict[Way, Flow] = {"up": Flow(near, far), "down": Flow(far, near)}
        self.connections.append(Connection(next(self._numbers), time.monotonic(), near, far, ports, flows))
        self._living.append(self.connections[-1])

    def _read(self, one: Connection, way: Way) -> None:
        if one.ended is not None:
            return
        flow = one.flows[way]
        try:
            data = flow.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._finish(one, "reset by the card" if way == "up" else "reset by the hub", rst=True)
            return
        if data:
            fixed, jitter = self._delay
            flow.take(data, time.monotonic() + fixed + self._random.uniform(0, jitter))
        else:
            flow.ended = True
        self._pass_end(one, flow)

    def _write(self, one: Connection, way: Way) -> None:
        if one.ended is not None:
            return
        if not one.connected:
            if one.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._finish(one, "the hub can't be reached", rst=True)
            one.connected = True
            return
        flow, now = one.flows[way], time.monotonic()
        while flow.waiting and flow.waiting[0][0] <= now and one.ended is None:
            due, data = flow.waiting[0]
            piece = data if flow.left is None else data[: flow.left]
            if self._rate:
                piece = piece[: max(1, int(self._rate / 20))]  # twenty steps a second
            try:
                count = flow.sink.send(piece) if piece else 0
            except BlockingIOError:
                return
            except OSError:
                self._finish(one, "reset by the hub" if way == "up" else "reset by the card", rst=True)
                return
            flow.moved += count
            if count and len(one.pieces) < PIECES_KEPT:
                one.pieces.append((now, way))
            flow.queued -= count
            flow.waiting.popleft()
            if count < len(data):
                flow.waiting.appendleft((due, data[count:]))
            if flow.left is not None:
                flow.left -= count
                if flow.left <= 0:
                    self._finish(one, "truncated", rst=True)
                    return
            if self._rate:
                self._free_at[one.number, way] = now + count / self._rate
                break
        self._pass_end(one, flow)

    def _pass_end(self, one: Connection, flow: Flow) -> None:
        """Hand a FIN on behind the last byte; both directions over, the connection is."""
        if flow.ended and not flow.waiting and not flow.shut:
            flow.shut = True
            with contextlib.suppress(OSError):
                flow.sink.shutdown(socket.SHUT_WR)
        if all(each.ended and each.shut for each in one.flows.values()):
            self._finish(one, "closed", rst=False)

    def _end_all(self, how: str, *, rst: bool) -> int:
        cut = self.alive
        for one in cut:
            self._finish(one, how, rst=rst)
        return len(cut)

    def _finish(self, one: Connection, how: str, *, rst: bool) -> None:
        one.ended, one.how = time.monotonic(), how
        self._living.remove(one)
        for way in both("both"):
            self._free_at.pop((one.number, way), None)
            one.flows[way].waiting.clear()
        for end in (one.near, one.far):
            if rst:
                _abort(end)
            else:
                _say_goodbye(end)

    def _end(self) -> None:
        self._over = True
        self._end_all("stop", rst=True)
        for each in (self._listener, self._wake_in, self._wake_out):
            each.close()


def _abort(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    end.close()


def _say_goodbye(end: socket.socket) -> None:
    """FIN and not RST: a close with unread bytes would reset, so they are read first."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_WR)
        while end.recv(CHUNK):
            pass
    end.close()


def new_since(connections: Iterable[Connection], moment: float) -> list[Connection]:
    """Those that began after `moment` (monotonic)."""
    return [one for one in connections if one.began > moment]
