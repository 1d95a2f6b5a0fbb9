import math
import select
import time

from ukihashi.card.clock import Alarm, clock


def test_the_clock_goes_on_while_the_machine_sleeps() -> None:
    before = time.monotonic()  # which does not
    assert clock() >= before


def test_an_alarm_rings_at_its_moment_once() -> None:
    alarm = Alarm()
    try:
        assert alarm.at == math.inf
        began = clock()
        alarm.set(began + 0.05)
        assert select.select([alarm.fd], [], [], 10)[0]
        assert clock() >= began + 0.05
        alarm.rang()
        assert not select.select([alarm.fd], [], [], 0)[0]
        assert alarm.at == math.inf
    finally:
        alarm.close()


def test_a_moment_that_has_passed_rings_at_once_and_a_later_one_can_be_taken_back() -> None:
    alarm = Alarm()
    try:
        alarm.set(clock() + 3600)
        alarm.set(0.0)
        assert select.select([alarm.fd], [], [], 10)[0]
        alarm.rang()
        alarm.rang()
    finally:
        alarm.close()
