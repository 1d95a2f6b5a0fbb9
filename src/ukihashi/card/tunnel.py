"""What flows over an open link, for a hub that can't resume exactly: a standard one, or one of ours before it could.

`Tunnel` is what the data process's loop asks of this and of `session.py` alike.
"""

import random
from collections.abc import Sequence
from typing import Final, Protocol

from ukihashi.card.link import Link
from ukihashi.card.messages import Settings
from ukihashi.card.tally import Tally
from ukihashi.errors import N_, DialError
from ukihashi.session.timers import KeepAlive, KeepAliveLaw, Liveness, StandardKeepAlive
from ukihashi.wire.blocks import BlockDecoder, encode_frames, encode_keepalive
from ukihashi.wire.constants import SENT_KEEPALIVE

chance: Final = random.SystemRandom()


class Tunnel(Protocol):
    """Frames of one TAP, in and out."""

    link: Link | None
    """The link that carries it, or is asked to."""

    @property
    def hungry(self) -> bool:
        """Frames from the TAP are wanted."""

    @property
    def pending(self) -> bool:
        """`pump` has something for the link once it is free."""

    @property
    def due_at(self) -> float:
        """When `tick` is wanted next."""

    @property
    def silent_at(self) -> float:
        """When the link will have been silent for too long; must not be missed though the machine sleeps till then."""

    def send(self, frames: Sequence[bytes], now: float) -> None:
        """Frames from the TAP, all that `Tally.outward` let through; call only while hungry."""

    def pump(self, now: float) -> None:
        """Give the link what waits, as one write, unless the last is still under way."""

    def heard(self, now: float) -> None:
        """Something came over the link that carries it, be it half a record."""

    def receive(self, plain: bytes, now: float) -> list[bytes]:
        """Bytes of the link that carries it; gives the frames for the TAP. Raises: PeerViolation."""

    def obey(self, now: float) -> None:
        """Do what came beside the frames, once these are delivered. Raises: UkihashiError: it is over."""

    def looks_silent(self, now: float) -> bool:
        """`tick` would find the link silent for too long; read what has come meanwhile first."""

    def tick(self, now: float) -> None:
        """Do what is due. Raises: DialError: the link is dead."""

    def apply(self, settings: Settings, now: float) -> None:
        """From now on these settings."""

    def leave(self) -> None:
        """Say that we go, if there is a way to say it."""


class StandardTunnel:
    """Without numbers: what is under way when the link is cut may be lost."""

    def __init__(self, link: Link, tally: Tally, *, timeout: float, settings: Settings | None, now: float) -> None:
        """`settings`: of a hub of ours. None: a standard one, where only the session's `timeout` counts."""
        self.link: Link | None = link
        self._out = link  # the link for as long as this object lives
        self._tally = tally
        self._decoder = BlockDecoder()
        self._keepalive: KeepAliveLaw
        if settings is None:
            self._keepalive = StandardKeepAlive(now, timeout=timeout)
            self._liveness = Liveness(now, dead=timeout)
        else:
            self._keepalive = KeepAlive(now, interval=settings.keepalive)
            self._liveness = Liveness(now, dead=settings.dead)

    @property
    def hungry(self) -> bool:
        return not self._out.backlog

    @property
    def pending(self) -> bool:
        return False

    @property
    def due_at(self) -> float:
        return min(self._keepalive.due_at, self._liveness.dead_at)

    @property
    def silent_at(self) -> float:
        return self._liveness.dead_at

    def send(self, frames: Sequence[bytes], now: float) -> None:
        self._out.write(encode_frames(frames))
        self._tally.written(len(frames))
        self._keepalive.sent(now, chance.random())

    def pump(self, now: float) -> None:
        """All is with the link already."""

    def heard(self, now: float) -> None:
        self._liveness.heard(now)

    def receive(self, plain: bytes, now: float) -> list[bytes]:  # noqa: ARG002 - as every tunnel
        decoder = self._decoder
        before = decoder.keepalives
        frames = decoder.feed(plain)
        self._tally.keepalives_in += decoder.keepalives - before
        return self._tally.inward(frames)

    def obey(self, now: float) -> None:
        """Nothing comes beside frames."""

    def looks_silent(self, now: float) -> bool:
        return self._liveness.is_dead(now)

    def tick(self, now: float) -> None:
        if self._liveness.is_dead(now):
            raise silence(self._liveness.silent_for(now))
        if self._keepalive.is_due(now):
            self._out.write(encode_keepalive(chance.randbytes(chance.randrange(SENT_KEEPALIVE + 1))))
            self._keepalive.sent(now, chance.random())
            self._tally.keepalives_out += 1

    def apply(self, settings: Settings, now: float) -> None:
        """With the next link."""

    def leave(self) -> None:
        """Its goodbye is close_notify."""


def silence(seconds: float) -> DialError:
    """A link is dead."""
    return DialError(
        N_("nothing came from the hub for {seconds:.0f} s; the connection is held to be cut"), seconds=seconds
    )
