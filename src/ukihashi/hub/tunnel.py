"""A connection in tunnelling mode: blocks in, batches out, keep-alives, and silence that ends it (section 12).

No timer is touched for a frame: each tunnel has one timer, set for the earliest moment at which something could be due;
when it fires it looks at what has happened since.
"""

import os
import random
import secrets
import socket
from typing import TYPE_CHECKING, Final

from ukihashi.hub.connection import Connection
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop, Timer
from ukihashi.session.timers import KeepAlive, KeepAliveLaw, Liveness, StandardKeepAlive
from ukihashi.wire.blocks import BlockDecoder, encode_keepalive
from ukihashi.wire.constants import SENT_KEEPALIVE

if TYPE_CHECKING:
    from ukihashi.hub.sessions import Session

TCP_USER_TIMEOUT: Final[int] = getattr(socket, "TCP_USER_TIMEOUT", 18)


class Tunnel:
    """The stage of a connection that carries a session."""

    __slots__ = ("_decoder", "_keepalives", "_law", "_liveness", "_loop", "_session", "_timer", "connection")

    def __init__(self, session: "Session", connection: Connection, loop: Loop, limits: Limits) -> None:
        self.connection = connection
        self._session = session
        self._loop = loop
        self._decoder = BlockDecoder()
        self._keepalives = 0  # as counted by the decoder when we looked last
        now = loop.now
        law: KeepAliveLaw
        if session.extension:
            law = KeepAlive(now, interval=limits.idle_s, first_after=limits.first_s)
            self._liveness = Liveness(now, dead=limits.dead_s)
            connection.set_socket_option(TCP_USER_TIMEOUT, int(limits.dead_s * 1000))
        else:
            law = StandardKeepAlive(now, timeout=session.timeout_s)
            self._liveness = Liveness(now, dead=session.timeout_s)
            connection.set_socket_option(TCP_USER_TIMEOUT, int(session.timeout_s * 1000))
        self._law = law
        self._timer: Timer | None = None
        connection.set_stage(self)
        self._on_timer()

    @property
    def is_writable(self) -> bool:
        """Everything written so far is with the kernel: ciphertext never piles up behind a slow peer."""
        return self.connection.is_open and not self.connection.backlog

    def write(self, batch: bytes, now: float) -> None:
        """One batch of blocks, one TLS write."""
        self._law.sent(now, random.random())  # noqa: S311 - spreads keep-alives, hides nothing
        self.connection.send(batch)

    def close(self, reason: str) -> None:
        """End this connection in good order."""
        self.connection.close(reason)

    # -- the connection's side ------------------------------------------------------------------------------------

    def received(self, plain: bytes, now: float) -> None:
        """Blocks of the member, split anywhere."""
        frames = self._decoder.feed(plain)
        if frames:
            self._heard(now)
            self._session.take(frames, now)
        if self._decoder.keepalives != self._keepalives:
            self._keepalives = self._decoder.keepalives
            self._heard(now)

    def writable(self, now: float) -> None:  # noqa: ARG002 - part of Stage
        """The kernel took everything."""
        self._session.can_write()

    def ended(self, reason: str) -> None:  # noqa: ARG002 - part of Stage
        """The connection is gone; its session is told."""
        if self._timer is not None:
            self._timer.cancel()
        self._session.detach(self)

    def _heard(self, now: float) -> None:
        self._liveness.heard(now)
        self._session.heard = now

    def _on_timer(self) -> None:
        now = self._loop.now
        if self._liveness.is_dead(now):
            self.connection.close("nothing heard")
            return
        if self._law.is_due(now):
            self._law.sent(now, random.random())  # noqa: S311 - as above
            if self.is_writable:  # else data is on its way, which says as much
                body = os.urandom(secrets.randbelow(SENT_KEEPALIVE + 1))
                self.connection.send(encode_keepalive(body))
        if self.connection.is_open:
            self._timer = self._loop.at(min(self._law.due_at, self._liveness.dead_at), self._on_timer)
