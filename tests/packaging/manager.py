"""A service manager for tests: starts a program as systemd does, hears what it says, and holds listening sockets."""

import array
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from lab.net import Host, Process

PATIENCE_S = 40.0
# sets what only the process itself can know, puts the sockets in their places, and becomes the program
BECOME = """
import os, sys
fds = [int(word) for word in sys.argv[1].split(",") if word]
high = [os.dup(fd) for fd in fds if os.dup2(fd, fd + 100) or True]
for place, fd in enumerate(fds):
    os.dup2(fd + 100, 3 + place)
for fd in {*high, *(fd + 100 for fd in fds)} - set(range(3, 3 + len(fds))):
    os.close(fd)
os.environ["WATCHDOG_PID"] = str(os.getpid())
if fds:
    names = ":".join(["https"] * len(fds))
    os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Hears one service. `said`: (seconds since its start, sender's pid, {name: value})."""

    def __init__(self, *, watchdog_s: float = 2.0) -> None:
        self.folder = Path(mkdtemp(prefix="ukm"))  # unlike pytest's, open to accounts without rights
        self.folder.chmod(0o711)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind(str(self.folder / "notify"))
        (self.folder / "notify").chmod(0o777)
        self._sock.setblocking(False)
        self.watchdog_s = watchdog_s
        self.said: list[tuple[float, int, dict[str, str]]] = []
        self._popen: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()

    @property
    def env(self) -> dict[str, str]:
        """For the program."""
        return {"NOTIFY_SOCKET": self._sock.getsockname(), "WATCHDOG_USEC": str(int(self.watchdog_s * 1e6))}

    def argv(self, argv: Sequence[str], sockets: Sequence[socket.socket] = ()) -> list[str]:
        """The command line that becomes `argv` with `sockets` handed over."""
        return [sys.executable, "-c", BECOME, ",".join(str(sock.fileno()) for sock in sockets), *argv]

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path, sockets: Sequence[socket.socket] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start a program on this machine; its output goes into `log`."""
        self.said.clear()
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                self.argv(argv, sockets),
                env={**os.environ, **env, **self.env},
                stdout=file,
                stderr=file,
                pass_fds=[sock.fileno() for sock in sockets],
            )
        return self._popen

    def start_on(self, host: Host, argv: Sequence[str], env: Mapping[str, str], log: str) -> Process:
        """Start a program on a host of the laboratory."""
        self.said.clear()
        return host.spawn(self.argv(argv), log=log, env={**env, **self.env})

    def hear(self, seconds: float = 0.0) -> None:
        """Take what comes within so long."""
        until = time.monotonic() + seconds
        while select.select([self._sock], [], [], max(0.0, until - time.monotonic()))[0]:
            data, extra, _flags, _address = self._sock.recvmsg(65536, socket.CMSG_SPACE(12))
            pid = next(struct.unpack("3i", bytes(array.array("B", one[2])[:12]))[0] for one in extra)
            lines = dict(line.split("=", 1) for line in data.decode().split("\n"))
            self.said.append((time.monotonic() - self._began, pid, lines))

    def values(self, name: str) -> list[str]:
        """Of all messages."""
        return [lines[name] for _when, _pid, lines in self.said if name in lines]

    def wait_for(self, look: Callable[["Manager"], Any], what: str, seconds: float = PATIENCE_S) -> None:
        """Hear until `look` is true."""
        until = time.monotonic() + seconds
        while not look(self):
            assert time.monotonic() < until, f"not heard within {seconds:g} s: {what}; {self.said}"
            self.hear(0.05)

    def wait_ready(self, times: int = 1) -> None:
        """Hear until it has said so often that it is ready."""
        self.wait_for(lambda self: len(self.values("READY")) >= times, "READY")

    def count_alive(self, seconds: float) -> int:
        """How often it says so within so many seconds."""
        before = len(self.values("WATCHDOG"))
        self.hear(seconds)
        return len(self.values("WATCHDOG")) - before

    def close(self) -> None:
        """End what still runs."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait(10)
        self._sock.close()
        shutil.rmtree(self.folder)
