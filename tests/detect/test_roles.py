"""Who is the client: told by SYN, else by the handshake inside, else by the port that connections share (B2)."""

from collections.abc import Callable
from random import Random

import pytest

from lab import rewrite
from lab.captures import here, judge, packets
from lab.rewrite import Packet
from ukihashi.detect.record import Verdict

SOME = ("se-n443-idle", "se-h-squid-t12", "se-s4-dante-idle", "se-s5-dante-t12", "se-ssh-idle", "se-cbc")
CHANGES: dict[str, Callable[[list[Packet]], list[Packet]]] = {
    "whole": lambda found: found,
    "no SYN": lambda found: [one for one in found if not is_syn(one)],
    "no SYN nor SYN ACK": lambda found: rewrite.without(found, rewrite.SYN),
    "SYN ACK before SYN": rewrite.answer_first,
}


def is_syn(packet: Packet) -> bool:
    where = rewrite.place(packet)
    return where is not None and packet.data[where.tcp + 13] & (rewrite.SYN | rewrite.ACK) == rewrite.SYN


def ports(server: bytes, kind: str) -> Callable[[bytes], int]:
    """Other ports for all ends: the server's is higher than the clients', lower, or one that a client has too."""
    chance = Random(1)
    clients = iter(chance.sample(range(20_000, 30_000), 5000))
    of_server = {"high": 60_000, "low": 81, "equal": 0}[kind]
    given: list[int] = []

    def new(end: bytes) -> int:
        if end == server:
            return of_server or (given[0] if given else 25_000)
        given.append(25_000 if kind == "equal" and not given else next(clients))
        return given[-1]

    return new


@pytest.mark.parametrize("kind", ["high", "low", "equal"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", SOME)
def test_client_and_server_are_not_swapped(name: str, change: str, kind: str) -> None:
    capture = here(name)
    moved = rewrite.move_ports(CHANGES[change](packets(capture)), ports(capture.end, kind))
    found = [finding for finding in judge(moved) if finding.verdict is Verdict.CONFIRMED]
    assert len(found) == capture.expect
    clients = {client.rpartition(":")[0] for client in capture.clients}
    for finding in found:
        assert finding.client.host in clients
        assert finding.server.host == capture.server.rpartition(":")[0]


@pytest.mark.parametrize("toward_server", [True, False])
@pytest.mark.parametrize("kind", ["high", "low"])
@pytest.mark.parametrize("name", ["se-n443-idle", "se-s4-dante-idle", "se-ssh-idle"])
def test_nor_where_one_direction_is_seen_from_the_hello_on(name: str, kind: str, toward_server: bool) -> None:
    capture = here(name)
    one = rewrite.one_side(packets(capture), frozenset([capture.end]), toward_server=toward_server)
    moved = rewrite.move_ports(rewrite.without(one, rewrite.SYN), ports(capture.end, kind))
    for finding in judge(moved):
        assert finding.server.host == capture.server.rpartition(":")[0]


@pytest.mark.parametrize("kind", ["high", "low"])
@pytest.mark.parametrize("name", ["se-d443-mc32-idle-midstream", "se-quiet-idle-mc4"])
def test_nor_where_the_begin_is_not_seen_but_the_connections_share_a_port(name: str, kind: str) -> None:
    capture = here(name)
    late = packets(capture) if "midstream" in name else rewrite.begin_late(packets(capture), 8.0)
    judged = judge(rewrite.move_ports(late, ports(capture.end, kind)))
    found = [finding for finding in judged if finding.verdict is Verdict.CONFIRMED]
    assert [finding.rule for finding in found] == ["5"]
    assert found[0].server.host == capture.server.rpartition(":")[0]
    assert found[0].server.port == {"high": 60_000, "low": 81}[kind]
