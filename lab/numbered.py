"""Numbered Ethernet frames between two hosts, each way: what was lost, doubled, reordered, and for how long none came.

    with Numbered(End(card, "uklan"), End(b, "uklan"), rate=500, seed=1) as frames:
        ...                               # whatever happens to the line meanwhile
        result = frames.finish()          # stop sending, wait until no more arrives
    assert result.up.lost == result.down.lost == 0

EtherType 0x88B5 (IEEE 802, local experiments): stream u32 | number u64 | length u16 | CRC-32 u32 | bytes that follow
from the number. Sizes are drawn from the seed. A frame that an interface refuses (it is down, or its queue is full) was
sent all the same as far as the application is concerned: it has a number, and counts as lost.
"""

import array
import bisect
import errno
import hashlib
import random
import socket
import struct
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from lab.net import Host, LabError
from lab.wait import TimeOver, pause, until

ETHERTYPE: Final = 0x88B5
HEADER: Final = struct.Struct("!IQHI")
PRIMER: Final = (1 << 64) - 1  # number of the frames that only make the hub learn
BROADCAST: Final = b"\xff" * 6
SMALLEST, LARGEST = 60, 1514  # bytes of a frame without FCS
FRAMES_MOST: Final = 4_000_000  # of one stream; bounds the memory at 16 bytes each
BLOCK: Final = hashlib.sha256(b"numbered").digest() * 64  # bodies are cut out of it; TLS makes them random anyway
STEP_S: Final = 0.002  # the sender wakes up so often and sends what is due
SO_RCVBUFFORCE: Final = 33
RECEIVE_BYTES: Final = 64 << 20  # the receiver itself must not lose any
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_STATISTICS: Final = 6
SOL_PACKET: Final = 263
TELLS_AGAIN_S: Final = 0.2  # a receiver looks so often whether it shall end


class End(NamedTuple):
    """One end of the line: an interface of a host."""

    host: Host
    interface: str


@dataclass(frozen=True)
class Counts:
    """What became of one stream."""

    sent: int
    refused: int  # of those: the interface took them not
    received: int  # each counted once
    lost: int
    doubled: int
    reordered: int  # came after one with a higher number
    damaged: int
    longest_gap_s: float  # between two arrivals
    primers: int  # frames before the numbered ones, by which the switch learned the sender
    missed: int  # frames our own socket dropped: the figures are worth nothing if not 0

    @property
    def exact(self) -> bool:
        """Each once and in order, and we can tell."""
        return not (self.lost or self.doubled or self.reordered or self.damaged or self.missed)


@dataclass(frozen=True)
class Result:
    """Both streams."""

    up: Counts  # from the first end to the second
    down: Counts

    def total(self, name: str) -> int:
        """The sum of a count over both."""
        return int(getattr(self.up, name)) + int(getattr(self.down, name))


class _Port:
    """A packet socket for our EtherType on an interface, opened again when the interface is made anew."""

    def __init__(self, end: End) -> None:
        self.end: Final = end
        self._socket = self._open()
        self.mac = bytes(self._socket.getsockname()[4])
        self._dropped = 0

    def send(self, frame: bytes) -> bool:
        """False if the interface did not take it."""
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV):
                self._reopen()
            return False
        return True

    def receive(self) -> bytes | None:
        """The next frame that came in; None after a while without."""
        try:
            return self._socket.recv(65535)
        except TimeoutError:
            self._reopen_if_gone()
        except OSError as error:  # ENETDOWN is told once when the interface goes down; it works again when that is up
            if error.errno in (errno.ENXIO, errno.ENODEV):
                self._reopen()
        return None

    def dropped(self) -> int:
        """Frames that came and did not fit into the socket's buffer, so far (the kernel begins anew when asked)."""
        if self._socket.fileno() >= 0:
            self._dropped += struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        return self._dropped

    def close(self) -> None:
        self._socket.close()

    def _open(self) -> socket.socket:
        with self.end.host.inside():
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
            opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            opened.settimeout(TELLS_AGAIN_S)
            opened.bind((self.end.interface, ETHERTYPE))
        except OSError:
            opened.close()
            raise
        return opened

    def _reopen_if_gone(self) -> None:
        try:
            gone = self._socket.getsockname()[0] != self.end.interface
        except OSError:
            gone = True
        if gone:
            self._reopen()

    def _reopen(self) -> None:
        try:
            opened = self._open()
        except OSError:  # not there yet
            pause(STEP_S)
            return
        old, self._socket, self.mac = self._socket, opened, bytes(opened.getsockname()[4])
        old.close()


