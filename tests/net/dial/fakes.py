"""Small proxies on loopback, of the kinds that the dialers know, and what stands behind them."""

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.net.conftest import Certificate

from lab.wait import TimeOver, until
from ukihashi.net.dial import relay
from ukihashi.net.dial.over_tls import TlsStream
from ukihashi.net.dial.stream import StreamEnded
from ukihashi.net.dial.via import Kind
from ukihashi.net.tls import TlsChannel, server_context

USER, SECRET = "taro", 'p@ss"wörd'
BIG = 10 * 1024 * 1024
PIECE = os.urandom(64 * 1024)
NONCE = "dcd98b7102dd2f0e8b11d0f600bfb0c093"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    serve: Serve, host: str = "127.0.0.1", tls: Certificate | None = None, *, listener: socket.socket | None = None
) -> AsyncIterator[int]:
    """A server of one kind of connection; its port. No connection outlives it."""
    running: set[asyncio.Task[None]] = set()

    async def one(sock: socket.socket) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError, StreamEnded):
            if tls is not None:  # asyncio's own TLS knows no half-close
                context = server_context(tls.certificate, tls.key)
                stream = TlsStream(sock, TlsChannel(context, server_side=True))
                try:
                    await stream.handshake()
                except BaseException:
                    sock.close()
                    raise
                sock = relay.over_tls(sock, stream.channel, stream.early)
            reader, writer = await asyncio.open_connection(sock=sock)
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def accept(listener: socket.socket) -> None:
        while True:
            sock, _peer = await asyncio.get_running_loop().sock_accept(listener)
            task = asyncio.create_task(one(sock))
            running.add(task)
            task.add_done_callback(running.discard)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with listener or socket.create_server((host, 0), family=family) as listening:
        listening.setblocking(False)
        accepting = asyncio.create_task(accept(listening))
        try:
            yield listening.getsockname()[1]
        finally:
            for task in (accepting, *running):
                task.cancel()
            await asyncio.wait([accepting, *running], timeout=5)


