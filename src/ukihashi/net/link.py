"""What every TCP connection that carries frames needs from the kernel (measured reasons: docs/architecture.md)."""

import contextlib
import socket
from typing import Final

UNSENT: Final = 256 * 1024  # bytes the kernel may hold unsent; more would only be delay (D12)
DEAD_AFTER: Final = 15.0  # seconds without acknowledgement after which the kernel gives the connection up (D7)

_TCP_USER_TIMEOUT: Final = 18  # linux/tcp.h
_TCP_NOTSENT_LOWAT: Final = 25


def tune(sock: socket.socket, *, dead_after: float = DEAD_AFTER) -> None:
    """Set up a connected TCP socket for a tunnel: small writes at once, little unsent, dead links noticed.

    On what is no TCP socket (a `socketpair` to a helper program) only non-blocking mode is set.
    """
    sock.setblocking(False)
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # kernels of some sandboxes know neither; the session's own timers remain
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(dead_after * 1000))
