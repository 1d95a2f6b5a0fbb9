"""A TAP: the end of a virtual Ethernet cable that a program holds (Linux, `Documentation/networking/tuntap.rst`).

Frames are read and written in batches. A frame is Ethernet II or 802.3 without FCS. Super-frames (`IFF_VNET_HDR`) will
enter here: `open_tap` would ask for them and the batches would carry an offload header; nothing else has to change.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks, UsageError

TUN: Final = Path("/dev/net/tun")
NAME_MAX: Final = 15  # bytes; IFNAMSIZ less the NUL
BATCH: Final = 65536  # bytes of frames that one `read_frames` gathers
LARGEST: Final = 2048  # bytes asked for in one read; above every frame of an MTU of 1500 with VLAN tags

# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_TUN_EXCL: Final = 0x8000
IFREQ: Final = struct.Struct("16sH22x")

_GONE: Final = frozenset({errno.EBADFD, errno.ENODEV, errno.ENXIO})


class Tap:
    """An open TAP. Not thread-safe; whoever holds it closes it."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd: Final = fd  # non-blocking
        self.name: Final = name
        self.dropped = 0  # frames that `write_frames` could not hand to the kernel, so far
        self._closed = False

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self.fd

    def read_frames(self, limit: int = BATCH) -> list[bytes]:
        """All frames that wait, oldest first, until the kernel has no more or `limit` bytes are reached.

        Raises: EnvironmentLacks when somebody removed the interface.
        Cost: one system call a frame; the batch is at most one frame longer than `limit`.
        """
        frames: list[bytes] = []
        read, fd, room = os.read, self.fd, limit
        try:
            while room > 0:
                frame = read(fd, LARGEST)
                frames.append(frame)
                room -= len(frame)
        except BlockingIOError:
            pass
        except OSError as error:
            if not frames:
                raise self._lost(error) from error
        return frames

    def write_frames(self, frames: Iterable[bytes | memoryview]) -> int:
        """Hand frames to the kernel in order; how many it took. Those it refuses are dropped and counted, never kept.

        A refusal is a frame that is no Ethernet frame, an interface that is down, or no memory. A TAP has no queue in
        this direction that could be full, so there is nothing to wait for.

        Raises: EnvironmentLacks when somebody removed the interface.
        """
        written = refused = 0
        write, fd = os.write, self.fd
        for frame in frames:
            try:
                write(fd, frame)
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


def open_tap(name: str, *, persist: bool = False) -> Tap:
    """Make the TAP `name` and hold it, non-blocking; it lives until closed (`persist`: until removed by name).

    A persistent TAP that nobody holds is taken over; otherwise the name must be free.

    Raises:
        UsageError: no such name is possible.
        EnvironmentLacks: no right, no tun driver, or the name is taken.
    """
    check_interface_name(name)
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, OSError) as error:
        raise _cannot_open(error) from error
    flags = IFF_TAP | IFF_NO_PI | (0 if persist else IFF_TUN_EXCL)
    try:
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), flags))
        if persist:
            fcntl.ioctl(fd, TUNSETPERSIST, 1)
    except OSError as error:
        os.close(fd)
        raise _cannot_make(name, error) from error
    return Tap(fd, name)


def adopt_tap(fd: int, name: str) -> Tap:
    """A `Tap` over a descriptor that another process opened and passed on."""
    os.set_blocking(fd, False)
    return Tap(fd, name)


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
