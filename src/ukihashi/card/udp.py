"""UDP acceleration at an official hub: the socket that a login offers, and the path once the hub has taken it."""

import random
import socket
from typing import Any, Final

from ukihashi.card.clock import clock
from ukihashi.net.udp import UdpLane
from ukihashi.session.udp_path import UdpPath, Where
from ukihashi.wire.udp import IV_LENGTH, UdpEnd, UdpGrant, UdpOffer

_chance: Final = random.SystemRandom()


class CardLane(UdpLane):
    """The path of a session, beside its links."""

    @property
    def is_ready(self) -> bool:
        """It takes frames now."""
        return self.path.is_ready(clock())

    @property
    def due_at(self) -> float:
        """When `tick` is wanted."""
        return self.path.due_at

    def counted(self) -> dict[str, Any]:
        """As in `messages.Counters`."""
        return {
            "udp": self.is_ready,
            "udp_frames_in": self.frames_in,
            "udp_frames_out": self.frames_out,
            "udp_dropped": dict(self.drops),
        }


class UdpOffered:
    """A socket (made by the dialler, who may mark its packets) and the keys that go with it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket: socket.socket | None = sock
        self.offer: Final = UdpOffer.fresh(sock.getsockname()[1], _chance.randbytes)

    def granted(self, grant: UdpGrant, hub: Where, now: float) -> CardLane | None:
        """The path; `hub`: the other end of the TCP connection. None: the socket is gone already."""
        sock, self._socket = self._socket, None
        if sock is None:
            return None
        end = UdpEnd.client(self.offer, grant)
        first_iv = _chance.randbytes(IV_LENGTH)
        there = (hub[0], grant.port, *hub[2:])
        return CardLane(sock, UdpPath(end, there, now, first_iv=first_iv, chance=random.random))

    def close(self) -> None:
        """The hub did not take it; nothing happens if it did."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
