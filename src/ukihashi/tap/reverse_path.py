"""The kernel's check of where packets come from (RFC 3704; sysctl net.ipv4.conf.*.rp_filter). IPv4 has it, IPv6 not.

Strict, it drops packets that arrive by another interface than the one unmarked answers would leave by. That is what the
hub's packets do when the default route leads through the card. Loose, it only asks that there be any way back.
"""

from pathlib import Path
from typing import Final

STRICT: Final = 1
LOOSE: Final = 2

_CONF: Final = Path("/proc/sys/net/ipv4/conf")


def is_strict(interface: str) -> bool:
    """Does the strict check hold for what arrives there? The kernel takes the higher one of `all` and its own."""
    return max(read("all"), read(interface)) == STRICT


def read(interface: str) -> int:
    """The interface's own setting: 0 off, 1 strict, 2 loose. 0 if it has gone."""
    try:
        return int(_file(interface).read_text())
    except (OSError, ValueError):
        return 0


def write(interface: str, value: int) -> None:
    """Set it. Raises: OSError."""
    _file(interface).write_text(f"{value}\n")


def _file(interface: str) -> Path:
    return _CONF / interface / "rp_filter"
