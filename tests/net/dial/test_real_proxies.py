"""The dialers against real proxies, from a machine that has no other way to the hub.

card 10.77.1.2 ---- 10.77.1.1 proxy 10.77.2.1 ---- 10.77.2.2 hub (ports 443, 2525)
"""

import asyncio
import hashlib
import socket
from collections.abc import Iterator
from functools import partial

import pytest
import trustme
from tests.net.dial.fakes import PIECE, everything, hashing, nothing_leaks, serving

from lab import small_proxies, squid
from lab.net import Net
from ukihashi.errors import DialError
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.through import Line, dial
from ukihashi.net.dial.via import DIRECT, Via, parse

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.peer("squid", "danted", "microsocks", "tinyproxy", "openssl", "ss"),
]

SIZE = 16 * len(PIECE)


class Town:
    """The three machines."""

    def __init__(self, net: Net) -> None:
        self.authority = net.folder / "authority.pem"
        self.card, self.proxy, self.hub = (net.host(name) for name in ("card", "proxy", "hub"))
        net.link(self.proxy, self.card)
        self.external, _ = net.link(self.proxy, self.hub)

    def via(self, scheme: str, port: int, user: str = "", *, ipv6: bool = False) -> Via:
        address = f"[{self.proxy.ipv6}]" if ipv6 else self.proxy.ipv4
        return parse(f"{scheme}://{user and user + '@'}{address}:{port}")

    async def dial(self, via: Via, secret: str | None = None, *, host: str = "", port: int = 443) -> Line:
        return await dial(via, host or self.hub.ipv4, port, deadline=20, secret=secret, authorities=self.authority)

    def carries(self, via: Via, secret: str | None = None, *, host: str = "") -> None:
        """Bytes pass over that path, in both directions.

        Of these programs only Dante lets one direction end by itself; to the others the end of one is the end of both.
        """

        async def scenario() -> None:
            with self.hub.inside():
                listener = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True)
            async with serving(partial(hashing, size=SIZE, to_the_end=False), listener=listener):
                line = await self.dial(via, secret, host=host)
                with line.sock as sock:
                    loop = asyncio.get_running_loop()
                    assert await loop.sock_recv(sock, 5) == b"hello"
                    for _ in range(SIZE // len(PIECE)):
                        await loop.sock_sendall(sock, PIECE)
                    got = await everything(sock)
            assert got[:32] == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()
            assert got[32:] == PIECE * (SIZE // len(PIECE))

        with nothing_leaks(), self.card.inside():
            asyncio.run(asyncio.wait_for(scenario(), 60))

    def refuses(self, via: Via, secret: str | None = None, *, host: str = "", port: int = 443) -> Failure:
        """Why that path leads nowhere."""
        with nothing_leaks(), self.card.inside(), pytest.raises(PathRefused) as told:
            asyncio.run(self.dial(via, secret, host=host, port=port))
        assert secret is None or secret not in str(told.value)
        return told.value.kind


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Net() as net:
        made = Town(net)
        authority = trustme.CA()
        leaf = authority.issue_cert(made.proxy.ipv4)
        files = net.folder / "proxy.pem", net.folder / "proxy.key"
        leaf.cert_chain_pems[0].write_to_path(str(files[0]))
        leaf.private_key_pem.write_to_path(str(files[1]))
        authority.cert_pem.write_to_path(str(made.authority))
        names = {"hub.lab": made.hub.ipv4, "gone.lab": "10.77.2.99"}
        squid.Squid(made.proxy, names=names, tls=files).start()
        small_proxies.tinyproxy(made.proxy)
        small_proxies.dante(made.proxy, external=made.external)
        small_proxies.microsocks(made.proxy)
        yield made
        print(net.logs())


def test_there_is_no_direct_way(town: Town) -> None:
    with town.card.inside(), pytest.raises(DialError, match="no route"):
        asyncio.run(town.dial(DIRECT))


@pytest.mark.parametrize(
    ("port", "user", "secret"),
    [("open", "", None), ("basic", squid.USER, squid.SECRET), ("digest", squid.USER, squid.SECRET),
     ("ntlm", "LAB%5Ctaro", "whatever"), ("only443", "", None)],
)  # fmt: skip
def test_squid(town: Town, port: str, user: str, secret: str | None) -> None:
    town.carries(town.via("http", squid.PORTS[port], user), secret)


def test_squid_over_ipv6_to_an_ipv6_hub_and_by_a_name_that_it_alone_knows(town: Town) -> None:
    town.carries(town.via("http", squid.PORTS["open"], ipv6=True), host=town.hub.ipv6)
    town.carries(town.via("http", squid.PORTS["open"]), host="hub.lab")


def test_squid_inside_tls(town: Town) -> None:
    via = town.via("https", squid.PORTS["tls"])
    town.carries(via)


def test_what_squid_refuses(town: Town) -> None:
    for port in ("basic", "digest"):
        via = town.via("http", squid.PORTS[port], squid.USER)
        assert town.refuses(via, "wrong") is Failure.CREDENTIALS_REFUSED
        assert town.refuses(via) is Failure.CREDENTIALS_WANTED
    assert town.refuses(town.via("http", squid.PORTS["ntlm"])) is Failure.CREDENTIALS_WANTED
    assert town.refuses(town.via("http", squid.PORTS["only443"]), port=2525) is Failure.FORBIDDEN
    assert town.refuses(town.via("http", squid.PORTS["open"]), port=2525) is Failure.TARGET_UNREACHABLE
    assert town.refuses(town.via("http", squid.PORTS["open"]), host="nowhere.lab") is Failure.TARGET_UNREACHABLE
    assert town.refuses(town.via("https", squid.PORTS["open"])) is Failure.PROXY_TLS
    assert town.refuses(town.via("http", 9)) is Failure.PROXY_UNREACHABLE


def test_tinyproxy(town: Town) -> None:
    via = town.via("http", small_proxies.TINYPROXY_PORT, small_proxies.USER)
    town.carries(via, small_proxies.SECRET)
    assert town.refuses(via, "wrong") is Failure.CREDENTIALS_REFUSED  # said with 401
    assert town.refuses(via, small_proxies.SECRET, port=2525) is Failure.FORBIDDEN


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_dante(town: Town, scheme: str) -> None:
    via = town.via(scheme, small_proxies.DANTE_PORT)
    town.carries(via)
    kinds = {Failure.FORBIDDEN, Failure.PROXY_BROKEN} if "4" in scheme else {Failure.FORBIDDEN}
    assert town.refuses(via, port=small_proxies.FORBIDDEN) in kinds
    kinds = {Failure.TARGET_REFUSED} if "5" in scheme else {Failure.PROXY_BROKEN}
    assert town.refuses(via, port=1) in kinds


def test_dante_over_ipv6(town: Town) -> None:
    town.carries(town.via("socks5", small_proxies.DANTE_PORT, ipv6=True), host=town.hub.ipv6)


def test_microsocks(town: Town) -> None:
    via = town.via("socks5h", small_proxies.MICROSOCKS_PORT, small_proxies.USER)
    town.carries(via, small_proxies.SECRET)
    town.carries(via, small_proxies.SECRET, host=town.hub.ipv6)
    assert town.refuses(via, "wrong") is Failure.CREDENTIALS_REFUSED
    assert town.refuses(via) is Failure.CREDENTIALS_WANTED
    assert town.refuses(via, small_proxies.SECRET, port=1) is Failure.TARGET_REFUSED
