"""A connection of an administration tool that was let in (protocol section 19.1): calls in, answers out, one at a time.

    each direction := ( u32 length, PACK )*

Control decides and does everything; here only bytes are framed. Nothing of the tool is read while a call is under way,
and what the tool does not take holds up nobody but itself.
"""

import struct
from typing import TYPE_CHECKING, Final

from ukihashi.errors import N_, PeerViolation
from ukihashi.hub.connection import Connection
from ukihashi.hub.messages import RpcAnswered, RpcAsked

if TYPE_CHECKING:
    from ukihashi.hub.front import FrontDoor
    from ukihashi.hub.loop import Timer

MAX_CALL: Final = 8 * 1024 * 1024  # bytes of a PACK in either direction of ours: what fits into a message to control
_LENGTH: Final = struct.Struct("!I")


class RpcCaller:
    """The stage of such a connection."""

    __slots__ = ("_buffer", "_busy", "_door", "_timer", "ask", "client", "connection", "hub")

    def __init__(self, door: "FrontDoor", connection: Connection, hub: str, client: str) -> None:
        self._door = door
        self._buffer = bytearray()
        self._busy = False  # a call is with control, or its answer not wholly with the kernel
        self._timer: Timer | None = None
        self.ask = 0  # number of the call that is with control
        self.client = client
        self.connection = connection
        self.hub = hub  # that it was let in for; "" = the whole
        connection.set_stage(self)
        connection.watch_peer()

    def start(self, unread: bytes) -> None:
        """Take the connection over; `unread`: what came behind the login."""
        self._buffer += unread
        self._listen()

    def received(self, plain: bytes, now: float) -> None:  # noqa: ARG002 - part of Stage
        """A call, or a part of one."""
        self._buffer += plain
        self._next()

    def writable(self, now: float) -> None:  # noqa: ARG002 - part of Stage
        """Our answer is with the kernel."""
        if self._busy and not self.ask:
            self._listen()

    def ended(self, reason: str) -> None:  # noqa: ARG002 - part of Stage
        """Gone."""
        self._wait(None)
        self._door.tool_left(self)

    def answered(self, answer: RpcAnswered) -> None:
        """Control has done what was asked, or wants the connection to end."""
        self.ask = 0
        if not answer.answer:
            self.connection.close("ended by control")
            return
        self._wait("the answer was not taken")
        self.connection.send(_LENGTH.pack(len(answer.answer)) + answer.answer)
        if self.connection.is_open and not self.connection.backlog:
            self._listen()

    def _next(self) -> None:
        """Hand the next call on, if it is whole."""
        buffer = self._buffer
        if self._busy or not buffer:
            return
        self._wait("a call did not come to its end")
        if len(buffer) < _LENGTH.size:
            return
        size = _LENGTH.unpack_from(buffer)[0]
        if not 0 < size <= MAX_CALL:
            raise PeerViolation(N_("a call of {size} bytes, at most {limit} are taken"), size=size, limit=MAX_CALL)
        end = _LENGTH.size + size
        if len(buffer) < end:
            return
        request = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        self._busy = True
        self.connection.pause()
        self._wait("control did not answer")
        self.ask = self._door.next_ask()
        asked = RpcAsked(self.ask, self.hub, request, self.connection.peer)
        if self._door.control.is_crowded or not self._door.control.ask(asked):
            self.connection.close("there is no control process")

    def _listen(self) -> None:
        self._busy = False
        self._wait(None)
        self.connection.resume()
        try:
            self._next()
        except PeerViolation as violation:
            self.connection.close(str(violation))

    def _wait(self, why: str | None) -> None:
        """The connection ends for that reason unless the next step comes in time; None: there is no hurry."""
        if self._timer is not None:
            self._timer.cancel()
        wiring = self._door.wiring
        self._timer = None
        if why is not None:
            self._timer = wiring.loop.at(wiring.loop.now + wiring.limits.tool_s, lambda: self.connection.close(why))
