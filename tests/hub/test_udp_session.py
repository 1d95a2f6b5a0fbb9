"""Sessions with a path over UDP: which way frames go, and when. The clock stands still, the sockets are real."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.ether.super_frames import Packet
from tests.hub.cards import Field, frame
from tests.hub.official import Client

from ukihashi.ether.offload import ALL, TRAILER, SuperFrame
from ukihashi.hub.limits import Limits
from ukihashi.hub.saved import SavedSession
from ukihashi.net.tls import server_context
from ukihashi.net.udp import UdpLane, open_udp
from ukihashi.session.udp_drops import FULL
from ukihashi.session.udp_path import UdpPath
from ukihashi.wire.blocks import encode_keepalive
from ukihashi.wire.udp import UdpEnd, UdpOffer

LIMITS = Limits(linger_s=0.2, udp_first=42_100, udp_last=42_139, allow_plaintext=True)
STEP = 0.25


class UdpClient(Client):
    """A client that offers a path over UDP."""

    lane: UdpLane

    def join(self, user: str = "a", **login: Any) -> None:
        sock = open_udp(("127.0.0.1", 0))
        offer = UdpOffer.fresh(sock.getsockname()[1], os.urandom)
        super().join(user, udp=offer, **login)
        grant = self.welcome.udp
        assert grant is not None
        end = UdpEnd.client(offer, grant)
        now = self.field.clock.now
        hub = ("127.0.0.1", grant.port)
        self.lane = UdpLane(sock, UdpPath(end, hub, now, first_iv=os.urandom(12), chance=lambda: 0.5))
        self.datagrams: list[bytes] = []

    def pump(self) -> None:
        """Take what has come."""
        self.datagrams += self.lane.receive(self.field.clock.now)

    def run(self, seconds: float) -> None:
        """Time passes, keep-alives flow."""
        for _ in range(round(seconds / STEP)):
            self.field.clock.now += STEP
            self.lane.tick(self.field.clock.now)
            for lane in self.lanes:
                lane.write(encode_keepalive(b""))
            self.field.turn()
            self.pump()

    def close(self) -> None:
        self.lane.close()
        super().close()


@pytest.fixture
def make_field(certificate: tuple[Path, Path]) -> Iterator[Callable[..., Field]]:
    made: list[Field] = []

    def make(limits: Limits = LIMITS) -> Field:
        made.append(Field(server_context(*certificate), limits))
        return made[-1]

    yield make
    for field in made:
        field.close()


@pytest.fixture
def field(make_field: Callable[..., Field]) -> Field:
    return make_field()


@pytest.fixture
def join(field: Field) -> Iterator[Callable[..., Any]]:
    made: list[Client] = []

    def make(kind: type[Client] = UdpClient, user: str = "a", *, at: Field = field, **login: Any) -> Client:
        made.append(kind(at))
        made[-1].join(user, **login)
        return made[-1]

    yield make
    for client in made:
        client.close()


def syn(to: int, by: int, most: int = 1460) -> bytes:
    """The first frame of a TCP connection."""
    head = bytearray(frame(to, by)[:12]) + b"\x08\x00\x45" + bytes(8) + b"\x06" + bytes(10)
    tcp = bytearray(24)
    tcp[12:14], tcp[20:24] = b"\x60\x02", b"\x02\x04" + most.to_bytes(2, "big")
    return bytes(head + tcp)


def offered(data: bytes) -> int:
    return int.from_bytes(data[-2:], "big")


@pytest.mark.parametrize("login", [{}, {"use_encrypt": False}, {"use_compress": True}], ids=repr)
def test_frames_go_by_udp_while_the_path_is_ready_and_by_tcp_before_and_after(
    join: Callable[..., Any], login: dict[str, Any]
) -> None:
    a, b = join(user="a", **login), join(Client, "b")
    a.send(frame(0, 1))
    assert b.receive(1) == [frame(0, 1)]
    b.send(frame(1, 2, 1))
    assert a.receive(1) == [frame(1, 2, 1)]
    assert a.row()["udp"] is False

    a.run(14)
    assert a.row()["udp"] is True
    assert a.lane.path.is_ready(a.field.clock.now)
    assert (a.welcome.udp.encrypted, a.welcome.udp.fast) == (login.get("use_encrypt", True), True)
    a.lane.send([frame(2, 1, n) for n in range(20)], a.field.clock.now)
    assert b.receive(20) == [frame(2, 1, n) for n in range(20)]
    b.send(*[frame(1, 2, n) for n in range(20)])
    a.field.until(lambda: a.pump() or len(a.datagrams) == 20, "20 datagrams")
    assert a.datagrams == [frame(1, 2, n) for n in range(20)]
    assert a.came() == []
    row = a.row()
    assert (row["udp_frames_in"], row["udp_frames_out"], row["udp_dropped"]) == (20, 20, {})
    assert (row["frames_in"], row["frames_out"]) == (21, 21)

    a.field.clock.now += 2.2  # nothing comes for so long
    a.field.turn()
    b.send(frame(1, 2, 99))
    assert a.receive(1) == [frame(1, 2, 99)]
    assert a.row()["udp"] is False
    a.run(4)
    assert a.row()["udp"] is False  # it must be steady first


def test_what_is_too_long_for_a_datagram_goes_by_tcp(join: Callable[..., Any]) -> None:
    a, b = join(user="a"), join(Client, "b")
    a.send(frame(0, 1))
    b.receive(1)
    a.run(14)
    sizes = [1375, 1376, 60, 1514]
    b.send(*[frame(1, 2, size, size) for size in sizes])
    assert a.receive(2) == [frame(1, 2, 1376, 1376), frame(1, 2, 1514, 1514)]
    a.pump()
    assert a.datagrams == [frame(1, 2, 1375, 1375), frame(1, 2, 60, 60)]
    row = a.row()
    assert (row["frames_out"], row["bytes_out"], row["udp_frames_out"]) == (4, sum(sizes), 2)


def test_without_any_tcp_connection_datagrams_flow_and_long_frames_wait(join: Callable[..., Any]) -> None:
    a, b = join(user="a"), join(Client, "b")
    a.send(frame(0, 1))
    b.receive(1)
    a.run(14)
    a.lanes.pop().sock.close()
    a.field.until(lambda: not a.session.tunnels, "the cut")
    b.send(frame(1, 2, 1, 1514), frame(1, 2, 2), frame(1, 2, 3))
    a.field.until(lambda: a.pump() or len(a.datagrams) == 2, "datagrams")
    assert a.row()["waiting_bytes"] == 1514
    assert a.field.loop.turn(0.0) is None
    a.more()
    assert a.receive(1) == [frame(1, 2, 1, 1514)]
    assert a.row()["frames_out"] == 3


def test_connections_through_it_make_smaller_segments_either_way(join: Callable[..., Any]) -> None:
    a, b = join(user="a"), join(Client, "b")
    a.send(frame(0, 1))
    b.receive(1)
    a.send(syn(2, 1))
    assert offered(b.receive(1)[0]) == 1309
    b.send(syn(1, 2), syn(1, 2, 500))
    assert [offered(one) for one in a.receive(2)] == [1309, 500]  # also while the path is not ready: it may become so
    c = join(Client, "c")
    c.send(frame(0, 3))
    b.receive(1)
    b.send(syn(3, 2))
    assert offered(c.receive(1)[0]) == 1460  # others keep what they offer


def test_the_path_ends_with_the_session(join: Callable[..., Any], field: Field) -> None:
    a = join(user="a")
    port = a.welcome.udp.port
    assert field.sessions.udp.taken == {("127.0.0.1", port)}
    a.session.close("the test says so")
    assert not field.sessions.udp.taken
    open_udp(("127.0.0.1", port)).close()


@pytest.mark.parametrize("why", ["not offered", "switched off", "version 1", "a card of ours", "no port"])
def test_there_is_none_where_there_can_be_none(
    make_field: Callable[..., Field], join: Callable[..., Any], why: str
) -> None:
    limits = replace(LIMITS, udp_acceleration=why != "switched off")
    sock = open_udp(("127.0.0.1", 0))
    if why == "no port":
        limits = replace(limits, udp_first=sock.getsockname()[1], udp_last=sock.getsockname()[1])
    login: dict[str, Any] = {} if why == "not offered" else {"udp": UdpOffer(5000, bytes(128))}
    if why == "version 1":
        login["udp"] = UdpOffer(5000, bytes(20))  # without a key of version 2
    if why == "a card of ours":
        login |= {"extension": 1, "extension_oldest": 1, "resume": True}
    a = join(Client, at=make_field(limits), **login)
    assert a.welcome.udp is None
    assert a.row()["udp"] is False
    sock.close()


def test_a_session_goes_on_in_another_worker_with_the_same_path(
    make_field: Callable[..., Field], join: Callable[..., Any]
) -> None:
    old, new = make_field(), make_field()
    a = join(user="a", at=old)
    a.send(frame(0, 1))
    a.run(14)
    new.clock.now = old.clock.now
    new.turn()
    for value in map(msgspec.msgpack.encode, old.sessions.save()):
        new.sessions.restore(msgspec.msgpack.decode(value, type=SavedSession))
    assert not old.sessions.udp.taken
    for lane in a.lanes:
        lane.sock.close()
    a.field, a.lanes = new, []
    b = join(Client, "b", at=new)
    a.lane.send([frame(0, 1, 7)], new.clock.now)  # the client has noticed nothing
    assert b.receive(1) == [frame(0, 1, 7)]
    a.more()
    b.send(frame(1, 2, 8))
    assert a.receive(1) == [frame(1, 2, 8)]  # by TCP, until the path has been steady again
    a.run(14)
    b.send(frame(1, 2, 9))
    new.until(lambda: a.pump() or a.datagrams, "a datagram")
    assert a.datagrams == [frame(1, 2, 9)]


def test_frames_that_the_socket_has_no_room_for_are_drops_of_the_session(join: Callable[..., Any]) -> None:
    a, b = join(user="a"), join(Client, "b")
    a.send(frame(0, 1))
    b.receive(1)
    a.run(14)

    class Full:
        def sendto(self, *_: object) -> int:
            raise BlockingIOError

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    lane = a.session.udp.lane
    real, lane._socket = lane._socket, Full()
    b.send(*[frame(1, 2, n) for n in range(5)])
    a.field.until(lambda: a.session.drops[FULL] == 5, "the drops")
    assert a.row()["drops"] == {FULL: 5}
    assert not a.session.queue
    lane._socket = real


def test_a_super_frame_that_opens_a_connection_is_finished_and_then_told_the_smaller_segment(
    field: Field, join: Callable[..., Any]
) -> None:
    card = field.card("card", super_frames=ALL.value)
    client = join(user="official")
    client.send(frame(0, 2))
    field.until(lambda: card.got, "its hello")
    packet = Packet(data=b"", flags=2, options=b"\2\4" + (1460).to_bytes(2, "big"))
    opening = SuperFrame(frame(2, 1)[:12] + packet.unfinished()[12:])
    card.send(opening)
    (got,) = client.receive(1)
    assert len(got) == len(opening) - TRAILER
    most = int.from_bytes(got[56:58], "big")
    assert 500 < most < 1460
    clamped = packet._replace(options=packet.options[:2] + most.to_bytes(2, "big"))
    assert got[12:] == clamped.finished()[0][12:]
