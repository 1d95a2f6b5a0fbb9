"""Dial a hub directly: names, both IP families at once, one deadline (RFC 8305 by asyncio's own means)."""

import asyncio
import errno
import os
import re
import socket
from typing import Final

from ukihashi.errors import N_, DialError

DEADLINE: Final = 15.0  # seconds for name look-up and connection together; also what standard peers allow
HEAD_START: Final = 0.25  # seconds one address has before the next is tried beside it (RFC 8305, section 5)

_ERRNO: Final = re.compile(r"\[Errno (-?\d+)\]")
# When addresses fail for different reasons, the most telling is told: somebody answered, then nobody, then no way.
_TELLING: Final = (
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EADDRNOTAVAIL,
)


class _Quiet(asyncio.Protocol):
    """Reads nothing: the first byte belongs to whoever gets the descriptor."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()


async def dial(host: str, port: int, *, deadline: float = DEADLINE) -> socket.socket:
    """A connected, non-blocking TCP socket to `host` (name or address, IPv6 without brackets); the caller closes it.

    Raises: DialError: the name is unknown, nobody listens, no way there, or no answer within `deadline` seconds.
    """
    address = location(host, port)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline):
            transport, _ = await loop.create_connection(
                _Quiet, host, port, happy_eyeballs_delay=HEAD_START, interleave=1
            )
    except TimeoutError as error:
        raise DialError(
            N_("{address} did not answer within {seconds:g} s; is that machine on, is the port open in firewalls?"),
            address=address,
            seconds=deadline,
        ) from error
    except socket.gaierror as error:
        raise _unknown_name(host, error) from error
    except (OSError, UnicodeError) as error:
        raise _unreachable(address, error) from error
    inner: socket.socket = transport.get_extra_info("socket")
    try:
        sock = socket.socket(fileno=os.dup(inner.fileno()))
        sock.setblocking(False)
        return sock
    finally:
        transport.abort()  # closes only the transport's own descriptor


def location(host: str, port: int) -> str:
    """`host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unknown_name(host: str, error: socket.gaierror) -> DialError:
    if error.errno == socket.EAI_AGAIN:
        return DialError(
            N_("the name {host} can't be looked up now (no name server answers); is this machine online?"), host=host
        )
    return DialError(N_("the name {host} is unknown; check its spelling, or use an address"), host=host)


def _unreachable(address: str, error: OSError | UnicodeError) -> DialError:
    seen = {error.errno} if isinstance(error, OSError) and error.errno else set[int]()
    seen |= {int(number) for number in _ERRNO.findall(str(error))}
    code = next((number for number in _TELLING if number in seen), 0)
    if code == errno.ECONNREFUSED:
        return DialError(
            N_("{address} refused the connection; no hub listens there (is it running, is the port right?)"),
            address=address,
        )
    if code in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}:
        return DialError(N_("there is no route to {address}; is this machine online?"), address=address)
    return DialError(
        N_("{address} can't be reached: {reason}"),
        address=address,
        reason=os.strerror(code or next(iter(seen), 0)) if seen else str(error),
    )
