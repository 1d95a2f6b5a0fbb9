"""Listening sockets, TCP and Unix.

An accepted TCP socket inherits its listener's options (Linux), so what every connection wants is set once, here.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks, UsageError
from ukihashi.net.link import tune

BACKLOG: Final = 1024  # connections that wait for accept; the kernel caps it by net.core.somaxconn
PROC: Final = Path("/proc")


def listen_tcp(host: str, port: int) -> socket.socket:
    """A non-blocking listener on one address. `host` is a literal IPv4 or IPv6 address; port 0 takes a free one.

    Raises:
        UsageError: `host` is no literal address.
        EnvironmentLacks: the port is taken or not allowed, or the address isn't on this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 has a listener of its own
        tune(sock)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except socket.gaierror as error:
        sock.close()
        raise UsageError(
            N_("{host!r} is no address to listen on; write for example 0.0.0.0, 192.0.2.7 or ::"), host=host
        ) from error
    except OSError as error:
        sock.close()
        raise _cannot_bind(host, port, error) from error
    return sock


def adopt_tcp(fd: int) -> socket.socket:
    """A listener like that of `listen_tcp`, from one that the service manager has opened; it is ours from now on.

    Raises: UsageError: it is something else.
    """
    with suppress(OSError):
        sock = socket.socket(fileno=fd)
        is_tcp = sock.family in {socket.AF_INET, socket.AF_INET6} and sock.type == socket.SOCK_STREAM
        if is_tcp and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            tune(sock)
            sock.listen(BACKLOG)
            return sock
        sock.close()
    raise UsageError(N_("what the service manager handed over as descriptor {fd} is no listening TCP socket"), fd=fd)


def listen_unix(path: Path, *, mode: int, uid: int = -1, gid: int = -1) -> socket.socket:
    """A non-blocking listener at `path` with these rights; a socket that nobody serves any more is replaced.

    Raises:
        EnvironmentLacks: another program serves there, or the place can't be used.
    """
    if _is_served(path):
        raise EnvironmentLacks(
            N_("another ukihashi already serves {path}; stop it, or choose another --runtime-dir"), path=path
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # nobody else gets in between bind and chmod
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        if uid >= 0 or gid >= 0:
            os.chown(path, uid, gid)
        path.chmod(mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise EnvironmentLacks(
            N_("no socket can be made at {path}: {reason}"), path=path, reason=error.strerror or error
        ) from error
    return sock


def address_text(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """`192.0.2.7:443` or `[2001:db8::7]:443`; an IPv4 client of an IPv6 socket is shown as IPv4."""
    host = address[0].removeprefix("::ffff:") if "." in address[0] else address[0]
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def site_of(address: str) -> str:
    """Whose a connection is, by `address_text`: an IPv4 address, or the /64 of an IPv6 one (who has one has all)."""
    host = address.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host
    try:
        return ipaddress.IPv6Address(host).packed[:8].hex()
    except ValueError:
        return host


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
        return True


def _cannot_bind(host: str, port: int, error: OSError) -> EnvironmentLacks:
    where = address_text((host, port))
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        if holder:
            return EnvironmentLacks(
                N_("{where} is taken by {holder}; stop that program, or choose another port with --listen"),
                where=where,
                holder=holder,
            )
        return EnvironmentLacks(
            N_("{where} is taken by another program; `ss -ltnp` shows which. Or choose another port with --listen"),
            where=where,
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return EnvironmentLacks(
            N_("listening on {where} needs root; try again with sudo, or choose a port from 1024 on with --listen"),
            where=where,
        )
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return EnvironmentLacks(
            N_("{host} is not an address of this machine; `ip address` lists those it has"), host=host
        )
    return EnvironmentLacks(
        N_("listening on {where} does not work: {reason}"), where=where, reason=error.strerror or error
    )


def port_holder(port: int) -> str:
    """`nginx (pid 812)` for the process that listens on a TCP port; "" if it can't be seen (needs root, usually)."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not wanted:
        return ""
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            for handle in (process / "fd").iterdir():
                if str(handle.readlink()) in wanted:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _listening_inodes(port: int) -> Iterator[str]:
    """proc_net_tcp(5): column 2 is local address:port in hex, 4 the state (0A = LISTEN), 10 the inode."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]
