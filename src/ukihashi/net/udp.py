"""The socket of a UDP path: datagrams of `session.udp_path`, sent and read in batches. The same for hub and card.

Nothing waits here. A frame for which the socket has no room is dropped, as on any line that is too narrow: that is what
tells the connections inside to slow down.
"""

import socket
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ukihashi.session.udp_drops import FULL, UNREAD
from ukihashi.session.udp_path import UdpPath, Where
from ukihashi.wire.udp import MAX_DATAGRAM

BATCH: Final = 64  # datagrams of one read; whoever floods one socket waits behind all others after so many
BUFFER: Final = 1 << 20  # bytes each way; without CAP_NET_ADMIN at most net.core.rmem_max and wmem_max

_SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h; Python has no names for these
_SO_RCVBUFFORCE: Final = 33
_SO_MARK: Final = 36
_SO_MEMINFO: Final = 55
_DROPS: Final = 8  # place in what SO_MEMINFO gives: SK_MEMINFO_DROPS of sock_diag(7)
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_DONT: Final = 0


def open_udp(where: Where, *, mark: int = 0) -> socket.socket:
    """A socket bound to `where` that never blocks. `mark`: firewall mark of its packets; 0: none. Raises: OSError.

    A narrow way cuts datagrams into pieces instead of refusing them: the peer would never learn why nothing comes.
    """
    six = ":" in where[0]
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        for forced, polite in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, polite, BUFFER)
        with suppress(OSError):
            if six:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _DONT)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DONT)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


class UdpLane:
    """One end of a path with its socket, which belongs to it from now on."""

    def __init__(self, sock: socket.socket, path: UdpPath) -> None:
        self._socket = sock
        self.local: Final[Where] = sock.getsockname()
        self.path = path
        self.frames_in = self.frames_out = 0
        self._full = 0  # frames

    @property
    def fd(self) -> int:
        """Readable when something has come; -1 once closed."""
        return self._socket.fileno()

    @property
    def drops(self) -> Counter[str]:
        """Datagrams that came, and frames that should go, by the reason for which they were dropped."""
        drops = Counter(self.path.drops)
        drops[FULL] += self._full
        drops[UNREAD] += kernel_drops(self._socket)
        return +drops

    def send(self, frames: Sequence[bytes], now: float) -> list[bytes]:
        """Send frames; gives those that must go by TCP: too long for one datagram, or refused by the kernel.

        A kernel that refuses (no route, a firewall on this machine) ends the path until it has been steady anew.
        """
        path, longest, rest = self.path, self.path.longest_frame, list[bytes]()
        send, encode, peer = self._socket.sendto, path.encode, path.peer
        for index, frame in enumerate(frames):
            if len(frame) > longest:
                rest.append(frame)
                continue
            try:
                send(encode(frame, now), peer)
            except BlockingIOError:
                self._full += len(frames) - index
                break
            except OSError:
                path.give_up()
                rest += frames[index:]
                break
            self.frames_out += 1
        return rest

    def receive(self, now: float) -> list[bytes]:
        """Frames of what has come, at most BATCH datagrams."""
        receive, take, frames = self._socket.recvfrom, self.path.receive, list[bytes]()
        with suppress(OSError):  # nothing more
            for _ in range(BATCH):
                frame = take(*receive(MAX_DATAGRAM), now)
                if frame:
                    frames.append(frame)
        self.frames_in += len(frames)
        return frames

    def tick(self, now: float) -> None:
        """Speak, if it is time to."""
        if now >= self.path.due_at:
            with suppress(OSError):  # the peer will miss it, and we its echo
                self._socket.sendto(self.path.keepalive(now), self.path.peer)

    def close(self) -> None:
        """Let go; a second call does nothing."""
        self._socket.close()


def kernel_drops(sock: socket.socket) -> int:
    """Datagrams that came while the socket's buffer was full; 0 if this kernel doesn't tell."""
    size = 4 * (_DROPS + 1)
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, size)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", told, 4 * _DROPS)[0]) if len(told) == size else 0
