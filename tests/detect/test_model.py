from math import log
from random import Random

import pytest

from ukihashi.detect import model
from ukihashi.detect.flow import Message, Turn
from ukihashi.detect.model import IMPOSSIBLE, Span


def turns(*sizes: int, pace: float = 0.01) -> list[Turn]:
    made = []
    for place, size in enumerate(sizes):
        turn = Turn(place * pace, toward_server=place % 2 == 0)
        turn.size = turn.first = size
        made.append(turn)
    return made


def messages(chance: Random, gaps: list[float], sizes: range = range(30, 542)) -> list[Message]:
    return [Message(0.0, gap, chance.choice(sizes), coupled=False) for gap in gaps]


def test_sizes_score_inside_the_span_little_at_its_edges_and_never_beyond() -> None:
    span = Span(1000, 2000)
    inside, edge = model.size_score(1500, span), model.size_score(2200, span)
    assert inside == pytest.approx(log(0.98 / 1000 * 1500 * log(3000)))
    assert 0 > edge > -3
    assert model.size_score(2401, span) == model.size_score(939, span) == IMPOSSIBLE


LOGIN = (517, 1434, 2700, 1000, 3100, 2700)


def test_a_typical_login_has_the_measured_score() -> None:
    assert 8.5 < model.dialogue_score(turns(*LOGIN), 0, model.SOFTETHER_LOGIN) < 9.3


def test_the_window_slides_over_tls_12_and_a_probe_pair() -> None:
    for extra in ((126, 51), (275, 475), (126, 51, 275, 475)):
        found = turns(*LOGIN[:2], *extra, *LOGIN[2:])
        assert model.dialogue_score(found, 0, model.SOFTETHER_LOGIN) > 8.5


def test_tickets_that_cut_the_first_request_in_two_cost_little() -> None:
    found = turns(517, 1434, 1448, 158, 1252, 842, 3100, 2700)
    assert 7.8 < model.dialogue_score(found, 0, model.SOFTETHER_LOGIN) < 8.6


def test_a_slow_dialogue_is_none_of_programs() -> None:
    quick, slow = turns(*LOGIN), turns(*LOGIN, pace=4.0)
    assert (
        model.dialogue_score(quick, 0, model.SOFTETHER_LOGIN) - model.dialogue_score(slow, 0, model.SOFTETHER_LOGIN)
        == 8
    )


def test_further_connections_and_logins_are_told_apart() -> None:
    further = turns(517, 1434, 2700, 1000, 900, 800)
    assert model.dialogue_score(further, 0, model.SOFTETHER_FURTHER) > 5
    assert model.dialogue_score(further, 0, model.SOFTETHER_LOGIN) == IMPOSSIBLE


@pytest.mark.parametrize("timeout", [10.0, 20.0, 40.0])
def test_the_standard_timers_fit_their_own_law_whatever_the_timeout(timeout: float) -> None:
    chance = Random(1)
    gaps = [max(timeout / 5, chance.random() * timeout / 2) + chance.random() * 0.2 for _ in range(30)]
    timing = model.softether_timing([messages(chance, gaps)])
    assert timing.timeout_s == timeout
    assert timing.score > 28
    assert 0.2 < timing.atom < 0.6
    assert timing.beyond == 0


def test_our_timers_fit_our_law_and_fixed_sizes_do_not() -> None:
    chance = Random(2)
    gaps = [5.0 + chance.random() * 0.02 for _ in range(12)]
    ours = model.ukihashi_timing([messages(chance, gaps)])
    fixed = model.ukihashi_timing([messages(chance, gaps, range(52, 53))])
    assert ours.score > 28
    assert (ours.atom, ours.beyond) == (1.0, 0.0)
    assert ours.spread > 100
    assert fixed.score < 0
    assert fixed.distinct < 0.1


def test_data_in_between_says_nothing_about_our_timers() -> None:
    chance = Random(3)
    timing = model.ukihashi_timing([messages(chance, [1.0, 2.5, 4.9])])
    assert timing == model.NO_TIMING
