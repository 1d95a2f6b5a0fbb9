"""Logins that wait until they are told to go on: of several that come so far, one becomes the session."""

from collections.abc import Iterator

import pytest
from tests.card.rig import Rig

from lab.fake_hub import FakeHub
from ukihashi.card.messages import Failed, GiveUp, GoOn, Greeted, Opened, Sign, Trouble
from ukihashi.errors import DialError, NotTrusted


@pytest.fixture(params=[0, 300], ids=["standard", "exact"])
def rig(hub: FakeHub, request: pytest.FixtureRequest) -> Iterator[Rig]:
    hub.grace_s = request.param
    made = Rig(hub)
    try:
        yield made
    finally:
        made.close()


def greeted(rig: Rig) -> int:
    number = rig.connect(waits=True)
    assert rig.hear(Greeted).attempt == number
    return number


def test_one_of_two_goes_on_and_the_other_is_let_go(rig: Rig) -> None:
    first, second = greeted(rig), greeted(rig)
    assert rig.hub.logins == []
    rig.tell(GiveUp(first, Trouble.of(DialError("not needed"))))
    assert rig.hear(Failed).attempt == first
    rig.tell(GoOn(second))
    assert rig.hear(Opened).attempt == second
    assert len(rig.hub.logins) == 1
    rig.send(1)
    rig.reaches_hub(1)


def test_whoever_goes_on_ends_the_others(rig: Rig) -> None:
    first, second = greeted(rig), greeted(rig)
    rig.tell(GoOn(first))
    assert rig.hear(Opened).attempt == first
    rig.tell(GoOn(second))  # too late
    rig.send(1)
    rig.reaches_hub(1)
    assert len(rig.hub.logins) == 1


def test_the_session_there_is_lives_until_another_goes_on(rig: Rig) -> None:
    rig.join()
    number = greeted(rig)
    rig.send(1)
    rig.reaches_hub(1)
    rig.tell(GoOn(number))
    assert rig.hear(Opened).attempt == number
    rig.send(2)
    rig.reaches_hub(2)
    assert len(rig.hub.logins) == 2


def test_a_hub_with_another_key_is_not_greeted(rig: Rig) -> None:
    rig.connect(waits=True, pin=bytes(32))
    assert isinstance(rig.hear(Failed).trouble.error(), NotTrusted)


def test_to_go_on_twice_is_to_go_on_once(rig: Rig) -> None:
    number = greeted(rig)
    rig.tell(GoOn(number))
    rig.tell(GoOn(number))
    rig.tell(GoOn(99))
    assert rig.hear(Opened).attempt == number
    assert len(rig.hub.logins) == 1


def test_a_login_by_certificate_has_its_challenge_signed_then(rig: Rig) -> None:
    number = rig.connect(waits=True, method="certificate", own_certificate=b"DER")
    assert rig.hear(Greeted).attempt == number
    rig.tell(GoOn(number))
    asked = rig.hear(Sign)
    assert (asked.attempt, len(asked.challenge)) == (number, 20)
