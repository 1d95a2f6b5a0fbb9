"""UDP acceleration of official clients' sessions: a socket for each of them, in the worker (section 15).

Whom we send to: the address the login came from, or wherever the session's own sealed datagrams come from; never an
address that somebody merely names. Nothing is ever answered, so nothing can be amplified.
"""

import random
import resource
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ukihashi.ether.mss import clamp
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import READ, Loop
from ukihashi.net.udp import UdpLane, open_udp
from ukihashi.session.udp_drops import WORDS
from ukihashi.session.udp_path import UdpPath, Where
from ukihashi.wire.udp import IV_LENGTH, UdpEnd, UdpGrant, UdpOffer, mss

NO_UDP: Final[dict[str, Any]] = {"udp": False, "udp_frames_in": 0, "udp_frames_out": 0, "udp_dropped": {}}


@dataclass(frozen=True, slots=True)
class SavedUdp:
    """What another process needs to go on with a path. The peer notices nothing but a short silence."""

    end: UdpEnd
    local: tuple[Any, ...]
    peer: tuple[Any, ...]
    began: float
    newest: int


class UdpSockets:
    """Those of a worker: which ports are taken, and how many there may be."""

    def __init__(self, loop: Loop, limits: Limits) -> None:
        self.loop = loop
        self.limits = limits
        self.taken: set[Where] = set()

    def grant(
        self, offer: UdpOffer, *, local: Where, peer: Where, encrypted: bool
    ) -> tuple["UdpPort", UdpGrant] | None:
        """A port of a session's own, and what to tell its client. None: not allowed, or none is free.

        Args:
            local, peer: the two ends of the TCP connection that logs in.
        """
        limits = self.limits
        if not limits.udp_acceleration or len(self.taken) >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4:
            return None
        for port in range(limits.udp_first, limits.udp_last + 1):  # the first free one, as peers do it
            sock = self._bind((local[0], port, *local[2:]))
            if sock is not None:
                grant = UdpGrant.fresh(port, secrets.token_bytes, encrypted=encrypted, fast=offer.fast)
                there = (peer[0], offer.port, *peer[2:])
                return self._plug(sock, UdpEnd.server(offer, grant), there), grant
        return None

    def restore(self, saved: SavedUdp) -> "UdpPort | None":
        """Go on with a path; None if its port is somebody else's now."""
        sock = self._bind(tuple(saved.local))
        if sock is None:
            return None
        port = self._plug(sock, saved.end, tuple(saved.peer), saved.began)
        port.lane.path.newest = saved.newest
        return port

    def _bind(self, where: Where) -> socket.socket | None:
        if where in self.taken:
            return None
        try:
            sock = open_udp(where)
        except OSError:
            return None
        self.taken.add(where)
        return sock

    def _plug(self, sock: socket.socket, end: UdpEnd, there: Where, began: float | None = None) -> "UdpPort":
        path = UdpPath(
            end,
            there,
            self.loop.now,
            first_iv=secrets.token_bytes(IV_LENGTH),
            chance=random.random,  # spreads keep-alives, pads
            began=began,
        )
        return UdpPort(self, UdpLane(sock, path), end)


class UdpPort:
    """One session's path and socket in the worker's loop."""

    def __init__(self, owner: UdpSockets, lane: UdpLane, end: UdpEnd) -> None:
        self._owner = owner
        self._loop = owner.loop
        self._end = end
        self._local = lane.local
        self._mss = mss(6 if ":" in self._local[0] else 4, encrypted=end.encrypted)
        self._take: Callable[[Sequence[bytes], float], object] | None = None
        self.lane = lane
        self._loop.watch(lane.fd, READ, self._on_readable)
        self._timer = self._loop.at(lane.path.due_at, self._on_timer)

    def deliver_to(self, take: Callable[[Sequence[bytes], float], object]) -> None:
        """From now on frames of the member go to `take`."""
        self._take = take

    @property
    def is_ready(self) -> bool:
        """Frames to the member shall go this way now."""
        return self.lane.path.is_ready(self._loop.now)

    def send(self, frames: Sequence[bytes]) -> list[bytes]:
        """Send them; gives those that must go by TCP."""
        return self.lane.send(frames, self._loop.now)

    def clamp(self, frames: list[bytes]) -> list[bytes]:
        """TCP connections through the session are told to make segments that fit (15.4)."""
        return clamp(frames, self._mss)

    @property
    def frames_dropped(self) -> Counter[str]:
        """Frames of the session that were dropped here, by reason; what strangers send is none."""
        return Counter({reason: count for reason, count in self.lane.drops.items() if reason in WORDS})

    def row(self) -> dict[str, Any]:
        """For listings."""
        lane = self.lane
        return {
            "udp": self.is_ready,
            "udp_frames_in": lane.frames_in,
            "udp_frames_out": lane.frames_out,
            "udp_dropped": dict(lane.drops),
        }

    def save(self) -> SavedUdp:
        """Its value; it is closed here."""
        path = self.lane.path
        saved = SavedUdp(self._end, self._local, path.peer, path.began, path.newest)
        self.close()
        return saved

    def close(self) -> None:
        """Let go of the port; a second call does nothing."""
        if self.lane.fd < 0:
            return
        self._timer.cancel()
        self._loop.forget(self.lane.fd)
        self.lane.close()
        self._owner.taken.discard(self._local)

    def _on_readable(self, _events: int) -> None:
        now = self._loop.now
        frames = self.lane.receive(now)
        if frames and self._take is not None:
            self._take(frames, now)

    def _on_timer(self) -> None:
        self.lane.tick(self._loop.now)
        self._timer = self._loop.at(self.lane.path.due_at, self._on_timer)
