"""A ring that the kernel fills with packets and we read in place: AF_PACKET, TPACKET_V3 (packet_mmap of Linux).

The kernel hands over whole blocks. A block belongs to us until `release`; what was cut out of it is gone then. There is
no ring for sending, and nothing here sends.
"""

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from ukihashi.capture import bpf

BLOCK_BYTES: Final = 1 << 20
BLOCKS: Final = 64
MAX_BLOCKS: Final = 4096
SNAP: Final = 256  # bytes of a packet that are kept: all headers, and the begin of the payload
MAX_PACKETS: Final = BLOCK_BYTES // 80  # of a block; none takes less room, its header and address are 68 bytes
RETIRE_MS: Final = 40  # a block that isn't full is handed over after so long
TAG_ROOM: Final = 4  # bytes kept free before each packet, for a VLAN tag that the card or the kernel took off

# linux/if_packet.h, linux/if_ether.h
SOL_PACKET: Final = 263
ETH_P_ALL: Final = 0x0003
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS = 1, 5, 6
PACKET_VERSION, PACKET_RESERVE, PACKET_FANOUT, PACKET_FANOUT_DATA = 10, 12, 18, 22
PACKET_MR_PROMISC: Final = 1
PACKET_FANOUT_CBPF: Final = 6
TPACKET_V3: Final = 2
STATUS_USER: Final = 1
MEMBERSHIP: Final = struct.Struct("=iHH8s")
STATISTICS: Final = struct.Struct("=3I")  # packets (also the dropped ones), dropped, times the queue was frozen
FRAME_BYTES: Final = 2048  # a formality of TPACKET_V3: packets lie one behind the other, whatever their size
_REQUEST: Final = struct.Struct("=7I")  # block size, blocks, frame size, frames, ms, private bytes, features
_ADDRESS: Final = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll
_BLOCK_STATUS: Final = 8  # offset in struct tpacket_block_desc
_STATUS: Final = struct.Struct("=I")


class Counts(NamedTuple):
    """What the kernel counted since it was last asked."""

    packets: int  # handed to us
    dropped: int  # for lack of room in the ring
    freezes: int  # times the whole ring was full


class Ring:
    """One ring for the packets of one card or of several. Raises OSError where the kernel refuses any part of it."""

    def __init__(
        self,
        indexes: Sequence[int],
        program: Sequence[bpf.Instruction],
        *,
        ethernet: bool = True,
        blocks: int = BLOCKS,
        fanout: int = 0,
    ) -> None:
        """Args:
        indexes: the kernel's numbers of the cards.
        program: what decides which packets come in, and how many bytes of each.
        ethernet: keep the link-layer header.
        fanout: number of the group whose rings share the packets, each pair of addresses whole; 0: none.
        """
        self._block = 0
        self._blocks = blocks
        self._held = False
        self._socket = packet_socket(ethernet=ethernet)
        try:
            self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, struct.pack("=i", TPACKET_V3))
            self._socket.setsockopt(SOL_PACKET, PACKET_RESERVE, struct.pack("=i", TAG_ROOM))
            frames = blocks * (BLOCK_BYTES // FRAME_BYTES)
            request = _REQUEST.pack(BLOCK_BYTES, blocks, FRAME_BYTES, frames, RETIRE_MS, 0, 0)
            self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
            self.memory: Final = mmap.mmap(self._socket.fileno(), blocks * BLOCK_BYTES)
            bpf.attach(self._socket, program)
            begin(self._socket, indexes)  # last: nothing comes in before the filter is there
            if fanout:
                self._share(fanout)
        except OSError:
            self.close()
            raise

    def _share(self, group: int) -> None:
        self._socket.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("=HH", group, PACKET_FANOUT_CBPF))
        keep, program = bpf.packed(bpf.by_addresses())
        self._socket.setsockopt(SOL_PACKET, PACKET_FANOUT_DATA, program)
        del keep

    def fileno(self) -> int:
        """For a selector: readable when a block waits."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening. The memory stays until nothing points into it any more."""
        self._socket.close()

    def error(self) -> int:
        """The number of the error that stopped the capture (ENETDOWN, ...), or 0."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def wait(self, timeout_s: float) -> int:
        """The offset of the next block in `memory`, which is ours until `release`; -1 if there is none in time.

        Raises:
            OSError: ENETDOWN and the like: the card went down or away.
        """
        at = self._block * BLOCK_BYTES
        if not self._is_ours(at):
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | select.POLLERR)
            events = poll.poll(timeout_s * 1000)
            if not self._is_ours(at):
                if events and events[0][1] & select.POLLERR and (number := self.error()):
                    raise OSError(number, os.strerror(number))
                return -1
        self._held = True
        return at

    def _is_ours(self, at: int) -> bool:
        return bool(_STATUS.unpack_from(self.memory, at + _BLOCK_STATUS)[0] & STATUS_USER)

    def release(self) -> None:
        """Give the block back to the kernel, if we hold one."""
        if self._held:
            self._held = False
            _STATUS.pack_into(self.memory, self._block * BLOCK_BYTES + _BLOCK_STATUS, 0)
            self._block = (self._block + 1) % self._blocks

    def counts(self) -> Counts:
        """The kernel's counters since the last call."""
        packets, dropped, freezes = STATISTICS.unpack(
            self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size)
        )
        return Counts(packets - dropped, dropped, freezes)


def packet_socket(*, ethernet: bool) -> socket.socket:
    """A packet socket that gets nothing yet."""
    kind = socket.SOCK_RAW if ethernet else socket.SOCK_DGRAM
    return socket.socket(socket.AF_PACKET, kind | socket.SOCK_CLOEXEC, 0)


def begin(packet_socket: socket.socket, indexes: Sequence[int]) -> None:
    """Let the packets of these cards come in, also those for others. Bound to no card if there are several."""
    for index in indexes:
        membership = MEMBERSHIP.pack(index, PACKET_MR_PROMISC, 0, b"")
        packet_socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
    one = indexes[0] if len(indexes) == 1 else 0
    address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(ETH_P_ALL), one, 0, 0, 0, b"")
    # not socket.bind(): it knows no way to say "all cards"
    if ctypes.CDLL(None, use_errno=True).bind(packet_socket.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number))
