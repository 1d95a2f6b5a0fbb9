"""Every path carries what a TCP connection carries, refuses in words, keeps its deadline and leaves nothing behind."""

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.net.conftest import Certificate
from tests.net.dial.fakes import BIG, PIECE, SECRET, USER, Fake, everything, hashing, nothing_leaks, serving, standing

from lab import sshd
from ukihashi.errors import DialError
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.through import Line, dial
from ukihashi.net.dial.via import DIRECT, Kind, Via


@dataclass(frozen=True)
class Way:
    """A kind of path and how it is built here."""

    name: str
    kind: Kind
    scheme: str = ""
    closes: bool = False

    @property
    def size(self) -> int:
        """Bytes that a test carries: variants of the same path need no long one."""
        return len(PIECE) if self.scheme or self.kind in {Kind.SOCKS4A, Kind.SOCKS5} else BIG


WAYS = [
    Way("direct", Kind.DIRECT),
    Way("http", Kind.HTTP),
    Way("http, Basic", Kind.HTTP, "basic"),
    Way("http, Digest MD5", Kind.HTTP, "digest-md5"),
    Way("http, Digest SHA-256, two connections", Kind.HTTP, "digest-sha-256", closes=True),
    Way("https", Kind.HTTPS),
    Way("https, Basic", Kind.HTTPS, "basic"),
    Way("socks4", Kind.SOCKS4),
    Way("socks4a", Kind.SOCKS4A),
    Way("socks5", Kind.SOCKS5),
    Way("socks5h", Kind.SOCKS5H),
    Way("socks5h, password", Kind.SOCKS5H, "password"),
    Way("ssh", Kind.SSH),
]
PROXIES = WAYS[1:]


@dataclass
class Built:
    """A path that stands."""

    via: Via
    fake: Fake
    secret: str | None
    authorities: Path | None
    ssh_config: Path = Path("/dev/null")

    async def dial(self, host: str, port: int, deadline: float = 20.0) -> Line:
        return await dial(
            self.via,
            host,
            port,
            deadline=deadline,
            secret=self.secret,
            authorities=self.authorities,
            ssh_config=self.ssh_config,
        )


@contextlib.asynccontextmanager
async def built(
    way: Way, files: Certificate, host: str = "127.0.0.1", *, silent: bool = False, faked: bool = False
) -> AsyncIterator[Built]:
    fake = Fake(way.kind, way.scheme, way.closes, silent=silent)
    if way.kind is Kind.DIRECT:
        yield Built(DIRECT, fake, None, files.authority)
        return
    if way.kind is Kind.SSH and not silent and not faked:
        server = local_sshd()
        yield Built(Via(Kind.SSH, host, server.port), fake, None, None, server.client_config)
        return
    tls = files if way.kind is Kind.HTTPS else None
    async with standing(fake, host, tls) as port:
        secret = SECRET if way.scheme else None
        yield Built(Via(way.kind, host, port, USER if way.scheme else ""), fake, secret, files.authority)


def each(ways: list[Way]) -> pytest.MarkDecorator:
    marks = {Kind.SSH: [pytest.mark.peer("ssh", "sshd"), pytest.mark.slow]}
    chosen = [pytest.param(way, id=way.name, marks=marks.get(way.kind, [])) for way in ways]
    return pytest.mark.parametrize("way", chosen)


_servers: list[sshd.Sshd] = []


def local_sshd() -> sshd.Sshd:
    """One for all tests of this file; `_stop` ends it."""
    if not _servers:
        _servers.append(sshd.on_loopback())
    return _servers[0]


@pytest.fixture(scope="module", autouse=True)
def _stop() -> Iterator[None]:
    yield
    while _servers:
        _servers.pop().close()


@pytest.fixture(autouse=True)
def _started(request: pytest.FixtureRequest) -> None:
    """Before a test counts what is open."""
    way = getattr(request.node, "callspec", None) and request.node.callspec.params.get("way")
    if way and way.kind is Kind.SSH:
        local_sshd()


