"""Sessions and the throttle, with the clock in the test's hand."""

from ukihashi.web.sign_in import FAILURES, IDLE_S, LIFE_S, MAX_SESSIONS, MAX_SOURCES, WINDOW_S, Sessions, Throttle, same


def test_a_session_lives_while_it_is_used_and_at_most_its_life() -> None:
    sessions = Sessions()
    session_id, _ = sessions.open(0.0)
    now = 0.0
    while now + IDLE_S - 1 < LIFE_S:
        now += IDLE_S - 1
        assert sessions.find(session_id, now) is not None
    assert sessions.find(session_id, LIFE_S) is None
    assert len(sessions) == 0


def test_an_idle_session_ends() -> None:
    sessions = Sessions()
    session_id, _ = sessions.open(0.0)
    assert sessions.find(session_id, IDLE_S) is None


def test_ids_are_256_bit_and_unknown_ones_are_nobody() -> None:
    sessions = Sessions()
    ids = {sessions.open(0.0)[0] for _ in range(10)}
    assert len(ids) == 10
    assert all(len(session_id) == 43 for session_id in ids)  # 32 bytes in base64url
    assert sessions.find("", 0.0) is None
    assert sessions.find("x" * 43, 0.0) is None


def test_the_longest_unused_session_makes_room() -> None:
    sessions = Sessions()
    ids = [sessions.open(float(n))[0] for n in range(MAX_SESSIONS)]
    assert sessions.find(ids[0], 100.0) is not None
    sessions.open(101.0)
    assert sessions.find(ids[0], 102.0) is not None
    assert sessions.find(ids[1], 102.0) is None


def test_a_source_waits_after_its_failures_and_others_do_not() -> None:
    throttle = Throttle()
    for n in range(FAILURES):
        assert throttle.wait("192.0.2.1", float(n)) == 0
        throttle.failed("192.0.2.1", float(n))
    assert throttle.wait("192.0.2.1", 10.0) == WINDOW_S - 10
    assert throttle.wait("::ffff:192.0.2.1", 10.0) > 0
    assert throttle.wait("192.0.2.2", 10.0) == 0
    assert throttle.wait("192.0.2.1", WINDOW_S) == 0


def test_an_ipv6_network_is_one_source() -> None:
    throttle = Throttle()
    for n in range(FAILURES):
        throttle.failed(f"2001:db8:1:2::{n:x}", 0.0)
    assert throttle.wait("2001:db8:1:2:ffff::1", 1.0) > 0
    assert throttle.wait("2001:db8:1:3::1", 1.0) == 0


def test_a_success_forgets_the_failures() -> None:
    throttle = Throttle()
    for _ in range(FAILURES):
        throttle.failed("192.0.2.1", 0.0)
    throttle.succeeded("192.0.2.1")
    assert throttle.wait("192.0.2.1", 0.0) == 0


def test_memory_is_bounded_whatever_the_sources() -> None:
    throttle = Throttle()
    for n in range(MAX_SOURCES + 10):
        throttle.failed(f"not an address {n}", 0.0)
    assert len(throttle._failed) == MAX_SOURCES


def test_an_empty_secret_matches_nothing() -> None:
    assert same("a", "a")
    assert not same("", "")
    assert not same("é", "e")
