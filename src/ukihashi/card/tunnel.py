"""What the data process's loop asks of whatever carries frames: `standard.py` and `session.py` both answer.

Tunnel   frames of one TAP, in and out
Lane     what one of its links does

Beside its links a standard tunnel may have a path over UDP (`udp.py`).
"""

import random
from collections.abc import Sequence
from typing import Any, Final, Protocol

from ukihashi.card.link import Link
from ukihashi.card.messages import Settings
from ukihashi.card.udp import CardLane
from ukihashi.errors import N_, DialError

chance: Final = random.SystemRandom()


class Lane(Protocol):
    """One link that carries frames."""

    @property
    def pending(self) -> bool:
        """`pump` has something for the link once it is free."""

    def pump(self, now: float) -> None:
        """Give the link what waits, as one write, unless the last is still under way."""

    def heard(self, now: float) -> None:
        """Something came over the link, be it half a record."""

    def receive(self, plain: bytes, now: float) -> list[bytes]:
        """Bytes of the link; gives the frames for the TAP. Raises: PeerViolation."""

    def obey(self, now: float) -> None:
        """Do what came beside the frames, once these are delivered. Raises: UkihashiError: it is over."""

    def looks_silent(self, now: float) -> bool:
        """`tick` would find the link silent for too long; read what has come meanwhile first."""

    def tick(self, now: float) -> None:
        """Do what is due. Raises: DialError: the link is dead."""


class Tunnel(Protocol):
    """Frames of one TAP, in and out."""

    @property
    def path(self) -> CardLane | None:
        """What carries frames beside the links; the loop watches its descriptor."""

    @property
    def links(self) -> Sequence[Link]:
        """Those that carry it, or are asked to."""

    def lane(self, link: Link) -> Lane | None:
        """What the link does here; None: it is not one of ours."""

    @property
    def hungry(self) -> bool:
        """Frames from the TAP are wanted."""

    @property
    def due_at(self) -> float:
        """When a lane's `tick` is wanted next."""

    @property
    def silent_at(self) -> float:
        """When a link will have been silent for too long; must not be missed though the machine sleeps till then."""

    def send(self, frames: Sequence[bytes], now: float) -> Link | None:
        """Frames from the TAP, all that `Tally.outward` let through; call only while hungry. The link to flush."""

    def apply(self, settings: Settings, now: float) -> None:
        """From now on these settings."""

    def counted(self) -> dict[str, Any]:
        """What it knows of `messages.Counters`."""

    def leave(self) -> None:
        """Say that we go, if there is a way to say it."""


def silence(seconds: float) -> DialError:
    """A link is dead."""
    return DialError(
        N_("nothing came from the hub for {seconds:.0f} s; the connection is held to be cut"), seconds=seconds
    )
