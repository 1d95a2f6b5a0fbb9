import pytest

from ukihashi.card import routes
from ukihashi.card.routes import MARK, Restores, free_slot, kernel_route, mark_for, rules, table_of, wide_version
from ukihashi.config.card import Route
from ukihashi.tap.netlink import MAIN, Rule


@pytest.mark.parametrize(
    ("to", "via", "version"),
    [
        ("0.0.0.0/0", "10.9.0.1", 4),
        ("default", "", 4),
        ("default", "fd09::1", 6),
        ("default6", "", 6),
        ("::/0", "fd09::1", 6),
        ("0.0.0.0/1", "", 4),
        ("128.0.0.0/1", "", 4),
        ("2000::/3", "", 6),
        ("64.0.0.0/2", "", 0),
        ("10.0.0.0/8", "", 0),
        ("fd00::/8", "", 0),
    ],
)
def test_default_routes_are_told_from_others(to: str, via: str, version: int) -> None:
    setting = Route(to=to, via=via)
    assert wide_version(setting) == version
    assert mark_for([setting]) == (MARK if version else 0)
    assert kernel_route(setting, "uklan", 3).table == (75_003 if version else MAIN)


def test_the_rules_of_a_slot() -> None:
    near, rest = rules(4, 2)
    assert str(near) == "IPv4 rule 31004: table 254 suppress_prefixlength 0"
    assert str(rest) == "IPv4 rule 31005: not fwmark 0x2b75 table 75002"
    assert [table_of(rule) for rule in (near, rest)] == [75_002, 75_002]


def test_a_slot_that_nobody_uses() -> None:
    assert free_slot([MAIN, 255], []) == 0
    assert free_slot([MAIN, 75_000], []) == 1
    assert free_slot([MAIN], [*rules(6, 0), *rules(4, 1)]) == 2
    assert free_slot([], [Rule(4, routes.PRIORITY, MAIN)]) == 1  # an admin's own rule at that place


def test_three_times_in_ten_minutes() -> None:
    restores = Restores()
    for now in (0.0, 100.0, 200.0):
        assert restores.allowed(now)
        restores.done(now)
    assert not restores.allowed(200.0)
    assert not restores.allowed(599.9)
    assert restores.allowed(600.0)
    restores.done(600.0)
    assert not restores.allowed(699.9)
    assert restores.allowed(700.0)
    assert restores.total == 4
