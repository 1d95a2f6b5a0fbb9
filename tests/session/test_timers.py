"""Keep-alives, silence and waits; the clock is a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.session.timers import (
    HUB_FIRST_S,
    Backoff,
    Health,
    KeepAlive,
    KeepAliveLaw,
    Liveness,
    StandardKeepAlive,
    retry_rule,
)
from ukihashi.wire.constants import Code

chance = st.floats(0, 1, exclude_max=True)


def test_between_our_ends_a_keepalive_follows_5_s_of_silence() -> None:
    timer = KeepAlive(100.0)
    assert timer.is_due(100.0)
    timer.sent(100.0)
    assert not timer.is_due(104.9)
    timer.sent(104.9)  # data: the timer starts again
    assert not timer.is_due(109.8)
    assert timer.is_due(109.9)


def test_the_hub_starts_later() -> None:
    timer = KeepAlive(0.0, first_after=HUB_FIRST_S)
    assert not timer.is_due(2.4)
    assert timer.is_due(2.5)


@given(chance, st.integers(5, 60))
def test_the_standard_law_stays_between_a_fifth_and_half(luck: float, timeout: int) -> None:
    timer = StandardKeepAlive(0.0, timeout=timeout)
    assert timer.is_due(0.0)
    timer.sent(0.0, luck)
    assert timeout / 5 <= timer.due_at <= timeout / 2
    assert timer.is_due(timer.due_at)


def test_both_laws_serve_the_same_caller() -> None:
    laws: list[KeepAliveLaw] = [KeepAlive(0.0), StandardKeepAlive(0.0, timeout=20)]
    for law in laws:
        law.sent(1.0, 0.5)
    assert [law.due_at for law in laws] == [6.0, 6.0]


def test_silence_makes_suspect_then_dead() -> None:
    link = Liveness(0.0, suspect=10.0, dead=15.0)
    assert (link.suspect_at, link.dead_at) == (10.0, 15.0)
    assert [link.health(now) for now in (0.0, 9.9, 10.0, 14.9, 15.0)] == [
        Health.ALIVE,
        Health.ALIVE,
        Health.SUSPECT,
        Health.SUSPECT,
        Health.DEAD,
    ]
    link.heard(12.0)
    assert link.health(15.0) is Health.ALIVE
    assert link.silent_for(15.0) == 3.0


def test_a_standard_peer_is_never_suspect() -> None:
    link = Liveness(0.0, dead=20.0)
    assert [link.health(now) for now in (19.9, 20.0)] == [Health.ALIVE, Health.DEAD]
    assert link.is_dead(20.0)
    with pytest.raises(ValueError, match="suspect"):
        Liveness(0.0, dead=5.0, suspect=6.0)


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff()
    assert [backoff.next(0.5) for _ in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert backoff.attempts == 8
    backoff.reset()
    assert backoff.next(0.9) == 0.0


@given(chance, st.integers(0, 5000))
def test_waits_are_shaken_by_a_fifth_at_most(luck: float, attempts: int) -> None:
    backoff = Backoff()
    plain = Backoff()
    for _ in range(attempts):
        backoff.next(0.5)
        plain.next(0.5)
    assert backoff.next(luck) == pytest.approx(plain.next(0.5), rel=0.2001)


def test_what_only_a_person_can_mend_is_not_tried_in_haste() -> None:
    assert not retry_rule(Code.CERT_NOT_TRUSTED).again
    assert retry_rule(Code.AUTH_FAILED).at_least == 60.0
    assert retry_rule(Code.BRIDGE_MODE_DENIED).at_least == 60.0
    assert retry_rule(Code.SESSION_TIMEOUT).at_least == 5.0
    assert retry_rule(Code.CONNECT_FAILED).at_least == 0.0
    assert retry_rule(4711).again
