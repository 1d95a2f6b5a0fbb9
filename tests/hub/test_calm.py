"""Strangers at the door, or one member that floods, delay the data of the others by a little and no more (D12).

Work is counted by turns of the loop: a turn does what is counted here and then serves every session again.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub.cards import CONTEXT, DEADLINE, Card, Field, Link, frame, number_of

from ukihashi.ether.offload import MAX_SUPER_FRAME
from ukihashi.hub.connection import OPENINGS_A_TURN, READ_SIZE
from ukihashi.hub.front import ACCEPTS_A_TURN
from ukihashi.hub.limits import Limits
from ukihashi.hub.resumable import BURST_READ
from ukihashi.net.tls import RECORD, TlsChannel, TlsState, server_context
from ukihashi.wire.blocks import encode_frames

STRANGERS = 40


@pytest.fixture
def field(certificate: tuple[Path, Path]) -> Iterator[Field]:
    made = Field(server_context(*certificate), Limits())
    yield made
    made.close()


def pair(field: Field) -> tuple[Card, Card]:
    """Two cards that know each other's place."""
    a, b = field.card("a"), field.card("b")
    for one, other, number in ((a, b, 1), (b, a, 2)):
        one.send(frame(0, number))
        field.until(lambda other=other: other.got, "a hello")  # type: ignore[misc]
        other.got.clear()
    field.quiet()
    return a, b


@contextlib.contextmanager
def strangers(field: Field, count: int) -> Iterator[list[Link]]:
    """Connections that have said their first words; nothing of it has been read."""
    links = [Link(number, field.address, field.turn) for number in range(count)]
    try:
        yield links
    finally:
        for link in links:
            link.sock.close()


def has_something(sock: socket.socket, seconds: float = 0.0) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


def test_a_flood_of_handshakes_costs_each_turn_a_few_and_frames_pass_in_every_one(field: Field) -> None:
    a, b = pair(field)
    hub_side = field.session(a).tunnels[0].connection
    with strangers(field, STRANGERS) as links:
        answered, turns = 0, 0
        while answered < STRANGERS:
            turns += 1
            assert turns < 10 * STRANGERS
            before = field.session(a).count.frames_in
            a.send(frame(2, 1, turns))
            assert has_something(hub_side._socket, DEADLINE)
            field.turn()
            assert field.session(a).count.frames_in == before + 1  # in this turn, whoever else wants something
            now = sum(has_something(link.sock) for link in links)
            assert now - answered <= OPENINGS_A_TURN
            answered = now
        assert turns >= STRANGERS / OPENINGS_A_TURN
        field.until(lambda: len(b.got) == turns, "every frame")
        assert [number_of(one) for one in b.got] == list(range(1, turns + 1))
        for link in links:
            link.until(lambda link=link: link.tls.state is TlsState.OPEN, "the rest of TLS")  # type: ignore[misc]


def test_connections_are_accepted_a_few_at_a_time(field: Field) -> None:
    with strangers(field, 2 * ACCEPTS_A_TURN):
        for turns in (1, 2):
            field.turn()
            assert field.door.half_open == turns * ACCEPTS_A_TURN


def test_a_stranger_that_goes_while_it_waits_is_forgotten(field: Field) -> None:
    with strangers(field, STRANGERS) as links:
        field.turn()
        for link in links:
            link.drop(reset=True)
        field.until(lambda: not field.door.half_open, "their end")
    assert not len(field.wiring.openings)
    assert field.card("a").welcome.grace_s  # and the door works


def test_what_comes_while_a_request_waits_for_its_turn_is_not_lost(field: Field) -> None:
    with strangers(field, STRANGERS):
        card = field.card("a")  # each of its steps waits behind the others
        assert card.welcome.session_name


