"""The event loop with a clock that a test moves, and the list of deadlines."""

import logging
import socket
from collections.abc import Iterator

import pytest

from ukihashi.hub.loop import EVENTS_A_TURN, READ, Deadlines, Loop


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    made = Loop(clock)
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_timers_fire_in_order_when_due(loop: Loop, clock: Clock) -> None:
    fired: list[str] = []
    loop.at(103.0, lambda: fired.append("c"))
    loop.at(101.0, lambda: fired.append("a"))
    loop.at(101.0, lambda: fired.append("b"))
    cancelled = loop.at(102.0, lambda: fired.append("never"))
    cancelled.cancel()
    clock.now = 102.5
    loop.turn()
    assert fired == ["a", "b"]
    clock.now = 103.0
    loop.turn()
    assert fired == ["a", "b", "c"]


def test_everything_that_is_ready_is_handled_before_a_timer_however_much_it_is(loop: Loop, clock: Clock) -> None:
    pairs = [socket.socketpair() for _ in range(3 * EVENTS_A_TURN)]
    order: list[str] = []
    for near, far in pairs:
        loop.watch(near.fileno(), READ, lambda _events, near=near: order.append(near.recv(10).decode()))  # type: ignore[misc]
        far.send(b"x")
    loop.at(101.0, lambda: order.append("timer"))
    clock.now = 160.0
    loop.turn()
    for near, far in pairs:
        loop.forget(near.fileno())
        near.close()
        far.close()
    assert order == ["x"] * len(pairs) + ["timer"]


def test_one_that_is_always_ready_does_not_hold_timers_back(
    loop: Loop, clock: Clock, pair: tuple[socket.socket, socket.socket]
) -> None:
    fired: list[str] = []
    loop.watch(pair[0].fileno(), READ, lambda _events: None)  # never read: ready for ever
    pair[1].send(b"x")
    loop.at(101.0, lambda: fired.append("timer"))
    clock.now = 101.0
    loop.turn()
    loop.forget(pair[0].fileno())
    assert fired == ["timer"]


