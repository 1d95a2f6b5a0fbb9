"""Frames sent and received as they are, below IP, on an interface of a lab host."""

import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final, Self

from lab.net import Host
from lab.wait import TimeOver

ETH_P_ALL: Final = 0x0003
PACKET_AUXDATA: Final = 8  # linux/if_packet.h
PACKET_IGNORE_OUTGOING: Final = 23
SOL_PACKET: Final = 263
TP_STATUS_VLAN_VALID: Final = 1 << 4
AUXDATA: Final = struct.Struct("=IIIHHHH")  # status, length, snapped, mac, net, VLAN tag, VLAN protocol
LARGEST: Final = 65535
BROADCAST: Final = b"\xff" * 6


class Wire:
    """A packet socket on one interface: sends frames, hears those that come in.

    The kernel takes an outer VLAN tag out of a frame before a packet socket sees it and tells it beside the frame; it
    is put back here, so that what is received is what was sent.
    """

    def __init__(self, host: Host, interface: str) -> None:
        with host.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.mac: Final = self._socket.getsockname()[4]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        """Put one frame, without FCS, on the interface."""
        self._socket.send(frame)

    def frames(self, *, seconds: float) -> Iterator[bytes]:
        """Each frame that comes in, until `seconds` have passed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                yield self._receive()

    def expect(self, frame: bytes, *, seconds: float = 5.0) -> None:
        """Wait until exactly `frame` comes in. Raises `TimeOver`."""
        if not any(seen == frame for seen in self.frames(seconds=seconds)):
            raise TimeOver(f"{seconds:g} s passed without the frame {frame[:32].hex()}...")

    def _receive(self) -> bytes:
        data, notes, _flags, _source = self._socket.recvmsg(LARGEST, socket.CMSG_SPACE(AUXDATA.size))
        for level, kind, body in notes:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _length, _snapped, _mac, _net, tag, protocol = AUXDATA.unpack(body)
                if status & TP_STATUS_VLAN_VALID:
                    return data[:12] + struct.pack("!HH", protocol or 0x8100, tag) + data[12:]
        return data


def crosses(sender: Wire, receiver: Wire, frame: bytes, *, seconds: float = 5.0) -> None:
    """Send `frame` and wait until it comes out at the other end, unchanged. Raises `TimeOver`."""
    sender.send(frame)  # the receiver's socket queues from the moment it was opened
    receiver.expect(frame, seconds=seconds)