class Stream:
    """Frames from one port to the other. Threads: one sends, one receives."""

    def __init__(
        self, number: int, source: _Port, target: _Port, *, rate: float, sizes: tuple[int, int], seed: int
    ) -> None:
        self.number: Final = number
        self._source, self._target, self._rate, self._sizes = source, target, rate, sizes
        self._random = random.Random(seed)
        self.sent_at: Final = array.array("d")  # monotonic seconds, by number
        self.arrived_at: Final = array.array("d")  # the same; 0.0 = not arrived
        self.refused = self.received = self.doubled = self.reordered = self.damaged = 0
        self.bytes_sent = 0
        self.longest_gap_s = 0.0
        self.last_arrival = 0.0
        self.primers = 0
        self.primed = threading.Event()
        self._highest = -1
        self._stop_sending, self._stop_receiving = threading.Event(), threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._receiver = threading.Thread(target=self._receive, daemon=True)

    def listen(self) -> None:
        """Begin to receive."""
        self._receiver.start()

    def prime(self) -> None:
        """One frame to everybody, which makes the switch learn the sender's station."""
        self.primers += 1
        self._source.send(self._frame(PRIMER, SMALLEST, BROADCAST))

    def begin(self) -> None:
        """Begin to send."""
        self._sender.start()

    def stop_sending(self) -> None:
        """No more frames."""
        self._stop_sending.set()
        if self._sender.is_alive():
            self._sender.join(5.0)

    def end(self) -> None:
        """Stop both."""
        self.stop_sending()
        self._stop_receiving.set()
        if self._receiver.is_alive():
            self._receiver.join(5.0)

    def counts(self) -> Counts:
        """What is known now; final after `Numbered.finish`."""
        return Counts(
            sent=len(self.sent_at), refused=self.refused, received=self.received,
            lost=len(self.sent_at) - self.received, doubled=self.doubled, reordered=self.reordered,
            damaged=self.damaged, longest_gap_s=self.longest_gap_s, primers=self.primers,
            missed=self._target.dropped(),
        )  # fmt: skip

    def flowed_again(self, since: float) -> float | None:
        """When the first of the frames sent after `since` arrived (monotonic); None: none did yet."""
        first = bisect.bisect_right(self.sent_at, since)
        return min((at for at in self.arrived_at[first:] if at), default=None)

    def _frame(self, number: int, size: int, to: bytes = b"") -> bytes:
        body = BLOCK[number % 32 :][: size - 14 - HEADER.size]
        rest = struct.pack("!IQH", self.number, number, size)
        head = (to or self._target.mac) + self._source.mac + struct.pack("!H", ETHERTYPE)
        return head + rest + struct.pack("!I", zlib.crc32(body, zlib.crc32(rest))) + body

    def _send(self) -> None:
        begin = time.monotonic()
        while not self._stop_sending.wait(STEP_S):
            due = min(int((time.monotonic() - begin) * self._rate), FRAMES_MOST)
            for number in range(len(self.sent_at), due):
                frame = self._frame(number, self._random.randint(*self._sizes))
                self.bytes_sent += len(frame)
                self.sent_at.append(time.monotonic())
                if not self._source.send(frame):
                    self.refused += 1

    def _receive(self) -> None:
        while not self._stop_receiving.is_set():
            frame = self._target.receive()
            if frame is not None and len(frame) >= 14 + HEADER.size:
                self._take(frame)

    def _take(self, frame: bytes) -> None:
        stream, number, size, check = HEADER.unpack_from(frame, 14)
        if stream != self.number:
            return
        whole = zlib.crc32(frame[14 + HEADER.size :], zlib.crc32(frame[14:28])) == check and len(frame) == size
        if not whole or (number != PRIMER and number >= FRAMES_MOST):
            self.damaged += 1
        elif number == PRIMER:
            self.primed.set()
        else:
            self._note(number, time.monotonic())

    def _note(self, number: int, now: float) -> None:
        if self.last_arrival:
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_arrival)
        self.last_arrival = now
        if number >= len(self.arrived_at):
            self.arrived_at.extend([0.0] * (number + 1 - len(self.arrived_at)))
        if self.arrived_at[number]:
            self.doubled += 1
            return
        self.arrived_at[number] = now
        self.received += 1
        if number < self._highest:
            self.reordered += 1
        self._highest = max(number, self._highest)


