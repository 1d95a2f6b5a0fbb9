"""The data process in a thread, a socket pair for its TAP, real TCP and TLS to a fake hub."""

import contextlib
import socket
import threading
from typing import Any, TypeVar

from lab.fake_hub import FakeHub
from ukihashi.auth.password import hash_password
from ukihashi.card.data import DataProcess
from ukihashi.card.messages import (
    MAX_MESSAGE,
    AnyMessage,
    Ask,
    Asked,
    Connect,
    Counters,
    Opened,
    Ready,
    Settings,
    Stop,
    decode,
    encode,
)
from ukihashi.tap.device import Tap

Kind = TypeVar("Kind")
CALM = Settings(keepalive=5.0, suspect=60.0, dead=60.0)  # nothing happens by itself
QUICK = Settings(keepalive=0.5, suspect=1.0, dead=1.5)  # a tenth of what users have
SECONDS = 10.0


def frame(number: int) -> bytes:
    return bytes.fromhex("ffffffffffff 02000000000a 88b5") + number.to_bytes(4) + bytes(50)


class Rig:
    """One data process; the test is its dialler and the kernel behind its TAP."""

    def __init__(self, hub: FakeHub, *, offload: bool = False) -> None:
        """`offload`: an offload header goes before each frame between data process and kernel."""
        self.hub = hub
        self.attempt = 0
        self.beside: list[socket.socket] = []  # passed with each connection
        self.kernel, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(SECONDS)
        self.control.settimeout(SECONDS)
        inner.setblocking(False)
        self._sockets = [self.kernel, inner, self.control, theirs]
        self.process = DataProcess(theirs, Tap(inner.fileno(), "tap", offload=offload))
        self._thread = threading.Thread(target=self.process.run, daemon=True)
        self._thread.start()
        self.hear(Ready)

    def tell(self, message: AnyMessage) -> None:
        self.control.send(encode(message))

    def hear(self, kind: type[Kind]) -> Kind:
        """The next message, which must be of that kind."""
        message = decode(self.control.recv(MAX_MESSAGE))
        assert isinstance(message, kind), message
        return message

    def connect(self, opened: Opened | None = None, /, **changes: Any) -> int:
        """An attempt: a login, or an exact resume of `opened`. Its number."""
        self.attempt += 1
        fields: dict[str, Any] = {
            "attempt": self.attempt,
            "location": f"{self.hub.address}:{self.hub.port}",
            "server_name": self.hub.address,
            "hub": "LAN",
            "user": "alice",
            "trust": "pin",
            "pin": self.hub.pin,
            "password_hash": hash_password("alice", "wonderland"),
            "settings": CALM,
        }
        if opened is not None:
            fields |= {"session_key": opened.session_key, "extension": 1, "exact": True}
        with socket.create_connection((self.hub.address, self.hub.port)) as sock:
            passed = [sock.fileno(), *(one.fileno() for one in self.beside)]
            socket.send_fds(self.control, [encode(Connect(**fields | changes))], passed)
        return self.attempt

    def join(self, **changes: Any) -> Opened:
        self.connect(**changes)
        return self.hear(Opened)

    def resume(self, opened: Opened) -> Opened:
        number = self.connect(opened)
        assert self.hear(Asked).attempt == number
        again = self.hear(Opened)
        assert (again.attempt, again.resumed) == (number, True)
        return again

    def counters(self) -> Counters:
        self.tell(Ask())
        return self.hear(Counters)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.kernel.send(frame(number))

    def reaches_hub(self, *numbers: int) -> None:
        """These frames are the next ones that the hub gets, and none is there twice."""
        assert [self.hub.frames.get(timeout=SECONDS) for _ in numbers] == [frame(number) for number in numbers]

    def reaches_kernel(self, *numbers: int) -> None:
        assert [self.kernel.recv(2000) for _ in numbers] == [frame(number) for number in numbers]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.tell(Stop())
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        for sock in self._sockets:
            sock.close()
