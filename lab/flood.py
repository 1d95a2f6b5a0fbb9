"""Frames on a wire, many and fast: `python -m lab.flood CARD KIND RATE SECONDS`; one JSON line {"sent", "seconds"}.

    bulk     300-byte segments of 64 TCP connections
    syn      a SYN from another address and port each time

`sendmmsg` of the C library through ctypes takes 64 frames a call; numbers are written into the frames in between.
RATE: frames a second, 0 = as fast as it goes. A frame counts as sent when the kernel took it.
"""

import ctypes
import json
import socket
import struct
import sys
import time
from typing import Final

from bench.blast import BATCH, Packets

BULK_BYTES: Final = 300
FLOWS: Final = 64
PACKET_QDISC_BYPASS: Final = 20  # linux/if_packet.h
SOL_PACKET: Final = 263
STEP_S: Final = 0.0005


class Flood:
    """The frames of one batch, and how they change from batch to batch."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        size = BULK_BYTES if kind == "bulk" else 54
        self.packets: Final = Packets(size)
        self._rooms = self.packets._room  # noqa: SLF001 - of the same laboratory
        self._number = 0
        payload = size - 54
        for place, room in enumerate(self._rooms):
            ethernet = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\x00"
            ip = struct.pack("!BBHHHBBHII", 0x45, 0, size - 14, 0, 0x4000, 64, 6, 0, 0x0A800001 + place, 0x0AC00001)
            flags = 0x10 if kind == "bulk" else 0x02
            tcp = struct.pack("!HHIIBBHHH", 40000 + place, 443, 1, 1, 0x50, flags, 65000, 0, 0)
            room.raw = ethernet + ip + tcp + bytes(payload)

    def next(self) -> None:
        """Make the next batch: sequence numbers grow, or clients change."""
        self._number += 1
        for place, room in enumerate(self._rooms):
            if self._kind == "bulk":
                struct.pack_into("!I", room, 38, 1 + self._number * (BULK_BYTES - 54) & 0xFFFFFFFF)
            else:
                count = self._number * BATCH + place
                struct.pack_into("!I", room, 26, 0x0A800000 + (count & 0x3FFFFF))
                struct.pack_into("!H", room, 34, 1024 + (count >> 22))


def run(card: str, kind: str, rate: float, seconds: float) -> tuple[int, float]:
    """Frames sent, and how long it took."""
    flood, sent = Flood(kind), 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sock.bind((card, 0))
        call, headers, fd = ctypes.CDLL(None, use_errno=True).sendmmsg, flood.packets.headers, sock.fileno()
        begin = time.monotonic()
        while (since := time.monotonic() - begin) < seconds:
            if rate and sent >= rate * (since + STEP_S):
                time.sleep(STEP_S)
                continue
            flood.next()
            done = 0
            while done < BATCH:
                taken = call(fd, ctypes.byref(headers, done * ctypes.sizeof(headers[0])), BATCH - done, 0)
                done += max(taken, 0)
            sent += BATCH
    return sent, time.monotonic() - begin


if __name__ == "__main__":
    count, spent = run(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps({"sent": count, "seconds": round(spent, 3)}))
