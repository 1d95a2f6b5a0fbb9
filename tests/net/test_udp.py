"""Two lanes over loopback; the clock is a number."""

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from ukihashi.net import udp
from ukihashi.net.udp import BATCH, UdpLane, kernel_drops, open_udp
from ukihashi.session.udp_drops import FOREIGN, FULL, UNREAD
from ukihashi.session.udp_path import UdpPath
from ukihashi.wire.udp import UdpEnd, UdpGrant, UdpOffer

Lanes = tuple[UdpLane, UdpLane]


def lanes_on(address: str) -> Lanes:
    """Two that know each other."""
    ours, theirs = (open_udp((address, 0)) for _ in range(2))
    offer = UdpOffer(ours.getsockname()[1], bytes(range(128)))
    grant = UdpGrant(theirs.getsockname()[1], bytes(range(128, 256)), 1, 2)
    made = []
    for sock, other, end in (
        (ours, theirs, UdpEnd.client(offer, grant)),
        (theirs, ours, UdpEnd.server(offer, grant)),
    ):
        path = UdpPath(end, other.getsockname(), 0.0, first_iv=bytes(12), chance=lambda: 0.5)
        made.append(UdpLane(sock, path))
    return made[0], made[1]


@pytest.fixture(params=["127.0.0.1", "::1"])
def lanes(request: pytest.FixtureRequest) -> Iterator[Lanes]:
    pair = lanes_on(request.param)
    yield pair
    for lane in pair:
        lane.close()


def test_frames_arrive_in_one_read(lanes: Lanes) -> None:
    one, other = lanes
    frames = [bytes([n]) * 60 for n in range(20)]
    assert one.send(frames, 0.0) == []
    assert other.receive(0.0) == frames
    assert (one.frames_out, other.frames_in) == (20, 20)
    assert not one.drops + other.drops


def test_one_read_ends_after_a_batch(lanes: Lanes) -> None:
    one, other = lanes
    one.send([bytes(60)] * (BATCH + 6), 0.0)
    assert [len(other.receive(0.0)) for _ in range(3)] == [BATCH, 6, 0]


def test_keepalives_make_the_path_ready(lanes: Lanes) -> None:
    now = 0.0
    while now < 13.0:
        for lane in lanes:
            lane.tick(now)
        for lane in lanes:
            assert lane.receive(now) == []
        now += 0.25
    assert [lane.path.is_ready(now) for lane in lanes] == [True, True]
    assert lanes[0].frames_in == 0


def test_frames_too_long_for_one_datagram_are_given_back(lanes: Lanes) -> None:
    one, other = lanes
    long = bytes(one.path.longest_frame + 1)
    assert one.send([bytes(60), long, bytes(61), long], 0.0) == [long, long]
    assert other.receive(0.0) == [bytes(60), bytes(61)]
    assert one.frames_out == 2


def test_noise_costs_a_counter(lanes: Lanes) -> None:
    one, other = lanes
    with socket.socket(socket.AF_INET6 if ":" in one.local[0] else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for noise in (b"", b"hello", bytes(60_000)):
            stranger.sendto(noise, one.local)
        other.send([bytes(60)], 0.0)
        assert one.receive(0.0) == [bytes(60)]
        assert one.drops == {FOREIGN: 3}
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody is answered
            stranger.recv(100)


class Sending:
    """A socket whose kernel takes some datagrams, then fails."""

    def __init__(self, sock: socket.socket, takes: int, fails: OSError) -> None:
        self._socket, self._takes, self._fails = sock, takes, fails

    def sendto(self, data: bytes, where: tuple[object, ...]) -> int:
        if not self._takes:
            raise self._fails
        self._takes -= 1
        return self._socket.sendto(data, where)

    def __getattr__(self, name: str) -> object:
        return getattr(self._socket, name)


def test_what_the_socket_has_no_room_for_is_dropped_and_counted() -> None:
    one, other = lanes_on("127.0.0.1")
    one._socket = Sending(one._socket, 3, BlockingIOError())  # type: ignore[assignment]
    assert one.send([bytes(60)] * 10, 0.0) == []
    assert len(other.receive(0.0)) == one.frames_out == 3
    assert one.drops == {FULL: 7}
    one.close()
    other.close()


def test_a_kernel_that_refuses_ends_the_path_and_nothing_is_lost() -> None:
    one, other = lanes_on("127.0.0.1")
    for now in range(28):
        one.tick(now / 2)
        other.tick(now / 2)
        one.receive(now / 2)
        other.receive(now / 2)
    assert one.path.is_ready(13.5)
    one._socket = Sending(one._socket, 3, OSError(errno.ENETUNREACH, "no way"))  # type: ignore[assignment]
    frames = [bytes([n]) * 60 for n in range(10)]
    assert one.send(frames, 13.5) == frames[3:]
    assert not one.path.is_ready(13.5)
    one.tick(20.0)  # refused too: no harm
    assert one.frames_out == 3
    one.close()
    other.close()


def test_what_the_kernel_dropped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "BUFFER", 4096)
    one, other = lanes_on("127.0.0.1")
    for _ in range(100):
        one.send([bytes(1000)], 0.0)
    arrived = len(other.receive(0.0))
    assert arrived + other.drops[UNREAD] == 100
    assert arrived < 100
    one.close()
    other.close()


class Odd:
    """A socket of a kernel that knows no SO_MEMINFO, or another one."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer

    def getsockopt(self, *_: int) -> bytes:
        if self._answer is None:
            raise OSError(errno.ENOPROTOOPT, "unknown")
        return self._answer


@pytest.mark.parametrize("answer", [None, b"", struct.pack("=5I", 1, 2, 3, 4, 5)])
def test_a_kernel_that_does_not_tell_counts_0(answer: bytes | None) -> None:
    assert kernel_drops(Odd(answer)) == 0  # type: ignore[arg-type]


def test_a_port_in_use_is_an_error_and_leaves_nothing_open() -> None:
    with open_udp(("127.0.0.1", 0)) as sock, pytest.raises(OSError, match="in use"):
        open_udp(sock.getsockname())


def test_closing_twice_is_closing_once() -> None:
    one, other = lanes_on("127.0.0.1")
    for lane in (one, one, other):
        lane.close()
    assert one.fd == -1
    assert not one.drops
