"""Names that the hub does not know itself, asked of the hub machine's own resolvers."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast

from ukihashi.errors import PeerViolation
from ukihashi.ether import dns

RESOLV_CONF: Final = Path("/etc/resolv.conf")
SERVERS_MOST: Final = 3  # as the C library
SERVER_S: Final = 1.2  # seconds one may take
MOST: Final = 128  # questions under way


def resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """Addresses of the machine's resolvers; none if the file can't be read."""
    found: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    ip_address(words[1].split("%")[0])
                    found.append(words[1])
    return found[:SERVERS_MOST]


class Forwarder:
    """Asks them, one after another. An answer is passed on as it came, under the asker's number."""

    def __init__(self, servers: Callable[[], list[str]] = resolvers, *, port: int = dns.PORT) -> None:
        self._servers = servers
        self._port = port
        self._asking = 0

    async def ask(self, query: dns.Query, data: bytes) -> bytes:
        """The answer to the question `data`, which is `query`; "server failure" when nobody has one."""
        failed = dns.answer(query, dns.SERVER_FAILURE, authoritative=False)
        if self._asking >= MOST:
            return failed
        self._asking += 1
        try:
            for server in self._servers():
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(SERVER_S):
                        answer = await self._ask_one(server, data)
                    return data[:2] + answer[2:]
        finally:
            self._asking -= 1
        return failed

    async def _ask_one(self, server: str, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        asked = _Asked(secrets.token_bytes(2) + data[2:], loop.create_future())
        transport, _ = await loop.create_datagram_endpoint(lambda: asked, remote_addr=(server, self._port))
        try:
            return await asked.answer
        finally:
            transport.close()


class _Asked(asyncio.DatagramProtocol):
    """One question to one server, from a port of its own."""

    def __init__(self, question: bytes, answer: "asyncio.Future[bytes]") -> None:
        self._question = question
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # no isinstance: up to Python 3.11 asyncio's own transport of datagrams is no DatagramTransport
        cast("asyncio.DatagramTransport", transport).sendto(self._question)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 - it is connected
        if not self.answer.done() and len(data) <= dns.EDNS_LIMIT and self._fits(data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(OSError(str(exc)))

    def _fits(self, data: bytes) -> bool:
        """It has the question's number, and repeats the question."""
        try:
            dns.parse_answer(data)
            name, at = dns.read_name(self._question, 12)
            again, there = dns.read_name(data, 12)
        except PeerViolation:
            return False
        kinds = self._question[at : at + 4], data[there : there + 4]
        return data[:2] == self._question[:2] and name == again and kinds[0] == kinds[1]
