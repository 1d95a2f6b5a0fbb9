"""Let the kernel pass packets on between some interfaces, and put every switch back as it was.

IPv4 has a switch for each interface. IPv6 has one too since Linux 6.17 (`force_forwarding`). Before, there was only one
for all interfaces. As soon as a machine is an IPv6 router anywhere its kernel forgets what router advertisements told
it, which it may live by: `accept_ra` becomes 2 where it was 1, which means to heed them all the same.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

PROC: Final = Path("/proc/sys/net")
OFF, ON, HEARD, ALWAYS = "0", "1", "1", "2"  # the last two: of accept_ra


class Setting(msgspec.Struct, frozen=True):
    """One switch that we change."""

    key: str  # below /proc/sys/net: "ipv4/conf/eth0/forwarding"
    before: str
    ours: str
    whole: str = ""  # the switch that stands over it ...
    whole_before: str = ""  # ... and how that stood: changed meanwhile, somebody else wants it on

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return int(self.key[3])

    @property
    def interface(self) -> str:
        """Where it lets packets through; "" for what concerns the whole machine."""
        return self.key.split("/")[2] if self.whole else ""

    @property
    def is_forwarding(self) -> bool:
        """Does it let packets through that did not pass before?"""
        return self.ours == ON

    def __str__(self) -> str:
        return f"net.{self.key.replace('/', '.')}={self.before}"


def needed(interfaces: Iterable[str], routers: Iterable[str] = (), *, single: bool | None = None) -> list[Setting]:
    """What is to change so that packets that come in there are passed on, in this order; nothing if they are already.

    Args:
        routers: those of them behind which this machine is known as a router (RFC 4861, the R flag).
        single: IPv6 has a switch for each interface; None: look.
    """
    names = sorted(set(interfaces))
    whole = "ipv4/conf/all/forwarding"
    found = [
        Setting(key, OFF, ON, whole, read(whole))
        for name in names
        if read(key := f"ipv4/conf/{name}/forwarding") == OFF
    ]
    whole = "ipv6/conf/all/forwarding"
    if read(whole) != OFF or not names:
        return found
    if single is None:
        single = bool(read("ipv6/conf/all/force_forwarding"))
    every = sorted(path.name for path in (PROC / "ipv6/conf").iterdir() if path.name not in {"all", "lo"})
    on = [name for name in every if read(f"ipv6/conf/{name}/forwarding") == ON]
    listeners = [name for name in every if name not in on and read(f"ipv6/conf/{name}/accept_ra") == HEARD]
    found += [Setting(f"ipv6/conf/{name}/accept_ra", HEARD, ALWAYS) for name in listeners]
    if not single:
        # the big switch turns on all, and with it all are off again
        return [*found, *(Setting(f"ipv6/conf/{name}/forwarding", ON, OFF) for name in on), Setting(whole, OFF, ON)]
    keys = [f"ipv6/conf/{name}/force_forwarding" for name in names]
    keys += [f"ipv6/conf/{name}/forwarding" for name in sorted(routers)]
    return [*found, *(Setting(key, OFF, ON, whole, OFF) for key in keys if read(key) == OFF)]


def switch(setting: Setting) -> None:
    """Change it. Raises: OSError."""
    if setting.before != ON or setting.ours != OFF:  # of a router only what becomes of it when the big switch goes back
        write(setting.key, setting.ours)


def put_back(setting: Setting) -> bool:
    """As it was, unless somebody else has changed it, or what stands over it, or it has gone; True if it was changed.

    To be called in the reverse order. Raises: OSError.
    """
    if read(setting.key) != setting.ours or (setting.whole and read(setting.whole) != setting.whole_before):
        return False
    write(setting.key, setting.before)
    return True


def read(key: str) -> str:
    """A switch as it stands, "" if there is none."""
    try:
        return (PROC / key).read_text().strip()
    except OSError:
        return ""


def write(key: str, value: str) -> None:
    """Raises: OSError."""
    (PROC / key).write_text(f"{value}\n")
