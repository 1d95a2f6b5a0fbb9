from ukihashi.hub.throttle import DELAY_S, FAILURES, MAX_PAIRS, WINDOW_S, Throttle


def test_the_eleventh_try_within_a_minute_is_late() -> None:
    throttle = Throttle()
    for at in range(FAILURES):
        assert throttle.delay("192.0.2.1", "hanako", float(at)) == 0.0
        throttle.failed("192.0.2.1", "hanako", float(at))
    assert throttle.delay("192.0.2.1", "hanako", 10.0) == DELAY_S
    assert throttle.delay("192.0.2.2", "hanako", 10.0) == 0.0
    assert throttle.delay("192.0.2.1", "taro", 10.0) == 0.0
    assert throttle.delay("192.0.2.1", "hanako", WINDOW_S) == 0.0


def test_a_success_forgives() -> None:
    throttle = Throttle()
    for _ in range(FAILURES):
        throttle.failed("192.0.2.1", "hanako", 1.0)
    throttle.succeeded("192.0.2.1", "hanako")
    assert throttle.delay("192.0.2.1", "hanako", 1.0) == 0.0


def test_memory_is_bounded() -> None:
    throttle = Throttle()
    for number in range(MAX_PAIRS + 100):
        throttle.failed("192.0.2.1", str(number), 1.0)
    assert len(throttle._failed) == MAX_PAIRS
