"""The schedule of dials on a clock that the test turns."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.card.redial import FIRST_AGAIN_S, MOST, Redial

GRACE = 300.0


class Dialling:
    """Follows the schedule from event to event; each dial's fate comes from `fate` (seconds to its refusal)."""

    def __init__(self, fate: Callable[[int], float | None] = lambda _attempt: None, *, pace: float = 2.0) -> None:
        self.redial = Redial(pace=pace)
        self.redial.opened(-1000.0)
        self.now = 0.0
        self.starts: list[float] = []
        self.given_up: list[int] = []
        self._fate = fate
        self._failures: dict[int, float] = {}

    def until(self, end: float) -> list[float]:
        """Let time pass; when dials started meanwhile."""
        before = len(self.starts)
        while self.now < end:
            if self.redial.is_due(self.now):
                self.starts.append(self.now)
                attempt = len(self.starts)
                self.given_up += self.redial.dial(attempt, self.now)
                fate = self._fate(attempt)
                if fate is not None:
                    self._failures[attempt] = self.now + fate
                continue
            wait = self.redial.wait(self.now)
            times = [end, *self._failures.values()] + ([self.now + wait] if wait else [])
            self.now = min(times)
            for attempt in [attempt for attempt, at in self._failures.items() if at <= self.now]:
                del self._failures[attempt]
                self.redial.failed(attempt)
        return self.starts[before:]


def test_a_link_that_is_well_needs_no_dial() -> None:
    dialling = Dialling()
    assert dialling.until(3600.0) == []
    assert dialling.redial.wait(3600.0) is None


def test_silence_starts_dials_beside_the_link_every_two_seconds() -> None:
    dialling = Dialling()
    dialling.redial.suspect(0.0)
    assert dialling.until(9.0) == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert len(dialling.redial.open) == MOST
    assert dialling.given_up == [1, 2, 3]  # the oldest makes room
    dialling.redial.recovered()
    assert dialling.until(100.0) == []
    assert not dialling.redial.open


def test_a_cut_is_answered_at_once_then_again_after_a_moment_then_at_the_pace() -> None:
    dialling = Dialling(lambda _attempt: 0.001)
    dialling.redial.cut(0.0, GRACE)
    assert dialling.until(7.0) == pytest.approx([0.0, FIRST_AGAIN_S, FIRST_AGAIN_S + 2, FIRST_AGAIN_S + 4, 6.25])


def test_a_dial_that_is_still_under_way_has_its_two_seconds() -> None:
    dialling = Dialling()
    dialling.redial.cut(0.0, GRACE)
    assert dialling.until(5.0) == [0.0, 2.0, 4.0]


def test_a_cut_while_it_is_silent_dials_at_once() -> None:
    dialling = Dialling()
    dialling.redial.suspect(0.0)
    dialling.until(5.0)
    dialling.redial.cut(5.0, GRACE)
    assert dialling.until(8.0) == [5.0, 7.0]


def test_two_dials_never_follow_each_other_at_once() -> None:
    dialling = Dialling()
    dialling.redial.suspect(0.0)
    dialling.until(0.1)
    dialling.redial.cut(0.1, GRACE)
    assert dialling.until(1.0) == [FIRST_AGAIN_S]


def test_after_asking_the_next_dial_has_the_whole_pace_to_wait() -> None:
    dialling = Dialling()
    dialling.redial.suspect(0.0)
    dialling.until(1.5)
    dialling.redial.asked(1, 1.5, GRACE)
    assert dialling.until(4.0) == [3.5]


def test_the_session_is_over_when_the_hub_no_longer_keeps_it() -> None:
    dialling = Dialling(lambda _attempt: 0.1)
    dialling.redial.cut(0.0, 30.0)
    dialling.until(29.9)
    assert not dialling.redial.is_over(29.9)
    assert dialling.redial.is_over(30.0)
    assert dialling.redial.wait(29.9) == pytest.approx(0.1)


def test_the_time_counts_from_the_first_ask_and_not_from_the_last() -> None:
    redial = Redial(pace=2.0)
    redial.suspect(0.0)
    redial.dial(1, 0.0)
    redial.asked(1, 1.0, 10.0)
    redial.dial(2, 3.0)
    redial.asked(2, 4.0, 10.0)
    assert redial.is_over(11.0)


