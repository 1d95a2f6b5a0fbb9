"""Packets of cards as they pass, in promiscuous mode: from a ring that the kernel fills, else from a packet socket.

Nothing is ever sent. Of each packet only the first bytes are kept, in memory, until the next read. No right is needed
after the start.

Several cards share one ring, bound to no card, with a filter for theirs. That costs no more than a ring for each (0.2
us of this process a packet, measured with two cards at 50,000 packets a second each), and packets come in their order
over all cards, which a tap with an output for each direction needs: of two rings, every second block began before the
last one had ended.
"""

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ukihashi.capture import blocks, bpf, ring
from ukihashi.capture.batch import ETHERNET, RAW_IP, Batch, Packet
from ukihashi.capture.devices import CardState, Device
from ukihashi.detect import compiled
from ukihashi.detect.packets import Packets
from ukihashi.errors import N_, EnvironmentLacks

BATCH: Final = 4096  # packets of one read of a packet socket at most
RECEIVE_BUFFER: Final = 32 << 20  # bytes the kernel may keep for a packet socket
LEAST_SNAP: Final = 128  # bytes; headers of a tunnelled mirror, and enough of a TLS hello
LARGEST_SNAP: Final = 65535
GONE: Final = frozenset((errno.ENETDOWN, errno.ENODEV, errno.ENXIO))

# linux/if_packet.h, asm/socket.h
_PACKET_AUXDATA: Final = 8
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_AUXDATA: Final = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY: Final = (
    socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
)


class Options(NamedTuple):
    """How to capture."""

    snap: int = ring.SNAP  # bytes of a packet that are kept
    blocks: int = ring.BLOCKS  # of 1 MiB; the ring's size
    expression: str = ""  # filter; "" = everything
    group: int = 0  # number of a group of captures that share the packets; 0 = all packets come here


class Statistics(NamedTuple):
    """Packets since the capture began."""

    packets: int  # handed to us, by the kernel's count
    dropped: int  # for lack of room: this program was too slow
    freezes: int = 0  # times the ring was full
    card_lost: int = 0  # by the cards themselves, before the kernel saw them


class LiveCapture:
    """Cards that are being listened to. Close it, or use it with `with`."""

    def __init__(self, devices: Device | Sequence[Device], options: Options | None = None) -> None:
        """Raises:
        EnvironmentLacks: no packet sockets on this system, no right to open one, no such card.
        UsageError: the filter expression is wrong.
        """
        self.devices: Final = (devices,) if isinstance(devices, Device) else tuple(devices)
        self.options: Final = options or Options()
        self._packets = self._dropped = self._freezes = 0
        self._sources: list[_Ring | _Socket] = []
        self._turn = 0
        if not hasattr(socket, "AF_PACKET"):
            raise EnvironmentLacks(N_("live capture needs Linux; here, read a capture file with -r"))
        try:
            for ethernet in (True, False):
                same = [device for device in self.devices if device.has_ethernet is ethernet]
                if same:
                    self._sources.append(_open(same, self.options))
        except BaseException:
            self.close()
            raise
        self._states = [CardState(device) for device in self.devices]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def has_ring(self) -> bool:
        """False where a packet socket had to do."""
        return all(isinstance(source, _Ring) for source in self._sources)

    def close(self) -> None:
        """Stop listening; promiscuous mode ends with the sockets. A second call does nothing."""
        for source in self._sources:
            source.close()

    def read(self, timeout_s: float) -> Batch:
        """Packets that wait now; waits up to `timeout_s` for the first. The call ends what the last one gave.

        Raises:
            EnvironmentLacks: a card went away or down.
        """
        source = self._next(timeout_s)
        with _said(source):
            return source.read(0 if len(self._sources) > 1 else timeout_s)

    def hurry(self) -> None:
        """From now on use compiled code, which must be there (`compiled.is_ready`)."""
        walk = compiled.functions(blocks)["walk_columns"]
        walk(compiled.array(bytearray(64)), 0, *map(compiled.array, Packets(1).columns))  # now, while files can be read
        for source in self._sources:
            if isinstance(source, _Ring):
                source.use(walk)

    def _next(self, timeout_s: float) -> "_Ring | _Socket":
        """One that has packets, if any has; each in turn."""
        sources = self._sources
        if len(sources) > 1:
            ready = select.select(sources, [], [], timeout_s)[0]
            self._turn = (self._turn + 1) % len(sources)
            if ready and sources[self._turn] not in ready:
                self._turn = sources.index(ready[0])
        return sources[self._turn]

    def check(self) -> None:
        """Call it about once a second. A socket that is bound to no card isn't told when one goes down.

        Raises:
            EnvironmentLacks: a card went away or down.
        """
        for device, state in zip(self.devices, self._states, strict=True):
            if not state.is_up():
                raise _down(device.interface)

    def statistics(self) -> Statistics:
        """The counters so far (the kernel sets its own back at each reading, so they are summed here)."""
        for source in self._sources:
            with contextlib.suppress(OSError):
                packets, dropped, freezes = source.counts()
                self._packets += packets
                self._dropped += dropped
                self._freezes += freezes
        return Statistics(self._packets, self._dropped, self._freezes, sum(state.lost() for state in self._states))


