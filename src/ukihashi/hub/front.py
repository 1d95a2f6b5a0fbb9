"""The front door: what a new connection may say before it is a tunnel, a page or gone (protocol sections 4 to 11).

    TLS -> signature -> hello -> login or additional_connect -> tunnel
    TLS -> signature -> hello -> admin -> calls of an administration tool (`rpc_caller`)
    TLS -> any other request -> the page server's answer, on the same kept connection
    anything else -> a short answer where one helps, and the end

Before TLS a load balancer says whom it brings (`connection`, `balancers`): everything here counts by that address.

Every step has a deadline, and `half_open` connections may be under way at once; when one more comes, the one that has
stood still longest goes. So a thousand silent connections cost a thousand descriptors and keep nobody out. Of the
logins that wait for control one address may have only a part: who floods us with them takes no place from others.
"""

import socket
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from ukihashi import __version__
from ukihashi.hub.caller import Caller
from ukihashi.hub.connection import Connection, Wiring
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Deadlines
from ukihashi.hub.messages import (
    AdminAsked,
    LoginAnswered,
    LoginAsked,
    LoginRefused,
    PasswordAsked,
    RpcAnswered,
    RpcAsked,
)
from ukihashi.hub.relay import Answer
from ukihashi.hub.rpc_caller import RpcCaller
from ukihashi.hub.sessions import Sessions
from ukihashi.net.listen import address_text, site_of
from ukihashi.wire.constants import Code
from ukihashi.wire.http import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ukihashi.wire.extension import Numbers, Resume

SILENT_HINT: Final = (
    b"ukihashi hub %s: on this port the client speaks first, and it speaks HTTPS.\r\n" % __version__.encode()
)
ACCEPTS_A_TURN: Final = 16  # connections; established sessions are served in between


class Pages(Protocol):
    """Who answers what is not the protocol's."""

    def ask(self, request: Request, peer: str, answer: Answer) -> object:
        """Call `answer(status, headers, body, rest)` once, within `relay_s`; of a long body the start, and `rest`."""


class Control(Protocol):
    """The way to the control process."""

    @property
    def is_crowded(self) -> bool:
        """It has not taken what it was asked so far; more must not be asked now."""

    def ask(self, asked: LoginAsked | PasswordAsked | AdminAsked | RpcAsked) -> bool:
        """Send; the answer comes to `answered` or `tool_answered`. False: there is no control process now."""

    def refused(self, message: LoginRefused) -> None:
        """Tell of a login that never got to control."""


