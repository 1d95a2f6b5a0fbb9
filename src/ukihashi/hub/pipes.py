"""How the hub's processes carry `messages`: a stream between worker and control, packets to and from the supervisor.

    stream    u32 length (big-endian), MessagePack; `Pipe` for an epoll loop, `AsyncPipe` for asyncio
    packets   one SOCK_SEQPACKET packet a message, descriptors attached; `send_with_fd`, `receive_with_fds`

Bounds: a message is at most `MAX_MESSAGE` bytes. A `Pipe` holds at most `MAX_WAITING` unsent bytes; beyond that the
other process has stood still for thousands of messages, and `send` says so instead of growing. `AsyncPipe.send` waits.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.messages import MAX_MESSAGE, AnyMessage, Message, decode, encode

LENGTH: Final = struct.Struct("!I")
MAX_WAITING: Final = 2 * MAX_MESSAGE  # bytes
PACKET: Final = 65536  # bytes of one packet on a supervisor link; its messages are small
MAX_FDS: Final = 4  # descriptors with one packet
READ: Final = 262144  # bytes


class PipeBroken(UkihashiError):
    """The other process sent what is no message, took nothing for too long, or is gone."""


class MessageDecoder:
    """Cut a stream into messages. Holds at most one incomplete message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[AnyMessage]:
        """The messages that `data` completed, in order. Raises PipeBroken; the stream is lost then."""
        buffer, messages, start = self._buffer, list[AnyMessage](), 0
        buffer += data
        while len(buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, start)
            if length > MAX_MESSAGE:
                raise PipeBroken(N_("a message of {length} bytes between the hub's own processes"), length=length)
            end = start + LENGTH.size + length
            if len(buffer) < end:
                break
            messages.append(_decoded(bytes(buffer[start + LENGTH.size : end])))
            start = end
        del buffer[:start]
        return messages


class Pipe:
    """The stream's end in an epoll loop. Never blocks; owns the socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = MessageDecoder()
        self._waiting = bytearray()

    def fileno(self) -> int:
        """For epoll."""
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        """Call `flush` when the socket can be written."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """Bytes that the other process has not taken."""
        return len(self._waiting)

    def send(self, message: Message) -> None:
        """Queue one message and write what goes at once. Raises PipeBroken."""
        self._waiting += _framed(message)
        if len(self._waiting) > MAX_WAITING:
            raise PipeBroken(N_("another process of the hub takes no messages any more"))
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now. Raises PipeBroken."""
        while self._waiting:
            try:
                count = self._socket.send(self._waiting)
            except BlockingIOError:
                return
            except OSError as error:
                raise PipeBroken(N_("another process of the hub is gone ({reason})"), reason=error.strerror) from error
            del self._waiting[:count]

    def receive(self) -> list[AnyMessage]:
        """All messages that are here. Raises PipeBroken, also at the end of the stream."""
        messages: list[AnyMessage] = []
        while True:
            try:
                data = self._socket.recv(READ)
            except BlockingIOError:
                return messages
            except OSError as error:
                raise PipeBroken(N_("another process of the hub is gone ({reason})"), reason=error.strerror) from error
            if not data:
                if messages:
                    return messages  # the end is seen again at the next call
                raise PipeBroken(N_("another process of the hub is gone ({reason})"), reason="end of stream")
            messages += self._decoder.feed(data)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class AsyncPipe:
    """The stream's end in asyncio. `async for message in pipe` ends when the other process is gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = MessageDecoder()
        self._sending = asyncio.Lock()

    async def send(self, message: Message) -> None:
        """Send one message; waits while the other process doesn't read. Raises PipeBroken."""
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, _framed(message))
            except OSError as error:
                raise PipeBroken(N_("another process of the hub is gone ({reason})"), reason=error.strerror) from error

    def __aiter__(self) -> AsyncIterator[AnyMessage]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[AnyMessage]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._socket, READ)
            except OSError:
                return
            if not data:
                return
            for message in self._decoder.feed(data):
                yield message

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


def send_with_fd(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """One packet with descriptors (they stay open here). Raises PipeBroken, also when the packet queue is full."""
    data = encode(message)
    if len(data) > PACKET:
        raise PipeBroken(N_("a message of {length} bytes between the hub's own processes"), length=len(data))
    try:
        socket.send_fds(sock, [data], list(fds), socket.MSG_NOSIGNAL)
    except OSError as error:
        raise PipeBroken(N_("another process of the hub is gone ({reason})"), reason=error.strerror) from error


def receive_with_fds(sock: socket.socket) -> tuple[AnyMessage, list[int]] | None:
    """One packet and its descriptors, which the caller now owns; None when the other process is gone.

    Raises:
        BlockingIOError: nothing there (non-blocking socket).
        PipeBroken: what came is no message; its descriptors are closed.
    """
    try:
        data, fds, flags, _address = socket.recv_fds(sock, PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not data:
        return None
    try:
        return _decoded(data if not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) else b""), fds
    except PipeBroken:
        for fd in fds:
            os.close(fd)
        raise


def _framed(message: Message) -> bytes:
    data = encode(message)
    if len(data) > MAX_MESSAGE:
        raise PipeBroken(N_("a message of {length} bytes between the hub's own processes"), length=len(data))
    return LENGTH.pack(len(data)) + data


def _decoded(data: bytes) -> AnyMessage:
    try:
        return decode(data)
    except msgspec.DecodeError as error:  # ValidationError is one
        raise PipeBroken(
            N_("what came from another process of the hub is no message: {reason}"), reason=error
        ) from error
