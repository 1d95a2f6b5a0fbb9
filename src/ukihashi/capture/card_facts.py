"""What the system tells of a card: driver, speed, rings, offloads, and the machine's own addresses and load."""

import array
import contextlib
import fcntl
import itertools
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.capture.devices import Device

_SIOCETHTOOL: Final = 0x8946  # linux/sockios.h
# linux/ethtool.h
_GET_DRIVER, _GET_RING = 0x03, 0x10
_GET_FLAGS: Final = {"TSO": 0x1E, "GSO": 0x23, "GRO": 0x2B}
_GET_ALL_FLAGS, _LRO = 0x25, 1 << 15
_RING: Final = struct.Struct("=9I")  # command, most of rx, mini, jumbo, tx, then the same as they are
_NO_SPEED: Final = (1 << 31) - 1


class CardFacts(NamedTuple):
    """One card. 0 and "" = the card doesn't tell."""

    name: str
    driver: str = ""
    speed_mbit: int = 0
    ring: int = 0  # packets
    ring_most: int = 0
    joining: tuple[str, ...] = ()  # offloads that join or split packets: GRO, LRO, GSO, TSO


def facts_of(device: Device) -> CardFacts:
    """What can be had; never fails."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:

        def ask(data: bytes) -> bytes:
            """One call of ethtool's old interface, which every driver has; b"" if it has no answer."""
            room = array.array("B", data)
            address, _ = room.buffer_info()
            request = struct.pack("@16sP", device.interface.encode(), address) + bytes(16)
            with contextlib.suppress(OSError):
                fcntl.ioctl(sock, _SIOCETHTOOL, request)
                return room.tobytes()
            return b""

        driver = ask(struct.pack("=I", _GET_DRIVER) + bytes(192))[4:36].split(b"\0")[0].decode(errors="replace")
        rings = ask(_RING.pack(_GET_RING, *[0] * 8))
        most, now = (_RING.unpack(rings)[1], _RING.unpack(rings)[5]) if rings else (0, 0)
        joining = [name for name, number in _GET_FLAGS.items() if ask(struct.pack("=II", number, 0))[4:] > bytes(4)]
        if int.from_bytes(ask(struct.pack("=II", _GET_ALL_FLAGS, 0))[4:], "little") & _LRO:
            joining.append("LRO")
    return CardFacts(device.interface, driver, _speed(device.interface), now, most, tuple(sorted(joining)))


def own_addresses() -> set[bytes]:
    """The IP addresses of this machine, packed."""
    found: set[bytes] = set()
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/net/fib_trie").read_text(encoding="ascii").splitlines()
        for before, line in itertools.pairwise(lines):
            if "host LOCAL" in line:
                with contextlib.suppress(OSError):
                    found.add(socket.inet_aton(before.rsplit(" ", 1)[-1]))
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/net/if_inet6").read_text(encoding="ascii").splitlines():
            found.add(bytes.fromhex(line.split()[0]))
    return found


def busy_meter() -> Callable[[], float]:
    """A function: the share 0..1 of all processors that was busy since it was last called."""
    before = _ticks()

    def busy() -> float:
        nonlocal before
        now = _ticks()
        idle, total = now[0] - before[0], now[1] - before[1]
        before = now
        return max(0.0, min(1.0, 1 - idle / total)) if total > 0 else 0.0

    return busy


def _ticks() -> tuple[int, int]:
    """(idle, all) since the machine began, in units of 10 ms."""
    with contextlib.suppress(OSError, ValueError):
        with Path("/proc/stat").open(encoding="ascii") as file:
            numbers = [int(word) for word in file.readline().split()[1:9]]
        return numbers[3] + numbers[4], sum(numbers)
    return os.times().elapsed.__trunc__(), 0


def _speed(interface: str) -> int:
    try:
        speed = int((Path("/sys/class/net") / interface / "speed").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    return speed if 0 < speed < _NO_SPEED else 0
