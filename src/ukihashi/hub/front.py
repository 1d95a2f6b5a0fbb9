"""The front door: what a new connection may say before it is a tunnel, a page or gone (protocol sections 4 to 11).

    TLS -> signature -> hello -> login or additional_connect -> tunnel
    TLS -> any other request -> the page server's answer, on the same kept connection
    anything else -> a short answer where one helps, and the end

Every step has a deadline, and `half_open` connections may be under way at once; when one more comes, the one that has
stood still longest goes. So a thousand silent connections cost a thousand descriptors and keep nobody out.
"""

import socket
from collections.abc import Callable
from typing import Final, Protocol

from ukihashi import __version__
from ukihashi.hub.caller import Caller
from ukihashi.hub.connection import Connection, Wiring
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Deadlines
from ukihashi.hub.messages import LoginAnswered, LoginAsked, LoginRefused
from ukihashi.hub.sessions import Sessions
from ukihashi.net.listen import address_text
from ukihashi.wire.constants import Code
from ukihashi.wire.http import Request

SILENT_HINT: Final = (
    b"ukihashi hub %s: on this port the client speaks first, and it speaks HTTPS.\r\n" % __version__.encode()
)
ACCEPTS_A_TURN: Final = 64  # connections; established sessions are served in between


class Pages(Protocol):
    """Who answers what is not the protocol's."""

    def ask(self, request: Request, peer: str, answer: Callable[[int, list[tuple[str, str]], bytes], None]) -> object:
        """Call `answer(status, headers, body)` once, within `relay_s`."""


class Control(Protocol):
    """The way to the control process."""

    def ask_login(self, asked: LoginAsked) -> bool:
        """Send; the answer comes to `FrontDoor.answered`. False: there is no control process at the moment."""

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
        self._tick()

    def set_limits(self, limits: Limits) -> None:
        """Other bounds and times. A step that is under way keeps its deadline."""
        self.wiring.limits = limits
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
            self._opening.restart(Caller(self, Connection(self.wiring, sock, address_text(address))), self._now)
        return True

    def moved(self, caller: Caller) -> None:
        """`caller` finished a step and may take its time for the next."""
        self.left(caller)
        self._opening.restart(caller, self._now)

    @property
    def has_room_for_page(self) -> bool:
        """Another page may be fetched: those under way or not yet read by their peers bound our memory."""
        return len(self._paging) < self.wiring.limits.relays

    def waits_for_page(self, caller: Caller) -> None:
        """`caller` waits for the page server: not its fault, and not its deadline."""
        self.left(caller)
        self._paging.restart(caller, self._now)

    def waits_for_login(self, caller: Caller) -> int:
        """`caller` waits for control; the number of the question."""
        self.left(caller)
        self._asking.restart(caller, self._now)
        self._last_ask += 1
        self._asks[self._last_ask] = caller
        caller.ask = self._last_ask
        return self._last_ask

    def left(self, caller: Caller) -> None:
        """`caller` is a tunnel now, or gone."""
        self._opening.drop(caller)
        self._asking.drop(caller)
        self._paging.drop(caller)
        self._asks.pop(caller.ask, None)

    def answered(self, answer: LoginAnswered) -> None:
        """Control has decided; for a caller who is gone by now, nothing."""
        caller = self._asks.pop(answer.ask, None)
        if caller is not None:
            caller.answered(answer)

    def control_lost(self) -> None:
        """No answer will come to what was asked so far."""
        for ask in list(self._asks):
            self.answered(LoginAnswered(ask=ask, error=Code.INTERNAL_ERROR))

    def close(self) -> None:
        """Nobody else gets in, and who is at the door is sent away."""
        for caller in self._opening.items() + self._asking.items() + self._paging.items():
            caller.connection.close("the hub stops")

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
