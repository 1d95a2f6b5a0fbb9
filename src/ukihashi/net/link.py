"""What every TCP connection that carries frames needs from the kernel (measured reasons: docs/architecture.md)."""

import contextlib
import fcntl
import socket
import struct
import termios
from typing import Final

UNSENT: Final = 256 * 1024  # bytes the kernel may hold unsent; more would only be delay (D12)
DEAD_AFTER: Final = 15.0  # seconds without acknowledgement after which the kernel gives the connection up (D7)

STALLED_MS: Final = 300  # without any acknowledgement, or two round trips if these are longer

_INT: Final = struct.Struct("i")
_TCP_USER_TIMEOUT: Final = 18  # linux/tcp.h
_TCP_NOTSENT_LOWAT: Final = 25
_TCP_INFO: Final = struct.Struct("=3xB52xI8xI")  # linux/tcp.h: tcpi_probes, tcpi_last_ack_recv (ms), tcpi_rtt (us)


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


def is_stalled(sock: socket.socket) -> bool:
    """Does the peer take nothing at all, rather than little? Ask about a socket that is full.

    A slow line acknowledges what it carries all the time. A line that has gone dark acknowledges nothing, and a peer
    that stands still lets the kernel probe its closed window (tcp(7), TCP_INFO).
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        probes, last_ack_ms, rtt_us = _TCP_INFO.unpack(info)
    except (OSError, struct.error):  # no TCP socket, or a kernel that tells less
        return False
    return bool(probes or last_ack_ms > max(STALLED_MS, 2 * rtt_us // 1000))


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were written and that the other machine's kernel has not acknowledged (tcp(7), SIOCOUTQ)."""
    room = bytearray(_INT.size)
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ, room)
    except OSError:  # no such socket
        return 0
    found: int = _INT.unpack(room)[0]
    return found
