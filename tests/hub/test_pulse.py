"""The manager hears that the hub is alive only while everybody who was asked answers."""

from ukihashi.errors import UkihashiError
from ukihashi.hub.children import Child
from ukihashi.hub.messages import Message, Ping
from ukihashi.hub.pulse import Nobody, Pulse
from ukihashi.locale import set_language


class Manager(Nobody):
    watchdog_s: float | None = 4.0

    def __init__(self) -> None:
        self.heard: list[str] = []

    def ready(self, status: str) -> None:
        self.heard.append(status)

    def alive(self) -> None:
        self.heard.append("alive")


class Case:
    """A pulse of one second, and children that answer when they are told to."""

    def __init__(self, manager: Nobody | None = None) -> None:
        set_language("en")
        self.now = 100.0
        self.manager = Manager()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.pulse = Pulse(manager or self.manager, self.send, self.tell, lambda: self.now)

    def send(self, name: str, message: Message) -> None:
        assert message == Ping()
        self.asked.append(name)

    def tell(self, error: UkihashiError) -> None:
        self.complaints.append(str(error))

    def turn(self, *children: Child, answer: bool = True) -> list[str]:
        """A second later; what the manager heard in it."""
        self.manager.heard.clear()
        self.asked.clear()
        self.pulse.look(children)
        if answer:
            for child in children:
                self.pulse.heard(child)
        self.now += 1.0
        return self.manager.heard


def child(name: str) -> Child:
    return Child(name, 1, -1, None)  # type: ignore[arg-type] # nobody looks at it


def test_it_is_alive_while_all_answer() -> None:
    case, control, worker = Case(), child("control"), child("worker")
    for _ in range(5):
        assert case.turn(control, worker) == ["alive"]
        assert case.asked == ["control", "worker"]
    assert case.complaints == []


def test_one_that_stands_still_silences_all_until_it_turns_again() -> None:
    case, control, worker = Case(), child("control"), child("worker")
    assert case.turn(control, worker) == ["alive"]
    case.turn(control, worker, answer=False)
    case.pulse.heard(control)
    for _ in range(3):
        assert case.turn(control, worker, answer=False) == []
        assert case.asked == ["control"]  # the other one has a question already
        case.pulse.heard(control)
    assert case.complaints == ["the hub's worker process has not answered for 1 s"]
    case.pulse.heard(worker)
    assert case.turn(control, worker) == ["alive"]
    assert case.asked == ["control", "worker"]


def test_one_that_has_ended_is_not_waited_for_and_its_successor_is_asked() -> None:
    case, control = Case(), child("control")
    case.turn(control, child("worker"), answer=False)
    case.pulse.heard(control)
    assert case.turn(control, child("worker")) == ["alive"]
    assert case.asked == ["control", "worker"]


def test_between_two_rounds_nothing_is_asked_and_the_wait_is_known() -> None:
    case, worker = Case(), child("worker")
    assert case.pulse.patience_s == 0.0
    case.turn(worker)
    case.now -= 0.75
    assert case.pulse.patience_s == 0.75
    case.asked.clear()
    case.pulse.look([worker])
    assert case.asked == []


def test_without_a_watchdog_nobody_is_asked() -> None:
    case = Case(Nobody())
    assert case.pulse.patience_s is None
    case.turn(child("worker"))
    assert case.asked == []


def test_addresses_are_shown_as_one_writes_them() -> None:
    case = Case()
    case.pulse.serves("1.2", [("0.0.0.0", 443), ("::", 8443)])
    assert case.manager.heard == ["version 1.2 serves on 0.0.0.0:443 [::]:8443"]
