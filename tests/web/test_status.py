"""Numbers as people read them."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from ukihashi.web.status import MAX_ROWS, gather, size, span

if TYPE_CHECKING:
    from tests.web.conftest import FakeHub


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 min 0 s"), (90.9, "1 min 30 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h"), (-5, "0 min 0 s")],
)
def test_a_span_has_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert span(seconds, str) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1_572_864, "1.50 MiB"),
        (2**30 - 1, "1.00 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_a_size_has_three_digits(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("count", [None, "12", True])
def test_what_is_no_number_is_a_dash(count: object) -> None:
    assert size(count) == "–"


def test_missing_values_are_no_error(hub: "FakeHub") -> None:
    hub.rows = {"sessions": [{}], "users": [{}], "list": [{}], "status": [{"uptime_s": 60}]}
    state = asyncio.run(gather(hub.ask, str, clock=lambda: 100.0))
    assert state.uptime == "1 min 0 s"
    assert state.sessions[0].user == "–"
    assert state.hubs[0].name == "–"
    assert (state.users[0].group, state.users[0].last_login) == ("–", "–")


def test_a_long_list_is_cut_and_says_so(hub: "FakeHub") -> None:
    hub.rows = {
        "sessions": [{"session": f"SID-{n}"} for n in range(MAX_ROWS + 3)],
        "users": [{"name": f"user {n}"} for n in range(MAX_ROWS + 4)],
    }
    state = asyncio.run(gather(hub.ask, str))
    assert (len(state.sessions), state.total_sessions) == (MAX_ROWS, MAX_ROWS + 3)
    assert str(MAX_ROWS + 3) in state.more
    assert len(state.users) == MAX_ROWS
    assert str(MAX_ROWS + 4) in state.more_users
