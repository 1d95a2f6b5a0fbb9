"""What a talk with a proxy needs of a connection: no byte is taken that the talk does not want.

Bytes behind the proxy's answer belong to the tunnel. From a socket they are looked at before they are taken
(`MSG_PEEK`), so the descriptor itself can be handed on.
"""

import asyncio
import contextlib
import socket
from typing import Final, Protocol

ANSWER_MAX: Final = 64 * 1024  # bytes that all answers of one proxy on one connection may have


SOME: Final = 4096  # bytes read at a time where more may be taken than is needed


class StreamEnded(Exception):
    """The other end closed; `so_far` came before in what was being read."""

    def __init__(self, so_far: bytes = b"") -> None:
        super().__init__(so_far)
        self.so_far: Final = so_far


class AnswerTooLong(Exception):
    """More came than any proxy says."""

    def __init__(self, so_far: bytes = b"") -> None:
        super().__init__("answer too long")
        self.so_far: Final = so_far


class Stream(Protocol):
    """A connection to a proxy, for as long as the talk with it lasts. Raises: StreamEnded, AnswerTooLong, OSError."""

    async def send(self, data: bytes) -> None:
        """Write all of it."""

    async def exactly(self, count: int) -> bytes:
        """So many bytes, and none of those behind them."""

    async def line(self) -> bytes:
        """All through the next line feed, and nothing behind it."""

    async def some(self) -> bytes:
        """What is there, one byte at least; only where no tunnel can follow."""


class SocketStream:
    """Over a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: Final = sock
        self._left = ANSWER_MAX

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        got = b""
        while len(got) < count:
            got += await self._take(count - len(got), got)
        return got

    async def line(self) -> bytes:
        """All through the next line feed."""
        got = b""
        while not got.endswith(b"\n"):
            await readable(self._sock)
            with contextlib.suppress(BlockingIOError):
                seen = self._sock.recv(ANSWER_MAX, socket.MSG_PEEK)
                if not seen:
                    raise StreamEnded(got)
                got += await self._take(seen.find(b"\n") + 1 or len(seen), got)
        return got

    async def some(self) -> bytes:
        """What is there."""
        return await self._take(min(SOME, self._left + 1), b"")

    async def _take(self, most: int, so_far: bytes) -> bytes:
        if most > self._left:
            raise AnswerTooLong(so_far)
        data = await asyncio.get_running_loop().sock_recv(self._sock, most)
        if not data:
            raise StreamEnded(so_far)
        self._left -= len(data)
        return data


async def readable(sock: socket.socket) -> None:
    """Wait until a read of this socket would not block."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not came.done():
            came.set_result(None)

    loop.add_reader(sock, tell)
    try:
        await came
    finally:
        loop.remove_reader(sock)
