"""Our splitter beside the kernel's: the same super-frames, finished by both.

    frames ---> TAP "in" (with offload) --- bridge --- TAP "out" (without) ---> what the kernel makes of them

And super-frames that the kernel itself makes: two hosts, the TAP of each in the hands of the test.

    "a": socket, TAP "card" (with offload) <--- the test carries frames ---> TAP "card" (with offload), socket: "b"
"""

import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.ether.super_frames import ACK, CWR, FIN, PSH, UDP, Packet, packets

from lab.net import Host, Net
from lab.wait import until
from ukihashi.ether.offload import ALL, NONE, Kind, SuperFrame, fits, flaw, kind_of
from ukihashi.ether.segment import finish, finish_all
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap

pytestmark = pytest.mark.netns

END = b"\2\0\0\0\xff\2" + b"\2\0\0\0\xff\1" + b"\x88\xb5" + bytes(46)  # a mark behind what was to be split
UDP_SEGMENT = 103  # linux/udp.h
SENT = bytes(range(251)) * 2000


class Kernel:
    """The kernel's splitter."""

    def __init__(self, host: Host) -> None:
        for which in ("all", "default"):
            host.set_sysctl(f"net/ipv6/conf/{which}/disable_ipv6", "1")  # nothing but our frames
        for which in ("iptables", "ip6tables"):
            if Path(f"/proc/sys/net/bridge/bridge-nf-call-{which}").exists():
                host.set_sysctl(f"net/bridge/bridge-nf-call-{which}", "0")  # it would look at IP headers
        with host.inside():
            self._in, self._out = open_tap("in", offload=True), open_tap("out")
        assert self._in.set_offload(ALL) & Kind.TSO4
        host.ip("link add name bridge0 type bridge mcast_snooping 0")
        for name in ("in", "out"):
            host.ip(f"link set {name} mtu 1600 master bridge0 up")
        host.ip("link set dev in type bridge_slave learning off")
        host.ip("link set bridge0 up")

    def finish(self, frame: bytes) -> list[bytes]:
        """What it makes of one frame; nothing if it drops it."""
        finished: list[bytes] = []
        assert self._in.write_frames([frame, END]) == 2
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while END not in finished:
            assert poll.poll(30_000), "the mark is lost"
            finished += self._out.read_frames()
        return [one for one in finished[: finished.index(END)] if one[:12] == frame[:12]]  # the bridge talks too

    def close(self) -> None:
        """Remove both TAPs."""
        self._in.close()
        self._out.close()


class Ends:
    """Two hosts with a TAP each, and the test as the network between them."""

    def __init__(self, a: Host, b: Host) -> None:
        self.a, self.b = a, b
        self.taps: list[Tap] = []
        self.seen: list[SuperFrame] = []
        for number, host in enumerate((a, b), 1):
            with host.inside():
                tap = open_tap("card", offload=True)
                self.kinds = tap.set_offload(ALL)
                netlink.set_up("card", gso_max_segs=128)
                netlink.add_address("card", f"10.9.0.{number}/24")
                netlink.add_address("card", f"fd09::{number}/64")
            self.taps.append(tap)

    def carry(self, kinds: Kind) -> None:
        """What waits at each end goes to the other, which takes `kinds`."""
        for here, there in (self.taps, self.taps[::-1]):
            frames = here.read_frames()
            self.seen += [frame for frame in frames if isinstance(frame, SuperFrame)]
            there.write_frames(finish_all(frames, kinds))

    def close(self) -> None:
        """Remove both TAPs."""
        for tap in self.taps:
            tap.close()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Net() as net:
        made = Kernel(net.host("switch"))
        yield made
        made.close()


@pytest.fixture
def ends(net: Net) -> Iterator[Ends]:
    made = Ends(net.host("a"), net.host("b"))
    yield made
    made.close()


def transfer(ends: Ends, version: int, kinds: Kind) -> None:
    """`SENT` over TCP from "a" to "b", where it must arrive unchanged."""
    family, address = (socket.AF_INET, "10.9.0.2") if version == 4 else (socket.AF_INET6, "fd09::2")
    with ends.b.inside():
        listener = socket.create_server((address, 5001), family=family)
    with ends.a.inside():
        sender = socket.socket(family)
    with listener, sender:
        listener.setblocking(False)
        sender.setblocking(False)
        sender.connect_ex((address, 5001))

        def carried(what: Callable[[], object]) -> Callable[[], object]:
            def look() -> object:
                ends.carry(kinds)
                try:
                    return what()
                except BlockingIOError:
                    return None

            return look

        accepted = until(carried(listener.accept), seconds=30, what="a connection", step_s=0)
        assert isinstance(accepted, tuple)
        receiver, _ = accepted
        with receiver:
            receiver.setblocking(False)
            left, came = memoryview(SENT), bytearray()

            def move() -> bool:
                nonlocal left
                if left:
                    with contextlib.suppress(BlockingIOError):
                        left = left[sender.send(left) :]
                came.extend(receiver.recv(1 << 20))
                return len(came) >= len(SENT)

            until(carried(move), seconds=60, what="all the data", step_s=0)
    assert bytes(came) == SENT