@each(WAYS)
def test_bytes_pass_both_ways_and_each_direction_ends_by_itself(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with serving(partial(hashing, size=way.size)) as port, built(way, certificate) as path:
            line = await path.dial("127.0.0.1", port)
            with line.sock as sock:
                assert not sock.getblocking()
                assert line.outer is not None
                assert line.outer.port == (path.via.port or port)
                loop = asyncio.get_running_loop()
                assert await loop.sock_recv(sock, 5) == b"hello"  # came with the proxy's answer
                for _ in range(way.size // len(PIECE)):
                    await loop.sock_sendall(sock, PIECE)
                sock.shutdown(socket.SHUT_WR)
                got = await everything(sock)
            whole = PIECE * (way.size // len(PIECE))
            assert got[:32] == hashlib.sha256(whole).digest()
            assert hashlib.sha256(got[32:]).digest() == hashlib.sha256(whole).digest()

    with nothing_leaks():
        asyncio.run(scenario())


@each(WAYS)
def test_a_name_leads_there_too(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with serving(hashing) as port, built(way, certificate) as path:
            line = await path.dial("localhost", port)
            with line.sock as sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"hello"
            if way.kind in {Kind.SOCKS4A, Kind.SOCKS5H, Kind.HTTP, Kind.HTTPS}:
                assert path.fake.asked == [("localhost", port)]
            elif way.kind in {Kind.SOCKS4, Kind.SOCKS5}:
                assert path.fake.asked[-1] == ("127.0.0.1", port)

    asyncio.run(scenario())


@each([way for way in WAYS if way.kind not in {Kind.SOCKS4, Kind.SOCKS4A, Kind.HTTPS}])
def test_ipv6_below_and_inside(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with serving(hashing, "::1") as port, built(way, certificate, "::1") as path:
            line = await path.dial("::1", port)
            with line.sock as sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"hello"

    asyncio.run(scenario())


@each(WAYS)
def test_nobody_listens_there(way: Way, certificate: Certificate) -> None:
    kinds = {Failure.TARGET_REFUSED, Failure.TARGET_UNREACHABLE, Failure.PROXY_BROKEN}  # as much as each can say

    async def scenario() -> None:
        async with serving(hashing) as port:
            pass
        async with built(way, certificate) as path:
            with pytest.raises(DialError, match=str(port)) as told:
                await path.dial("127.0.0.1", port)
            assert told.value.exit_status == 7
            assert way.kind is Kind.DIRECT or (isinstance(told.value, PathRefused) and told.value.kind in kinds)

    with nothing_leaks():
        asyncio.run(scenario())


@each(PROXIES)
def test_the_proxy_itself_is_not_there(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with built(way, certificate, faked=True) as path:
            pass
        with pytest.raises(PathRefused) as told:
            await path.dial("127.0.0.1", 443)
        assert told.value.kind is Failure.PROXY_UNREACHABLE

    asyncio.run(scenario())


@each(PROXIES)
def test_silence_ends_at_the_deadline(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with built(way, certificate, silent=True) as path:
            begun = time.monotonic()
            with pytest.raises(PathRefused, match=r"within 0\.3 s") as told:
                await path.dial("127.0.0.1", 443, deadline=0.3)
            assert told.value.kind is Failure.PROXY_SILENT
            assert time.monotonic() - begun < 10

    with nothing_leaks():
        asyncio.run(scenario())


@each(PROXIES)
def test_cancelling_closes_everything(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with built(way, certificate, silent=True) as path:
            task = asyncio.create_task(path.dial("127.0.0.1", 443))
            while not path.fake.connections and not task.done():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not path.fake.ended:
                await asyncio.sleep(0.01)

    with nothing_leaks():
        asyncio.run(asyncio.wait_for(scenario(), 20))


@each(WAYS)
def test_whoever_closes_is_noticed_at_the_other_end(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        ended = asyncio.Event()
        close = asyncio.Event()

        async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            if close.is_set():
                return
            with contextlib.suppress(OSError):
                await reader.read(-1)
            ended.set()

        async with serving(target) as port, built(way, certificate) as path:
            (await path.dial("127.0.0.1", port)).sock.close()
            await ended.wait()
            close.set()
            with (await path.dial("127.0.0.1", port)).sock as sock:
                assert await everything(sock) == b"hello"

    with nothing_leaks():
        asyncio.run(asyncio.wait_for(scenario(), 20))


@each([way for way in WAYS if not way.scheme and way.kind is not Kind.SSH])
def test_the_hub_may_end_its_direction_first(way: Way, certificate: Certificate) -> None:
    """`ssh -W` takes that for the end of both."""

    async def scenario() -> None:
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.write_eof()
            got.set_result(await reader.read(-1))

        async with serving(target) as port, built(way, certificate) as path:
            with (await path.dial("127.0.0.1", port)).sock as sock:
                assert await everything(sock) == b"hello"
                await asyncio.get_running_loop().sock_sendall(sock, b"still there")
                sock.shutdown(socket.SHUT_WR)
                assert await got == b"still there"

    with nothing_leaks():
        asyncio.run(asyncio.wait_for(scenario(), 20))


@each([way for way in WAYS if not way.scheme])
def test_who_does_not_read_stops_the_sender(way: Way, certificate: Certificate) -> None:
    """Nothing on the way holds more than kernels do."""

    async def scenario() -> None:
        sent, stalled = 0, asyncio.Event()

        async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"hello")
            with contextlib.suppress(TimeoutError):
                while sent < 40 * BIG:
                    writer.write(PIECE)
                    sent += len(PIECE)
                    await asyncio.wait_for(writer.drain(), 1.0)
            stalled.set()
            writer.transport.abort()

        async with serving(flood) as port, built(way, certificate) as path:
            with (await path.dial("127.0.0.1", port)).sock:
                await stalled.wait()
        assert BIG // 100 < sent < 10 * BIG

    with nothing_leaks():
        asyncio.run(asyncio.wait_for(scenario(), 60))


@each([way for way in PROXIES if way.scheme])
def test_a_wrong_password_and_none(way: Way, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with built(way, certificate) as path:
            for secret, kind in (("wrong", Failure.CREDENTIALS_REFUSED), (None, Failure.CREDENTIALS_WANTED)):
                path.secret = secret
                with pytest.raises(PathRefused) as told:
                    await path.dial("127.0.0.1", 443)
                assert told.value.kind is kind
                assert "wrong" not in str(told.value)

    with nothing_leaks():
        asyncio.run(scenario())


@each(PROXIES)
@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"\xff" * 200_000],
    ids=["ssh", "tls", "noise"],
)
def test_something_else_answers(way: Way, certificate: Certificate, answer: bytes) -> None:
    async def scenario() -> None:
        async with built(way, certificate, faked=True) as path:
            path.fake.answer = answer
            with pytest.raises(PathRefused) as told:
                await path.dial("127.0.0.1", 443)
            hangs_up = way.kind is Kind.SSH and answer.startswith(b"SSH")  # it is one, and hangs up
            assert told.value.kind is (Failure.PROXY_CLOSED if hangs_up else Failure.NOT_A_PROXY)

    with nothing_leaks():
        asyncio.run(scenario())


def test_an_https_proxy_must_be_one_and_be_trusted(certificate: Certificate) -> None:
    async def scenario() -> None:
        async with built(Way("https", Kind.HTTPS), certificate) as path:
            elsewhere = Via(Kind.HTTPS, "localhost", path.via.port)  # a name that its certificate doesn't bear
            for via, authorities in ((path.via, None), (elsewhere, path.authorities)):
                path.via, path.authorities = via, authorities
                with pytest.raises(PathRefused, match="isn't trusted") as told:
                    await path.dial("127.0.0.1", 443)
                assert told.value.kind is Failure.PROXY_TLS
        async with built(Way("http", Kind.HTTP), certificate) as path:
            path.fake.answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
            path.via = Via(Kind.HTTPS, "127.0.0.1", path.via.port)
            with pytest.raises(PathRefused, match="http:// one instead") as told:
                await path.dial("127.0.0.1", 443)
            assert told.value.kind is Failure.PROXY_TLS

    with nothing_leaks():
        asyncio.run(scenario())
