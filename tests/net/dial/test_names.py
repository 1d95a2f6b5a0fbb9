import asyncio
import socket
import threading

import pytest

from ukihashi.net.dial.names import REMEMBERED, KnownAddresses, Where, look_up


def place(number: int) -> Where:
    return socket.AF_INET, (f"10.0.0.{number}", 443)


def test_an_address_needs_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("asked a resolver"))
    assert asyncio.run(look_up("192.0.2.1", 443)) == [(socket.AF_INET, ("192.0.2.1", 443))]
    assert asyncio.run(look_up("fd00::1", 443)) == [(socket.AF_INET6, ("fd00::1", 443, 0, 0))]


def test_a_name() -> None:
    assert ("127.0.0.1", 443) in [address for _, address in asyncio.run(look_up("localhost", 443))]


def test_an_unknown_name() -> None:
    with pytest.raises(socket.gaierror):
        asyncio.run(look_up("hub.invalid", 443))


def test_a_resolver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hang, real = threading.Event(), socket.getaddrinfo

    def slow(*words: object, flags: int = 0, **more: object) -> object:
        if not flags:
            hang.wait(30)
        return real("192.0.2.1", 443, type=socket.SOCK_STREAM, flags=flags) if not flags else real("x", 1, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await look_up("hub.example", 443)

    asyncio.run(scenario())  # would wait for a thread of the loop's own
    hang.set()


def test_the_latest_that_worked_comes_first() -> None:
    known = KnownAddresses()
    assert list(known.of("hub.example", 443)) == []
    for number in (1, 2, 3, 4, 5, 2):
        known.worked("hub.example", 443, place(number))
    assert list(known.of("hub.example", 443)) == [place(number) for number in (2, 5, 4, 3)]
    assert len(known.of("hub.example", 443)) == REMEMBERED
    assert list(known.of("hub.example", 992)) == []
