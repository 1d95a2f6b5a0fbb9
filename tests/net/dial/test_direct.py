import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from ukihashi.errors import DialError
from ukihashi.net.dial import direct
from ukihashi.net.dial.direct import SO_MARK, dial, in_turn, location
from ukihashi.net.dial.names import KnownAddresses, Where


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

        monkeypatch.setattr(loop, "sock_connect", never)
        await dial("192.0.2.1", 443, deadline=0.01)

    with pytest.raises(DialError, match=r"192\.0\.2\.1:443 did not answer within 0\.01 s"):
        asyncio.run(silent())


def marks(mark: int) -> int:
    """The firewall mark that a dialled connection carries."""
    with listening(socket.AF_INET, "127.0.0.1") as server:
        port = server.getsockname()[1]
        with asyncio.run(dial("127.0.0.1", port, mark=mark)) as client:
            return client.getsockopt(socket.SOL_SOCKET, SO_MARK)


def test_packets_carry_the_mark(needs_root: None) -> None:
    assert marks(0x2B75) == 0x2B75
    assert marks(0) == 0


def test_an_address_that_refuses_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(socket.AF_INET, "127.0.0.1") as server:
        port = server.getsockname()[1]
        places = [(socket.AF_INET, (f"127.0.0.{last}", port)) for last in (7, 8, 1)]
        answer_with(monkeypatch, places)
        with asyncio.run(dial("hub.example", port)) as client:
            assert client.getpeername() == ("127.0.0.1", port)


def test_an_address_that_is_silent_is_left_for_the_next_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(port: int) -> None:
        loop = asyncio.get_running_loop()
        connect, held = loop.sock_connect, list[socket.socket]()

        async def sometimes(sock: socket.socket, address: tuple[str, int]) -> None:
            if address[0] == "127.0.0.9":
                held.append(sock)
                await loop.create_future()
            await connect(sock, address)

        monkeypatch.setattr(loop, "sock_connect", sometimes)
        with await dial("hub.example", port) as client:
            assert client.getpeername() == ("127.0.0.1", port)
        await asyncio.sleep(0)
        assert [sock.fileno() for sock in held] == [-1]

    with listening(socket.AF_INET, "127.0.0.1") as server:
        port = server.getsockname()[1]
        answer_with(monkeypatch, [(socket.AF_INET, ("127.0.0.9", port)), (socket.AF_INET, ("127.0.0.1", port))])
        asyncio.run(scenario(port))


def test_both_familiesin_turn() -> None:
    places: list[Where] = [
        (socket.AF_INET6, ("fd00::1",)),
        (socket.AF_INET6, ("fd00::2",)),
        (socket.AF_INET, ("10.0.0.1",)),
    ]
    assert in_turn(places) == [places[0], places[2], places[1]]


def answer_with(monkeypatch: pytest.MonkeyPatch, places: list[Where]) -> None:
    async def look_up(*_: object) -> list[Where]:
        return places

    monkeypatch.setattr(direct, "look_up", look_up)


@pytest.mark.parametrize("silent", [False, True])
def test_an_address_that_worked_is_used_when_names_fail(monkeypatch: pytest.MonkeyPatch, silent: bool) -> None:
    monkeypatch.setattr(direct, "SLOW", 0.05)

    async def no_answer(*_: object) -> list[Where]:
        if silent:
            await asyncio.get_running_loop().create_future()
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")

    async def scenario(port: int) -> None:
        known = KnownAddresses()
        (await dial("localhost", port, known=known)).close()
        monkeypatch.setattr(direct, "look_up", no_answer)
        (await dial("localhost", port, known=known)).close()
        with pytest.raises(DialError):
            await dial("localhost", port, deadline=0.3)  # nothing remembered

    with listening(socket.AF_INET, "127.0.0.1") as server:
        asyncio.run(scenario(server.getsockname()[1]))


def test_a_remembered_address_that_fails_is_followed_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "SLOW", 0.01)

    async def scenario(port: int) -> None:
        known = KnownAddresses()
        known.worked("hub.example", port, (socket.AF_INET, ("127.0.0.7", port)))

        async def late(*_: object) -> list[Where]:
            await asyncio.sleep(0.1)
            return [(socket.AF_INET, ("127.0.0.1", port))]

        monkeypatch.setattr(direct, "look_up", late)
        with await dial("hub.example", port, known=known) as client:
            assert client.getpeername() == ("127.0.0.1", port)
        assert known.of("hub.example", port)[0][1] == ("127.0.0.1", port)

    with listening(socket.AF_INET, "127.0.0.1") as server:
        asyncio.run(scenario(server.getsockname()[1]))


def test_location() -> None:
    assert location("hub.example", 443) == "hub.example:443"
    assert location("fd00::1", 5555) == "[fd00::1]:5555"
