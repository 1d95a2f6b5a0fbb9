"""Packets of a card as they pass: a packet socket in promiscuous mode (packet(7)). It can only read.

Nothing is ever written to the socket. Of each packet only the first `SNAP` bytes are kept, in memory, until the next
read.
"""

import contextlib
import errno
import select
import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

from ukihashi.capture.batch import ETHERNET, RAW_IP, Batch, Packet
from ukihashi.capture.devices import Device
from ukihashi.errors import N_, EnvironmentLacks

SNAP: Final = 320  # bytes of a packet: all headers, and the begin of the payload
BATCH: Final = 4096  # packets of one read at most
RECEIVE_BUFFER: Final = 32 << 20  # bytes the kernel may keep for us

# linux/if_packet.h, linux/if_ether.h, asm/socket.h
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_AUXDATA = 1, 6, 8
_PACKET_MR_PROMISC: Final = 1
_ETH_P_ALL: Final = 0x0003
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_TAG_VALID, _TAG_TYPE_VALID = 0x10, 0x40
_MEMBERSHIP: Final = struct.Struct("=iHH8s")
_AUXDATA: Final = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY: Final = (
    socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
)


class Statistics(NamedTuple):
    """Packets since the capture began, by the kernel's count."""

    packets: int
    dropped: int  # for lack of room: this program was too slow


class LiveCapture:
    """A card that is being listened to. Close it, or use it with `with`."""

    def __init__(self, device: Device) -> None:
        """Raises:
        EnvironmentLacks: no packet sockets on this system, no right to open one, no such card.
        """
        self.device: Final = device
        self._packets = 0
        self._dropped = 0
        self._buffer = bytearray(BATCH * (SNAP + 4))
        self._view = memoryview(self._buffer)
        self._link_type = ETHERNET if device.has_ethernet else RAW_IP
        self._socket = _open(device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """For a selector: readable when packets wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening; promiscuous mode ends with the socket. A second call does nothing."""
        self._socket.close()

    def read(self, timeout_s: float) -> Batch:
        """The packets that wait now, at most `BATCH`; waits up to `timeout_s` for the first.

        Raises:
            EnvironmentLacks: the card went away or down.
        """
        packets: list[Packet] = []
        if select.select([self._socket], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                offset = 0
                while len(packets) < BATCH:
                    packet = self._receive(offset)
                    packets.append(packet)
                    offset = packet[1] + min(packet[2], SNAP)
        return Batch(self._link_type, self._view, packets)

    def _receive(self, offset: int) -> Packet:
        """One packet into the buffer behind `offset`, with room for a VLAN tag that the card took off."""
        begin = offset + 4
        try:
            length, ancillary, _flags, _address = self._socket.recvmsg_into(
                [self._view[begin : begin + SNAP]], _ANCILLARY, socket.MSG_TRUNC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO):
                raise EnvironmentLacks(
                    N_("the card {interface} went down; start again when it is up"), interface=self.device.interface
                ) from error
            raise EnvironmentLacks(
                N_("capture on {interface} ended: {reason}"), interface=self.device.interface, reason=error.strerror
            ) from error
        captured, time = min(length, SNAP), 0.0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                time = seconds + nanoseconds * 1e-9
            elif level == _SOL_PACKET and kind == _PACKET_AUXDATA and len(data) >= _AUXDATA.size:
                status, _, _, _, _, tag, tag_type = _AUXDATA.unpack_from(data)
                if status & _TAG_VALID and self._link_type == ETHERNET and captured >= 14:
                    view = self._view
                    view[offset : offset + 12] = bytes(view[begin : begin + 12])
                    struct.pack_into("!HH", view, offset + 12, tag_type if status & _TAG_TYPE_VALID else 0x8100, tag)
                    begin, captured, length = offset, captured + 4, length + 4
        return time, begin, captured, length

    def statistics(self) -> Statistics:
        """The kernel's counters so far (reading them sets them back, so they are summed here)."""
        with contextlib.suppress(OSError):
            packets, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            self._packets += packets
            self._dropped += dropped
        return Statistics(self._packets, self._dropped)


def _open(device: Device) -> socket.socket:
    if not hasattr(socket, "AF_PACKET"):
        raise EnvironmentLacks(N_("live capture needs Linux; here, read a capture file with -r"))
    kind = socket.SOCK_RAW if device.has_ethernet else socket.SOCK_DGRAM
    try:
        packet_socket = socket.socket(socket.AF_PACKET, kind | socket.SOCK_CLOEXEC, 0)
    except PermissionError:
        raise EnvironmentLacks(
            N_("no right to capture packets; run as root, or give the program the capability CAP_NET_RAW")
        ) from None
    try:
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                packet_socket.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)
                break
        packet_socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        packet_socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        packet_socket.bind((device.interface, _ETH_P_ALL))
        packet_socket.setsockopt(
            _SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _MEMBERSHIP.pack(device.ifindex, _PACKET_MR_PROMISC, 0, b"")
        )
        packet_socket.setblocking(False)
    except OSError as error:
        packet_socket.close()
        raise EnvironmentLacks(
            N_("can't capture on {interface}: {reason}"), interface=device.interface, reason=error.strerror
        ) from error
    return packet_socket
