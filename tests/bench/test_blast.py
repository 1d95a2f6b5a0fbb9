"""The load tools: packets and handshakes, at the rate that is asked for."""

import itertools
import socket
import threading
from collections.abc import Iterator

import pytest

from bench.blast import BATCH, STEP_S, Received, due, receive, send
from bench.shake import shake
from bench.streams import percentile, round_trips
from lab.net import LabError


class Clock:
    """Time that passes only while somebody sleeps, and a moment each time it is asked for."""

    def __init__(self, moment: float = 0.0) -> None:
        self.now, self.moment = 100.0, moment

    def __call__(self) -> float:
        self.now += self.moment
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_paced_sender_sends_what_is_due_and_never_more_than_a_batch() -> None:
    assert due(10_000.0, 0.0, 0) == 5
    assert due(10_000.0, 0.0, 5) == 0
    assert due(10_000.0, 1.0, 9_000) == BATCH
    assert due(0.0, 1.0, 10**9) == BATCH


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    datagrams = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*datagrams) as near, socket.socket(*datagrams) as far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        yield near, far


def test_what_is_sent_at_a_rate_is_counted_where_it_arrives(sockets: tuple[socket.socket, socket.socket]) -> None:
    near, far = sockets
    clock = Clock()
    found: list[Received] = []
    counter = threading.Thread(target=lambda: found.append(receive(far, 0.3)))
    counter.start()
    sent = send(near, 64, 0.5, 2_000.0, clock=clock, sleep=clock.sleep)
    counter.join(30.0)
    assert sent.sent == 2_000 * 0.5
    assert sent.seconds == pytest.approx(0.5, abs=2 * STEP_S)
    assert found[0].received == sent.sent


def test_a_sender_without_a_limit_sends_batch_after_batch(sockets: tuple[socket.socket, socket.socket]) -> None:
    near, far = sockets
    clock = Clock(moment=0.1)
    assert send(near, 1400, 1.0, 0.0, clock=clock, sleep=clock.sleep).sent % BATCH == 0
    assert len(far.recv(2048)) == 1400


def test_the_rate_of_arrivals_is_counted_between_the_first_and_the_last() -> None:
    assert Received(101, 0.5).per_s == 200.0
    assert Received(1, 0.0).per_s == Received(0, 0.0).per_s == 0.0


def test_handshakes_are_paced_and_refusals_are_counted_apart() -> None:
    clock, answers = Clock(), itertools.cycle([True, True, False])
    found = shake(lambda: next(answers), 3.0, 10.0, clock=clock, sleep=clock.sleep)
    assert (found.done, found.refused) == (20, 10)
    assert found.seconds == pytest.approx(3.0, abs=0.11)


def test_pings_are_read_and_their_tail_is_what_the_others_do_not_exceed() -> None:
    said = (
        "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.051 ms\n64 bytes from x: icmp_seq=2 ttl=64 time=12 ms\nlost\n"
    )
    assert round_trips(said) == [0.051, 12.0]
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)
    with pytest.raises(LabError):
        percentile([], 0.5)