class _Ring:
    """Cards of one kind, by a ring."""

    def __init__(self, devices: Sequence[Device], options: Options, program: Sequence[bpf.Instruction]) -> None:
        self.devices: Final = devices
        ethernet = devices[0].has_ethernet
        self._link_type = ETHERNET if ethernet else RAW_IP
        indexes = [device.ifindex for device in devices]
        self.ring: Final = ring.Ring(indexes, program, ethernet=ethernet, blocks=options.blocks, fanout=options.group)
        self._view = memoryview(self.ring.memory)
        self._walk: Callable[..., int] | None = None
        self._packets = Packets(0)
        self._columns: list[Any] = []

    def use(self, walk: Callable[..., int]) -> None:
        self._walk = walk
        self._packets = Packets(ring.MAX_PACKETS)
        self._columns = [compiled.array(column) for column in (self._view, *self._packets.columns)]

    def fileno(self) -> int:
        return self.ring.fileno()

    def close(self) -> None:
        self.ring.close()

    def counts(self) -> ring.Counts:
        return self.ring.counts()

    def read(self, timeout_s: float) -> Batch:
        self.ring.release()
        block = self.ring.wait(timeout_s)
        if block < 0:
            return Batch(self._link_type, self._view, [])
        if self._walk is None:
            return Batch(self._link_type, self._view, blocks.walk(self.ring.memory, block))
        memory, *columns = self._columns
        self._packets.count = self._walk(memory, block, *columns)
        return Batch(self._link_type, self._view, self._packets)


class _Socket:
    """Cards of one kind, by a packet socket: where the kernel has no memory or no leave for a ring."""

    def __init__(self, devices: Sequence[Device], options: Options, program: Sequence[bpf.Instruction]) -> None:
        self.devices: Final = devices
        self._snap = options.snap
        self._buffer = bytearray(BATCH * (self._snap + 4))
        self._view = memoryview(self._buffer)
        ethernet = devices[0].has_ethernet
        self._link_type = ETHERNET if ethernet else RAW_IP
        self._socket = ring.packet_socket(ethernet=ethernet)
        try:
            for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)
                    break
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(ring.SOL_PACKET, _PACKET_AUXDATA, 1)
            bpf.attach(self._socket, program)
            ring.begin(self._socket, [device.ifindex for device in devices])
            self._socket.setblocking(False)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def counts(self) -> ring.Counts:
        packets, dropped = struct.unpack("=II", self._socket.getsockopt(ring.SOL_PACKET, ring.PACKET_STATISTICS, 8))
        return ring.Counts(packets - dropped, dropped, 0)

    def read(self, timeout_s: float) -> Batch:
        packets: list[Packet] = []
        if select.select([self._socket], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                offset = 0
                while len(packets) < BATCH:
                    packet = self._receive(offset)
                    packets.append(packet)
                    offset = packet[1] + min(packet[2], self._snap)
        return Batch(self._link_type, self._view, packets)

    def _receive(self, offset: int) -> Packet:
        """One packet into the buffer behind `offset`, with room for a VLAN tag that the card took off."""
        begin = offset + 4
        length, ancillary, _flags, _address = self._socket.recvmsg_into(
            [self._view[begin : begin + self._snap]], _ANCILLARY, socket.MSG_TRUNC | socket.MSG_DONTWAIT
        )
        captured, time = min(length, self._snap), 0.0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                time = seconds + nanoseconds * 1e-9
            elif level == ring.SOL_PACKET and kind == _PACKET_AUXDATA and len(data) >= _AUXDATA.size:
                status, length, _, _, _, tag, tag_type = _AUXDATA.unpack_from(data)
                if status & blocks.STATUS_VLAN_VALID and self._link_type == ETHERNET and captured >= 14:
                    view = self._view
                    view[offset : offset + 12] = bytes(view[begin : begin + 12])
                    if not status & blocks.STATUS_VLAN_TPID_VALID:
                        tag_type = 0x8100
                    struct.pack_into("!HH", view, offset + 12, tag_type, tag)
                    begin, captured, length = offset, captured + 4, length + 4
        return time, begin, captured, length


def _open(devices: Sequence[Device], options: Options) -> _Ring | _Socket:
    program = _program(devices, options)
    try:
        try:
            return _Ring(devices, options, program)
        except PermissionError:
            raise
        except OSError as error:  # too little memory in one piece, an old kernel, a sandbox; or the card itself
            if error.errno in GONE or options.group:
                raise
            return _Socket(devices, options, program)
    except PermissionError:
        raise EnvironmentLacks(
            N_("no right to capture packets; run as root, or give the program the capability CAP_NET_RAW")
        ) from None
    except OSError as error:
        raise EnvironmentLacks(
            N_("can't capture on {interface}: {reason}"), interface=_names(devices), reason=error.strerror
        ) from error


def _program(devices: Sequence[Device], options: Options) -> list[bpf.Instruction]:
    """What the kernel shall run on each packet."""
    program = bpf.everything(options.snap)
    if options.expression:
        link_type = ETHERNET if devices[0].has_ethernet else RAW_IP
        program = bpf.compile_expression(options.expression, link_type, options.snap, devices[0].interface)
    if len(devices) > 1:
        return bpf.only_cards([device.ifindex for device in devices]) + program
    return bpf.only_incoming() + program if devices[0].is_loopback else program


def _names(devices: Sequence[Device]) -> str:
    return ", ".join(device.interface for device in devices)


def _down(interface: str) -> EnvironmentLacks:
    return EnvironmentLacks(N_("the card {interface} went down; start again when it is up"), interface=interface)


@contextlib.contextmanager
def _said(source: "_Ring | _Socket") -> Iterator[None]:
    """An error of the kernel becomes a sentence."""
    try:
        yield
    except OSError as error:
        interface = _names(source.devices)
        if error.errno in GONE:
            raise _down(interface) from error
        reason = error.strerror or os.strerror(error.errno or 0)
        raise EnvironmentLacks(
            N_("capture on {interface} ended: {reason}"), interface=interface, reason=reason
        ) from error
