"""The order in which children are replaced after an upgrade, and every way in which it can go wrong."""

import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from ukihashi.errors import UkihashiError
from ukihashi.hub import succession
from ukihashi.hub.children import Child
from ukihashi.hub.crew import Crew, name_of
from ukihashi.hub.messages import HandedOver, HandOver, Message, Ready, Stop, TakeOver, Upgraded
from ukihashi.hub.succession import Succession
from ukihashi.hub.upgrade import Inherited

LEFT = Inherited(version="1", number=4, listeners=[], fronts=[], host_ports=[], children=[])
DONE = Upgraded(4, "1", 3, 0.02)
LOST = Upgraded(4, "1", None, 0.0)


class House:
    """The supervisor's children as a table."""

    def __init__(self, olds: int = 1, wanted: int = 1) -> None:
        self.link, self._other = socket.socketpair()
        self.crew = Crew()
        self.wanted = wanted
        for name in ("control", *(name_of("worker", number) for number in range(olds))):
            self.crew[name] = self._child(name, is_old=True)
        self.sent: list[tuple[str, Message]] = []
        self.states: list[tuple[str, int]] = []
        self.killed: list[Child] = []
        self.told: list[str] = []
        self.is_over = False

    def _child(self, name: str, *, is_old: bool = False) -> Child:
        return Child(name, 0, 0, self.link, is_ready=is_old, is_old=is_old)

    def close(self) -> None:
        self.link.close()
        self._other.close()

    def new(self, name: str, *, ready: bool = False) -> None:
        self.crew[name] = self._child(name)
        self.crew[name].is_ready = ready

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        if name in self.crew:
            self.sent.append((name, message))
            self.states += [(name, os.fstat(fd).st_ino) for fd in fds]

    def has_all_heirs(self) -> bool:
        return len(self.crew.heirs) == self.wanted

    def start_heirs(self) -> None:
        for number in range(self.wanted):
            if name_of("heir", number) not in self.crew:
                self.new(name_of("heir", number))

    def promote_heirs(self) -> None:
        self.crew.promote_heirs()

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
    assert "heir" not in house.crew
    house.crew["control"].is_ready = True
    steps.look()
    assert "heir" in house.crew
    assert steps.patience_s is None
    house.sent.clear()
    return steps


def until_handover(house: House) -> Succession:
    steps = until_heir(house)
    steps.look()
    assert house.sent == []
    house.crew["heir"].is_ready = True
    steps.look()
    steps.look()
    assert house.sent == [("worker", HandOver())]
    house.sent.clear()
    return steps


def test_in_good_order(house: House) -> None:
    steps = until_handover(house)
    heir = house.crew["heir"]
    steps.handed_over("worker", HandedOver(), [house.link.fileno()])
    assert house.sent == [("heir", TakeOver(more=True)), ("heir", TakeOver())]
    assert house.states == [("heir", os.fstat(house.link.fileno()).st_ino)]
    assert house.crew["worker"] is heir
    steps.serves("worker", Ready("worker", {"sessions": 3, "pause_s": 0.0199}))
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
    assert house.killed == [house.crew["control"]]
    steps.look()
    assert len(house.killed) == 1


def test_an_old_worker_that_does_not_hand_over_is_killed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "HANDOVER_S", 0.0)
    steps = until_handover(house)
    while not house.killed:
        steps.look()
    assert house.killed == [house.crew.pop("worker")]
    steps.worker_ended("worker")
    assert house.sent == [("heir", TakeOver())]
    steps.serves("worker", Ready("worker"))
    assert house.sent[-1] == ("control", LOST)


def test_a_worker_that_can_not_save_says_why(house: House) -> None:
    steps = until_handover(house)
    steps.handed_over("worker", HandedOver("no room"), [])
    assert house.told == ["the old worker could not hand over: no room"]
    steps.serves("worker", Ready("worker"))
    assert house.sent[-1] == ("control", LOST)


def test_a_state_that_nobody_asked_for_is_not_taken(house: House) -> None:
    steps = until_heir(house)
    steps.handed_over("worker", HandedOver(), [house.link.fileno()])
    assert house.sent == []
    assert house.crew["worker"].is_old


