"""Frames that the kernel leaves undone, through a real TAP and back into the same kernel, which checks what it gets."""

import fcntl
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ukihashi.ether.offload import ALL, MAX_SUPER_FRAME, NONE, TRAILER, Kind, SuperFrame, flaw, kind_of
from ukihashi.tap import device, netlink
from ukihashi.tap.device import BATCH, TUNSETOFFLOAD, Tap, adopt_tap, open_tap
from ukihashi.wire.blocks import BlockDecoder, encode_frames

FRAME = bytes.fromhex("ffffffffffff 02000000000a 88b5") + b"x" * 60  # local experimental EtherType (IEEE 802)
PORT = 5000
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
UDP_SEGMENT = 103  # linux/udp.h
LEAST = Kind.CHECKSUM | Kind.TSO4 | Kind.TSO6  # what every kernel with IFF_VNET_HDR can

pytestmark = pytest.mark.netns


@pytest.fixture
def tap(own_network: None) -> Iterator[Tap]:
    opened = open_tap("uktest", offload=True)
    assert opened.offload
    netlink.set_up(opened.name)
    netlink.add_address(opened.name, "10.9.0.1/24")
    subprocess.run(["ip", "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "uktest"], check=True)
    yield opened
    opened.close()


@pytest.fixture
def udp(tap: Tap) -> Iterator[socket.socket]:
    """A program on this machine that talks to 10.9.0.2, port to the same port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("10.9.0.1", PORT))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 21)
        sock.settimeout(5)
        yield sock


def say(udp: socket.socket, size: int, segment: int = 0) -> None:
    """Send `size` bytes, as one datagram or as datagrams of `segment` bytes that the interface is to make of it."""
    udp.setsockopt(socket.SOL_UDP, UDP_SEGMENT, segment)
    udp.sendto(bytes(n % 251 for n in range(size)), ("10.9.0.2", PORT))


def heard(udp: socket.socket, count: int) -> list[int]:
    """Sizes of so many datagrams; their checksums were right, or said to be."""
    return [len(udp.recv(70_000)) for _ in range(count)]


def read(tap: Tap, wanted: int) -> list[bytes]:
    """The program's frames, however they come."""
    got: list[bytes] = []
    poll = select.poll()
    poll.register(tap.fd, select.POLLIN)
    while len(got) < wanted and poll.poll(5000):
        got += [frame for frame in tap.read_frames() if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP]
    return got


def back(frame: bytes) -> bytes:
    """The same from 10.9.0.2 to us; the sums stay right, as they don't know an order."""
    turned = frame[6:12] + frame[:6] + frame[12:26] + frame[30:34] + frame[26:30] + frame[34:]
    return type(frame)(turned)


def test_what_the_kernel_left_undone_can_be_given_to_a_kernel(tap: Tap, udp: socket.socket) -> None:
    assert tap.set_offload(ALL) & LEAST == LEAST
    say(udp, 20)
    (frame,) = read(tap, 1)
    assert isinstance(frame, SuperFrame)
    assert len(frame) == 42 + 20 + TRAILER
    assert (kind_of(frame), flaw(frame, ALL)) == (Kind.CHECKSUM, "")
    assert tap.write_frames([back(frame)]) == 1
    assert heard(udp, 1) == [20]


def test_what_is_longer_than_the_line_allows_comes_and_goes_in_one_piece(
    tap: Tap, udp: socket.socket, lacks: Callable[[str], None]
) -> None:
    if not tap.set_offload(ALL) & Kind.USO4:
        lacks("a TAP that splits datagrams (Linux 6.2)")
    say(udp, 60_000, 1000)
    (frame,) = read(tap, 1)
    assert isinstance(frame, SuperFrame)
    assert len(frame) == 42 + 60_000 + TRAILER
    assert (kind_of(frame) & ~Kind.CHECKSUM, flaw(frame, ALL)) == (Kind.USO4, "")
    assert tap.write_frames([back(frame)]) == 1
    assert heard(udp, 60) == [1000] * 60


def test_nothing_is_left_undone_without_being_asked_for(tap: Tap, udp: socket.socket) -> None:
    tap.set_offload(NONE)
    say(udp, 20)
    say(udp, 5000, 1000)
    frames = read(tap, 6)
    assert [type(frame) for frame in frames] == [bytes] * 6
    assert tap.write_frames(map(back, frames)) == 6
    assert heard(udp, 6) == [20, *[1000] * 5]
    assert tap.dropped == 0


@pytest.mark.parametrize("passed_on", [False, True])
def test_what_was_made_ready_before_is_finished_on_its_way(tap: Tap, udp: socket.socket, passed_on: bool) -> None:
    tap.set_offload(ALL)
    say(udp, 20)
    say(udp, 5000, 1000)
    if passed_on:
        tap = adopt_tap(os.dup(tap.fd), tap.name)  # whoever had it before may have asked for anything
    else:
        assert tap.set_offload(NONE) == NONE
    frames = read(tap, 6)
    assert [type(frame) for frame in frames] == [bytes] * 6
    tap.write_frames(map(back, frames))
    assert heard(udp, 6) == [20, *[1000] * 5]  # the kernel has looked at each checksum
    say(udp, 30)
    assert [type(frame) for frame in read(tap, 1)] == [bytes]
    if passed_on:
        tap.close()


def test_fewer_kinds_leave_the_rest_undone(tap: Tap, udp: socket.socket) -> None:
    tap.set_offload(ALL)
    say(udp, 5000, 1000)
    assert tap.set_offload(Kind.CHECKSUM) == Kind.CHECKSUM
    say(udp, 20)
    frames = read(tap, 6)
    assert [type(frame) for frame in frames] == [bytes] * 5 + [SuperFrame]
    tap.write_frames(map(back, frames))
    assert heard(udp, 6) == [*[1000] * 5, 20]


def test_a_batch_is_what_encoding_the_frames_would_have_made(tap: Tap, udp: socket.socket) -> None:
    assert tap.read_batch() is None  # nobody said what may be left undone
    tap.set_offload(ALL)
    assert tap.read_batch() is None  # there may be older ones
    tap.read_frames()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x88B5) as raw:
        raw.bind((tap.name, 0))
        for _ in range(2):
            say(udp, 20)
            say(udp, 60_000, 1000)
            raw.send(FRAME)
            say(udp, 0)
        batches = [tap.read_batch(), tap.read_batch(), tap.read_batch()]
    sizes = [42 + 20 + TRAILER, 42 + 60_000 + TRAILER, len(FRAME), 42 + TRAILER]
    decoder = BlockDecoder(extended=True, super_frames=True)
    frames: list[bytes] = []
    for batch in batches:
        assert batch is not None
        got = decoder.feed(batch.data)
        assert (batch.frames, batch.long, batch.unfit) == (len(got), sum(len(one) > 2000 for one in got), 0)
        assert batch.data == encode_frames(got)
        frames += [one for one in got if one[12:14] != b"\x86\xdd"]
    assert batches[0] is not None
    assert 2 * 60_000 < len(batches[0].data) < BATCH + MAX_SUPER_FRAME
    assert [len(one) for one in frames] == sizes * 2
    assert [isinstance(one, SuperFrame) for one in frames] == [True, True, False, True] * 2
    assert frames[2] == FRAME
    tap.write_frames(map(back, (one for one in frames if isinstance(one, SuperFrame))))
    assert heard(udp, 122 + 2) == [20, *[1000] * 60, 0] * 2
    tap.set_offload(NONE)
    tap.read_frames()
    assert tap.read_batch() is None


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (Kind.TSO4, NONE),  # all need the checksum
        (Kind.CHECKSUM | Kind.TSO_ECN, Kind.CHECKSUM),
        (Kind.CHECKSUM | Kind.USO4, Kind.CHECKSUM),  # both or none
        (LEAST, LEAST),
    ],
)
def test_what_can_not_be_asked_for_alone_is_left_out(tap: Tap, asked: Kind, given: Kind) -> None:
    assert tap.set_offload(asked) == given