def test_ready_descriptors_are_handled_before_the_turn_ends(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    order: list[str] = []
    loop.watch(pair[0].fileno(), READ, lambda _events: order.append(pair[0].recv(10).decode()))

    def end() -> bool:
        order.append("end")
        return False

    loop.at_turn_end(end)
    pair[1].send(b"data")
    loop.turn(0)
    assert order == ["data", "end"]
    loop.forget(pair[0].fileno())
    loop.forget(pair[0].fileno())
    pair[1].send(b"data")
    loop.turn(0)
    assert order == ["data", "end", "end"]


def test_a_handler_that_was_forgotten_in_the_same_turn_is_not_called(loop: Loop) -> None:
    (a, b), (c, d) = socket.socketpair(), socket.socketpair()
    called: list[str] = []

    def first(name: str, other: socket.socket) -> None:
        called.append(name)
        loop.forget(other.fileno())

    with a, b, c, d:
        loop.watch(a.fileno(), READ, lambda _events: first("a", c))
        loop.watch(c.fileno(), READ, lambda _events: first("c", a))
        b.send(b"x")
        d.send(b"x")
        loop.turn(0)
    assert len(called) == 1


def test_a_turn_end_that_wants_more_shortens_the_next_wait(loop: Loop) -> None:
    wants = iter([True, True, False])
    loop.at_turn_end(lambda: next(wants))
    loop.turn(0)
    loop.turn(3600)
    loop.turn(3600)


def test_a_fault_in_a_handler_is_counted_and_the_rest_goes_on(loop: Loop, clock: Clock) -> None:
    fired: list[int] = []
    loop.at(100.0, lambda: fired.append(1 // 0))
    loop.at(100.0, lambda: fired.append(1))
    logging.disable(logging.CRITICAL)
    loop.turn(0)
    logging.disable(logging.NOTSET)
    assert (fired, loop.faults) == ([1], 1)


def test_deadlines_keep_the_order_of_the_last_move() -> None:
    deadlines = Deadlines[str](10.0)
    for at, name in enumerate("abc"):
        deadlines.restart(name, float(at))
    deadlines.restart("a", 5.0)
    assert deadlines.items() == ["b", "c", "a"]
    assert deadlines.pop_expired(10.9) == []
    assert deadlines.pop_expired(12.0) == ["b", "c"]
    assert "a" in deadlines
    assert "b" not in deadlines
    deadlines.restart("d", 6.0)
    assert deadlines.pop_oldest() == "a"
    deadlines.drop("d")
    deadlines.drop("d")
    assert (len(deadlines), deadlines.pop_oldest()) == (0, None)


def test_what_may_wait_is_done_a_little_a_turn_in_its_order_behind_what_is_ready(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    done: list[str] = []
    ends: list[str] = []

    def end() -> bool:
        ends.append("".join(done))
        return False

    loop.watch(pair[0].fileno(), READ, lambda _events: done.append(pair[0].recv(1).decode()))
    loop.at_turn_end(end)
    lane, other = loop.lane(2), loop.lane(1)
    for name in "abcde":
        lane.put(lambda name=name: done.append(name))  # type: ignore[misc]
    other.put(lambda: done.append("x"))
    pair[1].send(b"123")
    for _ in range(3):
        loop.turn(3600)  # never waits: there is more to do
    assert "".join(done) == "1abx2cd3e"
    assert ends == ["1", "1abx", "1abx2", "1abx2cd", "1abx2cd3", "1abx2cd3e"]
    assert len(lane) == len(other) == 0
    loop.forget(pair[0].fileno())


def test_who_brings_much_that_may_wait_waits_for_himself(loop: Loop) -> None:
    done: list[str] = []
    lane = loop.lane(1)
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        lane.put(lambda name=name: done.append(name), name[0])  # type: ignore[misc]
    loop.turn(0)
    for left in (4, 3, 2, 1, 0):
        loop.turn(3600)  # never waits: there is more to do
        assert len(lane) == left
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not lane


def test_a_fault_in_what_may_wait_costs_nothing_else(loop: Loop) -> None:
    done: list[int] = []
    lane = loop.lane(2)
    lane.put(lambda: done.append(1 // 0))
    lane.put(lambda: done.append(1))
    logging.disable(logging.CRITICAL)
    loop.turn(0)
    logging.disable(logging.NOTSET)
    assert (done, loop.faults) == ([1], 1)


def test_of_more_than_a_turn_handles_each_has_had_its_turn_before_one_has_its_second(loop: Loop) -> None:
    """However much they have to say: the kernel hands out ready descriptors in a circle."""
    pairs = [socket.socketpair() for _ in range(3 * EVENTS_A_TURN)]
    heard: list[int] = []
    for number, (near, far) in enumerate(pairs):
        loop.watch(near.fileno(), READ, lambda _events, number=number: heard.append(number))  # type: ignore[misc]
        far.send(b"never read")
    for turns in range(1, 7):
        loop.turn(0)
        assert len(heard) == turns * EVENTS_A_TURN
        most, least = max(map(heard.count, range(len(pairs)))), min(map(heard.count, range(len(pairs))))
        assert most - least <= 1
    for near, far in pairs:
        loop.forget(near.fileno())
        near.close()
        far.close()


def test_one_that_was_heard_in_a_turn_is_not_heard_again_in_it_for_a_timers_sake(
    loop: Loop, clock: Clock, pair: tuple[socket.socket, socket.socket]
) -> None:
    heard: list[int] = []
    loop.watch(pair[0].fileno(), READ, heard.append)
    pair[1].send(b"never read")
    loop.at(101.0, lambda: heard.append(0))
    clock.now = 101.0
    loop.turn()
    assert heard == [READ, 0]
    loop.forget(pair[0].fileno())