def tcp_checksum_errors(host: Host) -> int:
    """Of both IP versions."""
    with host.inside():
        names, values = (
            line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
        )
    return int(dict(zip(names, values, strict=True))["InCsumErrors"])


def test_crafted_ones_become_the_same_frames(kernel: Kernel) -> None:
    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    @given(packets(most=20_000).filter(lambda packet: not packet.each or len(packet.data) > packet.each))
    def compare(packet: Packet) -> None:
        assert finish(packet.unfinished()) == kernel.finish(packet.unfinished())

    compare()


def test_damaged_ones_without_a_flaw_are_taken_and_become_the_same_frames(kernel: Kernel) -> None:
    """Whatever strangers write into headers, but for a segment that holds all of the data, which no kernel sends."""
    places = st.integers(-10, -1) | st.integers(12, 79)

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(packets(most=10_000), st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=3))
    def compare(packet: Packet, damage: list[tuple[int, int]]) -> None:
        whole = bytearray(packet.unfinished())
        for at, value in damage:
            whole[min(at, len(whole) - 1)] = value
        frame = SuperFrame(bytes(whole))
        assume(not flaw(frame, ALL))
        ours = finish(frame)
        assume(len(ours) > 1 or kind_of(frame) == Kind.CHECKSUM)
        assert ours == kernel.finish(frame)

    compare()


@pytest.mark.parametrize("version", [4, 6])
def test_the_largest_become_the_same_frames(kernel: Kernel, version: int) -> None:
    tcp = Packet(version=version, data=SENT[:60_000], each=1448, options=b"\1" * 12, flags=ACK | PSH | FIN | CWR)
    tcp = tcp._replace(identification=65_530, sequence=(1 << 32) - 20_000)  # both run over
    for tag in (b"", b"\x81\0\0\5", b"\x88\xa8\0\5"):
        for packet in (
            tcp,
            tcp._replace(protocol=UDP),
            tcp._replace(each=1447),
            tcp._replace(data=tcp.data[: 1448 * 40]),
        ):
            frame = packet._replace(tag=tag).unfinished()
            expected = kernel.finish(frame)
            assert len(expected) >= 40
            assert finish(frame) == expected


@pytest.mark.parametrize("version", [4, 6])
def test_those_of_a_tcp_connection_become_the_same_frames(kernel: Kernel, ends: Ends, version: int) -> None:
    transfer(ends, version, ALL)
    split = Kind.TSO4 if version == 4 else Kind.TSO6
    large = [frame for frame in ends.seen if kind_of(frame) == Kind.CHECKSUM | split]
    small = [frame for frame in ends.seen if kind_of(frame) == Kind.CHECKSUM]
    assert large
    assert small
    for frame in [*large, *small[:20]]:
        assert flaw(frame, ends.kinds) == ""
        assert finish(frame) == kernel.finish(frame)
    assert max(map(len, large)) > 2 * 1500


@pytest.mark.parametrize("version", [4, 6])
def test_a_receiver_without_offload_takes_what_we_split(ends: Ends, version: int) -> None:
    """It checks every checksum itself: what is wrong would come again and again, and never arrive."""
    transfer(ends, version, NONE)
    assert any(not fits(frame, Kind.CHECKSUM) for frame in ends.seen)
    assert tcp_checksum_errors(ends.b) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_those_of_udp_become_the_same_frames(
    kernel: Kernel, ends: Ends, version: int, lacks: Callable[[str], None]
) -> None:
    family, address = (socket.AF_INET, "10.9.0.2") if version == 4 else (socket.AF_INET6, "fd09::2")
    with ends.a.inside():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with ends.b.inside():
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind((address, 5002))
        receiver.setblocking(False)
        sender.connect((address, 5002))
        if ends.kinds & Kind.USO4:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1201)
        sent = [SENT[:100], SENT[:10_000] if ends.kinds & Kind.USO4 else SENT[:1201]]
        for data in sent:
            sender.send(data)
        came: list[bytes] = []

        def look() -> bool:
            ends.carry(ALL)
            while True:
                try:
                    came.append(receiver.recv(65_536))
                except BlockingIOError:
                    return len(b"".join(came)) >= sum(map(len, sent))

        until(look, seconds=30, what="the datagrams", step_s=0)
        assert b"".join(came) == b"".join(sent)
    ours = [frame for frame in ends.seen if frame.find(SENT[:50]) > 0]
    assert [len(finish(frame)) for frame in ours] == [1, 9 if ends.kinds & Kind.USO4 else 1]
    for frame in ours:
        assert flaw(frame, ends.kinds) == ""
        assert finish(frame) == kernel.finish(frame)
    if not ends.kinds & Kind.USO4:
        lacks("a kernel that leaves UDP to be split (Linux 6.2)")
