"""Signals as bytes to read: what a supervisor heeds happens in its loop and nowhere else."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ukihashi.hub.upgrade import HEEDED


class Signals:
    """HEEDED, while `heard`. Watch `fileno`."""

    def __init__(self) -> None:
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._wake.setblocking(False)

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """What a child must not keep."""
        return self._wake, self._waker

    def fileno(self) -> int:
        """Readable when one came."""
        return self._wake.fileno()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """From here on they end nobody."""
        old_fd = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, lambda *_: None) for number in HEEDED}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)  # an upgrade held them back until somebody would hear them
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)

    def came(self) -> set[int]:
        """Their numbers, each once."""
        try:
            return set(self._wake.recv(4096))
        except BlockingIOError:
            return set()
