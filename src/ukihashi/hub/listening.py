"""The listening sockets, watched by one worker or by several: of those each connection wakes one.

Of several workers one may be told not to listen, because others have less to do (`balance`). It looks every LOOK_S all
the same: whoever still waits then is let in.
"""

import select
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ukihashi.hub.loop import READ, Loop

NO_ROOM_S: Final = 0.25  # pause of a listener when there is no descriptor left and nobody to send away
LOOK_S: Final = 0.25


class Listening:
    """See the module. Owns the sockets from `begin` on."""

    def __init__(
        self, loop: Loop, listeners: Sequence[socket.socket], accept: Callable[[socket.socket], bool], *, shared: bool
    ) -> None:
        """`accept`: takes what waits; False: no more can be taken now. `shared`: other processes listen too."""
        self._loop = loop
        self._listeners = list(listeners)
        self._accept = accept
        self._events = READ | (select.EPOLLEXCLUSIVE if shared else 0)
        self._is_open = False
        self._is_wanted = True
        self._looks = False  # a look is to come

    def begin(self) -> None:
        """Let people in."""
        self._is_open = True
        for listener in self._listeners:
            self._listen(listener)

    def end(self) -> None:
        """For good."""
        self._is_open = False
        for listener in self._listeners:
            self._loop.forget(listener.fileno())
            listener.close()

    def want(self, wanted: bool) -> None:
        """Is it this worker's turn?"""
        if wanted is self._is_wanted or not self._is_open:
            return
        self._is_wanted = wanted
        for listener in self._listeners:
            self._loop.forget(listener.fileno())
            if wanted:
                self._listen(listener)
        if not wanted and not self._looks:
            self._look_later()

    def _listen(self, listener: socket.socket) -> None:
        self._loop.watch(listener.fileno(), self._events, partial(self._on_listener, listener))

    def _on_listener(self, listener: socket.socket, _events: int) -> None:
        if not self._accept(listener):  # else the loop would turn for nothing until something is free
            self._loop.forget(listener.fileno())
            self._loop.at(self._loop.now + NO_ROOM_S, partial(self._listen_again, listener))

    def _listen_again(self, listener: socket.socket) -> None:
        if self._is_open and self._is_wanted:
            self._loop.forget(listener.fileno())
            self._listen(listener)

    def _look_later(self) -> None:
        self._looks = True
        self._loop.at(self._loop.now + LOOK_S, self._look)

    def _look(self) -> None:
        self._looks = False
        if self._is_open and not self._is_wanted:
            for listener in self._listeners:
                self._accept(listener)
            self._look_later()
