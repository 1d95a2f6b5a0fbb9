"""Streams and probes between lab hosts, with sockets of this process that live on those hosts."""

import contextlib
import hashlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Self

from lab.net import Host, LabError
from lab.wait import until

CHUNK: Final = 1 << 18  # bytes a send
SILENCE_S: Final = 30.0  # a stream that moves nothing for so long has failed
BLOCK: Final = hashlib.sha256(b"ukihashi").digest() * (CHUNK // 32)  # nothing that compresses to nothing


def stream(
    sender: Host,
    receiver: Host,
    address: str,
    *,
    seconds: float = 0.0,
    least: int = 0,
    over: Callable[[], bool] = lambda: True,
    moved: Callable[[int], None] = lambda _: None,
) -> int:
    """One TCP stream from `sender` to `receiver` at `address`, checked by SHA-256; gives the bytes that arrived.

    It lasts for `seconds`, and longer until `least` bytes are sent and `over` says so. `moved` is told the bytes of
    each piece that arrived, from the calling thread. Raises `LabError` if it fails.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.inside():
        listener = socket.create_server((address, 0), family=family)
    with sender.inside():
        out = socket.socket(family)
    sent = hashlib.sha256()

    def send() -> None:
        end = time.monotonic() + seconds
        for number in itertools.count():
            piece = struct.pack("!Q", number) + BLOCK[8:]
            out.sendall(piece)
            sent.update(piece)
            if time.monotonic() >= end and (number + 1) * CHUNK >= least and over():
                break
        out.shutdown(socket.SHUT_WR)

    with listener, out:
        listener.settimeout(SILENCE_S)
        out.settimeout(SILENCE_S)
        out.connect((address, listener.getsockname()[1]))
        inside, _peer = listener.accept()
        inside.settimeout(SILENCE_S)
        thread = threading.Thread(target=_quietly(send), daemon=True)
        thread.start()
        got, total = hashlib.sha256(), 0
        with inside:
            try:
                while piece := inside.recv(CHUNK):
                    got.update(piece)
                    total += len(piece)
                    moved(len(piece))
            except OSError as error:
                raise LabError(f"the stream stopped after {total} bytes: {error}") from error
        thread.join(SILENCE_S)
    if got.digest() != sent.digest():
        raise LabError(f"the stream arrived altered ({total} bytes)")
    return total


def _quietly(work: Callable[[], None]) -> Callable[[], None]:
    """A thread's failure shows as a short stream at the other end; its trace would only be noise."""

    def run() -> None:
        with contextlib.suppress(OSError):
            work()

    return run


class Probe:
    """Numbered UDP datagrams every `period_s` from one host to another; tells for how long none got through."""

    def __init__(self, sender: Host, receiver: Host, address: str, *, period_s: float = 0.01) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with receiver.inside():
            self._in = socket.socket(family, socket.SOCK_DGRAM)
        self._in.bind((address, 0))
        with sender.inside():
            self._out = socket.socket(family, socket.SOCK_DGRAM)
        self._target = (address, self._in.getsockname()[1])
        self._period = period_s
        self._end = threading.Event()
        self.arrived: Final[list[tuple[float, int]]] = []  # (when it arrived, its number); monotonic seconds
        self.sent: Final[list[float]] = []  # when each number was sent
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._send)]

    def __enter__(self) -> Self:
        self._in.settimeout(0.2)
        for thread in self._threads:
            thread.start()
        until(lambda: self.arrived, seconds=10.0, what="the first probe arriving")
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(2.0)
        self._in.close()
        self._out.close()

    def flows_again(self, since: float, *, seconds: float = 60.0) -> float:
        """Wait for the first arrival of a probe that was sent after `since` (monotonic); seconds from `since` to it."""

        def look() -> float | None:
            return next((at for at, number in self.arrived if self.sent[number] > since), None)

        return until(look, seconds=seconds, what="a probe arriving") - since

    def _send(self) -> None:
        while not self._end.wait(self._period):
            number = len(self.sent)
            self.sent.append(time.monotonic())
            with contextlib.suppress(OSError):  # no route, no buffer: a lost probe like any other
                self._out.sendto(struct.pack("!Q", number), self._target)

    def _receive(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                data = self._in.recv(64)
                self.arrived.append((time.monotonic(), struct.unpack("!Q", data)[0]))
