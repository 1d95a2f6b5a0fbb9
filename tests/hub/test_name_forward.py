"""Names asked of the machine's resolvers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from ukihashi.ether import dns
from ukihashi.hub import name_forward
from ukihashi.hub.name_forward import Forwarder, resolvers

QUESTION = dns.query(77, "example.org", dns.A)
Replies = Callable[[bytes], list[bytes]]


class Resolver(asyncio.DatagramProtocol):
    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        for reply in self.replies(data):
            self.transport.sendto(reply, addr)


def good(data: bytes) -> bytes:
    return dns.answer(dns.parse(data), records=[dns.Record("example.org", dns.A, 60, bytes(4))], authoritative=False)


def run(replies: Replies, *before: str) -> tuple[dns.Answer, list[bytes]]:
    """The answer of a forwarder whose resolvers are `before`, where nobody listens, and one that replies so."""

    async def main() -> tuple[dns.Answer, list[bytes]]:
        loop = asyncio.get_running_loop()
        transport, resolver = await loop.create_datagram_endpoint(
            lambda: Resolver(replies), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        try:
            forwarder = Forwarder(lambda: [*before, "127.0.0.1"], port=port)
            return dns.parse_answer(await forwarder.ask(dns.parse(QUESTION), QUESTION)), resolver.asked
        finally:
            transport.close()

    return asyncio.run(main())


def test_an_answer_comes_back_under_the_askers_number() -> None:
    answer, asked = run(lambda data: [good(data)])
    assert (answer.number, answer.code, len(answer.records)) == (77, dns.NO_ERROR, 1)
    assert asked[0][2:] == QUESTION[2:]


def test_what_does_not_answer_the_question_is_not_believed() -> None:
    def forged(data: bytes) -> list[bytes]:
        other = dns.query(int.from_bytes(data[:2], "big"), "evil.example", dns.A)
        return [bytes([data[0] ^ 1]) + good(data)[1:], good(other), b"x", data, good(data)]

    answer, _ = run(forged)
    assert answer.records[0].name == "example.org"


def test_one_that_is_not_there_is_followed_by_the_next() -> None:
    answer, _ = run(lambda data: [good(data)], "127.0.0.2")
    assert answer.code == dns.NO_ERROR


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_forward, "SERVER_S", 0.05)
    answer, _ = run(lambda _data: [])
    assert (answer.number, answer.code) == (77, dns.SERVER_FAILURE)


def test_the_resolvers_of_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert resolvers(path) == []
    path.write_text(
        "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver nonsense\n"
    )
    assert resolvers(path) == ["10.0.0.1", "fe80::1%eth0"]
