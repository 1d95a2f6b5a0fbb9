"""What the service manager is told, and what it hands over: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

One that understands the protocol is named in the environment (systemd; podman too). Without it nothing happens.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

NOTIFY: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = ("WATCHDOG_USEC", "WATCHDOG_PID")
LISTEN: Final = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")
FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
PATIENCE_S: Final = 2.0  # for a manager whose queue is full


class Notifier:
    """Tells the manager how this process is. Each message opens its own socket: there is none for a child to inherit.

    Only the process that the manager started is heard (`NotifyAccess=main`), also after it has become another program.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address: Final = _address(environ.get(NOTIFY, ""))
        self.watchdog_s: Final = _watchdog_s(environ) if self._address else None
        """Seconds within which `alive` is wanted, again and again; None: it isn't."""

    @property
    def is_heard(self) -> bool:
        """There is a manager that wants to know."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """It serves, for the first time or after `reloading`."""
        self._tell("READY=1", f"MAINPID={os.getpid()}", _status(status))

    def status(self, status: str) -> None:
        """A line for people."""
        self._tell(_status(status))

    def reloading(self, status: str) -> None:
        """It reads its settings again, or becomes another program; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", _status(status))

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Everything that has to turn does."""
        if self.watchdog_s is not None:
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        """A manager that is gone or deaf harms nobody here."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(self._address)
            sock.send("\n".join(lines).encode())


def listening(environ: MutableMapping[str, str] = os.environ) -> list[int]:
    """The sockets that the manager has opened for exactly this process; taken once: nobody after us sees them."""
    count, _names, pid = (environ.pop(name, "") for name in LISTEN)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    fds = list(range(FIRST_FD, FIRST_FD + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


def _address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""  # vsock: of virtual machines


def _watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    period, pid = (environ.get(name, "") for name in WATCHDOG)
    if not period.isascii() or not period.isdigit() or pid not in {"", str(os.getpid())}:
        return None
    return int(period) / 1e6 or None


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
