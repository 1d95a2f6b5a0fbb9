"""Bridges as ports of the switch; the kernel behind each TAP is the test."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.hub.bridge_ports import OFFLINE, BridgePorts
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.messages import BridgePut, HubPut
from ukihashi.hub.ports import Encodings, Outbox
from ukihashi.hub.sessions import Sessions
from ukihashi.switch.loop_guard import ETHERTYPE
from ukihashi.switch.queue import PortQueue

A, B = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
EVERYBODY = b"\xff" * 6


def frame(to: bytes, by: bytes, number: int = 0) -> bytes:
    return (to + by + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(60, b"\0")


def heard(kernel: socket.socket) -> list[bytes]:
    """All that has come to the Ethernet, but what looks for loops."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(kernel.recv(2000))
    return [one for one in found if one[12:14] != ETHERTYPE]


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
        self.sessions = Sessions(self.loop, Limits(), self.outbox, lambda _message: True)
        self.bridges = BridgePorts(self.loop, self.sessions)
        self.loop.at_turn_end(self.outbox.flush)
        self.kernels: list[socket.socket] = []

    def hub(self, name: str = "LAN", *, online: bool = True) -> None:
        """As control's word does it."""
        self.sessions.put_hub(HubPut(name, online=online))
        self.bridges.hub_came(name)

    def member(self, name: str = "LAN") -> Member:
        made = Member()
        self.sessions.hubs[name.casefold()].plug(made)
        return made

    def plug(self, hub: str = "LAN", interface: str = "eth1") -> socket.socket:
        kernel, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kernel.setblocking(False)
        self.kernels.append(kernel)
        self.bridges.plug(BridgePut(hub, interface, f"ukt-{interface}"), tap.detach())
        return kernel

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.bridges.close()
    for kernel in made.kernels:
        kernel.close()
    made.loop.close()


def test_frames_pass_both_ways_and_are_counted(world: World) -> None:
    world.hub()
    member, kernel = world.member(), world.plug()
    kernel.send(frame(EVERYBODY, A))
    world.turn()
    assert member.got == [frame(EVERYBODY, A)]
    hub = world.sessions.hubs["lan"]
    hub.forward([frame(A, B, 1), frame(EVERYBODY, B, 2)], next(iter(hub.ports)), world.now)
    world.turn()
    assert heard(kernel) == [frame(A, B, 1), frame(EVERYBODY, B, 2)]
    (row,) = world.bridges.rows()
    assert (row["hub"], row["bridged"], row["interface"]) == ("LAN", "eth1", "ukt-eth1")
    assert (row["frames_in"], row["bytes_in"]) == (1, 60)
    assert row["frames_out"] >= 2


def test_a_bridge_waits_for_its_virtual_hub(world: World) -> None:
    kernel = world.plug("Later")
    assert world.bridges.rows() == []
    kernel.send(frame(EVERYBODY, A))
    world.turn()
    world.hub("Other")
    assert world.bridges.rows() == []
    world.hub("LATER")
    assert world.bridges.rows()[0]["hub"] == "LATER"
    member = world.member("later")
    world.turn()
    assert member.got == [frame(EVERYBODY, A)]  # the kernel kept it


def test_a_virtual_hub_that_is_deleted_and_made_again_has_its_bridge(world: World) -> None:
    world.hub()
    kernel = world.plug()
    world.bridges.hub_goes("lan")
    world.sessions.remove_hub("LAN")
    assert world.bridges.rows() == []
    world.turn()
    world.hub()
    member = world.member()
    kernel.send(frame(EVERYBODY, A))
    world.turn()
    assert member.got == [frame(EVERYBODY, A)]


def test_nobody_hears_anybody_in_a_virtual_hub_that_is_offline(world: World) -> None:
    world.hub(online=False)
    member, kernel = world.member(), world.plug()
    kernel.send(frame(EVERYBODY, A))
    world.turn()
    assert member.got == []
    hub = world.sessions.hubs["lan"]
    hub.forward([frame(EVERYBODY, B)], next(iter(hub.ports)), world.now)
    world.turn()
    assert heard(kernel) == []
    assert world.bridges.rows()[0]["drops"][OFFLINE] >= 1
    world.hub(online=True)
    kernel.send(frame(EVERYBODY, A, 1))
    world.turn()
    assert member.got == [frame(EVERYBODY, A, 1)]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_let_go_is_closed_once(world: World) -> None:
    world.hub()
    before = descriptors()
    first, second = world.plug(), world.plug()  # the supervisor gives it again: the new one counts
    assert first.recv(1) == b""
    world.bridges.unplug("eth1")
    assert second.recv(1) == b""
    world.bridges.unplug("eth1")
    assert world.bridges.rows() == []
    assert descriptors() == before + 2
