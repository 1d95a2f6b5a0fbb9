"""What the hub listens on: TCP ports for everybody, and two Unix sockets, for pages and for commands.

The supervisor opens them once and hands them to its children, so none of these is ever closed while the hub runs; after
`hub upgrade` the new program takes them over open, with whoever waits there.
"""

import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.upgrade import Inherited, InheritedListener
from ukihashi.net.congestion import set_congestion
from ukihashi.net.listen import adopt_tcp, listen_tcp, listen_unix
from ukihashi.net.privileges import Identity, is_root

ADMIN_SOCKET: Final = "hub.sock"
WEB_SOCKET: Final = "web.sock"


class Doors:
    """Open sockets; `close` removes the Unix ones from the file system too."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, int], socket.socket] = {}  # by what was asked for, port 0 included
        self.fronts: list[socket.socket] = []  # page socket, admin socket
        self._paths: list[Path] = []
        self.handed = False  # the listeners are the service manager's

    @property
    def listeners(self) -> list[socket.socket]:
        """The TCP ports."""
        return list(self._listeners.values())

    @property
    def sockets(self) -> list[socket.socket]:
        """All."""
        return [*self.listeners, *self.fronts]

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """The real TCP addresses."""
        return tuple((host, port) for host, port, *_ in (sock.getsockname() for sock in self.listeners))

    def open(
        self,
        listen: Sequence[tuple[str, int]],
        folder: Path,
        *,
        control: Identity,
        worker: Identity,
        handed: Sequence[int] = (),
    ) -> None:
        """Open everything, or take the TCP sockets that are `handed` over in the place of all of `listen`.

        Raises: EnvironmentLacks, UsageError; what was opened is still to be closed.
        """
        self.handed = bool(handed)
        for fd in handed:
            sock = adopt_tcp(fd)
            host, port, *_ = sock.getsockname()
            self._listeners[host, port] = sock
        for place in () if handed else dict.fromkeys(listen):
            self._listeners[place] = listen_tcp(*place)
        for name, mode, owner in (
            (WEB_SOCKET, 0o600, {"uid": worker.uid}),  # only the worker may connect
            (ADMIN_SOCKET, 0o660, {"gid": control.gid}),
        ):
            self.fronts.append(listen_unix(folder / name, mode=mode, **(owner if is_root() else {})))
            self._paths.append(folder / name)

    def adopt(
        self,
        left: Inherited,
        listen: Sequence[tuple[str, int]],
        folder: Path,
        tell: Callable[[UkihashiError], object],
    ) -> None:
        """Take over what is open; open TCP addresses that are new, and close those that are no longer wanted.

        A new address that can't be had is told of and left out: the hub is serving already.
        """
        known = {(one.host, one.port): one.fd for one in left.listeners}
        self.handed = left.handed
        listen = list(known) if left.handed else listen
        self.fronts = [socket.socket(fileno=fd) for fd in left.fronts]
        self._paths = [folder / WEB_SOCKET, folder / ADMIN_SOCKET]
        for place in dict.fromkeys(listen):
            try:
                fd = known.pop(place, None)
                self._listeners[place] = listen_tcp(*place) if fd is None else socket.socket(fileno=fd)
            except UkihashiError as error:
                tell(error)
        for fd in known.values():
            os.close(fd)

    def set_congestion(self, name: str, tell: Callable[[UkihashiError], object]) -> None:
        """Of the connections accepted from now on, "" = the machine's own. What can't be had is told and left."""
        try:
            for sock in self.listeners:
                set_congestion(sock, name)
        except EnvironmentLacks as error:
            tell(error)

    def leave(self) -> tuple[list[InheritedListener], list[int]]:
        """For `Inherited`."""
        places = [InheritedListener(host, port, sock.fileno()) for (host, port), sock in self._listeners.items()]
        return places, [sock.fileno() for sock in self.fronts]

    def close_ports(self) -> None:
        """Nobody else gets in from the network."""
        for sock in self.listeners:
            sock.close()
        self._listeners.clear()

    def close(self) -> None:
        """All, for good."""
        self.close_ports()
        for sock in self.fronts:
            sock.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self.fronts, self._paths = [], []


def make_folder(path: Path, mode: int, owner: Identity | None) -> None:
    """A folder of the hub's and its files, whose account may have another number now. Raises: EnvironmentLacks."""
    try:
        if not path.is_dir():
            path.mkdir(mode=mode, parents=True)
        if owner is not None and is_root():
            os.chown(path, owner.uid, owner.gid)
            path.chmod(mode)
            for one in path.iterdir():
                found = one.lstat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid != owner.uid:
                    os.chown(one, owner.uid, owner.gid, follow_symlinks=False)
    except OSError as error:
        raise EnvironmentLacks(
            N_("the folder {path} can't be used: {reason}"), path=path, reason=error.strerror or error
        ) from error