class Numbered:
    """Two streams, one each way, from the start of the block until `finish` or its end.

    Args:
        rate: frames a second, each way.  sizes: smallest and largest frame, bytes, without FCS.
        prime_s: so long both ends may take to hear each other at the beginning.
    """

    def __init__(
        self,
        one: End,
        other: End,
        *,
        rate: float,
        seed: int,
        sizes: tuple[int, int] = (SMALLEST, LARGEST),
        prime_s: float = 20.0,
    ) -> None:
        if not SMALLEST <= sizes[0] <= sizes[1] <= LARGEST:
            raise LabError(f"frames of {sizes[0]} to {sizes[1]} bytes don't fit")
        self._ports = _Port(one), _Port(other)
        self._prime_s = prime_s
        mark = seed << 1 & 0xFFFFFFFE  # streams of another run are not taken for ours
        self.up: Final = Stream(mark, *self._ports, rate=rate, sizes=sizes, seed=seed)
        self.down: Final = Stream(mark | 1, *reversed(self._ports), rate=rate, sizes=sizes, seed=seed + 1)
        self.began = 0.0

    def __enter__(self) -> Self:
        try:
            for stream in (self.up, self.down):
                stream.listen()
            until(self._heard, seconds=self._prime_s, what="both ends hearing each other", step_s=0.1)
        except BaseException:
            self._end()
            raise
        self.began = time.monotonic()
        for stream in (self.up, self.down):
            stream.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def finish(self, *, quiet_s: float = 1.0, most_s: float = 30.0) -> Result:
        """Stop sending; wait until all has arrived, or until nothing came for `quiet_s`; what became of the frames."""
        for stream in (self.up, self.down):
            stream.stop_sending()
            if len(stream.sent_at) >= FRAMES_MOST:
                raise LabError(f"{FRAMES_MOST} frames were sent, and no more can be counted: send fewer")
        stopped = time.monotonic()

        def still() -> bool:
            last = max(stopped, self.up.last_arrival, self.down.last_arrival)
            return time.monotonic() - last >= quiet_s

        try:
            until(still, seconds=most_s, what="the frames coming to an end", step_s=0.05)
        except TimeOver as late:
            raise LabError(f"{late}: someone sends them again and again") from None
        return self.result()

    def result(self) -> Result:
        """What is known now."""
        return Result(self.up.counts(), self.down.counts())

    def flows_again(self, since: float, *, seconds: float) -> float:
        """Wait until, each way, a frame sent after `since` (monotonic) arrived; seconds from then to the later one."""

        def look() -> float | None:
            found = [stream.flowed_again(since) for stream in (self.up, self.down)]
            return max(at for at in found if at) if all(found) else None

        return until(look, seconds=seconds, what="frames passing both ways", step_s=0.02) - since

    def _heard(self) -> bool:
        for stream in (self.up, self.down):
            stream.prime()
        return self.up.primed.is_set() and self.down.primed.is_set()

    def _end(self) -> None:
        for stream in (self.up, self.down):
            stream.end()
        for port in self._ports:
            port.close()
