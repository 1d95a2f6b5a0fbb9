"""Live capture on real interfaces of a namespace. Needs root."""

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from lab.net import Host, Net
from ukihashi.capture import ring
from ukihashi.capture.devices import Device, find
from ukihashi.capture.live import LiveCapture, Options
from ukihashi.errors import EnvironmentLacks, UsageError

STRANGER = b"\x02\xaa\xaa\xaa\xaa\xaa\x02\xbb\xbb\xbb\xbb\xbb"


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
        assert len(data) == ring.SNAP
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
            raw.send(STRANGER + struct.pack("!HHH", 0x8100, 0x2064, 0x88B5) + b"a frame for others" + b"\0" * 40)
        _, data, length = wait_for(capture, b"a frame for others")
        assert data.startswith(STRANGER + struct.pack("!HHH", 0x8100, 0x2064, 0x88B5))
        assert length == 14 + 4 + 58
        with b.inside():
            assert sent_packets(far) == before


def card(host: Host, name: str) -> Device:
    return Device(name, socket.if_nametoindex(name), name, has_ethernet=True)


def test_several_cards_in_one_capture_and_no_others(net: Net) -> None:
    a, b = net.host("a"), net.host("b")
    wires = [net.link(a, b)] + [net.link(net.host(f"x{n}"), b) for n in range(2)]
    ends = [(a, wires[0][0]), (net.host("x0"), wires[1][0]), (net.host("x1"), wires[2][0])]
    with b.inside():
        capture = LiveCapture([card(b, wires[0][1]), card(b, wires[2][1])])
    with capture:
        assert capture.has_ring
        for number in range(30):
            host, near = ends[number % 3]
            with host.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((near, 0))
                raw.send(STRANGER + struct.pack("!HI", 0x88B5, number) + bytes(50))
        found: list[int] = []
        while len(found) < 20:
            batch = capture.read(2.0)
            assert batch.packets, "packets are missing"
            for _, at, _, _ in batch.packets:
                if bytes(batch.buffer[at + 12 : at + 14]) == b"\x88\xb5":
                    found += struct.unpack_from("!I", batch.buffer, at + 14)
        assert found == [number for number in range(30) if number % 3 != 1]  # in the order of sending, over all cards


def test_where_no_ring_can_be_made_a_packet_socket_does_the_same(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(ring, "Ring", refuse)
    with b.inside():
        capture = LiveCapture(card(b, far), Options(expression="ether proto 0x88b5", snap=200))
    with capture:
        assert not capture.has_ring
        with a.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((near, 0))
            raw.send(STRANGER + struct.pack("!H", 0x88B6) + b"left out" + bytes(60))
            raw.send(STRANGER + struct.pack("!HHH", 0x8100, 7, 0x88B5) + b"with a tag" + bytes(800))
        batch = capture.read(5.0)
        ((_, at, captured, length),) = batch.packets
        assert bytes(batch.buffer[at : at + 28]) == STRANGER + b"\x81\0\0\x07\x88\xb5with a tag"
        assert (captured, length) == (204, 14 + 4 + 810)
        assert capture.statistics().packets == 1


@pytest.mark.parametrize("expression", ["vlan 7", "vlan 7 and ether proto 0x88b5"])
def test_the_kernel_finds_a_tag_that_it_took_off(net: Net, expression: str) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    with b.inside():
        capture = LiveCapture(card(b, far), Options(expression=expression))
    with capture:
        with a.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((near, 0))
            for tag in (6, 7, 8):
                raw.send(STRANGER + struct.pack("!HHH", 0x8100, tag, 0x88B5) + bytes(60))
            raw.send(STRANGER + struct.pack("!H", 0x88B5) + bytes(60))
        batch = capture.read(5.0)
        assert [bytes(batch.buffer[at + 12 : at + 16]) for _, at, _, _ in batch.packets] == [b"\x81\0\0\x07"]


@pytest.mark.netns
def test_a_wrong_filter_is_refused_before_anything_opens() -> None:
    with pytest.raises(UsageError, match="syntax error"):
        LiveCapture(loopback(), Options(expression="port port"))


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
