"""The network cards that packets can be captured on, in a stable order, with a name a person knows."""

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

_SYSFS: Final = Path("/sys/class/net")
_IFF_UP: Final = 1
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_LOSSES: Final = ("rx_missed_errors", "rx_fifo_errors", "rx_over_errors")


class Device(NamedTuple):
    """A card of this machine."""

    interface: str
    ifindex: int  # the kernel's
    name: str  # for people: interface, and what it is
    has_ethernet: bool  # its packets begin with an Ethernet header
    is_loopback: bool = False


def devices(folder: Path = _SYSFS) -> list[Device]:
    """All cards that are up, each once, oldest first (by the kernel's index). Empty where there is no sysfs."""
    if not folder.is_dir():
        return []
    found = [_device(path) for path in folder.iterdir() if path.is_dir()]
    return sorted((device for device in found if device is not None), key=lambda device: device.ifindex)


def find(interface: str, folder: Path = _SYSFS) -> Device | None:
    """The card called `interface`, if it is up."""
    return next((device for device in devices(folder) if device.interface == interface), None)


def _device(path: Path) -> Device | None:
    try:
        if not int(_read(path / "flags"), 16) & _IFF_UP:
            return None
        kind = int(_read(path / "type"))
        index = int(_read(path / "ifindex"))
    except (OSError, ValueError):  # it went away while we looked
        return None
    name = f"{path.name} ({_what(path, kind)})"
    return Device(path.name, index, name, kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK), kind == _ARPHRD_LOOPBACK)


class CardState:
    """What the kernel tells of a card while it is listened to: whether it is up, and what it lost.

    The files are opened once, so that they can be read when all rights are gone.
    """

    def __init__(self, device: Device, folder: Path = _SYSFS) -> None:
        self._files: list[int] = []
        for name in _LOSSES:
            with contextlib.suppress(OSError):
                self._files.append(os.open(folder / device.interface / "statistics" / name, os.O_RDONLY | os.O_CLOEXEC))
        self._flags = -1
        with contextlib.suppress(OSError):
            self._flags = os.open(folder / device.interface / "flags", os.O_RDONLY | os.O_CLOEXEC)
        self._before = 0
        self._before = self.lost()

    def __del__(self) -> None:
        for file in (*self._files, self._flags):
            if file >= 0:
                os.close(file)

    def is_up(self) -> bool:
        """False once it is down or gone; True where the kernel doesn't tell."""
        if self._flags < 0:
            return True
        try:
            return bool(int(os.pread(self._flags, 32, 0), 16) & _IFF_UP)
        except (OSError, ValueError):
            return False

    def lost(self) -> int:
        """Packets that the card itself has lost since this was made: its queue was full before the kernel came to it.

        0 for a card without such counters.
        """
        total = 0
        for file in self._files:
            with contextlib.suppress(OSError, ValueError):  # the card is gone
                total += int(os.pread(file, 32, 0))
        return max(0, total - self._before)


def _what(path: Path, kind: int) -> str:
    """The administrator's own name for the card, else its kind, else its driver."""
    alias = _read(path / "ifalias", missing_ok=True)
    if alias.isprintable() and alias:
        return alias
    if kind == _ARPHRD_LOOPBACK:
        return "loopback"
    if (path / "tun_flags").exists():
        return "TAP" if int(_read(path / "tun_flags"), 16) & 2 else "TUN"
    for folder, words in (("bridge", "bridge"), ("bonding", "bond"), ("wireless", "wireless")):
        if (path / folder).exists():
            return words
    driver = path / "device" / "driver"
    if driver.exists():
        return driver.resolve().name
    for line in _read(path / "uevent", missing_ok=True).splitlines():
        if line.startswith("DEVTYPE="):
            return line.removeprefix("DEVTYPE=")
    return "Ethernet" if kind == _ARPHRD_ETHER else "virtual"


def _read(path: Path, *, missing_ok: bool = False) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        if missing_ok:
            return ""
        raise