class FrontDoor:
    """Takes connections from the listeners and keeps time over those that are no tunnel yet."""

    def __init__(self, wiring: Wiring, sessions: Sessions, pages: Pages, control: Control) -> None:
        self.wiring = wiring
        self.sessions = sessions
        self.pages = pages
        self.control = control
        limits = wiring.limits
        self._opening: Deadlines[Caller] = Deadlines(limits.opening_s)
        # Those who wait for us. Pages keep time themselves; ours is only a net below.
        self._asking: Deadlines[Caller] = Deadlines(limits.login_s)
        self._paging: Deadlines[Caller] = Deadlines(2 * limits.relay_s)
        self._tick_s = min(0.25, limits.opening_s / 8, limits.linger_s / 2)
        self.evicted = 0  # connections closed to make room, so far
        self._last_ask = 0
        self._asks: dict[int, Caller] = {}
        self._asking_of: Counter[str] = Counter()  # by address; none is kept with 0
        self.tools: dict[RpcCaller, None] = {}  # in the order they came
        # of several workers: brings a session here that another one has, and says so or why not
        self.seek: Callable[[bytes, Resume | None, Callable[[int, Numbers | None], None]], None] | None = None
        self._tick()

    def set_limits(self, limits: Limits) -> None:
        """Other bounds and times. A step that is under way keeps its deadline."""
        self.wiring.limits = limits
        self.wiring.balancers.set(limits.proxies)
        self._opening.span_s = limits.opening_s

    @property
    def half_open(self) -> int:
        """Connections that are no tunnel (yet, or any more)."""
        return len(self._opening) + len(self._asking) + len(self._paging) + len(self.wiring.lingering)

    def accept(self, listener: socket.socket) -> bool:
        """Take what waits at a listener, at most ACCEPTS_A_TURN. False: no more can be taken at the moment."""
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return True
            except ConnectionError:  # this one is gone already
                continue
            except OSError:  # out of descriptors or memory
                if not self._evict():
                    return False
                continue
            sock.setblocking(False)
            while self.half_open >= self.wiring.limits.half_open and self._evict():
                pass
            connection = Connection(self.wiring, sock, address_text(address), self.sessions.next_connection())
            self._opening.restart(Caller(self, connection), self._now)
        return True

    def moved(self, caller: Caller) -> None:
        """`caller` finished a step and may take its time for the next."""
        self.left(caller)
        self._opening.restart(caller, self._now)

    def has_room_for_page(self, caller: Caller) -> bool:
        """Another page may be fetched: those under way or not yet read by their peers bound our memory.

        One address has a quarter of the places: long pages, read slowly, must not keep others from theirs.
        """
        under_way, most = self._paging.items(), self.wiring.limits.relays
        site = site_of(caller.connection.peer)
        of_one = sum(site_of(one.connection.peer) == site for one in under_way)
        return len(under_way) < most and of_one < max(1, most // 4)

    def waits_for_page(self, caller: Caller) -> None:
        """`caller` waits for the page server: not its fault, and not its deadline."""
        self.left(caller)
        self._paging.restart(caller, self._now)

    def may_ask(self, caller: Caller) -> bool:
        """Control can be asked for `caller`."""
        limits = self.wiring.limits
        most = min(limits.asking, limits.half_open // 2)
        of_one = min(limits.asking_of_one, max(1, most // 2))
        return (
            len(self._asking) < most
            and self._asking_of[site_of(caller.connection.peer)] < of_one
            and not self.control.is_crowded
        )

    def waits_for_login(self, caller: Caller) -> int:
        """`caller` waits for control; the number of the question."""
        self.left(caller)
        self._asking.restart(caller, self._now)
        self._asking_of[site_of(caller.connection.peer)] += 1
        caller.ask = self.next_ask()
        self._asks[caller.ask] = caller
        return caller.ask

    def next_ask(self) -> int:
        """A number for a question to control."""
        self._last_ask += 1
        return self._last_ask

    def left(self, caller: Caller) -> None:
        """`caller` is a tunnel now, or gone."""
        self._opening.drop(caller)
        self._asking.drop(caller)
        self._paging.drop(caller)
        self._asks_no_more(caller.ask)

    def _asks_no_more(self, ask: int) -> Caller | None:
        caller = self._asks.pop(ask, None)
        if caller is not None:
            site = site_of(caller.connection.peer)
            self._asking_of[site] -= 1
            if not self._asking_of[site]:
                del self._asking_of[site]
        return caller

    def answered(self, answer: LoginAnswered) -> None:
        """Control has decided; for a caller who is gone by now, nothing."""
        caller = self._asks_no_more(answer.ask)
        if caller is not None:
            caller.answered(answer)

    # -- tools ----------------------------------------------------------------------------------------------------

    @property
    def has_room_for_tool(self) -> bool:
        """One more administration tool may be let in."""
        return len(self.tools) < self.wiring.limits.tools

    def tool_came(self, tool: RpcCaller) -> None:
        """Control has let it in."""
        self.tools[tool] = None

    def tool_left(self, tool: RpcCaller) -> None:
        """It is gone."""
        self.tools.pop(tool, None)

    def tool_answered(self, answer: RpcAnswered) -> None:
        """Control has done what a tool asked for; for one that is gone by now, nothing."""
        for tool in self.tools:
            if tool.ask == answer.ask:
                tool.answered(answer)
                return

    # -- listings -------------------------------------------------------------------------------------------------

    def callers(self) -> list[Caller]:
        """All that are no tunnel and no tool yet, and are not ending."""
        return self._opening.items() + self._asking.items() + self._paging.items()

    # -- the end --------------------------------------------------------------------------------------------------

    def control_lost(self) -> None:
        """No answer will come to what was asked so far."""
        for ask in list(self._asks):
            self.answered(LoginAnswered(ask=ask, error=Code.INTERNAL_ERROR))
        for tool in [tool for tool in self.tools if tool.ask]:
            tool.connection.close("there is no control process")

    def close(self) -> None:
        """Nobody else gets in, and who is at the door is sent away."""
        connections = [one.connection for one in self.callers()] + [one.connection for one in self.tools]
        for connection in connections:
            connection.close("the hub stops")

    @property
    def _now(self) -> float:
        return self.wiring.loop.now

    def _evict(self) -> bool:
        ending = self.wiring.lingering.pop_oldest()
        if ending is not None:
            ending.abort("no room")
            return True
        caller = self._opening.pop_oldest()
        if caller is not None:
            self.evicted += 1
            caller.connection.abort("no room")
        return caller is not None

    def _tick(self) -> None:
        now = self._now
        for caller in self._opening.pop_expired(now):
            caller.connection.say_plainly(SILENT_HINT)
            caller.connection.close("too slow")
        for caller in self._asking.pop_expired(now):
            self.answered(LoginAnswered(ask=caller.ask, error=Code.INTERNAL_ERROR))
        for caller in self._paging.pop_expired(now):
            caller.connection.close("no page came")
        for connection in self.wiring.lingering.pop_expired(now):
            connection.abort("closed")
        self.wiring.loop.at(now + self._tick_s, self._tick)
