"""The order in which children are replaced after an upgrade, and every way in which it can go wrong."""

import socket
from collections.abc import Iterator, Sequence

import pytest

from ukihashi.errors import UkihashiError
from ukihashi.hub import succession
from ukihashi.hub.children import Child
from ukihashi.hub.messages import HandedOver, HandOver, Message, Ready, Stop, TakeOver, Upgraded
from ukihashi.hub.succession import Succession
from ukihashi.hub.upgrade import Inherited

LEFT = Inherited(version="1", number=4, listeners=[], fronts=[], host_ports=[], children=[])
DONE = Upgraded(4, "1", 3, 0.02)
LOST = Upgraded(4, "1", None, 0.0)


class House:
    """The supervisor's children as a table."""

    def __init__(self) -> None:
        self.link, self._other = socket.socketpair()
        self.children = {name: self._child(name, is_old=True) for name in ("control", "worker")}
        self.sent: list[tuple[str, Message]] = []
        self.killed: list[Child] = []
        self.told: list[str] = []
        self.is_over = False

    def _child(self, name: str, *, is_old: bool = False) -> Child:
        return Child(name, 0, 0, self.link, is_ready=is_old, is_old=is_old)

    def close(self) -> None:
        self.link.close()
        self._other.close()

    def new(self, name: str, *, ready: bool = False) -> None:
        self.children[name] = self._child(name)
        self.children[name].is_ready = ready

    def child(self, name: str) -> Child | None:
        return self.children.get(name)

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        if name in self.children:
            self.sent.append((name, message))

    def start_heir(self) -> None:
        self.new("heir")

    def promote_heir(self) -> None:
        self.children["worker"] = self.children.pop("heir")

    def kill(self, child: Child) -> None:
        self.killed.append(child)

    def succeeded(self) -> None:
        self.is_over = True

    def tell(self, error: UkihashiError) -> None:
        self.told.append(str(error))


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def until_heir(house: House) -> Succession:
    """Control is replaced, the heir is being started."""
    steps = Succession(house, LEFT)
    steps.begin()
    assert house.sent == [("control", Stop(worker_stays=True))]
    steps.look()
    house.new("control")
    steps.look()
    assert "heir" not in house.children
    house.children["control"].is_ready = True
    steps.look()
    assert "heir" in house.children
    assert steps.patience_s is None
    house.sent.clear()
    return steps


def until_handover(house: House) -> Succession:
    steps = until_heir(house)
    steps.look()
    assert house.sent == []
    house.children["heir"].is_ready = True
    steps.look()
    steps.look()
    assert house.sent == [("worker", HandOver())]
    house.sent.clear()
    return steps


def test_in_good_order(house: House) -> None:
    steps = until_handover(house)
    heir = house.children["heir"]
    steps.handed_over(HandedOver(), [5])
    assert house.sent == [("heir", TakeOver())]
    assert house.children["worker"] is heir
    steps.serves(Ready("worker", {"sessions": 3, "pause_s": 0.0199}))
    assert house.sent[-1] == ("control", DONE)
    assert house.is_over
    assert (house.killed, house.told) == ([], [])


def test_an_old_control_that_does_not_end_is_killed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "STOP_DEADLINE", 0.0)
    steps = Succession(house, LEFT)
    steps.begin()
    while not house.killed:
        assert steps.patience_s is not None
        steps.look()
    assert house.killed == [house.children["control"]]
    steps.look()
    assert len(house.killed) == 1


def test_an_old_worker_that_does_not_hand_over_is_killed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "HANDOVER_S", 0.0)
    steps = until_handover(house)
    while not house.killed:
        steps.look()
    assert house.killed == [house.children["worker"]]
    assert steps.worker_ended()
    assert house.sent == [("heir", TakeOver())]
    steps.serves(Ready("worker"))
    assert house.sent[-1] == ("control", LOST)


def test_a_worker_that_can_not_save_says_why(house: House) -> None:
    steps = until_handover(house)
    steps.handed_over(HandedOver("no room"), [])
    assert house.told == ["the old worker could not hand over: no room"]
    steps.serves(Ready("worker"))
    assert house.sent[-1] == ("control", LOST)


def test_a_state_that_nobody_asked_for_is_not_taken(house: House) -> None:
    steps = until_heir(house)
    steps.handed_over(HandedOver(), [5])
    assert house.sent == []
    assert house.children["worker"].is_old


def test_an_old_worker_that_dies_before_there_is_an_heir_is_replaced_as_ever(house: House) -> None:
    steps = Succession(house, LEFT)
    steps.begin()
    del house.children["worker"]
    assert not steps.worker_ended()
    house.new("worker")
    house.new("control", ready=True)
    steps.look()
    assert "heir" not in house.children
    assert house.sent[-1] == ("control", LOST)
    assert house.is_over


def test_an_old_worker_that_dies_beside_an_unready_heir_leaves_its_place_to_it(house: House) -> None:
    steps = until_heir(house)
    del house.children["worker"]
    assert steps.worker_ended()
    assert house.sent == [("heir", TakeOver())]
    assert "heir" not in house.children


def test_an_heir_that_dies_is_followed_by_another(house: House) -> None:
    steps = until_heir(house)
    del house.children["heir"]
    steps.heir_ended()
    steps.look()
    assert "heir" in house.children
    assert house.killed == []


def test_an_heir_that_dies_while_it_is_awaited_costs_the_sessions(house: House) -> None:
    steps = until_handover(house)
    old = house.children["worker"]
    del house.children["heir"]
    steps.heir_ended()
    assert house.killed == [old]  # it has let go already
    del house.children["worker"]
    assert not steps.worker_ended()
    house.new("worker")
    steps.look()
    assert house.sent[-1] == ("control", LOST)
