"""A cable between two processes of ours, in place of a TAP: frames in batches over a pair of SEQPACKET sockets.

    packet := (u16 length, big-endian, frame)*

A batch is one system call at each end; the kernel keeps packets whole. Each end holds one `FramePipe`. The end in the
hub's worker must never wait, so it `offer`s; the card's end waits a moment for a worker that is busy, since what it
brings has been acknowledged to the other hub already.
"""

import os
import select
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.ether.offload import NONE, Kind
from ukihashi.tap.device import BATCH, Batch

PACKET: Final = 32768  # bytes of one packet, but for one frame's length; more would need memory in one piece
LARGEST: Final = 0xFFFF  # bytes of one frame
BUFFER: Final = 1 << 20  # bytes asked of the kernel for each direction
PATIENCE_S: Final = 0.5  # how long `write_frames` waits for the other end

SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h; Python has no name for it

_LENGTH: Final = struct.Struct("!H")


class Cable(Protocol):
    """What carries frames to and from a virtual LAN card: a `Tap` or a `FramePipe`."""

    @property
    def fd(self) -> int:
        """The descriptor, non-blocking."""

    @property
    def name(self) -> str:
        """For listings."""

    @property
    def dropped(self) -> int:
        """Frames that `write_frames` could not hand on, so far."""

    def set_offload(self, kinds: Kind) -> Kind:
        """Let `read_frames` give super-frames of these kinds, if there are any; what holds."""

    def read_frames(self) -> list[bytes]:
        """All frames that wait, oldest first. Raises EnvironmentLacks when the other end is gone."""

    def read_batch(self) -> Batch | None:
        """The same, encoded; None: ask `read_frames` now."""

    def write_frames(self, frames: Sequence[bytes]) -> int:
        """Hand frames on in order; how many went. The others are dropped and counted."""


class FramePipe:
    """One end. Not thread-safe; whoever holds it closes it."""

    def __init__(self, fd: int, name: str) -> None:
        """`fd`: of a SEQPACKET socket, which belongs to the pipe from now on."""
        os.set_blocking(fd, False)
        self.fd: Final = fd
        self.name: Final = name
        self.dropped = 0  # frames that `write_frames` gave up
        self._closed = False
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self.fd

    def set_offload(self, kinds: Kind) -> Kind:  # noqa: ARG002 - as every cable
        """A cable carries finished frames only."""
        return NONE

    def read_frames(self, limit: int = BATCH) -> list[bytes]:
        """All frames that wait, oldest first, until there are no more or `limit` bytes are reached.

        Raises: EnvironmentLacks when the other end is gone, or sent what no `FramePipe` sends.
        """
        frames: list[bytes] = []
        room = limit
        try:
            while room > 0:
                packet = os.read(self.fd, PACKET + LARGEST + _LENGTH.size)
                if not packet:
                    if frames:
                        break  # the end is seen again at the next call
                    raise self._lost("end of stream")
                room -= len(packet)
                self._cut(packet, frames)
        except BlockingIOError:
            pass
        except OSError as error:
            if not frames:
                raise self._lost(error.strerror or str(error)) from error
        return frames

    def read_batch(self) -> None:
        """Never: frames of a cable are few and come in batches as it is."""

    def offer(self, frames: Sequence[bytes]) -> int:
        """Hand on as many of the first frames as go without waiting; how many went.

        Raises: EnvironmentLacks when the other end is gone.
        """
        done = 0
        try:
            while done < len(frames):
                packet, count = _packet(frames, done)
                os.write(self.fd, packet)
                done += count
        except BlockingIOError:
            pass
        except OSError as error:  # also no memory for a packet: the worker must not turn for it
            raise self._lost(error.strerror or str(error)) from error
        return done

    def write_frames(self, frames: Iterable[bytes]) -> int:
        """Hand frames on in order; how many went. An end that takes nothing for a while costs what is left of them.

        Raises: EnvironmentLacks when the other end is gone.
        """
        rest = list(frames)
        written = self.offer(rest)
        while written < len(rest):
            if not self._room.poll(PATIENCE_S * 1000):
                self.dropped += len(rest) - written
                break
            written += self.offer(rest[written:])
        return written

    def close(self) -> None:
        """Let go. A second call does nothing."""
        if not self._closed:
            self._closed = True
            os.close(self.fd)

    def _cut(self, packet: bytes, frames: list[bytes]) -> None:
        at, size = 0, len(packet)
        while at < size:
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(packet, at)[0] if start <= size else size + 1
            if at > size:
                raise self._lost("a packet that is cut short")
            frames.append(packet[start:at])

    def _lost(self, reason: str) -> EnvironmentLacks:
        return EnvironmentLacks(
            N_("the cable {name} inside the hub is broken ({reason}); the hub's log says more"),
            name=self.name,
            reason=reason,
        )


def frame_pipe() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new cable, for `FramePipe` in two processes."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        try:
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        except OSError:  # without root: what the machine grants
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return ends


def _packet(frames: Sequence[bytes], first: int) -> tuple[bytes, int]:
    """The frames from `first` on that one packet holds, at least one; and how many they are."""
    parts: list[bytes] = []
    size = 0
    pack = _LENGTH.pack
    for index in range(first, len(frames)):
        frame = frames[index]
        parts += (pack(len(frame)), frame)
        size += len(frame) + 2
        if size >= PACKET:
            break
    return b"".join(parts), len(parts) // 2
