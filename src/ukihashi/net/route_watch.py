"""Notice at once that the network under a connection changed: its address is gone, or its packets take another way.

The kernel announces every change of links, addresses, routes and rules on a netlink socket; after each burst of
announcements we ask it which way this connection's packets go now (rtnetlink(7)). Needs no rights.
"""

import asyncio
import errno
import ipaddress
import os
import socket
from types import TracebackType
from typing import Final, NamedTuple, Self

from ukihashi.errors import N_, DialError

QUIET_S: Final = 0.1  # a change comes as a burst: address off, address on, route on
NETLINK_ROUTE: Final = 0
# linux/rtnetlink.h, RTMGRP_*: links; IPv4 addresses, routes, rules; IPv6 addresses, routes, rules
GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18

_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES})


class Notices:
    """The kernel's announcements of changes, taken as what they are: a reason to look."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
        self._sock.bind((0, GROUPS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    async def changed(self, quiet: float = QUIET_S) -> None:
        """Return `quiet` seconds after something has changed; what comes meanwhile belongs to it."""
        try:
            await asyncio.get_running_loop().sock_recv(self._sock, 4096)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more came than fits: a change as well
                raise
        await asyncio.sleep(quiet)
        while True:
            try:
                self._sock.recv(4096)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


class Way(NamedTuple):
    """Where packets leave this machine."""

    interface: str
    gateway: str  # "": the other end is a neighbour

    def __str__(self) -> str:
        return f"{self.interface} {self.gateway}".rstrip()


class RouteWatch:
    """One connection: `local` and `remote` address, and the firewall mark of its packets."""

    def __init__(self, local: str, remote: str, mark: int = 0, *, quiet: float = QUIET_S) -> None:
        self._local: Final = local.partition("%")[0]
        self._remote: Final = remote.partition("%")[0]
        self._mark: Final = mark
        self._quiet: Final = quiet

    @classmethod
    def of(cls, sock: socket.socket, mark: int = 0) -> Self:
        """Of a connected TCP socket. Raises: OSError if it is not connected any more."""
        return cls(sock.getsockname()[0], sock.getpeername()[0], mark)

    async def changed(self) -> DialError:
        """Wait until this connection can't go on as it does now, and say why (given, not raised). May be cancelled."""
        with Notices() as notices:  # before the first look: nothing falls between
            first = await asyncio.to_thread(self._look)
            while isinstance(first, Way):
                await notices.changed(self._quiet)
                now = await asyncio.to_thread(self._look)
                if isinstance(now, DialError):
                    return now
                if now != first:
                    return DialError(
                        N_("the way to {address} has changed from {before} to {now}"),
                        address=self._remote,
                        before=str(first),
                        now=str(now),
                    )
        return first

    def _look(self) -> Way | DialError:
        """The connection's way out, or why there is none."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        family = socket.AF_INET6 if ":" in self._remote else socket.AF_INET
        with IPRoute() as netlink:
            wanted = ipaddress.ip_address(self._local)
            rows = netlink.get_addr(family=family)
            own = (row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS") for row in rows)
            if not wanted.is_loopback and all(ipaddress.ip_address(address) != wanted for address in own):
                return DialError(N_("this machine no longer has the address {address}"), address=self._local)
            fields = {"family": family, "dst": self._remote, "src": self._local}
            if self._mark:
                fields["mark"] = self._mark
            try:
                row = netlink.route("get", **fields)[0]
            except NetlinkError as error:
                if error.code in _NO_WAY:
                    return DialError(N_("there is no route to {address} any more"), address=self._remote)
                raise OSError(error.code, os.strerror(error.code)) from error
        via = row.get_attr("RTA_VIA")
        gateway = row.get_attr("RTA_GATEWAY") or (via["addr"] if via else "")
        return Way(_name(row.get_attr("RTA_OIF")), gateway)


def _name(index: int | None) -> str:
    try:
        return socket.if_indextoname(index or 0)
    except OSError:
        return ""