async def hashing(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, size: int = 0, to_the_end: bool = True
) -> None:
    """Greets; takes `size` bytes, or everything until its end; says what it was, sends as much of its own, ends."""
    writer.write(b"hello")
    seen, left = hashlib.sha256(), size
    while (to_the_end or left) and (piece := await reader.read(len(PIECE))):
        seen.update(piece)
        left -= len(piece)
    writer.write(seen.digest())
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@dataclass
class Fake:
    """A proxy. What it shall do, and what it saw."""

    kind: Kind
    scheme: str = ""  # "basic", "digest-md5", "digest-sha-256", "password" (SOCKS 5)
    closes: bool = False  # after each 407
    answer: bytes = b""  # said instead of anything else
    silent: bool = False
    asked: list[tuple[str, int]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        self.connections += 1
        if self.silent or self.answer:
            if self.silent:
                await reader.read(-1)
                self.ended.append("client")
            elif await reader.read(1000):
                writer.write(self.answer)
            return
        talk = {Kind.HTTP: self._http, Kind.HTTPS: self._http, Kind.SOCKS4: self._four, Kind.SOCKS4A: self._four}
        await talk.get(self.kind, self._five)(reader, writer)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found = re.match(r"CONNECT \[?([^\] ]+?)\]?:(\d+) HTTP/1.1\r\n", head)
            assert found, head
            host, port = found[1], int(found[2])
            if not self.scheme or self._proven(head, f"{found[0].split()[1]}"):
                break
            challenge = (
                'Basic realm="x, y"'
                if self.scheme == "basic"
                else (
                    f'Digest realm="r, \\"x\\"", qop="auth-int, auth", nonce="{NONCE}", opaque="o",'
                    f" algorithm={self.scheme.removeprefix('digest-').upper()}, Newfangled a=b"
                )
            )
            body = b"<html>" + b"x" * 5000
            lines = ["HTTP/1.1 407 Prove it", f"Proxy-Authenticate: {challenge}", f"Content-Length: {len(body)}"]
            lines += ["Connection: close"] if self.closes else []
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            if self.closes:
                return
        yes = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"
        await self._on(reader, writer, host, port, yes, lambda _code: b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")

    def _proven(self, head: str, target: str) -> bool:
        found = re.search(r"Proxy-Authorization: (\w+) (.*)\r\n", head)
        if not found:
            return False
        if self.scheme == "basic":
            return base64.b64decode(found[2]).decode() == f"{USER}:{SECRET}"
        fields = {name: (q or p) for name, q, p in re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^",]+))', found[2])}
        new = {"digest-md5": hashlib.md5, "digest-sha-256": hashlib.sha256}[self.scheme]

        def h(text: str) -> str:
            return new(text.encode()).hexdigest()

        right = h(
            f"{h(f'{USER}:r, {chr(34)}x{chr(34)}:{SECRET}')}:{NONCE}:{fields['nc']}:{fields['cnonce']}:auth:"
            f"{h(f'CONNECT:{target}')}"
        )
        return bool(fields["response"] == right) and fields["opaque"] == "o" and fields["uri"] == target

    async def _four(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, command, port, packed = struct.unpack("!BBH4s", await reader.readexactly(8))
        assert (version, command) == (4, 1)
        await reader.readuntil(b"\0")
        host = str(ipaddress.IPv4Address(packed))
        if packed[:3] == b"\0\0\0":
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        await self._on(reader, writer, host, port, b"\0\x5a" + bytes(6), lambda _code: b"\0\x5b" + bytes(6))

    async def _five(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.scheme else 0
        if wanted not in methods:
            writer.write(b"\5\xff")
            return
        writer.write(bytes((5, wanted)))
        if self.scheme:
            _one, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            secret = await reader.readexactly((await reader.readexactly(1))[0])
            good = (user.decode(), secret.decode()) == (USER, SECRET)
            writer.write(bytes((1, not good)))
            if not good:
                return
        _v, _c, _r, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        bound = b"\3\4abcd\0\0" if kind == 3 else b"\1" + bytes(6)
        await self._on(reader, writer, host, port, b"\5\0\0" + bound, lambda code: bytes((5, code, 0, 1)) + bytes(6))

    async def _on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        yes: bytes,
        no: Callable[[int], bytes],
    ) -> None:
        """Connect, answer together with the first bytes of the target, carry."""
        self.asked.append((host, port))
        try:
            there, thither = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            writer.write(no(5))
            return
        try:
            writer.write(yes + await there.read(5))

            async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while piece := await source.read(65536):
                    sink.write(piece)
                    await sink.drain()
                if sink.can_write_eof():
                    sink.write_eof()

            await asyncio.gather(carry(reader, thither), carry(there, writer))
            self.ended.append("tunnel")
        finally:
            thither.close()


@contextlib.asynccontextmanager
async def standing(fake: Fake, host: str = "127.0.0.1", tls: Certificate | None = None) -> AsyncIterator[int]:
    """The fake's port while it listens."""
    async with serving(fake.serve, host, tls) as port:
        yield port


@contextlib.contextmanager
def nothing_leaks() -> Iterator[None]:
    """What was opened in the block is closed after it: descriptors, threads, children."""

    def census() -> tuple[set[str], set[int], set[str]]:
        descriptors, children = set[str](), set[str]()
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                descriptors.add(f"{path.name} -> {path.readlink()}")
        for path in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                children.update((path / "children").read_text().split())
        return descriptors, {thread.native_id or 0 for thread in threading.enumerate()}, children

    def left() -> tuple[set[str], set[int], set[str]]:
        now = census()
        return now[0] - before[0], now[1] - before[1], now[2] - before[2]

    before = census()
    yield
    with contextlib.suppress(TimeOver):
        until(lambda: not any(left()), seconds=5.0, what="nothing left over")
    assert not any(left()), left()


async def everything(sock: socket.socket) -> bytes:
    """All until the end of the stream."""
    loop, parts = asyncio.get_running_loop(), []
    while piece := await loop.sock_recv(sock, 1 << 18):
        parts.append(piece)
    return b"".join(parts)
