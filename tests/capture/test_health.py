import pytest

from ukihashi.alert.live import Losses
from ukihashi.capture.health import TELL_S, Coverage, Meter, between
from ukihashi.capture.live import Statistics
from ukihashi.errors import UkihashiError


@pytest.mark.parametrize(
    ("coverage", "share"),
    [
        (Coverage(0, 1), 1.0),  # nothing came, nothing was lost
        (Coverage(0, 1, packets=75, dropped=20, card_lost=5), 0.75),
        (Coverage(0, 1, packets=0, dropped=5), 0.0),
        (Coverage(0, 1, packets=90, dropped=10, tcp_bytes=1000, missing=400), 0.6),  # the worse of the two
        (Coverage(0, 1, packets=10, missing=5), 1.0),
    ],
)
def test_the_share_of_what_was_seen(coverage: Coverage, share: float) -> None:
    assert coverage.share == pytest.approx(share)


def test_periods_add_up_to_the_total() -> None:
    meter = Meter(100.0)
    first = meter.period(101.0, Statistics(10, 1, 1, 0), tcp_bytes=1000, missing=10)
    second = meter.period(102.5, Statistics(30, 1, 1, 2), tcp_bytes=1500, missing=10)
    assert first == Coverage(100.0, 101.0, 10, 1, 1, 0, 1000, 10)
    assert second == Coverage(101.0, 102.5, 20, 0, 0, 2, 500, 0)
    assert meter.total() == Coverage(100.0, 102.5, 30, 1, 1, 2, 1500, 10)
    assert between(Coverage(100.0, 101.0, 10, 1, 1, 0, 1000, 10), meter.total()) == second


def test_losses_are_told_at_once_then_at_most_every_ten_seconds_and_none_is_forgotten() -> None:
    told: list[str] = []
    losses = Losses(lambda error: told.append(str(error)))
    for second in range(100, 125):
        dropped = {102: 5, 103: 1, 110: 2, 124: 4}.get(second, 0)
        losses.note(Coverage(second - 1, second, packets=9, dropped=dropped), float(second))
    assert told == [
        "5 packets were lost for lack of time in the last 1 s",
        "3 packets were lost for lack of time in the last 10 s",
        "4 packets were lost for lack of time in the last 1 s",
    ]
    losses.note(Coverage(124, 125, card_lost=7), 125.0)
    assert len(told) == 3
    losses.end()
    assert told[3:] == ["7 packets were lost by the card in the last 1 s; see ukihashi alert doctor"]
    losses.end()
    assert len(told) == 4
    assert TELL_S == 10.0


def test_errors_travel_between_processes() -> None:
    import pickle

    from ukihashi.errors import EnvironmentLacks

    error = EnvironmentLacks("the card {interface} went down; start again when it is up", interface="eth0")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, UkihashiError)
    assert str(again) == str(error)
