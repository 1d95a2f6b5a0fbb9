"""Ports for UDP acceleration in the worker's loop, over loopback."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.udp import SavedUdp, UdpPort, UdpSockets
from ukihashi.net.udp import UdpLane, open_udp
from ukihashi.session.udp_drops import FOREIGN
from ukihashi.session.udp_path import UdpPath
from ukihashi.wire.udp import UdpEnd, UdpGrant, UdpOffer

LIMITS = Limits(udp_first=42_000, udp_last=42_019)
HERE = ("127.0.0.1", 443)


@dataclass
class World:
    """A worker's sockets, and a client's end of one path."""

    now: float = 100.0
    frames: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop = Loop(lambda: self.now)
        self.sockets = UdpSockets(self.loop, LIMITS)
        self.socket = open_udp(("127.0.0.1", 0))
        self.offer = UdpOffer(self.socket.getsockname()[1], bytes(range(128)))

    def grant(self) -> tuple[UdpPort, UdpGrant]:
        granted = self.sockets.grant(self.offer, local=HERE, peer=("127.0.0.1", 50_000), encrypted=True)
        assert granted is not None
        granted[0].deliver_to(lambda frames, _now: self.frames.extend(frames))
        return granted

    def client(self, grant: UdpGrant) -> UdpLane:
        end = UdpEnd.client(self.offer, grant)
        path = UdpPath(end, ("127.0.0.1", grant.port), self.now, first_iv=bytes(12), chance=lambda: 0.5)
        return UdpLane(self.socket, path)

    def run(self, client: UdpLane, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            client.tick(self.now)
            self.loop.turn(0)
            client.receive(self.now)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.socket.close()
    made.loop.close()


def test_frames_go_both_ways_once_the_path_is_ready(world: World) -> None:
    port, grant = world.grant()
    client = world.client(grant)
    world.run(client, 9.5)
    assert not port.is_ready
    world.run(client, 4.0)
    assert port.is_ready
    assert client.path.is_ready(world.now)
    client.send([b"up" * 30], world.now)
    world.loop.turn(0)
    assert world.frames == [b"up" * 30]
    assert port.send([b"down" * 15]) == []
    assert client.receive(world.now) == [b"down" * 15]
    row = port.row()
    assert (row["udp"], row["udp_frames_in"], row["udp_frames_out"]) == (True, 1, 1)
    world.now += 2.2
    world.loop.turn(0)
    assert port.row()["udp"] is False
    port.close()


def test_each_session_has_a_port_and_the_lowest_free_one(world: World) -> None:
    ports = [world.grant() for _ in range(3)]
    numbers = [grant.port for _, grant in ports]
    assert numbers == sorted(set(numbers))
    assert all(42_000 <= number <= 42_019 for number in numbers)
    assert len({grant.key for _, grant in ports} | {grant.to_client.to_bytes(4, "big") for _, grant in ports}) == 6
    ports[1][0].close()
    ports[1][0].close()
    again, grant = world.grant()
    assert grant.port == numbers[1]
    for port in (ports[0][0], ports[2][0], again):
        port.close()
    assert not world.sockets.taken


def test_the_range_and_the_descriptors_bound_how_many_there_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []
    while (granted := world.sockets.grant(world.offer, local=HERE, peer=HERE, encrypted=True)) is not None:
        ports.append(granted[0])
    assert 0 < len(ports) <= 20
    ports.pop().close()
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (40, 40))
    assert world.sockets.grant(world.offer, local=HERE, peer=HERE, encrypted=True) is None
    for port in ports:
        port.close()


def test_the_option_turns_it_off(world: World) -> None:
    world.sockets.limits = replace(LIMITS, udp_acceleration=False)
    assert world.sockets.grant(world.offer, local=HERE, peer=HERE, encrypted=True) is None


def test_strangers_are_counted_and_never_answered(world: World) -> None:
    port, grant = world.grant()
    with open_udp(("127.0.0.1", 0)) as stranger:
        for _ in range(200):
            stranger.sendto(bytes(100), ("127.0.0.1", grant.port))
        world.loop.turn(0)
        assert 64 <= port.row()["udp_dropped"][FOREIGN] <= 128  # so many a turn: others come in between
        with pytest.raises(BlockingIOError):
            stranger.recv(100)
    assert not world.frames
    assert port.frames_dropped.total() == 0
    port.close()


def test_another_process_goes_on(world: World) -> None:
    port, grant = world.grant()
    client = world.client(grant)
    world.run(client, 14)
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(port.save()), type=SavedUdp)
    assert not world.sockets.taken
    heir = UdpSockets(world.loop, LIMITS).restore(saved)
    assert heir is not None
    heir.deliver_to(lambda frames, _now: world.frames.extend(frames))
    client.send([b"up" * 30], world.now)
    world.run(client, 1.5)
    assert world.frames == [b"up" * 30]
    assert client.path.is_ready(world.now)  # it has noticed nothing
    assert not heir.is_ready
    world.run(client, 12)
    assert heir.is_ready
    assert UdpSockets(world.loop, LIMITS).restore(saved) is None  # its port is taken
    heir.close()


def test_connections_through_it_are_told_to_make_smaller_segments(world: World) -> None:
    port, _ = world.grant()
    syn = bytearray(14 + 20 + 24)
    syn[12:15], syn[23], syn[46], syn[47] = b"\x08\x00\x45", 6, 6 << 4, 2
    syn[54:] = b"\x02\x04" + (1460).to_bytes(2, "big")
    (clamped,) = port.clamp([bytes(syn)])
    assert int.from_bytes(clamped[56:58], "big") == 1309
    port.close()
