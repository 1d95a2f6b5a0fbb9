"""More may wait after a cut than usual, but not for ever."""

from ukihashi.session.catch_up import CatchUp


def test_nothing_waited() -> None:
    catch_up = CatchUp()
    assert not catch_up.lasts(0, 5)
    catch_up.begin(7, 7)
    assert not catch_up.lasts(7, 9)


def test_until_what_waited_is_out() -> None:
    catch_up = CatchUp()
    catch_up.begin(10, 110)
    assert catch_up.lasts(10, 110)
    assert catch_up.lasts(109, 160)
    assert not catch_up.lasts(110, 110)
    assert not catch_up.lasts(110, 111)  # over is over


def test_an_even_flow_is_caught_up_with_in_rounds() -> None:
    catch_up, cursor, end = CatchUp(), 0, 1000
    catch_up.begin(cursor, end)
    rounds = 0
    while catch_up.lasts(cursor, end):
        assert rounds < 200
        cursor, end, rounds = min(cursor + 20, end), end + 8, rounds + 1  # 20 out for each 8 that come
    assert end - cursor <= 20


def test_a_flow_that_takes_all_it_gets_stops_after_the_first_round() -> None:
    catch_up, cursor, end = CatchUp(), 0, 1000
    catch_up.begin(cursor, end)
    while catch_up.lasts(cursor, end):
        assert cursor <= 1000
        cursor, end = cursor + 20, end + 20
    assert cursor == 1000
