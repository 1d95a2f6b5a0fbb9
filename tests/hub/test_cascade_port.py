"""Cascades as ports of the switch; the other end of each cable is the test."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog.testing

from ukihashi.hub.cascade_port import DOWN, CascadePorts
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.messages import CascadeUp, CascadeWanted, HubPut
from ukihashi.hub.ports import Encodings, Outbox, VirtualHub
from ukihashi.hub.sessions import Sessions
from ukihashi.switch.loop_guard import ETHERTYPE, GONE_S, PERIOD_S
from ukihashi.switch.queue import PortQueue
from ukihashi.tap.frame_pipe import FramePipe, frame_pipe
from ukihashi.wire.policy import Policy

A, B = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
EVERYBODY = b"\xff" * 6


def frame(to: bytes, by: bytes, number: int = 0, size: int = 60) -> bytes:
    return (to + by + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(size, b"\0")


class Member:
    def __init__(self) -> None:
        self.name = "member"
        self.queue = PortQueue(1 << 24)
        self.got: list[bytes] = []

    def flush(self, encodings: Encodings) -> bool:
        self.got += self.queue.take()
        return False


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.loop = Loop(lambda: self.now)
        self.outbox = Outbox()
        self.sessions = Sessions(self.loop, Limits(queue_bytes=64 * 1024), self.outbox, lambda _message: True)
        self.hub: VirtualHub = self.sessions.put_hub(HubPut("LAN"))
        self.ports = CascadePorts(self.loop, self.sessions)
        self.loop.at_turn_end(self.outbox.flush)
        self.member = Member()
        self.number = self.hub.plug(self.member)
        self.ends: dict[int, FramePipe] = {}

    def cascade(self, number: int, *, up: bool = True, policy: Policy | None = None) -> FramePipe:
        ours, theirs = frame_pipe()
        wanted = CascadeWanted(number, "LAN", f"c{number}", policy or Policy())
        self.ports.plug(wanted, ours.detach())
        end = self.ends[number] = FramePipe(theirs.detach(), "card")
        self.up(number, up)
        return end

    def up(self, number: int, up: bool = True) -> None:
        self.ports.set_up(CascadeUp(number, up))
        self.turn()

    def turn(self, count: int = 3) -> None:
        for _ in range(count):
            self.loop.turn(0)

    def send(self, *frames: bytes) -> None:
        """From the member."""
        self.hub.forward(list(frames), self.number, self.now)
        self.turn()

    def row(self, number: int) -> dict[str, Any]:
        return next(row for row in self.ports.rows() if row["cascade"] == number)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.turn()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.ports.close()
    made.loop.close()
    for end in made.ends.values():
        end.close()


def plain(frames: list[bytes]) -> list[bytes]:
    return [one for one in frames if one[12:14] != ETHERTYPE]


def probes(frames: list[bytes]) -> list[bytes]:
    return [one for one in frames if one[12:14] == ETHERTYPE]


def test_frames_pass_both_ways_and_stations_are_learned(world: World) -> None:
    end = world.cascade(1)
    world.send(frame(EVERYBODY, A))
    assert plain(end.read_frames()) == [frame(EVERYBODY, A)]
    end.write_frames([frame(A, B, 1), frame(A, B, 2)])
    world.turn()
    assert world.member.got == [frame(A, B, 1), frame(A, B, 2)]
    world.send(frame(B, A, 3))
    assert end.read_frames() == [frame(B, A, 3)]
    row = world.row(1)
    assert (row["frames_in"], row["bytes_in"], row["frames_out"], row["bytes_out"]) == (2, 120, 3, 180)  # and a probe
    assert {one["session"] for one in world.hub.mac_rows(world.now)} == {"member", "c1"}
    assert (row["drops"], row["loop"]) == ({}, "open")


def test_a_cascade_may_have_any_number_of_stations_but_its_policy_holds(world: World) -> None:
    many = [frame(A, bytes([2, 0, 0, 0, 1, n])) for n in range(20)]
    for number, policy in ((1, Policy()), (2, Policy(max_mac=5))):
        end = world.cascade(number, policy=policy)
        end.write_frames(many)
        world.turn()
        world.ports.unplug(number)
    assert len(world.member.got) == 20 + 5


def test_without_a_session_nothing_waits_and_nothing_comes_in(world: World) -> None:
    end = world.cascade(1, up=False)
    world.send(frame(EVERYBODY, A))
    end.write_frames([frame(A, B)])
    world.turn()
    assert end.read_frames() == world.member.got == []
    assert world.row(1)["drops"] == {DOWN: 1}
    assert "c1" not in {one["session"] for one in world.hub.mac_rows(world.now)}
    world.up(1)
    assert plain(end.read_frames()) == []  # not what is old
    world.send(frame(EVERYBODY, A, 2))
    assert plain(end.read_frames()) == [frame(EVERYBODY, A, 2)]


def test_what_was_learned_there_is_forgotten_when_the_session_ends(world: World) -> None:
    end = world.cascade(1)
    end.write_frames([frame(A, B)])
    world.turn()
    assert {one["session"] for one in world.hub.mac_rows(world.now)} == {"c1"}
    world.up(1, up=False)
    assert list(world.hub.mac_rows(world.now)) == []


def test_control_may_speak_before_the_supervisor(world: World) -> None:
    world.ports.set_up(CascadeUp(7, up=True))
    end = world.cascade(7, up=True)
    world.send(frame(EVERYBODY, A))
    assert plain(end.read_frames()) == [frame(EVERYBODY, A)]


def test_a_full_cable_fills_the_queue_and_then_the_newest_are_dropped(world: World) -> None:
    end = world.cascade(1)
    end.read_frames()
    sent = [frame(EVERYBODY, A, n, 1400) for n in range(8000)]
    for at in range(0, len(sent), 40):
        world.ports._ports[1].queue.put(sent[at : at + 40])  # past storm control
        world.outbox.mark(world.ports._ports[1])
        world.turn(1)
    dropped = world.row(1)["drops"]["queue_full"]
    assert dropped > 0
    got: list[bytes] = []
    while part := end.read_frames(1 << 20):
        got += plain(part)
        world.turn()
    assert len(got) == len(sent) - dropped
    assert got == sorted(got)
    assert got[:100] == sent[:100]


def test_the_end_of_the_process_pulls_the_plug_and_the_next_gets_a_new_one(world: World) -> None:
    end = world.cascade(1)
    end.write_frames([frame(A, B)])
    world.turn()
    end.close()
    world.turn()
    assert {one["session"] for one in world.hub.mac_rows(world.now)} == set()
    assert len(world.hub.ports) == 1
    world.ports.unplug(1)
    again = world.cascade(1)
    world.send(frame(EVERYBODY, A))
    assert plain(again.read_frames()) == [frame(EVERYBODY, A)]
    assert len(world.hub.ports) == 2


def test_probes_go_out_every_two_seconds_and_nobody_else_gets_them(world: World) -> None:
    one, two = world.cascade(1), world.cascade(2)
    for end in (one, two):
        assert len(probes(end.read_frames())) == 1
    world.later(PERIOD_S + 0.01)
    assert len(probes(one.read_frames())) == 1
    assert world.member.got == []


def test_a_loop_through_another_hub_blocks_the_younger_cascade_and_says_so(world: World) -> None:
    one, two = world.cascade(1), world.cascade(2)
    two.write_frames([frame(A, B)])  # comes round from there
    world.turn()
    world.member.got.clear()
    two.write_frames(probes(one.read_frames()))
    with structlog.testing.capture_logs() as logged:
        world.turn()
    [found] = [line for line in logged if line["event"] == "loop_found"]
    assert (found["hub"], found["blocked"], found["loop_with"]) == ("LAN", "c2", "c1")
    assert (found["sent_by"], found["back_at"]) == ("c1", "c2")
    assert world.member.got == []
    assert (world.row(2)["loop"], world.row(2)["loop_with"], world.row(1)["loop"]) == ("blocked", "c1", "open")
    [row] = world.sessions.guarding.rows()
    assert (row["hub"], row["port"], row["with"]) == ("LAN", "c2", "c1")
    one.read_frames()
    world.send(frame(B, A, 9))
    assert plain(one.read_frames()) == [frame(B, A, 9)]  # what was learned behind it is looked for elsewhere
    two.write_frames([frame(EVERYBODY, B)])
    world.send(frame(EVERYBODY, A))
    assert world.member.got == []
    assert plain(two.read_frames()) == []
    assert plain(one.read_frames()) == [frame(EVERYBODY, A)]
    assert world.row(2)["drops"] == {"loop": 1}
    world.ports.unplug(1)
    with structlog.testing.capture_logs() as logged:
        for _ in range(8):
            world.later(GONE_S / 7)
    assert world.row(2)["loop"] == "open"
    [gone] = [line for line in logged if line["event"] == "loop_gone"]
    assert (gone["hub"], gone["port"], gone["loop_with"]) == ("LAN", "c2", "c1")
    two.read_frames()
    world.send(frame(EVERYBODY, A, 2))
    assert plain(two.read_frames()) == [frame(EVERYBODY, A, 2)]


def test_a_loop_that_a_member_closes_is_found_too(world: World) -> None:
    one = world.cascade(1)
    with structlog.testing.capture_logs() as logged:
        world.send(*probes(one.read_frames()))
    [found] = [line for line in logged if line["event"] == "loop_found"]
    assert (found["blocked"], found["loop_with"], found["back_at"]) == ("member", "c1", "member")
    world.member.got.clear()
    one.write_frames([frame(EVERYBODY, B)])
    world.turn()
    assert world.member.got == []


def test_a_probe_goes_before_all_that_waits(world: World) -> None:
    end = world.cascade(1)
    end.read_frames()
    port = world.ports._ports[1]
    for n in range(100):  # more than the cable takes
        port.queue.put([frame(EVERYBODY, A, n, 1400)] * 40)
        world.outbox.mark(port)
        world.turn(1)
    waiting = len(port.queue)
    assert waiting > 0
    world.later(PERIOD_S + 0.01)
    got: list[bytes] = []
    while part := end.read_frames(1 << 24):
        got += part
        world.turn()
    [at] = [at for at, one in enumerate(got) if probes([one])]
    assert len(got) - at - 1 == waiting


def test_another_hubs_probes_are_for_whom_a_loop_can_go_through(world: World) -> None:
    other = World()
    foreign = probes(other.cascade(1).read_frames())
    one, two = world.cascade(1), world.cascade(2)
    assert len(probes(two.read_frames())) == 1
    one.write_frames(foreign)
    world.turn()
    assert two.read_frames() == foreign
    assert world.member.got == []
    other.ports.close()
