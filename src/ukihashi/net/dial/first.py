"""The TCP connection to the first machine on a path that is not direct."""

import contextlib
import socket

from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.net.congestion import set_congestion
from ukihashi.net.dial import direct
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.names import KnownAddresses
from ukihashi.net.dial.via import Via


async def connect(via: Via, host: str, port: int, mark: int, known: KnownAddresses, congestion: str) -> socket.socket:
    """Both IP families at once, no deadline of its own. Raises: PathRefused."""
    try:
        sock = await direct.connect(host, port, mark=mark, known=known)
    except (OSError, UnicodeError) as error:
        raise PathRefused(
            Failure.PROXY_UNREACHABLE,
            N_("the way to {via} itself failed: {detail}; is it on, are its name and port right?"),
            via=via,
            detail=direct.why(error),
        ) from error
    if congestion:
        with contextlib.suppress(EnvironmentLacks):  # what is used, and why, is shown (`net.congestion`)
            set_congestion(sock, congestion)
    return sock
