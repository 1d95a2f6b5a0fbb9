"""The MAC table: age, order, moves, limits."""

from hypothesis import given
from hypothesis import strategies as st

from ukihashi.switch.mac_table import MacTable, Row, Station
from ukihashi.units import PortId

A, B, C = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3))
P1, P2 = PortId(1), PortId(2)


def test_a_station_ages_after_600_s_of_silence() -> None:
    table = MacTable()
    table.learn(A, P1, 0.0)
    table.learn(A, P1, 100.0)
    assert table.find(A, 699.9) == P1
    assert table.find(A, 700.0) is None
    assert table.rows(700.0) == []


def test_another_ageing_time_holds_for_known_stations_too() -> None:
    table = MacTable()
    table.learn(A, P1, 0.0)
    table.set_ageing(10.0)
    assert table.find(A, 9.9) == P1
    assert table.find(A, 10.0) is None
    table.set_ageing(20.0)
    assert table.find(A, 19.9) == P1


def test_a_move_takes_over_at_once() -> None:
    table = MacTable()
    table.learn(A, P1, 0.0)
    table.learn(A, P2, 1.0)
    assert table.find(A, 1.0) == P2
    assert (table.count(P1), table.count(P2)) == (0, 1)
    assert table.rows(1.0) == [Row(A, 0, P2, 1.0, 1.0, 2)]


def test_the_same_address_in_two_vlans_is_two_stations() -> None:
    table = MacTable()
    table.learn(A, P1, 0.0)
    table.learn(A + b"\x00\x05", P2, 0.0)
    assert [(row.mac, row.vlan, row.port) for row in table.rows(0.0)] == [(A, 0, P1), (A, 5, P2)]


def test_a_full_table_takes_no_new_station_until_one_has_aged() -> None:
    table = MacTable(limit=2)
    assert table.learn(A, P1, 0.0)
    assert table.learn(B, P1, 300.0)
    assert not table.learn(C, P1, 301.0)
    assert table.learn(B, P2, 302.0)  # a known one may move
    assert table.learn(C, P1, 600.0)  # A has aged
    assert [row.mac for row in table.rows(600.0)] == [B, C]


def test_a_station_that_comes_back_after_ageing_is_new() -> None:
    table = MacTable()
    table.learn(A, P1, 0.0)
    table.learn(A, P1, 900.0)
    assert table.rows(900.0) == [Row(A, 0, P1, 900.0, 900.0, 2)]


def test_a_removed_port_forgets_its_stations() -> None:
    table = MacTable()
    for station, port in ((A, P1), (B, P2), (C, P1)):
        table.learn(station, port, 0.0)
    table.forget_port(P1)
    table.forget_port(PortId(9))
    assert [row.mac for row in table.rows(0.0)] == [B]
    assert len(table) == 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3), st.integers(0, 400)), max_size=60))
def test_counts_and_order_stay_true(steps: list[tuple[int, int, int]]) -> None:
    table, now = MacTable(limit=4), 0.0
    for station, port, wait in steps:
        now += wait
        table.learn(bytes([2, 0, 0, 0, 0, station]), PortId(port), now)
        seen = [row.seen for row in table.rows(now)]
        assert seen == sorted(seen)
        assert len(table) <= 4
        assert sum(table.count(PortId(each)) for each in (1, 2, 3)) == len(table)


def test_stations_come_back_with_their_ages_unless_they_have_moved() -> None:
    table, heir = MacTable(), MacTable()
    table.learn(A, P1, 10.0)
    table.learn(B, P1, 20.0)
    table.learn(A, P1, 30.0)
    table.learn(C, P2, 25.0)
    saved = table.stations(P1)
    heir.learn(B, P2, 1000.0)
    heir.put_back(P1, [Station(one.key, one.created + 500, one.seen + 500) for one in saved])
    heir.put_back(P2, [Station(one.key, one.created + 500, one.seen + 500) for one in table.stations(P2)])
    assert heir.rows(1000.0) == [
        Row(C, 0, P2, 525.0, 525.0, 3),
        Row(A, 0, P1, 510.0, 530.0, 2),
        Row(B, 0, P2, 1000.0, 1000.0, 1),
    ]
    assert (heir.count(P1), heir.count(P2)) == (1, 2)
    assert [row.mac for row in heir.rows(1126.0)] == [A, B]  # in the order of age
    heir.expire(1126.0)
    assert len(heir) == 2