def test_a_header_that_the_kernel_does_not_take_costs_the_frame_only(tap: Tap, udp: socket.socket) -> None:
    tap.set_offload(ALL)
    say(udp, 20)
    (frame,) = read(tap, 1)
    unfit = SuperFrame(frame[:-TRAILER] + b"\x01\x09" + frame[2 - TRAILER :])
    assert tap.write_frames([back(unfit), back(frame)]) == 1
    assert tap.dropped == 1
    assert heard(udp, 1) == [20]


def test_without_offload_headers_frames_are_plain(own_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_has_offload", lambda _fd: False)
    tap = open_tap("uktest", offload=True)
    assert not tap.offload
    assert tap.set_offload(ALL) == NONE
    assert not adopt_tap(os.dup(tap.fd), tap.name).offload
    tap.close()


def test_a_kernel_that_does_not_split_datagrams_does_the_rest(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.ioctl

    def old(fd: int, request: int, argument: Any = 0) -> Any:
        if request == TUNSETOFFLOAD and argument & 0x60:
            raise OSError(22, "Invalid argument")
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", old)
    assert tap.set_offload(ALL) == LEAST | Kind.TSO_ECN


def test_a_cable_that_is_no_tap_takes_none() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert not adopt_tap(ours.fileno(), "pair").offload
