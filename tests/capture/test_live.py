"""Live capture on real interfaces of a namespace. Needs root."""

import os
import socket
import struct
from pathlib import Path

import pytest

from lab.net import Net
from ukihashi.capture import live
from ukihashi.capture.devices import Device, find
from ukihashi.capture.live import LiveCapture
from ukihashi.errors import EnvironmentLacks


def wait_for(capture: LiveCapture, wanted: bytes) -> tuple[float, bytes, int]:
    """The first packet with `wanted` in it."""
    for _ in range(50):
        batch = capture.read(0.2)
        for time, at, captured, length in batch.packets:
            data = bytes(batch.buffer[at : at + captured])
            if wanted in data:
                return time, data, length
    raise AssertionError("the packet was not seen")


def loopback() -> Device:
    device = find("lo")
    assert device is not None
    return device


@pytest.mark.netns
def test_packets_of_a_card_come_with_time_and_true_length() -> None:
    with LiveCapture(loopback()) as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"marker-of-this-test" + b"x" * 2000, ("127.0.0.1", 9))
        time, data, length = wait_for(capture, b"marker-of-this-test")
        assert time > 1_600_000_000
        assert len(data) == live.SNAP
        assert length == 14 + 20 + 8 + 2019
        assert capture.statistics().packets >= 1
        assert capture.statistics().dropped == 0


def test_frames_for_others_and_vlan_tags_are_seen_and_nothing_is_sent(net: Net) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    b.run(["sysctl", "-qw", f"net.ipv6.conf.{far}.disable_ipv6=1"])  # it would send on its own
    with b.inside():
        capture = LiveCapture(Device(far, socket.if_nametoindex(far), far, has_ethernet=True))
        before = sent_packets(far)
    with capture:
        with a.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((near, 0))
            stranger = b"\x02\xaa\xaa\xaa\xaa\xaa\x02\xbb\xbb\xbb\xbb\xbb"
            raw.send(stranger + struct.pack("!HHH", 0x8100, 0x2064, 0x88B5) + b"a frame for others" + b"\0" * 40)
        _, data, length = wait_for(capture, b"a frame for others")
        assert data.startswith(stranger + struct.pack("!HHH", 0x8100, 0x2064, 0x88B5))
        assert length == 14 + 4 + 58
        with b.inside():
            assert sent_packets(far) == before


def sent_packets(interface: str) -> int:
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()  # of the namespace this thread is in
    line = next(line for line in lines if line.strip().startswith(interface + ":"))
    return int(line.split(":")[1].split()[9])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give rights away")
def test_without_the_right_there_is_one_sentence() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            LiveCapture(loopback())
            os.write(write, b"no error")
        except EnvironmentLacks as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert b"CAP_NET_RAW" in os.read(read, 4096)
    os.close(read)


def test_a_card_that_does_not_exist_is_refused() -> None:
    with pytest.raises(EnvironmentLacks, match=r"nosuch0|CAP_NET_RAW"):
        LiveCapture(Device("nosuch0", 9999, "nosuch0", has_ethernet=True))
