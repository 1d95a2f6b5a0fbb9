"""Many small UDP packets, sent and counted: the load of `./run bench relay`, in plain Python.

    python -m bench.blast receive PORT IDLE_S              says "ready", then one JSON line
    python -m bench.blast send ADDRESS PORT BYTES SECONDS RATE     one JSON line; RATE 0: as fast as it goes

`sendmmsg` and `recvmmsg` of the C library (through ctypes: Python has neither) take 64 packets a call, so that the
load tool costs little beside what it measures. Each run has a port of its own: what comes late is nobody's.
"""

import contextlib
import ctypes
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

BATCH: Final = 64  # packets a call
STEP_S: Final = 0.0005  # a paced sender sends so often what is due
LARGEST: Final = 2048  # bytes of a packet
SOCKET_BYTES: Final = 16 << 20
SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
FIRST_S: Final = 10.0  # the first packet comes within so long, or none does
MSG_WAITFORONE: Final = 0x10000  # linux/socket.h


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Iovec)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


class Packets:
    """Room for a batch of packets of one size, as the C library wants it."""

    def __init__(self, size: int) -> None:
        self._room = [ctypes.create_string_buffer(size) for _ in range(BATCH)]  # kept: the structures only point there
        self._vectors = (_Iovec * BATCH)(*(_Iovec(ctypes.addressof(room), size) for room in self._room))
        self.headers = (_Mmsghdr * BATCH)()
        for header, vector in zip(self.headers, self._vectors, strict=True):
            header.header.vector = ctypes.pointer(vector)
            header.header.vector_length = 1


class Sent(NamedTuple):
    """What a sender did."""

    sent: int  # packets the kernel took
    seconds: float


class Received(NamedTuple):
    """What a receiver saw."""

    received: int
    seconds: float  # from the first to the last

    @property
    def per_s(self) -> float:
        """Packets a second; 0 for fewer than two."""
        return (self.received - 1) / self.seconds if self.received > 1 and self.seconds > 0 else 0.0


def due(rate: float, since: float, sent: int) -> int:
    """How many packets are to be sent now, at most a batch: what `rate` a second asks for. 0 = without a limit."""
    return BATCH if not rate else max(0, min(BATCH, int(rate * (since + STEP_S)) - sent))


def send(
    sock: socket.socket,
    size: int,
    seconds: float,
    rate: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Send packets of `size` bytes over a connected socket. What a full queue refuses is tried again."""
    packets, sent, begin = Packets(size), 0, clock()
    call, headers, fd = ctypes.CDLL(None, use_errno=True).sendmmsg, packets.headers, sock.fileno()
    while (since := clock() - begin) < seconds:
        count = due(rate, since, sent)
        if count:
            done = call(fd, headers, count, 0)
            sent += max(done, 0)
        if rate and count < BATCH:
            sleep(STEP_S)
    return Sent(sent, clock() - begin)


def receive(sock: socket.socket, idle_s: float) -> Received:
    """Count packets until none came for `idle_s`."""
    packets, received, first, last = Packets(LARGEST), 0, 0.0, 0.0
    call, headers, fd = ctypes.CDLL(None, use_errno=True).recvmmsg, packets.headers, sock.fileno()
    _patience(sock, FIRST_S)
    while (count := call(fd, headers, BATCH, MSG_WAITFORONE, None)) > 0:
        last = time.monotonic()
        if not received:
            first = last
            _patience(sock, idle_s)
        received += count
    return Received(received, last - first)


def _patience(sock: socket.socket, seconds: float) -> None:
    """The kernel's own time-out: the socket stays a blocking one, which recvmmsg wants."""
    whole = int(seconds)
    timeval = whole.to_bytes(8, sys.byteorder) + int((seconds - whole) * 1e6).to_bytes(8, sys.byteorder)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def main(words: list[str]) -> int:
    """See the top."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if words[0] == "receive":
            with contextlib.suppress(PermissionError):  # the counter itself must not lose any
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BYTES)
            sock.bind(("0.0.0.0", int(words[1])))
            print("ready", flush=True)
            print(json.dumps(receive(sock, float(words[2]))._asdict()), flush=True)
        else:
            sock.connect((words[1], int(words[2])))
            print(json.dumps(send(sock, int(words[3]), float(words[4]), float(words[5]))._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
