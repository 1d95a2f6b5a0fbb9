"""Applications that must not notice a cut: an `ssh` session, a bulk TCP stream; and a watch over what they stand on.

with Shell(a, b, address) as shell, Bulk(a, b, address) as bulk, Steady(a, interface) as steady:
    ...cut whatever there is...
    shell.answers()
    total = bulk.finish()
assert steady.events() == []
"""

import contextlib
import hashlib
import os
import pty
import re
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Final, Self

from lab.flow import BLOCK, CHUNK
from lab.net import Host, LabError
from lab.wait import until

SILENCE_S: Final = 90.0  # an application gives up when nothing has moved for so long


class Bulk:
    """One TCP stream from `sender` to `receiver`, as fast as it goes until `finish`; both ends compute a SHA-256."""

    def __init__(self, sender: Host, receiver: Host, address: str, *, rate: float = 0.0) -> None:
        """`rate`: bytes a second at most, 0 = as fast as it goes."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with receiver.inside():
            self._listener = socket.create_server((address, 0), family=family)
        with sender.inside():
            self._out = socket.socket(family)
        self._rate = rate
        self._end = threading.Event()
        self._sent = hashlib.sha256()
        self._got = hashlib.sha256()
        self.arrived = 0  # bytes so far
        self.error = ""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._send)]
        for sock in (self._listener, self._out):
            sock.settimeout(SILENCE_S)

    def __enter__(self) -> Self:
        self._out.connect(self._listener.getsockname())
        for thread in self._threads:
            thread.start()
        until(lambda: self.arrived, seconds=20.0, what="the first bytes of the stream")
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._out.close()
        self._listener.close()
        for thread in self._threads:
            thread.join(5.0)

    def finish(self) -> int:
        """Let it end; the bytes that arrived. Raises `LabError` if it broke or arrived altered."""
        self._end.set()
        for thread in self._threads:
            thread.join(SILENCE_S)
        if self.error or any(thread.is_alive() for thread in self._threads):
            raise LabError(f"the stream broke after {self.arrived} bytes: {self.error or 'nothing moves'}")
        if self._got.digest() != self._sent.digest():
            raise LabError(f"the stream arrived altered ({self.arrived} bytes)")
        return self.arrived

    def _send(self) -> None:
        begun, total = time.monotonic(), 0
        piece = BLOCK if not self._rate else BLOCK[: max(1, min(CHUNK, int(self._rate / 50)))]
        try:
            while not self._end.is_set():
                self._out.sendall(piece)
                self._sent.update(piece)
                total += len(piece)
                if self._rate:
                    self._end.wait(max(0.0, begun + total / self._rate - time.monotonic()))
            self._out.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = self.error or f"sender: {error}"

    def _receive(self) -> None:
        try:
            inside, _peer = self._listener.accept()
            with inside:
                inside.settimeout(SILENCE_S)
                while piece := inside.recv(CHUNK):
                    self._got.update(piece)
                    self.arrived += len(piece)
        except OSError as error:
            self.error = self.error or f"receiver: {error}"


class Shell:
    """A real `ssh` session with a terminal from one host to a real `sshd` on another."""

    def __init__(self, client: Host, server: Host, address: str, *, port: int = 2222) -> None:
        self._server = server
        self._client = client
        self._address = address
        self._port = port
        self._asked = 0
        self._screen = b""
        self._terminal = -1
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        folder = self._server.folder
        for name in ("ssh-host", "ssh-user"):
            if not (folder / name).exists():
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, timeout=20
                )
        Path("/run/sshd").mkdir(exist_ok=True)
        daemon = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", folder / "ssh-host", "-p", str(self._port)]
        options = [f"AuthorizedKeysFile={folder}/ssh-user.pub", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes"]
        for option in options:
            daemon += ["-o", option]
        self._server.spawn([str(word) for word in daemon], log="sshd").wait_for("Server listening")
        words = ["ssh", "-tt", "-F", "/dev/null", "-i", str(folder / "ssh-user"), "-p", str(self._port)]
        for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"):
            words += ["-o", option]
        ours, theirs = pty.openpty()
        self._terminal = ours
        self.process = subprocess.Popen(
            self._client.inside_argv([*words, f"root@{self._address}", "exec sh"]),
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(ours, False)
        self.answers(seconds=20.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5.0)
        if self._terminal >= 0:
            os.close(self._terminal)

    def answers(self, *, seconds: float = 30.0) -> float:
        """Type a command into the session and wait for its answer; the seconds it took. Raises `LabError`."""
        assert self.process is not None
        self._asked += 1
        begun = time.monotonic()
        os.write(self._terminal, b"echo answer-$((%d + 1000))\n" % self._asked)
        wanted = b"answer-%d" % (self._asked + 1000)

        def look() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise LabError(f"ssh ended: {self._screen[-500:].decode(errors='replace')}")
            with contextlib.suppress(BlockingIOError, OSError):
                self._screen = (self._screen + os.read(self._terminal, 65536))[-65536:]
            return wanted in self._screen

        until(look, seconds=seconds, what="an answer in the ssh session")
        return time.monotonic() - begun


class Steady:
    """Watches an interface, its addresses and its routes by rtnetlink, as `ip monitor` tells them."""

    def __init__(self, host: Host, interface: str) -> None:
        self._process = host.spawn(["ip", "-o", "monitor", "link", "address", "route"], log=f"monitor-{interface}")
        self._host = host
        self.interface = interface

    def __enter__(self) -> Self:
        mark = f"198.51.100.{os.getpid() % 250 + 1}"  # an address that comes and goes shows that it listens

        def listens() -> bool:
            for verb in ("add", "del"):
                self._host.ip(f"addr {verb} {mark}/32 dev lo")
            return re.search(rf"Deleted.* {re.escape(mark)}\b", self._process.output()) is not None

        until(listens, seconds=20.0, what="the watch hearing an address go", step_s=0.1)
        self._begin = len(self._process.output())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def events(self) -> list[str]:
        """What was lost so far: the interface down or gone, an address or a route taken away."""
        lines = self._process.output()[self._begin :].splitlines()
        ours = [line for line in lines if self.interface in line]
        return [line for line in ours if line.startswith("Deleted") or "state DOWN" in line or "NO-CARRIER" in line]
