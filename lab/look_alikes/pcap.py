"""Capture files as lists of packets, to cut, drop and write again. For files of the laboratory, so nothing is hardened.

Read are pcap files of any byte order and resolution, also gzip; others go through tcpdump, which turns them into those.
"""

import gzip
import struct
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, NamedTuple

WHOLE: Final = 200  # packets kept as they are
FIRST_SNAP: Final = 1514  # bytes of each of those
SNAP: Final = 128  # bytes of each packet after those
ETHERNET: Final = 1
MAGIC: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 6),
    b"\xd4\xc3\xb2\xa1": ("<", 6),
    b"\xa1\xb2\x3c\x4d": (">", 9),
    b"\x4d\x3c\xb2\xa1": ("<", 9),
}


class Packet(NamedTuple):
    """One packet."""

    time: float  # seconds since 1970
    wire: int  # bytes it had on the wire
    data: bytes  # what was captured of it
    link_type: int = ETHERNET


def read(path: Path) -> list[Packet]:
    """All packets; a damaged end is left out. Raises: ValueError: no capture file."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if raw and raw[:4] not in MAGIC:
        done = subprocess.run(["tcpdump", "-r", "-", "-w", "-"], input=raw, capture_output=True, check=False)
        raw = done.stdout
    if raw[:4] not in MAGIC:
        raise ValueError(f"{path} is no capture file")
    order, digits = MAGIC[raw[:4]]
    link_type = struct.unpack_from(order + "I", raw, 20)[0] & 0xFFFF
    head, at, packets = struct.Struct(order + "4I"), 24, []
    while at + head.size <= len(raw):
        seconds, part, size, wire = head.unpack_from(raw, at)
        at += head.size
        if at + size > len(raw):
            break
        packets.append(Packet(seconds + part / 10**digits, wire, raw[at : at + size], link_type))
        at += size
    return packets


def payload(packet: Packet) -> int:
    """Bytes that TCP or UDP carries in an Ethernet frame with IPv4; 0 for all else."""
    data = packet.data
    if packet.link_type != ETHERNET or len(data) < 42 or data[12:14] != b"\x08\0" or data[23] not in (6, 17):
        return 0
    size = (data[14] & 15) * 4
    head = (data[14 + size + 12] >> 4) * 4 if data[23] == 6 and len(data) > 14 + size + 12 else 8
    return max(0, int.from_bytes(data[16:18]) - size - head)


def opened(packets: Iterable[Packet]) -> list[tuple[str, str]]:
    """Who opened a TCP connection to whom, "address:port" each, once, in order; of what `payload` reads."""
    found = dict[tuple[str, str], None]()
    for packet in packets:
        data = packet.data
        if data[12:14] == b"\x08\0" and data[23:24] == b"\x06" and len(data) >= 54:
            tcp = 14 + (data[14] & 15) * 4
            if data[tcp + 13] & 0x12 == 0x02:
                ports = [int.from_bytes(data[tcp + place : tcp + place + 2]) for place in (0, 2)]
                ends = [f"{IPv4Address(data[at : at + 4])}:{port}" for at, port in zip((26, 30), ports, strict=True)]
                found[ends[0], ends[1]] = None
    return list(found)


def shorten(packets: Sequence[Packet], *, whole: int = WHOLE, snap: int = SNAP) -> list[Packet]:
    """The first packets whole, the others cut: the begin is what a dissector wants, the rest is sizes."""
    return [
        packet._replace(data=packet.data[: FIRST_SNAP if number < whole else snap])
        for number, packet in enumerate(packets)
    ]


def write(path: Path, packets: Iterable[Packet]) -> None:
    """A pcap file of microseconds, gzip if the name says so; all packets of the first one's link type."""
    packets = list(packets)
    link_type = packets[0].link_type if packets else ETHERNET
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link_type)]
    for packet in packets:
        seconds, part = divmod(round(packet.time * 1_000_000), 1_000_000)
        parts += (struct.pack("<4I", seconds, part, len(packet.data), packet.wire), packet.data)
    blob = b"".join(parts)
    path.write_bytes(gzip.compress(blob, 9, mtime=0) if path.suffix == ".gz" else blob)
