"""Who may have one more session, counted over all workers; and what several workers say, as one."""

from typing import Any

from ukihashi.hub.merged import merged_status
from ukihashi.hub.messages import (
    LoginAnswered,
    LoginAsked,
    LoginRefused,
    SessionClosed,
    SessionOpened,
    SessionsHere,
)
from ukihashi.hub.registry import COMING_S, Registry
from ukihashi.wire.constants import Code
from ukihashi.wire.policy import Policy

MACHINE = b"m" * 16


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(ask: int = 1, unique_id: bytes = b"") -> LoginAsked:
    return LoginAsked(ask, "LAN", "ann", 1, b"", unique_id=unique_id)


def answer(ask: int = 1, **more: Any) -> LoginAnswered:
    return LoginAnswered(ask, hub="LAN", user="ann", **more)


def opened(name: str, user: str = "ann", unique_id: bytes = b"") -> SessionOpened:
    return SessionOpened(name, "LAN", user, "192.0.2.1:5", "card", 1, 0.0, unique_id)


def closed(name: str) -> SessionClosed:
    return SessionClosed(name, "LAN", "ann", "left", 0, 0, 0, 0, 0, 0.0)


def registry(*workers: int, clock: Clock | None = None) -> Registry:
    made = Registry(clock or Clock())
    for worker in workers:
        made.here(worker, SessionsHere([], {"LAN": 0}))
    return made


def test_a_worker_that_is_alone_counts_by_itself() -> None:
    given = answer(policy=Policy(multi_logins=1), max_sessions=1)
    made = registry()
    made.opened(0, opened("SID-ANN-1"))
    assert made.judge(0, asked(), given) is given


def test_numbers_are_given_once_whatever_worker_asks_and_go_on_after_control_was_replaced() -> None:
    made = registry(0, 1)
    assert [made.judge(worker, asked(ask), answer(ask)).number for ask, worker in enumerate((0, 1, 1, 0))] == [
        1,
        2,
        3,
        4,
    ]
    made = Registry(Clock())
    made.here(0, SessionsHere([], {"LAN": 4}))
    made.here(1, SessionsHere([], {"LAN": 3}))
    assert made.judge(1, asked(), answer()).number == 5


def test_a_user_has_so_many_sessions_at_all_workers_together() -> None:
    made, policy = registry(0, 1), Policy(multi_logins=2)
    made.opened(0, opened("SID-ANN-1"))
    assert not made.judge(1, asked(1), answer(1, policy=policy)).error
    # the second is let in, though it is no session yet
    assert made.judge(0, asked(1), answer(1, policy=policy)).error == Code.TOO_MANY_USER_SESSION
    made.opened(1, opened("SID-ANN-2"))
    assert made.judge(0, asked(2), answer(2, policy=policy)).error == Code.TOO_MANY_USER_SESSION
    made.closed(1, closed("SID-ANN-1"))  # not that worker's
    assert made.judge(0, asked(3), answer(3, policy=policy)).error == Code.TOO_MANY_USER_SESSION
    made.closed(0, closed("SID-ANN-1"))
    assert not made.judge(0, asked(4), answer(4, policy=policy)).error


def test_what_the_same_machine_left_behind_does_not_count() -> None:
    made, policy = registry(0, 1), Policy(multi_logins=1)
    made.opened(0, opened("SID-ANN-1", unique_id=MACHINE))
    assert not made.judge(1, asked(1, MACHINE), answer(1, policy=policy)).error
    made = registry(0, 1)
    made.opened(0, opened("SID-ANN-1", unique_id=bytes(16)))
    assert made.judge(1, asked(1, bytes(16)), answer(1, policy=policy)).error


def test_a_hub_has_so_many_sessions_at_all_workers_together() -> None:
    made = registry(0, 1)
    made.opened(0, opened("SID-ANN-1"))
    made.opened(1, opened("SID-BOB-2", "bob"))
    assert made.judge(1, asked(1), answer(1, max_sessions=2)).error == Code.HUB_IS_BUSY
    assert not made.judge(1, asked(2), answer(2, max_sessions=3)).error


def test_who_was_let_in_and_does_not_come_is_forgotten() -> None:
    clock = Clock()
    made, policy = registry(0, 1, clock=clock), Policy(multi_logins=1)
    assert not made.judge(0, asked(1), answer(1, policy=policy)).error
    assert made.judge(1, asked(1), answer(1, policy=policy)).error
    made.refused(0, LoginRefused("lan", "Ann", "", "", 1))  # by the worker, for a reason of its own
    assert not made.judge(1, asked(2), answer(2, policy=policy)).error
    clock.now += COMING_S
    assert not made.judge(1, asked(3), answer(3, policy=policy)).error


def test_a_session_that_moves_is_the_other_workers_and_goes_with_that_one() -> None:
    made, policy = registry(0, 1), Policy(multi_logins=1)
    made.opened(0, opened("SID-ANN-1"))
    made.here(1, SessionsHere([("LAN", "SID-ANN-1", "ann", b"")]))
    made.gone(0)
    assert made.judge(1, asked(1), answer(1, policy=policy)).error
    made.here(0, SessionsHere([], {"LAN": 0}))
    assert made.judge(0, asked(2), answer(2, policy=policy)).error
    made.gone(1)
    assert not made.judge(0, asked(3), answer(3, policy=policy)).error


def test_what_workers_say_of_themselves_is_summed() -> None:
    one = {
        "pid": 10,
        "connections": 3,
        "sessions": 2,
        "hubs": 1,
        "host_ports": ["uklan"],
        "uptime_s": 5.0,
        "trunks": [],
    }
    one["resume_memory"] = {"used": 1, "limit": 10}
    two = {**one, "pid": 20, "connections": 4, "hubs": 2, "host_ports": [], "resume_memory": {"used": 2, "limit": 10}}
    row = merged_status({1: [two], 0: [one]})
    assert [each["worker"] for each in row.pop("workers")] == [0, 1]
    assert row == {
        "pid": 10,
        "connections": 7,
        "half_open": 0,
        "evicted": 0,
        "tools": 0,
        "sessions": 4,
        "cut": 0,
        "faults": 0,
        "hubs": 2,
        "host_ports": ["uklan"],
        "bridges": [],
        "loops": [],
        "uptime_s": 5.0,
        "resume_memory": {"used": 3, "limit": 20},
    }
    assert merged_status({0: [two]}) == {**two, "workers": [{"worker": 0, **two}]}
    assert merged_status({}) == {}
