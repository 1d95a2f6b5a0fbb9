"""A connection in tunnelling mode: blocks in, batches out, keep-alives, and silence that ends it (section 12).

No timer is touched for a frame: each tunnel has one timer, set for the earliest moment at which something could be due;
when it fires it looks at what has happened since.

In half duplex (13.3) a connection carries frames and keep-alives in one direction. One that may only send is not judged
by its silence; frames that come over it are taken all the same.
"""

import math
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
from ukihashi.wire.constants import SENT_KEEPALIVE, Direction

if TYPE_CHECKING:
    from ukihashi.hub.session import Session

TCP_USER_TIMEOUT: Final[int] = getattr(socket, "TCP_USER_TIMEOUT", 18)


class Tunnel:
    """The stage of a connection that carries a session."""

    __slots__ = (
        "_decoder", "_keepalives", "_law", "_liveness", "_loop", "_receives", "_sends", "_session", "_timer",
        "connection", "direction",
    )  # fmt: skip

    def __init__(
        self,
        session: "Session",
        connection: Connection,
        loop: Loop,
        limits: Limits,
        direction: Direction = Direction.BOTH,
    ) -> None:
        self.connection = connection
        self.direction = direction
        self._sends = direction is not Direction.TO_SERVER
        self._receives = direction is not Direction.TO_CLIENT
        self._session = session
        self._loop = loop
        self._decoder = BlockDecoder()
        self._keepalives = 0  # as counted by the decoder when we looked last
        now = loop.now
        self._law: KeepAliveLaw
        if session.member.extension:
            self._law = KeepAlive(now, interval=limits.idle_s, first_after=limits.first_s)
            self._set_dead(limits.dead_s, now)
        else:
            self._law = StandardKeepAlive(now, timeout=session.member.timeout_s)
            self._set_dead(session.member.timeout_s, now)
        self._timer: Timer | None = None

    def start(self) -> None:
        """Take the connection over."""
        self.connection.set_stage(self, carries=True)
        self._on_timer()

    def set_limits(self, limits: Limits) -> None:
        """Other times, between two ukihashi ends."""
        if self._session.member.extension:
            now = self._loop.now
            self._law = KeepAlive(now, interval=limits.idle_s, first_after=limits.idle_s)
            self._set_dead(limits.dead_s, now - self._liveness.silent_for(now))
            self._arm()

    @property
    def is_writable(self) -> bool:
        """Carries frames to the member, and all so far are with the kernel: none pile up behind a slow peer."""
        return self._sends and self.connection.is_writable

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
            self._session.take(self._session.inflated(frames), now)
        elif self._decoder.keepalives != self._keepalives or self._session.member.extension:
            self._heard(now)
        self._keepalives = self._decoder.keepalives

    def writable(self, now: float) -> None:  # noqa: ARG002 - part of Stage
        """The kernel took everything."""
        self._session.can_write()

    def ended(self, reason: str) -> None:
        """The connection is gone; its session is told."""
        if self._timer is not None:
            self._timer.cancel()
        self._session.detach(self, reason)

    def _heard(self, now: float) -> None:
        self._liveness.heard(now)
        self._session.heard = now

    def _set_dead(self, after_s: float, heard: float) -> None:
        """Silence that ends it; the kernel's patience for what we sent is the same."""
        self._liveness = Liveness(heard, dead=after_s)
        self.connection.set_socket_option(TCP_USER_TIMEOUT, int(after_s * 1000))

    def _on_timer(self) -> None:
        now = self._loop.now
        if self._receives and self._liveness.is_dead(now):
            self.connection.close("nothing heard")
            return
        if self._sends and self._law.is_due(now):
            self._law.sent(now, random.random())  # noqa: S311 - as above
            if self.is_writable:  # else data is on its way, which says as much
                self.connection.send(self._keepalive())
        if self.connection.is_open:
            self._arm()

    def _keepalive(self) -> bytes:
        return encode_keepalive(os.urandom(secrets.randbelow(SENT_KEEPALIVE + 1)))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due_at = self._law.due_at if self._sends else math.inf
        dead_at = self._liveness.dead_at if self._receives else math.inf
        self._timer = self._loop.at(min(due_at, dead_at), self._on_timer)
