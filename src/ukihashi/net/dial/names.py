"""Names to addresses: never longer than we want to wait, and remembered where they were right.

A card whose default route leads through its own tunnel may reach no name server while the tunnel is cut; then the
address that worked before brings the tunnel back.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

Where = tuple[socket.AddressFamily, tuple[Any, ...]]  # an address as sockets take it
Row = tuple[str, int, int, tuple[Any, ...]]  # host, port, family, address

SLOW: Final = 2.0  # seconds a look-up may take before what worked last time is used instead
REMEMBERED: Final = 4  # addresses a host


class KnownAddresses:
    """Addresses that a connection came about with, the latest first. In memory only."""

    def __init__(self) -> None:
        self._worked: dict[tuple[str, int], list[Where]] = {}

    def worked(self, host: str, port: int, where: Where) -> None:
        """A connection to `where` came about."""
        others = [one for one in self._worked.get((host, port), []) if one != where]
        self._worked[host, port] = [where, *others][:REMEMBERED]

    def rows(self) -> list[Row]:
        """All of them, to be written down."""
        return [(*name, family, tuple(address)) for name, found in self._worked.items() for family, address in found]

    def take(self, rows: Iterable[Row]) -> None:
        """What was written down, where nothing is known yet."""
        found: dict[tuple[str, int], list[Where]] = {}
        for host, port, family, address in rows:
            found.setdefault((host, port), []).append((socket.AddressFamily(family), address))
        self._worked = {**found, **self._worked}

    def of(self, host: str, port: int) -> Sequence[Where]:
        """What worked for this host."""
        return self._worked.get((host, port), ())


async def look_up(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[Where]:
    """The addresses of a name, in the order the system prefers. Raises: OSError (gaierror), UnicodeError.

    In a thread that nobody waits for once this is cancelled: a resolver can't be interrupted.
    """
    with contextlib.suppress(socket.gaierror):
        return _ask(host, port, kind, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Where]] = loop.create_future()

    def tell(found: list[Where] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def work() -> None:
        found, failure = None, None
        try:
            found = _ask(host, port, kind)
        except (OSError, UnicodeError) as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found, failure)

    threading.Thread(target=work, name=f"look up {host}", daemon=True).start()
    return await answer


def _ask(host: str, port: int, kind: socket.SocketKind, flags: int = 0) -> list[Where]:
    rows = socket.getaddrinfo(host, port, type=kind, flags=flags)
    return list(dict.fromkeys((family, address) for family, _kind, _protocol, _name, address in rows))