def test_an_old_worker_that_dies_before_there_is_an_heir_is_replaced_by_it(house: House) -> None:
    steps = Succession(house, LEFT)
    steps.begin()
    del house.crew["worker"]
    steps.worker_ended("worker")
    assert "heir" not in house.crew  # without control nobody can be let in anyhow
    house.new("control", ready=True)
    steps.look()
    house.crew["heir"].is_ready = True
    steps.look()
    steps.serves("worker", Ready("worker"))
    assert house.sent[-2:] == [("heir", TakeOver()), ("control", LOST)]
    assert house.is_over


def test_an_old_worker_that_dies_beside_an_unready_heir_leaves_its_place_to_it(house: House) -> None:
    steps = until_heir(house)
    del house.crew["worker"]
    steps.worker_ended("worker")
    assert house.sent == [("heir", TakeOver())]
    assert "heir" not in house.crew


def test_an_heir_that_dies_is_followed_by_another(house: House) -> None:
    steps = until_heir(house)
    del house.crew["heir"]
    steps.look()
    assert "heir" in house.crew
    assert house.killed == []


def test_an_heir_that_dies_while_it_is_awaited_is_followed_by_another_that_gets_the_sessions(house: House) -> None:
    steps = until_handover(house)
    del house.crew["heir"]
    steps.handed_over("worker", HandedOver(), [house.link.fileno()])
    del house.crew["worker"]  # it has let go already
    steps.worker_ended("worker")
    assert (house.sent, house.told) == ([], [])
    steps.look()
    steps.look()
    assert house.sent == []
    house.crew["heir"].is_ready = True
    steps.look()
    assert house.sent == [("heir", TakeOver(more=True)), ("heir", TakeOver())]
    steps.serves("worker", Ready("worker", {"sessions": 3, "pause_s": 0.0199}))
    assert house.sent[-1] == ("control", DONE)


@pytest.mark.parametrize(("olds", "wanted"), [(4, 4), (4, 1), (1, 4), (2, 3)])
def test_any_number_of_workers_becomes_any_other(olds: int, wanted: int) -> None:
    house = House(olds, wanted)
    steps = Succession(house, LEFT)
    steps.begin()
    house.new("control", ready=True)
    steps.look()
    heirs = house.crew.heirs
    assert len(heirs) == wanted
    for heir in heirs[1:]:
        heir.is_ready = True
    steps.look()
    assert house.sent[1:] == []
    heirs[0].is_ready = True
    steps.look()
    assert [message for _name, message in house.sent[1:]] == [HandOver()] * olds
    states = [os.memfd_create(f"state {number}") for number in range(olds)]
    for old, state in zip(list(house.crew.old_workers), states, strict=True):
        assert not house.states
        steps.handed_over(old.name, HandedOver(), [state])
    assert [inode for _name, inode in house.states] == [os.fstat(state).st_ino for state in states]
    assert len({name for name, _inode in house.states}) == min(olds, wanted)
    assert [house.crew[name_of("worker", number)] for number in range(wanted)] == heirs
    assert len(house.crew.retired) == olds
    for number, heir in enumerate(heirs):
        assert not house.is_over
        steps.serves(heir.name, Ready("worker", {"sessions": 2, "pause_s": 0.01 * number}))
    assert house.sent[-1] == ("control", Upgraded(4, "1", 2 * wanted, 0.01 * (wanted - 1)))
    assert house.is_over
    for state in states:
        os.close(state)
    house.close()


def test_one_of_several_old_workers_that_dies_costs_its_own_sessions_only() -> None:
    house = House(3, 3)
    steps = Succession(house, LEFT)
    steps.begin()
    house.new("control", ready=True)
    steps.look()
    for heir in house.crew.heirs:
        heir.is_ready = True
    steps.look()
    del house.crew["worker-1"]
    steps.worker_ended("worker-1")
    steps.handed_over("worker", HandedOver(), [house.link.fileno()])
    assert not house.states
    steps.handed_over("worker-2", HandedOver(), [house.link.fileno()])
    assert [name for name, _inode in house.states] == ["heir", "heir-1"]
    assert len(house.told) == 1
    house.close()
