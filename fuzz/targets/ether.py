"""Ethernet frames from a member: the views, ARP, and the switch."""

from ipaddress import IPv4Address

from ukihashi.errors import PeerViolation
from ukihashi.ether import arp
from ukihashi.ether import frame as ether
from ukihashi.switch.forward import Switch
from ukihashi.switch.queue import PortQueue
from ukihashi.units import PortId

ALLOWED = (PeerViolation,)
TOKENS = [b"\x81\0", b"\x08\x06", b"\x08\0", b"\x86\xdd", b"\xff" * 6, bytes(6), b"\x01\x80\xc2\0\0\0"]
A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
PORTS = [PortId(1), PortId(2), PortId(3)]


def _join(frames: list[tuple[int, bytes]]) -> bytes:
    return b"".join(bytes([port]) + len(frame).to_bytes(2, "big") + frame for port, frame in frames)


def _split(data: bytes) -> list[tuple[int, bytes]]:
    frames, at = [], 0
    while at + 3 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        frames.append((data[at], data[at + 3 : at + 3 + size]))
        at += 3 + size
    return frames


def seeds() -> list[bytes]:
    """Frames with a port and a length before each."""
    ask = arp.request(A, IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    data = B + A + b"\x08\0" + bytes(46)
    tagged = B + A + b"\x81\0\0\x05\x08\x06" + ask[14:]
    return [
        _join([(0, ask), (1, A + B + b"\x08\x06" + ask[14:]), (0, data), (0, data), (1, A + B + data[12:])]),
        _join([(0, tagged), (0, tagged), (2, data), (2, bytes(14)), (1, bytes(13)), (1, data * 30)]),
        _join([(n % 3, bytes([2, n, 0, 0, 0, 0]) + A + data[12:]) for n in range(20)]),
    ]


def run(data: bytes) -> object:
    """Every frame is dropped and counted, or goes unchanged to other ports only."""
    switch, now = Switch(limit=8, own_mac=b"\x02HUBHU"), 0.0
    for port in PORTS:
        switch.add_port(port, max_stations=3 if port == 1 else 0)
    queue, reasons = PortQueue(4096), set[str]()
    for choice, frame in _split(data):
        now += choice
        port = PORTS[choice % 3]
        before = sum(switch.drops[port].values())
        out = switch.forward([frame, frame], port, now)
        dropped = sum(switch.drops[port].values()) - before
        assert port not in out
        assert all(batch == [frame] * len(batch) for batch in out.values())
        assert dropped == 2 - max((len(batch) for batch in out.values()), default=0)
        assert len(switch.rows(now)) <= 8
        for batch in out.values():
            queue.put(batch)
        assert queue.bytes <= 4096
        reasons.update(switch.drops[port])
        if len(frame) >= ether.HEADER:
            ether.vlan_id(frame), ether.payload(frame), ether.is_group(frame), arp.parse(frame), arp.is_cut_short(frame)
    return frozenset(reasons), len(switch.rows(now)), queue.dropped_frames > 0
