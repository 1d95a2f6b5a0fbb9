"""The supervisor's side of cascades, with processes that do little."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from ukihashi.errors import EnvironmentLacks, UkihashiError
from ukihashi.hub import cascade_children as module
from ukihashi.hub.cascade_children import CascadeChildren
from ukihashi.hub.messages import CascadeGone, CascadeLink, CascadeWanted, Message
from ukihashi.hub.start import CascadeStart
from ukihashi.tap.frame_pipe import FramePipe

WANTED = CascadeWanted(3, "LAN", "hq")
FRAME = bytes(60)


def steady(start: CascadeStart) -> int:
    """Says who it is, gives back one batch of frames, and waits for its end."""
    start.give_up()
    start.control.send(f"{os.getpid()} {os.geteuid()} {start.name}".encode())
    pipe = FramePipe(start.cable.detach(), start.name)
    select.select([pipe], [], [])
    pipe.write_frames(pipe.read_frames())
    signal.pause()
    return 0


def failing(start: CascadeStart) -> int:
    raise EnvironmentLacks("no luck today")


class House:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Message, list[socket.socket]]] = []
        self.told: list[str] = []
        self.kept: list[tuple[socket.socket, ...]] = []

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        self.sent.append((name, message, [socket.socket(fileno=os.dup(fd)) for fd in fds]))

    def tell(self, error: UkihashiError) -> None:
        self.told.append(str(error))

    def keep_only(self, *kept: socket.socket) -> None:
        """In the child."""

    def take(self, name: str) -> tuple[Message, list[socket.socket]]:
        for one in self.sent:
            if one[0] == name:
                self.sent.remove(one)
                return one[1:]
        raise AssertionError(name)


class World:
    def __init__(self, life: Callable[[CascadeStart], int] | None) -> None:
        self.house = House()
        self.poll = select.poll()
        self.children = CascadeChildren(self.house, life, self.poll, "ukihashi-card")

    def turn(self, until: Callable[[], object], *, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end
            patience = self.children.patience_s
            wait = 100 if patience is None else min(100, patience * 1000)
            self.children.look({fd for fd, _ in self.poll.poll(wait)})

    def close(self) -> None:
        self.children.stop()
        self.turn(lambda: not self.children)
        for _, _, socks in self.house.sent:
            for sock in socks:
                sock.close()

    def started(self) -> tuple[int, int, FramePipe]:
        """Its pid, its user, and the worker's end of the cable."""
        message, [cable] = self.house.take("worker")
        assert message == WANTED
        message, [link] = self.house.take("control")
        assert message == CascadeLink(3)
        with link:
            link.settimeout(10)
            pid, uid, name = link.recv(100).decode().split()
        assert name == "LAN/hq"
        return int(pid), int(uid), FramePipe(cable.detach(), "worker")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    made = World(steady)
    yield made
    made.close()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_wanted_cascade_has_a_process_without_rights_and_a_cable(world: World) -> None:
    world.children.want(WANTED)
    pid, uid, pipe = world.started()
    assert uid != 0 or os.geteuid() != 0
    pipe.write_frames([FRAME, FRAME])
    select.select([pipe], [], [], 10)
    assert pipe.read_frames() == [FRAME, FRAME]
    pipe.close()
    assert world.house.told == []
    world.children.remove(3)
    assert world.house.take("worker") == (CascadeGone(3), [])
    world.turn(lambda: not world.children)
    assert gone(pid)
    world.children.remove(3)


def test_a_new_worker_gets_the_cable_and_a_new_control_the_link(world: World) -> None:
    world.children.want(WANTED)
    pid, _, pipe = world.started()
    pipe.close()
    world.children.give_cables()
    message, [cable] = world.house.take("worker")
    assert message == WANTED
    again = FramePipe(cable.detach(), "worker")
    again.write_frames([FRAME])
    select.select([again], [], [], 10)
    assert again.read_frames() == [FRAME]
    again.close()
    world.children.want(WANTED)
    message, [link] = world.house.take("control")
    link.close()
    assert message == CascadeLink(3)
    assert not gone(pid)
    assert world.house.sent == []


def test_one_that_dies_is_started_again_and_each_time_later(world: World) -> None:
    world.children.want(WANTED)
    for seconds in ("0.05", "0.1", "0.2"):
        pid, _, pipe = world.started()
        os.kill(pid, signal.SIGKILL)
        world.turn(lambda: len(world.house.sent) == 2)
        pipe.close()
        assert f"another is started in {seconds} s" in world.house.told[-1]
    pid, _, pipe = world.started()
    pipe.close()


def test_its_last_words_are_told() -> None:
    world = World(failing)
    world.children.want(WANTED)
    world.turn(lambda: world.house.told)
    assert "“hq” of virtual hub LAN: its process ended (no luck today)" in world.house.told[0]
    world.close()
    world.children.want(WANTED)  # too late
    assert not world.children


def test_before_an_upgrade_all_end_and_if_it_fails_they_begin_again(world: World) -> None:
    world.children.want(WANTED)
    pid, _, pipe = world.started()
    pipe.close()
    world.children.pause()
    assert gone(pid)
    world.turn(lambda: len(world.house.sent) == 2)
    pid, _, pipe = world.started()
    pipe.close()
    assert world.house.told == []


def test_another_wish_for_the_same_one_starts_it_anew(world: World) -> None:
    world.children.want(WANTED)
    pid, _, pipe = world.started()
    pipe.close()
    other = CascadeWanted(3, "LAN", "other")
    world.children.want(other)
    assert [type(message) for _, message, _ in world.house.sent] == [CascadeGone, CascadeWanted, CascadeLink]
    world.turn(lambda: gone(pid))


def test_a_hub_that_can_not_says_so() -> None:
    with pytest.raises(EnvironmentLacks, match="takes no more"):
        World(None).children.want(WANTED)
