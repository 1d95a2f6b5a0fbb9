"""A connection to an https:// proxy: TLS with it, and the talk inside."""

import asyncio
import socket
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, NotTrusted, PeerViolation
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.stream import ANSWER_MAX, SOME, AnswerTooLong, StreamEnded
from ukihashi.net.dial.via import Via
from ukihashi.net.tls import TlsChannel, TlsState, client_context

READ: Final = 16 * 1024  # bytes at a time


class TlsStream:
    """What a talk needs (`stream.Stream`), inside TLS; bytes that came too early stay in `early`."""

    def __init__(self, sock: socket.socket, channel: TlsChannel) -> None:
        self._sock, self.channel = sock, channel
        self.early = b""
        self._left = ANSWER_MAX

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        self.channel.send(data)
        await self._flush()

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self.early) < count:
            await self._more()
        return self._cut(count)

    async def line(self) -> bytes:
        """All through the next line feed."""
        while b"\n" not in self.early:
            await self._more()
        return self._cut(self.early.index(b"\n") + 1)

    async def some(self) -> bytes:
        """What is there."""
        if not self.early:
            await self._more()
        return self._cut(min(SOME, len(self.early)))

    async def handshake(self) -> None:
        """Raises: PeerViolation, NotTrusted, StreamEnded, OSError."""
        self.channel.start()
        await self._flush()
        while self.channel.state is TlsState.HANDSHAKING:
            await self._more()

    def _cut(self, count: int) -> bytes:
        piece, self.early = self.early[:count], self.early[count:]
        self._left -= count
        return piece

    async def _more(self) -> None:
        if len(self.early) > self._left:
            raise AnswerTooLong(self.early)
        data = await asyncio.get_running_loop().sock_recv(self._sock, READ)
        if not data or self.channel.state is TlsState.PEER_CLOSED:
            raise StreamEnded(self.early)
        try:
            self.early += self.channel.receive(data)
        finally:
            await self._flush()

    async def _flush(self) -> None:
        while outgoing := self.channel.outgoing():
            await asyncio.get_running_loop().sock_sendall(self._sock, outgoing)
            self.channel.sent(len(outgoing))


async def begin(sock: socket.socket, via: Via, authorities: Path | None) -> TlsStream:
    """TLS with the proxy, whose certificate must bear its name.

    Args:
        authorities: PEM file of who may certify it; None: the system's.
    Raises: PathRefused, EnvironmentLacks, OSError.
    """
    context = client_context(authorities=authorities, system_trust=authorities is None)
    stream = TlsStream(sock, TlsChannel(context, server_side=False, server_name=via.host.partition("%")[0]))
    try:
        await stream.handshake()
    except NotTrusted as error:
        raise PathRefused(
            Failure.PROXY_TLS,
            N_("the certificate of the proxy {via} isn't trusted: {reason}; ask its administrator for the authority's"),
            via=via,
            reason=error,
        ) from error
    except (PeerViolation, StreamEnded, ConnectionError) as error:
        raise PathRefused(
            Failure.PROXY_TLS, N_("no TLS with the proxy {via} came about; is it an http:// one instead?"), via=via
        ) from error
    return stream
