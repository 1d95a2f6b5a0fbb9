"""The ring's blocks as the kernel lays them out, and the real ring of a namespace."""

import random
import socket
import struct
import time

import pytest

from lab.net import Host, Net
from lab.wait import until
from ukihashi.capture import blocks, bpf, ring

STRANGER = b"\x02\xaa\xaa\xaa\xaa\xaa\x02\xbb\xbb\xbb\xbb\xbb"
OURS = 0x88B5  # EtherType for experiments
STEP = 250  # frames sent before they are waited for: a queue of the kernel holds a thousand


def made_block(frames: list[tuple[bytes, int, int]], *, before: int = 32) -> bytearray:
    """A block of (frame, VLAN tag or -1, its type or 0), packet n at time 1000 + n / 2, `before` bytes of head room."""
    memory = bytearray(1 << 16)
    struct.pack_into("=IIIII", memory, 0, 1, 0, ring.STATUS_USER, len(frames), 48)
    at = 48
    for number, (frame, tag, kind) in enumerate(frames):
        status = (blocks.STATUS_VLAN_VALID if tag >= 0 else 0) | (blocks.STATUS_VLAN_TPID_VALID if kind else 0)
        mac = 68 + before
        step = (mac + len(frame) + 7) // 8 * 8
        nanoseconds = number % 2 * 500_000_000
        struct.pack_into("=6IHHIIH", memory, at, step, 1000 + number // 2, nanoseconds, len(frame), 9000, status,
                         mac, mac + 14, 0, max(tag, 0), kind)  # fmt: skip
        memory[at + mac : at + mac + len(frame)] = frame
        at += step
    return memory


def test_a_tag_beside_a_packet_is_put_back_and_neighbours_stay_as_they_are() -> None:
    rest = b"\x08\x00" + bytes(range(60))
    memory = made_block([(STRANGER + rest, -1, 0), (STRANGER + rest, 0x2064, 0x88A8), (STRANGER + rest, 7, 0)])
    found = [(when, bytes(memory[at : at + captured]), length) for when, at, captured, length in blocks.walk(memory, 0)]
    assert found == [
        (1000.0, STRANGER + rest, 9000),
        (1000.5, STRANGER + b"\x88\xa8\x20\x64" + rest, 9004),
        (1001.0, STRANGER + b"\x81\x00\x00\x07" + rest, 9004),
    ]


def test_columns_hold_what_the_list_holds_whatever_comes() -> None:
    chance = random.Random(7)
    for _ in range(30):
        frames = [
            (chance.randbytes(chance.randrange(14, 300)), chance.choice((-1, -1, chance.randrange(1 << 16))),
             chance.choice((0, 0x8100, 0x88A8)))
            for _ in range(chance.randrange(40))
        ]  # fmt: skip
        memory, same = made_block(frames, before=chance.randrange(28, 60)), bytearray()
        same += memory
        columns = [[0.0] * ring.MAX_PACKETS] + [[0] * ring.MAX_PACKETS for _ in range(3)]
        count = blocks.walk_columns(memory, 0, *columns)
        assert count == len(frames)
        assert [tuple(column[n] for column in columns) for n in range(count)] == blocks.walk(same, 0)
        assert memory == same


def test_an_empty_block_and_one_far_into_the_ring() -> None:
    assert blocks.walk(made_block([]), 0) == []
    memory = bytearray(ring.BLOCK_BYTES) + made_block([(STRANGER + b"\x08\x00" + b"x" * 46, -1, 0)])
    (packet,) = blocks.walk(memory, ring.BLOCK_BYTES)
    assert packet[1] > ring.BLOCK_BYTES


def wire(net: Net) -> tuple[Host, str, Host, str]:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    b.run(["sysctl", "-qw", f"net.ipv6.conf.{far}.disable_ipv6=1"])
    a.run(["sysctl", "-qw", f"net.ipv6.conf.{near}.disable_ipv6=1"])
    return a, near, b, far


def opened(host: Host, card: str, *, snap: int = ring.SNAP, blocks: int = 4, fanout: int = 0) -> ring.Ring:
    with host.inside():
        index = socket.if_nametoindex(card)
        return ring.Ring([index], bpf.everything(snap), blocks=blocks, fanout=fanout)


def frames_of(one: ring.Ring, count: int) -> list[tuple[float, bytes, int]]:
    """The next `count` packets, and what else is in the block of the last one: (time, frame, true length)."""
    found: list[tuple[float, bytes, int]] = []
    end = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} packets came"
        if (at := one.wait(1.0)) >= 0:
            for when, begin, captured, length in blocks.walk(one.memory, at):
                found.append((when, bytes(one.memory[begin : begin + captured]), length))
        one.release()
    return found


