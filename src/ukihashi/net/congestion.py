"""TCP congestion control: which rule decides how fast a connection sends (tcp(7), TCP_CONGESTION).

Each direction is its sender's to decide: the card's towards the hub, the hub's towards the card. On a line that loses a
little for no reason of congestion (radio, a bad cable) BBR carries many times what CUBIC does (docs/performance.md).
"""

import errno
import socket
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks

SETTINGS: Final = Path("/proc/sys/net/ipv4")
NAME_MAX: Final = 16  # linux/tcp.h, TCP_CA_NAME_MAX

_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})


def congestion_of(sock: socket.socket) -> str:
    """What a TCP socket really uses; "" for any other socket, or one that is broken."""
    if sock.family not in _INTERNET:
        return ""
    try:
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_MAX)
    except OSError:
        return ""
    return name.partition(b"\0")[0].decode("ascii", "replace")


def set_congestion(sock: socket.socket, name: str) -> None:
    """Use `name`, "" for the machine's own choice; what a listener accepts from now on uses its listener's.

    Raises: EnvironmentLacks: this machine can't; the sentence says what to do. The socket is as it was.
    """
    name = name or _setting("tcp_congestion_control")
    if sock.family not in _INTERNET or not name or name == congestion_of(sock):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode("ascii"))
    except PermissionError as error:
        raise EnvironmentLacks(
            N_(
                "this machine lets only root use the TCP congestion control “{name}”. To allow it: sysctl -w"
                ' net.ipv4.tcp_allowed_congestion_control="{allowed} {name}"'
            ),
            name=name,
            allowed=_setting("tcp_allowed_congestion_control"),
        ) from error
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise EnvironmentLacks(
                N_("the TCP congestion control “{name}” can't be used: {reason}"), name=name, reason=error.strerror
            ) from error
        raise EnvironmentLacks(
            N_(
                "this machine has no TCP congestion control “{name}” now; it has {available}. If its kernel brings it,"
                " `modprobe tcp_{name}` loads it"
            ),
            name=name,
            available=_setting("tcp_available_congestion_control").replace(" ", ", "),
        ) from error


def check_congestion(name: str) -> None:
    """Could a socket of this process use `name`? Raises: EnvironmentLacks."""
    if name:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            set_congestion(probe, name)


def _setting(name: str) -> str:
    try:
        return (SETTINGS / name).read_text("ascii").strip()
    except OSError:
        return ""