def test_an_ask_over_a_dial_that_was_given_up_changes_nothing() -> None:
    redial = Redial(pace=2.0)
    redial.suspect(0.0)
    redial.asked(7, 0.0, 10.0)
    assert redial.is_due(0.0)
    assert not redial.is_over(100.0)


def test_a_path_that_connects_but_is_slow_gets_more_and_more_time() -> None:
    redial = Redial(pace=2.0)
    redial.cut(0.0, GRACE)
    at, starts = 0.0, list[float]()
    for attempt in range(1, 9):
        at += redial.wait(at) or 0.0
        starts.append(at)
        redial.dial(attempt, at)
        redial.connected(attempt)  # and never greeted before it must make room
    gaps = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert gaps == [2.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    redial.dial(9, at + 8)
    redial.dial(10, at + 16)
    redial.dial(11, at + 24)  # gives up one that never connected: no path, so no reason to wait
    assert redial.wait(at + 24) == 2.0


def test_links_that_die_as_soon_as_they_are_up_do_not_make_a_storm() -> None:
    redial = Redial(pace=2.0)
    redial.opened(0.0)
    at, starts = 0.0, list[float]()
    for attempt in range(1, 30):
        redial.cut(at, GRACE)
        at += redial.wait(at) or 0.0
        starts.append(at)
        redial.dial(attempt, at)
        redial.opened(at)
    gaps = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert max(gaps[:5]) == FIRST_AGAIN_S
    assert min(gaps[-15:]) == 2.0
    redial.cut(at + 60.0, GRACE)  # it has lived
    assert redial.is_due(at + 60.0)


def test_the_pace_may_change_while_the_session_lives() -> None:
    dialling = Dialling()
    dialling.redial.suspect(0.0)
    dialling.until(1.0)
    dialling.redial.pace = 0.5
    assert dialling.until(3.9) == [2.0, 2.5, 3.0, 3.5]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["suspect", "recovered", "cut", "asked", "failed", "opened", "connected"]), st.floats(0, 5)
        ),
        max_size=40,
    )
)
def test_whatever_happens_dials_are_few_and_never_in_a_rush(events: list[tuple[str, float]]) -> None:
    redial = Redial(pace=2.0)
    now, attempt, starts = 0.0, 0, list[float]()
    for name, passes in events:
        end = now + passes
        while (wait := redial.wait(now)) is not None and now + wait <= end and not redial.is_over(now + wait):
            now += wait
            if not redial.is_due(now):
                break
            attempt += 1
            starts.append(now)
            redial.dial(attempt, now)
            assert len(redial.open) <= MOST
        now = end
        match name:
            case "suspect":
                redial.suspect(now)
            case "recovered":
                redial.recovered()
            case "cut":
                redial.cut(now, GRACE)
            case "asked":
                redial.asked(attempt, now, GRACE)
            case "failed":
                redial.failed(attempt)
            case "connected":
                redial.connected(attempt)
            case "opened":
                redial.opened(now)
    gaps = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert all(gap >= FIRST_AGAIN_S - 1e-9 for gap in gaps)


def test_where_there_are_several_paths_each_has_its_dial_soon() -> None:
    dialling = Dialling()
    dialling.redial.paths = 4
    dialling.redial.cut(0.0, GRACE)
    assert dialling.until(5.0) == pytest.approx([0.0, 0.3, 0.6, 0.9, 2.9, 4.9])
    assert dialling.given_up == [1, 2]
    assert len(dialling.redial.open) == 4


def test_a_path_that_fails_at_once_makes_room_for_the_next_but_not_without_end() -> None:
    dialling = Dialling(lambda _attempt: 0.01)
    dialling.redial.paths = 3
    dialling.redial.cut(0.0, GRACE)
    assert dialling.until(5.0) == pytest.approx([0.0, 0.25, 0.5, 0.75, 2.75, 4.75])


def test_a_hub_that_was_asked_has_its_time_whatever_the_paths() -> None:
    dialling = Dialling()
    dialling.redial.paths = 3
    dialling.redial.cut(0.0, GRACE)
    dialling.until(0.1)
    dialling.redial.asked(1, 0.1, GRACE)
    assert dialling.until(4.0) == pytest.approx([2.1, 2.4])