def counted(one: ring.Ring, count: int) -> ring.Counts:
    """The kernel's counters once they are at `count` packets."""
    total = one.counts()

    def look() -> bool:
        nonlocal total
        total = ring.Counts(*(old + new for old, new in zip(total, one.counts(), strict=True)))
        return total.packets + total.dropped >= count

    until(look, seconds=20, what=f"{count} packets at the card")
    return total


def raw(host: Host, card: str) -> socket.socket:
    with host.inside():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind((card, 0))
    return sender


def test_frames_come_whole_in_order_with_time_and_the_kernel_counts_them(net: Net) -> None:
    a, near, b, far = wire(net)
    one = opened(b, far)
    sent = [STRANGER + struct.pack("!HI", OURS, n) + bytes(40 + n % 150) for n in range(5000)]
    found: list[tuple[float, bytes, int]] = []
    began = time.time()
    with raw(a, near) as sender:
        for at in range(0, len(sent), STEP):
            for frame in sent[at : at + STEP]:
                sender.send(frame)
            found += frames_of(one, STEP)
    assert [frame for _, frame, _ in found] == sent
    assert [length for *_, length in found] == list(map(len, sent))
    times = [when for when, *_ in found]
    assert times == sorted(times)
    assert began - 1 < times[0] <= times[-1] < time.time() + 1
    assert one.counts() == ring.Counts(5000, 0, 0)
    assert one.counts() == ring.Counts(0, 0, 0)  # they begin anew
    one.close()


def test_a_ring_that_nobody_reads_drops_and_what_was_seen_and_dropped_is_what_was_sent(net: Net) -> None:
    a, near, b, far = wire(net)
    one = opened(b, far, blocks=1, snap=65535)
    counts = ring.Counts(0, 0, 0)
    with raw(a, near) as sender:
        for n in range(0, 3000, STEP):
            for m in range(n, n + STEP):
                sender.send(STRANGER + struct.pack("!HI", OURS, m) + bytes(1400))
            counts = ring.Counts(*(old + new for old, new in zip(counts, counted(one, STEP), strict=True)))
    assert len(frames_of(one, counts.packets)) == counts.packets
    assert counts.dropped > 1000
    assert counts.freezes >= 1
    assert counts.packets + counts.dropped == 3000
    one.close()


def ipv4(source: int, target: int, number: int) -> bytes:
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 40, number, 0, 64, 6, 0, source, target)
    return STRANGER + b"\x08\x00" + header + struct.pack("!HHIIBBHHH", 1000 + number, 443, 1, 0, 0x50, 2, 0, 0, 0)


def ipv6(source: bytes, target: bytes, number: int) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + source + target
    return STRANGER + b"\x86\xdd" + header + struct.pack("!HHIIBBHHH", 1000 + number, 443, 1, 0, 0x50, 2, 0, 0, 0)


def test_a_group_shares_packets_and_keeps_each_pair_of_addresses_whole(net: Net) -> None:
    a, near, b, far = wire(net)
    group = random.Random(1).randrange(1, 1 << 16)
    rings = [opened(b, far, fanout=group) for _ in range(2)]
    total, sent = [0, 0], 0

    def look() -> bool:
        for place, one in enumerate(rings):
            total[place] += one.counts().packets
        return sum(total) >= sent

    with raw(a, near) as sender:
        for client in range(64):
            server = 0x0A000000 + client % 5
            for number in range(4):  # four connections, both directions
                sender.send(ipv4(0xC0A80000 + client, server, number))
                sender.send(ipv4(server, 0xC0A80000 + client, number))
                sender.send(ipv6(bytes(15) + bytes([client]), bytes(14) + b"\xff\x01", number))
                sender.send(ipv6(bytes(14) + b"\xff\x01", bytes(15) + bytes([client]), number))
            sent += 16
            until(look, seconds=20, what="all packets")
    assert sum(total) == 64 * 4 * 4
    pairs: list[set[frozenset[bytes]]] = []
    for one, count in zip(rings, total, strict=True):
        frames = [frame for _, frame, _ in frames_of(one, count)]
        pairs.append(
            {frozenset((f[26:30], f[30:34])) if f[12] == 8 else frozenset((f[22:38], f[38:54])) for f in frames}
        )
    assert not pairs[0] & pairs[1]
    assert len(pairs[0] | pairs[1]) == 128
    assert min(map(len, pairs)) >= 32
    for one in rings:
        one.close()


def test_a_card_that_goes_down_is_an_error_and_not_silence(net: Net) -> None:
    _a, _near, b, far = wire(net)
    one = opened(b, far)
    b.ip(f"link set {far} down")

    def read_on() -> None:
        for _ in range(20):
            one.wait(0.5)
            one.release()

    with pytest.raises(OSError, match="down"):
        read_on()
    one.close()
