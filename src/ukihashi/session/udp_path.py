"""The UDP path of a session beside its TCP connections: when it may carry frames, when it is dead (section 15.3).

Time is an argument, chance too; seconds of one clock that never goes back. On the wire time is in milliseconds since
the path began, so a peer learns nothing about the machine.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ukihashi.session.udp_drops import FOREIGN, LATE, UNREADABLE
from ukihashi.wire.udp import UdpCodec, UdpEnd, frame_of

Where = tuple[Any, ...]  # an address as sockets name it

STABLE_S: Final = 10.0  # of continuous reception before frames are sent this way
WINDOW_MS: Final = 30_000  # what is older than the newest datagram by more is dropped: a late one, or a replay


class Pace(NamedTuple):
    """How often to speak, and which silence is death. Seconds."""

    shortest: float  # between two keep-alives
    longest: float
    dead: float  # without an authentic datagram with a fresh echo


NORMAL: Final = Pace(1.0, 3.0, 9.0)
FAST: Final = Pace(0.5, 1.0, 2.1)  # where both ends know it


class UdpPath:
    """One end. It sends nothing: callers send what `keepalive` and `encode` give, to `peer`."""

    def __init__(
        self,
        end: UdpEnd,
        peer: Where,
        now: float,
        *,
        first_iv: bytes,
        chance: Callable[[], float],
        began: float | None = None,
    ) -> None:
        """
        Args:
            peer: where to send to before anything has come: the TCP peer's address and the port it named.
            first_iv: 12 random bytes.  chance: gives a random number in [0, 1).
            began: of a path that goes on in another process; its time goes on.
        """
        self._codec = UdpCodec(end, ip_version=6 if ":" in peer[0] else 4, first_iv=first_iv)
        self._pace = FAST if end.fast else NORMAL
        self._chance = chance
        self._heard = -math.inf  # when a datagram came that showed that the peer hears us
        self._steady_since = now  # since when these come without a gap
        self.began = now if began is None else began
        self.newest = 0  # tick of the peer
        self.peer = peer
        self.due_at = now  # when to send a keep-alive; data in between changes nothing
        self.drops: Counter[str] = Counter()  # datagrams by reason

    @property
    def longest_frame(self) -> int:
        """Bytes; longer frames go by TCP."""
        return self._codec.longest_frame

    def is_ready(self, now: float) -> bool:
        """Frames shall go this way."""
        return now - self._heard <= self._pace.dead and now - self._steady_since >= STABLE_S

    def give_up(self) -> None:
        """Nothing could be sent: not ready before it has been steady anew."""
        self._heard = -math.inf

    def keepalive(self, now: float) -> bytes:
        """A datagram without a frame; call when `due_at` has come."""
        pace = self._pace
        self.due_at = now + pace.shortest + self._chance() * (pace.longest - pace.shortest)
        return self.encode(b"", now)

    def encode(self, frame: bytes, now: float) -> bytes:
        """A datagram with a frame of at most `longest_frame` bytes."""
        return self._codec.encode(self._tick(now), self.newest, frame, self._chance())

    def receive(self, data: bytes, source: Where, now: float) -> bytes:
        """Take a datagram; give its frame, b"" if it has none or is dropped. A forged one changes only a counter."""
        came = self._codec.decode(data)
        if came is None:
            self.drops[FOREIGN] += 1
            return b""
        if came.tick + WINDOW_MS < self.newest:
            self.drops[LATE] += 1
            return b""
        if came.tick > self.newest:  # never by an older one: a replay must not lead us astray
            self.newest = came.tick
            self.peer = source
        self._note(came.echo, now)
        frame = frame_of(came)
        if frame is None:
            self.drops[UNREADABLE] += 1
            return b""
        return frame

    def _note(self, echo: int, now: float) -> None:
        """Only a fresh echo shows that the way there works too; peers would believe in one of 30 s ago."""
        age_s = (self._tick(now) - echo) / 1000
        if not echo or not 0 <= age_s <= self._pace.dead:
            return
        if now - self._heard > self._pace.dead:
            self._steady_since = now
        self._heard = now

    def _tick(self, now: float) -> int:
        return int((now - self.began) * 1000) + 1
