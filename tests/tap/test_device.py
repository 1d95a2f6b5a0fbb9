import errno
import fcntl
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.ether.offload import NONE
from ukihashi.tap import device, netlink
from ukihashi.tap.device import Tap, adopt_tap, open_tap

FRAME = bytes.fromhex("ffffffffffff 02000000000a 88b5") + b"x" * 60  # local experimental EtherType (IEEE 802)

pytestmark = pytest.mark.netns


@pytest.fixture(params=[False, True], ids=["bare", "with offload headers"])
def tap(own_network: None, request: pytest.FixtureRequest) -> Iterator[Tap]:
    opened = open_tap("uktest", offload=request.param)
    if request.param:
        opened.set_offload(NONE)
    netlink.set_up(opened.name)
    yield opened
    opened.close()


@pytest.fixture
def stack(tap: Tap) -> Iterator[socket.socket]:
    """The kernel's side of the cable."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as raw:
        raw.bind((tap.name, 0))
        raw.settimeout(5)
        yield raw


def ours(frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if frame[12:14] == b"\x88\xb5"]


def read_until(tap: Tap, wanted: int) -> list[bytes]:
    got: list[bytes] = []
    poll = select.poll()
    poll.register(tap.fd, select.POLLIN)
    while len(got) < wanted and poll.poll(5000):
        got += ours(tap.read_frames())
    return got


def test_frames_that_wait_come_in_one_batch_and_in_order(tap: Tap, stack: socket.socket) -> None:
    sent = [FRAME + bytes([n]) for n in range(20)]
    for frame in sent:
        stack.send(frame)
    assert read_until(tap, 20) == sent


def test_a_batch_ends_at_its_limit_and_loses_nothing(tap: Tap, stack: socket.socket) -> None:
    for _ in range(10):
        stack.send(FRAME)
    first = tap.read_frames(limit=2 * len(FRAME))
    assert 1 <= len(first) <= 3
    assert len(ours(first)) + len(read_until(tap, 10 - len(ours(first)))) == 10


def test_nothing_to_read_is_an_empty_batch(tap: Tap) -> None:
    netlink.set_down(tap.name)
    tap.read_frames()
    assert tap.read_frames() == []


def test_written_frames_reach_the_kernel(tap: Tap, stack: socket.socket) -> None:
    assert tap.write_frames([FRAME, memoryview(FRAME)]) == 2
    assert stack.recv(2000) == FRAME
    assert stack.recv(2000) == FRAME
    assert tap.dropped == 0


def test_a_refused_frame_is_dropped_and_counted_and_the_rest_goes_on(tap: Tap, stack: socket.socket) -> None:
    assert tap.write_frames([b"short", FRAME]) == 1
    assert tap.dropped == 1
    assert stack.recv(2000) == FRAME


def test_frames_to_an_interface_that_is_down_are_counted(tap: Tap) -> None:
    netlink.set_down(tap.name)
    assert tap.write_frames([FRAME]) == 0
    assert tap.dropped == 1


def test_the_interface_goes_when_the_tap_is_closed(tap: Tap) -> None:
    tap.close()
    tap.close()
    assert not netlink.exists(tap.name)


def test_a_persistent_tap_stays_and_can_be_taken_over(own_network: None) -> None:
    open_tap("uktest", persist=True).close()
    assert netlink.exists("uktest")
    open_tap("uktest", persist=True).close()
    assert netlink.remove_interface("uktest")
    assert not netlink.remove_interface("uktest")


def test_a_taken_name_is_refused(tap: Tap) -> None:
    with pytest.raises(EnvironmentLacks, match="uktest exists already"):
        open_tap("uktest")
    with pytest.raises(EnvironmentLacks, match="lo exists already"):
        open_tap("lo")


def test_an_interface_removed_by_hand_is_told_apart_from_silence(tap: Tap) -> None:
    netlink.remove_interface(tap.name)
    with pytest.raises(EnvironmentLacks, match="can no longer be used"):
        tap.read_frames()
    with pytest.raises(EnvironmentLacks, match="can no longer be used"):
        tap.write_frames([FRAME])


def test_a_passed_descriptor_becomes_a_tap(tap: Tap, stack: socket.socket) -> None:
    copy = adopt_tap(os.dup(tap.fd), tap.name)
    assert copy.write_frames([FRAME]) == 1
    copy.close()
    assert netlink.exists(tap.name)


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "a b", ".", "a:b", "あああああa"])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        open_tap(name)


def test_a_missing_driver_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "TUN", tmp_path / "tun")
    with pytest.raises(EnvironmentLacks, match="modprobe tun"):
        open_tap("uktest")


def test_a_missing_right_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "open", lambda *_: os.dup(0))
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(EnvironmentLacks, match="sudo"):
        open_tap("uktest")
