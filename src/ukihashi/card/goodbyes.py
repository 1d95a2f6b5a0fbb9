"""Sockets on which we have said goodbye: read away what still comes, until the hub closes too or a moment has passed.

Closing with unread bytes would make the kernel send a reset, which may overtake the goodbye (trap T1).
"""

import select
import socket
from typing import Final

LINGER: Final = 0.5  # seconds a closed link may take to close at the hub's end too


class Goodbyes:
    """They are watched for reading in the loop's own epoll."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._waiting: dict[int, tuple[socket.socket, float]] = {}  # by descriptor; until when

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, fd: int) -> bool:
        return fd in self._waiting

    def add(self, sock: socket.socket, now: float) -> None:
        """A socket that the loop watches already; it is closed here in the end."""
        self._poll.modify(sock.fileno(), select.EPOLLIN)
        self._waiting[sock.fileno()] = (sock, now + LINGER)

    @property
    def due_at(self) -> float:
        """When `tick` is wanted."""
        return min((until for _, until in self._waiting.values()), default=float("inf"))

    def read(self, fd: int) -> None:
        """Something came, or the end."""
        try:
            if self._waiting[fd][0].recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(fd)

    def tick(self, now: float) -> None:
        """Close those that have had their moment."""
        for fd in [fd for fd, (_, until) in self._waiting.items() if now >= until]:
            self._close(fd)

    def _close(self, fd: int) -> None:
        sock, _ = self._waiting.pop(fd)
        self._poll.unregister(fd)
        sock.close()
