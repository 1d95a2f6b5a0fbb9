"""A TAP: the end of a virtual Ethernet cable that a program holds (Linux, `Documentation/networking/tuntap.rst`).

Frames are read and written in batches. A frame is Ethernet II or 802.3 without FCS.

With `IFF_VNET_HDR` an offload header goes before each frame. It is all zero unless `set_offload` let the kernel leave
work to whoever takes the frame: checksums, and cutting what is longer than the line allows. Such are `SuperFrame`s.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.errors import N_, EnvironmentLacks, UsageError
from ukihashi.ether.offload import (
    ALL,
    MAX_SUPER_FRAME,
    NEEDS_CHECKSUM,
    NONE,
    TRAILER,
    Kind,
    SuperFrame,
    common,
    flaw,
)
from ukihashi.ether.segment import finish_all
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.extension import SUPER_FRAME

TUN: Final = Path("/dev/net/tun")
NAME_MAX: Final = 15  # bytes; IFNAMSIZ less the NUL
BATCH: Final = 65536  # bytes of frames that one `read_frames` gathers
LARGEST: Final = 2048  # bytes asked for in one read; above every frame of an MTU of 1500 with VLAN tags, and its header

# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOFFLOAD: Final = 0x400454D0
TUNGETFEATURES: Final = 0x800454CF
TUNGETIFF: Final = 0x800454D2
TUNSETVNETLE: Final = 0x400454DC
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000
IFREQ: Final = struct.Struct("16sH22x")
TUN_F: Final = {
    Kind.CHECKSUM: 0x01,
    Kind.TSO4: 0x02,
    Kind.TSO6: 0x04,
    Kind.TSO_ECN: 0x08,
    Kind.USO4: 0x20,
    Kind.USO6: 0x40,
}
USO: Final = Kind.USO4 | Kind.USO6  # the kernel takes both or none (since Linux 6.2)

_INT: Final = struct.Struct("i")
_SIZE: Final = struct.Struct("!I")
_NOTHING: Final = bytes(TRAILER)

_GONE: Final = frozenset({errno.EBADFD, errno.ENODEV, errno.ENXIO})


class Batch(NamedTuple):
    """Frames encoded for the wire as `wire.blocks.encode_frames` would have done it."""

    data: bytes
    frames: int
    long: int  # of them, those that are still to be split
    unfit: int  # frames left out: no block may hold them


class Tap:
    """An open TAP. Not thread-safe; whoever holds it closes it."""

    def __init__(self, fd: int, name: str, *, offload: bool = False) -> None:
        """`offload`: the descriptor has `IFF_VNET_HDR`."""
        self.fd: Final = fd  # non-blocking
        self.name: Final = name
        self.offload: Final = offload
        self.dropped = 0  # frames that could not be handed on, so far
        self._kinds = NONE  # what `read_frames` may leave undone
        self._told = False  # and so the kernel was told
        self._mixed = offload  # other kinds may still come, from before
        self._undone = offload  # super-frames of any kind may come
        self._header = bytearray(TRAILER)
        self._room = memoryview(bytearray(BATCH + MAX_SUPER_FRAME + 2 * _SIZE.size if offload else 0))
        self._closed = False

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self.fd

    def set_offload(self, kinds: Kind) -> Kind:
        """Let `read_frames` give frames that need work of these kinds; what the kernel agreed to, at most `kinds`.

        Frames that the kernel made ready before are finished here. Nothing is left undone before the first call.
        """
        wanted = common(kinds, ALL) if self.offload else NONE
        for some in (wanted if wanted & USO == USO else wanted & ~USO, wanted & ~USO, NONE):
            try:
                fcntl.ioctl(self.fd, TUNSETOFFLOAD, sum(flag for kind, flag in TUN_F.items() if kind in some))
            except OSError:
                continue
            self._kinds, self._told = some, True
            self._mixed = self._undone = self.offload
            return some
        return NONE

    def read_frames(self, limit: int = BATCH) -> list[bytes]:
        """All frames that wait, oldest first, until the kernel has no more or `limit` bytes are reached.

        Raises: EnvironmentLacks when somebody removed the interface.
        Cost: one system call a frame; the batch is at most one frame longer than `limit`.
        """
        frames: list[bytes] = []
        try:
            if self._undone:
                self._read_undone(frames, limit)
            elif self.offload:
                self._read_done(frames, limit)
            else:
                read, fd = os.read, self.fd
                while limit > 0:
                    frame = read(fd, LARGEST)
                    frames.append(frame)
                    limit -= len(frame)
        except BlockingIOError:
            if self._mixed:
                frames = self._finished(frames)
                if self._told:
                    self._mixed, self._undone = False, bool(self._kinds)
            return frames
        except OSError as error:
            if not frames:
                raise self._lost(error) from error
        return self._finished(frames) if self._mixed else frames

    def _read_done(self, frames: list[bytes], limit: int) -> None:
        """Until there are no more (BlockingIOError): frames that need nothing."""
        read, fd = os.read, self.fd
        while limit > 0:
            whole = read(fd, LARGEST)
            frames.append(whole[TRAILER:])
            limit -= len(whole)
            if whole[0] == NEEDS_CHECKSUM:  # made ready before `set_offload`
                frames.pop()
                self.dropped += 1

    def _read_undone(self, frames: list[bytes], limit: int) -> None:
        """As `_read_done`, frames that may need work."""
        readv, fd, header, room = os.readv, self.fd, self._header, self._room
        into = (header, room)
        while limit > 0:
            size = readv(fd, into) - TRAILER
            if header[0] == NEEDS_CHECKSUM:
                end = size + TRAILER
                room[size:end] = header
                frames.append(SuperFrame(room[:end]))
            else:  # finished; its checksum may have been found right on the way in
                frames.append(bytes(room[:size]))
            limit -= size

    def read_batch(self) -> Batch | None:
        """As `read_frames`, for a session that takes just what `set_offload` agreed to. None: ask `read_frames` now.

        Cost: a third less than reading frames and encoding them; each is copied once.
        """
        if self._mixed or not self._undone:
            return None
        at, frames, long, unfit = _SIZE.size, 0, 0, 0
        readv, fd, header, room, put = os.readv, self.fd, self._header, self._room, _SIZE.pack_into
        try:
            while at < BATCH:
                start = at + 4
                end = start - TRAILER + readv(fd, (header, room[start:]))
                size = end - start
                if size > MAX_FRAME:
                    if header[0] != NEEDS_CHECKSUM or not header[1] or size > MAX_SUPER_FRAME - TRAILER:
                        unfit += 1
                        continue
                    long += 1
                if header[0] == NEEDS_CHECKSUM:
                    put(room, at, SUPER_FRAME | size + TRAILER)
                    at = end + TRAILER
                    room[end:at] = header
                else:
                    put(room, at, size)
                    at = end
                frames += 1
        except BlockingIOError:
            pass
        except OSError as error:
            if not frames:
                raise self._lost(error) from error
        put(room, 0, frames)
        return Batch(bytes(room[:at]) if frames else b"", frames, long, unfit)

    def _finished(self, frames: list[bytes]) -> list[bytes]:
        """Frames of which some may need work that nobody asked for."""
        sound = [frame for frame in frames if frame.__class__ is not SuperFrame or not flaw(frame, ALL)]
        self.dropped += len(frames) - len(sound)
        return finish_all(sound, self._kinds)

    def write_frames(self, frames: Iterable[bytes | memoryview]) -> int:
        """Hand frames to the kernel in order; how many it took. Those it refuses are dropped and counted, never kept.

        A refusal is a frame that is no Ethernet frame, an interface that is down, or no memory. A TAP has no queue in
        this direction that could be full, so there is nothing to wait for. A `SuperFrame` needs `offload`, and no flaw.

        Raises: EnvironmentLacks when somebody removed the interface.
        """
        written = refused = 0
        write, fd, offload = os.write, self.fd, self.offload
        for frame in frames:
            try:
                if not offload:
                    write(fd, frame)
                elif frame.__class__ is not SuperFrame:
                    write(fd, _NOTHING + frame)
                elif len(frame) <= LARGEST:
                    write(fd, frame[-TRAILER:] + frame[:-TRAILER])
                else:
                    os.writev(fd, (frame[-TRAILER:], memoryview(frame)[:-TRAILER]))
                written += 1
            except OSError as error:
                if error.errno in _GONE:
                    raise self._lost(error) from error
                refused += 1
        self.dropped += refused
        return written

    def close(self) -> None:
        """Let go; the interface disappears unless it was made persistent. A second call does nothing."""
        if not self._closed:
            self._closed = True
            os.close(self.fd)

    def _lost(self, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(
            N_("the network interface {interface} can no longer be used ({reason}); was it removed by hand?"),
            interface=self.name,
            reason=os.strerror(error.errno or 0),
        )


def check_interface_name(name: str) -> str:
    """`name` if Linux takes it for an interface. Raises: UsageError."""
    encoded = name.encode()
    if not 0 < len(encoded) <= NAME_MAX or name in {".", ".."} or any(c in "/:%" or c.isspace() for c in name):
        raise UsageError(
            N_("{name!r} can't name a network interface: 1 to 15 characters, no space, slash, colon or percent sign"),
            name=name,
        )
    return name


def open_tap(name: str, *, persist: bool = False, offload: bool = False) -> Tap:
    """Make the TAP `name` and hold it, non-blocking; it lives until closed (`persist`: until removed by name).

    A persistent TAP that nobody holds is taken over; otherwise the name must be free. With `offload` it can do
    `Tap.set_offload`, if this kernel can.

    Raises:
        UsageError: no such name is possible.
        EnvironmentLacks: no right, no tun driver, or the name is taken.
    """
    check_interface_name(name)
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, OSError) as error:
        raise _cannot_open(error) from error
    offload = offload and _has_offload(fd)
    flags = IFF_TAP | IFF_NO_PI | (0 if persist else IFF_TUN_EXCL) | (IFF_VNET_HDR if offload else 0)
    try:
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), flags))
        if persist:
            fcntl.ioctl(fd, TUNSETPERSIST, 1)
        if offload:
            fcntl.ioctl(fd, TUNSETVNETLE, _INT.pack(1))
    except OSError as error:
        os.close(fd)
        raise _cannot_make(name, error) from error
    return Tap(fd, name, offload=offload)


def adopt_tap(fd: int, name: str) -> Tap:
    """A `Tap` over a descriptor that another process opened and passed on."""
    os.set_blocking(fd, False)
    try:
        _name, flags = IFREQ.unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(IFREQ.size)))
    except OSError:  # removed meanwhile, as the first use will tell
        flags = 0
    return Tap(fd, name, offload=bool(flags & IFF_VNET_HDR))


def _has_offload(fd: int) -> bool:
    """Can this kernel's driver put an offload header before each frame?"""
    try:
        features = _INT.unpack(fcntl.ioctl(fd, TUNGETFEATURES, bytes(_INT.size)))[0]
    except OSError:
        return False
    return bool(features & IFF_VNET_HDR)


def _cannot_open(error: OSError) -> EnvironmentLacks:
    if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return EnvironmentLacks(
            N_(
                "{device} does not exist, so no virtual network interface can be made; load the driver with "
                "`modprobe tun` (in a container: pass the device in)"
            ),
            device=str(TUN),
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return _no_right()
    return EnvironmentLacks(
        N_("{device} can't be opened: {reason}"), device=str(TUN), reason=os.strerror(error.errno or 0)
    )


def _cannot_make(name: str, error: OSError) -> EnvironmentLacks:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return _no_right()
    if error.errno in {errno.EBUSY, errno.EEXIST, errno.EINVAL}:  # EINVAL: an interface of another kind has the name
        return EnvironmentLacks(
            N_("the network interface {interface} exists already; choose another name, or remove that one"),
            interface=name,
        )
    return EnvironmentLacks(
        N_("the network interface {interface} can't be made: {reason}"),
        interface=name,
        reason=os.strerror(error.errno or 0),
    )


def _no_right() -> EnvironmentLacks:
    return EnvironmentLacks(
        N_("making a virtual network interface needs root (or the capability CAP_NET_ADMIN); try again with sudo")
    )