def test_one_that_floods_takes_one_read_a_turn_and_others_are_heard_in_each(field: Field) -> None:
    a, b = pair(field)
    c = field.card("c")
    flood = encode_frames([frame(2, 1, size=1000)] * 250)
    flooding, quiet = field.session(a), field.session(c)
    c.send(frame(2, 3))
    field.quiet()
    link: Any = a.link
    for _ in range(40):
        link.tls.send(flood)
        link.flush()  # as much as the kernel takes
    for number in range(20):
        before, heard = flooding.count.bytes_in, quiet.count.frames_in
        c.send(frame(2, 3, number))
        assert has_something(quiet.tunnels[0].connection._socket, DEADLINE)
        field.turn()
        assert flooding.count.bytes_in - before <= READ_SIZE + RECORD  # of which the start may have come before
        assert quiet.count.frames_in == heard + 1
        link.flush()
        b.pump()


@pytest.mark.slow
def test_frames_pass_whole_and_in_order_while_three_hundred_knock_at_once(
    launch: Callable[..., Any], member_types: Any
) -> None:
    """Real processes. What is counted in turns is tested above."""
    hub = launch()
    with member_types.member.join(hub, "a") as a, member_types.member.join(hub, "b") as b:
        b.send(frame(1, 2))  # so that b's place is known
        assert len(a.receive(1)) == 1
        callers = [Knock(hub.socket()) for _ in range(300)]
        for caller in callers:
            caller.say()
        for number in range(500):
            a.send(frame(2, 1, number))
        assert [number_of(one) for one in b.receive(500)] == list(range(500))
        end = time.monotonic() + 40
        while waiting := [caller for caller in callers if not caller.is_open]:
            assert time.monotonic() < end
            for caller in select.select(waiting, [], [], 1.0)[0]:
                caller.read()
        assert all(not row["drops"] for row in hub.order(what="sessions"))
        for caller in callers:
            caller.sock.close()


class Knock:
    """A stranger's TLS, whose first words are ready before it has to say them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._tls = TlsChannel(CONTEXT, server_side=False)
        self._tls.start()

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def is_open(self) -> bool:
        return self._tls.state is TlsState.OPEN

    def say(self) -> None:
        data = self._tls.outgoing()
        self.sock.sendall(data)
        self._tls.sent(len(data))

    def read(self) -> None:
        data = self.sock.recv(65536)
        assert data, "sent away"
        self._tls.receive(data)
        self.say()


def test_those_whose_cards_burst_share_what_a_queue_has_left(field: Field) -> None:
    b = field.card("b")
    b.send(frame(0, 2))
    field.quiet()
    bursting: list[Card] = []
    for name, most in (("a", READ_SIZE), ("c", READ_SIZE), ("d", BURST_READ), ("e", BURST_READ)):
        bursting.append(field.card(name))
        for _ in range(3):
            for number, card in enumerate(bursting, 3):
                card.send(*[frame(2, number, size=1000)] * 100)
            field.quiet()
        reads = [field.session(card).tunnels[0].connection.read_most for card in bursting]
        left = field.wiring.limits.queue_bytes * 3 // 4
        assert max(reads) <= most
        assert sum(reads) + len(reads) * MAX_SUPER_FRAME <= left or set(reads) == {BURST_READ}
        assert len(bursting) > 1 or reads == [READ_SIZE]
    assert all(not session.drops for session in field.sessions)


def test_a_burst_goes_on_at_once_while_the_other_member_takes_it(field: Field) -> None:
    a, b = pair(field)
    flood = [frame(2, 1, number, size=1000) for number in range(1000)]
    a.send(*flood)  # the clock stands still, so who is paused stays so
    field.until(lambda: len(b.got) >= len(flood), "the flood")
    assert field.session(a).tunnels[0].connection._reading


def test_with_several_workers_a_burst_is_read_in_small_pieces(field: Field) -> None:
    field.sessions.workers = 2
    a, b = pair(field)
    a.send(*[frame(2, 1, number, size=1000) for number in range(400)])
    field.until(lambda: len(b.got) >= 400, "the flood")
    assert field.session(a).tunnels[0].connection.read_most == BURST_READ
