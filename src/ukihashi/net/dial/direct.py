"""Dial a hub directly: names, both IP families at once, one deadline (RFC 8305)."""

import asyncio
import contextlib
import errno
import itertools
import os
import socket
from collections.abc import Sequence
from typing import Final

from ukihashi.errors import N_, DialError, EnvironmentLacks
from ukihashi.net.congestion import set_congestion
from ukihashi.net.dial.names import SLOW, KnownAddresses, Where, look_up

DEADLINE: Final = 15.0  # seconds for name look-up and connection together; also what standard peers allow
HEAD_START: Final = 0.25  # seconds one address has before the next is tried beside it (RFC 8305, section 5)
REMEMBERED_S: Final = 5.0  # seconds for what worked last time, when the name is slow; then the name again

SO_MARK: Final = 36  # asm-generic/socket.h; Python has no name for it

# When addresses fail for different reasons, the most telling is told: somebody answered, then nobody, then no way.
_TELLING: Final = (
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EADDRNOTAVAIL,
)


async def dial(
    host: str,
    port: int,
    *,
    deadline: float = DEADLINE,
    mark: int = 0,
    known: KnownAddresses | None = None,
    congestion: str = "",
) -> socket.socket:
    """A connected, non-blocking TCP socket to `host` (name or address, IPv6 without brackets); the caller closes it.

    Args:
        mark: firewall mark of the packets, so that routing rules can tell them; 0: none. Setting one needs a right.
        known: remembers what worked; used when the name can't be looked up, or not at once.
        congestion: TCP congestion control, if this machine has it; "" = the machine's own.
    Raises: DialError: the name is unknown, nobody listens, no way there, or no answer within `deadline` seconds.
    """
    address = location(host, port)
    try:
        async with asyncio.timeout(deadline):
            sock = await connect(host, port, mark=mark, known=known or KnownAddresses())
    except TimeoutError as error:
        raise DialError(
            N_("{address} did not answer within {seconds:g} s; is that machine on, is the port open in firewalls?"),
            address=address,
            seconds=deadline,
        ) from error
    except socket.gaierror as error:
        raise _unknown_name(host, error) from error
    except OSError as error:
        raise _unreachable(address, error) from error
    except UnicodeError as error:
        raise DialError(N_("{address} can't be reached: {reason}"), address=address, reason=error) from error
    if congestion:
        with contextlib.suppress(EnvironmentLacks):  # what is used, and why, is shown (`net.congestion`)
            set_congestion(sock, congestion)
    return sock


async def connect(host: str, port: int, *, mark: int, known: KnownAddresses) -> socket.socket:
    """The same without a deadline, and with the errors as they are. Raises: OSError (gaierror), UnicodeError."""
    sock, where = await _dial(host, port, mark, known.of(host, port))
    known.worked(host, port, where)
    return sock


async def _dial(host: str, port: int, mark: int, remembered: Sequence[Where]) -> tuple[socket.socket, Where]:
    looking = asyncio.create_task(look_up(host, port))
    try:
        if remembered:
            await asyncio.wait([looking], timeout=SLOW)
            if not looking.done() or looking.exception() is not None:
                with contextlib.suppress(OSError):  # TimeoutError is one
                    async with asyncio.timeout(REMEMBERED_S):
                        return await _first_of(remembered, mark)
        return await _first_of(in_turn(await looking), mark)
    finally:
        looking.cancel()


def in_turn(places: Sequence[Where]) -> list[Where]:
    """Both families in turn, beginning with the one the system prefers (RFC 8305, section 4)."""
    first = [place for place in places if place[0] == places[0][0]]
    second = [place for place in places if place[0] != places[0][0]]
    return [place for pair in itertools.zip_longest(first, second) for place in pair if place is not None]


async def _first_of(places: Sequence[Where], mark: int) -> tuple[socket.socket, Where]:
    """Try them one after another, each beside those that have not answered yet. Raises: OSError, the most telling."""
    coming = iter(places)
    running: dict[asyncio.Task[socket.socket], Where] = {}
    failures: list[OSError] = []
    try:
        while True:
            place = next(coming, None)
            if place is not None:
                running[asyncio.create_task(_connect(place, mark))] = place
            elif not running:
                raise min(failures, key=_telling)
            done, _ = await asyncio.wait(
                running, timeout=None if place is None else HEAD_START, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                where = running.pop(task)
                if (error := task.exception()) is None:
                    return task.result(), where
                if not isinstance(error, OSError):
                    raise error
                failures.append(error)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_drop)


async def _connect(place: Where, mark: int) -> socket.socket:
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _drop(task: asyncio.Task[socket.socket]) -> None:
    """A connection that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def location(host: str, port: int) -> str:
    """`host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unknown_name(host: str, error: socket.gaierror) -> DialError:
    if error.errno == socket.EAI_AGAIN:
        return DialError(
            N_("the name {host} can't be looked up now (no name server answers); is this machine online?"), host=host
        )
    return DialError(N_("the name {host} is unknown; check its spelling, or use an address"), host=host)


def _telling(error: OSError) -> int:
    return _TELLING.index(error.errno) if error.errno in _TELLING else len(_TELLING)


def _unreachable(address: str, error: OSError) -> DialError:
    if error.errno == errno.ECONNREFUSED:
        return DialError(
            N_("{address} refused the connection; no hub listens there (is it running, is the port right?)"),
            address=address,
        )
    if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}:
        return DialError(N_("there is no route to {address}; is this machine online?"), address=address)
    return DialError(N_("{address} can't be reached: {reason}"), address=address, reason=why(error))


def why(error: OSError | UnicodeError) -> str:
    """In the system's words; asyncio puts its own in their place, which name no reason."""
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return str((isinstance(error, OSError) and error.strerror) or error)
