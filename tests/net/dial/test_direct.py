import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from ukihashi.errors import DialError
from ukihashi.net.dial.direct import dial, location


@contextlib.contextmanager
def listening(family: socket.AddressFamily, address: str, port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(family) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen()
        yield sock


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_both_families(family: socket.AddressFamily, address: str) -> None:
    with listening(family, address) as server, asyncio.run(dial(address, server.getsockname()[1])) as client:
        peer, _ = server.accept()
        with peer:
            assert client.family == family
            assert not client.getblocking()
            peer.sendall(b"server speaks")
            client.settimeout(5)
            assert client.recv(100) == b"server speaks"


def test_a_name_whose_first_family_does_not_answer_takes_the_other() -> None:
    with listening(socket.AF_INET, "127.0.0.1") as server, asyncio.run(dial("localhost", server.getsockname()[1])):
        pass


def test_nobody_listens() -> None:
    with listening(socket.AF_INET, "127.0.0.1") as server:
        port = server.getsockname()[1]
    with pytest.raises(DialError, match=rf"127\.0\.0\.1:{port} refused the connection"):
        asyncio.run(dial("127.0.0.1", port))
    with pytest.raises(DialError, match="refused the connection"):
        asyncio.run(dial("localhost", port))


def test_an_unknown_name() -> None:
    with pytest.raises(DialError, match=r"hub\.invalid"):
        asyncio.run(dial("hub.invalid", 443))


def test_a_name_that_no_resolver_takes() -> None:
    with pytest.raises(DialError):
        asyncio.run(dial("a" * 70 + ".example", 443))


def test_silence_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> None:
        loop = asyncio.get_running_loop()

        async def never(*_: object, **__: object) -> None:
            await loop.create_future()

        monkeypatch.setattr(loop, "create_connection", never)
        await dial("192.0.2.1", 443, deadline=0.01)

    with pytest.raises(DialError, match=r"192\.0\.2\.1:443 did not answer within 0\.01 s"):
        asyncio.run(silent())


def test_location() -> None:
    assert location("hub.example", 443) == "hub.example:443"
    assert location("fd00::1", 5555) == "[fd00::1]:5555"
