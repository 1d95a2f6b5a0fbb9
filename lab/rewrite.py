"""Captures as another mirror would have shown them: packets in, packets out, nothing left to chance but `Random`.

Every function takes and gives a list of `Packet` in order of capture. Meant for tests of the detector: what is true of
a capture must stay true of what these make of it.
"""

import gzip
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from ukihashi.capture.pcap import CaptureFile

ETHERNET: Final = 1
SYN, FIN, RST, ACK = 0x02, 0x01, 0x04, 0x10
_TAGS: Final = (0x8100, 0x88A8)


class Packet(NamedTuple):
    """One captured packet."""

    time: float  # seconds since 1970
    link_type: int
    data: bytes  # what was captured of it
    length: int  # bytes on the wire


class Place(NamedTuple):
    """Where things stand in a packet."""

    version: int  # 4 or 6
    ip: int
    tcp: int
    payload: int
    size: int  # payload bytes on the wire

    def ends(self, data: bytes) -> tuple[bytes, bytes]:
        """Source and destination: address and port."""
        at, size = (self.ip + 12, 4) if self.version == 4 else (self.ip + 8, 16)
        ports = data[self.tcp : self.tcp + 4]
        return data[at : at + size] + ports[:2], data[at + size : at + 2 * size] + ports[2:]


def read(path: Path) -> list[Packet]:
    """All packets of a capture file."""
    with path.open("rb") as file:
        return [
            Packet(time, batch.link_type, bytes(batch.buffer[at : at + captured]), length)
            for batch in CaptureFile(file, path.name)
            for time, at, captured, length in batch.packets
        ]


def place(packet: Packet) -> Place | None:
    """Of TCP in IPv4, or in IPv6 without extension headers, over Ethernet with any VLAN tags; else None."""
    data = packet.data
    if packet.link_type != ETHERNET or len(data) < 34:
        return None
    at = 12
    while int.from_bytes(data[at : at + 2]) in _TAGS:
        at += 4
    kind, ip = int.from_bytes(data[at : at + 2]), at + 2
    if (
        kind == 0x0800
        and len(data) >= ip + 40
        and data[ip + 9] == 6
        and not int.from_bytes(data[ip + 6 : ip + 8]) & 0x1FFF
    ):
        tcp, total = ip + ((data[ip] & 15) << 2), int.from_bytes(data[ip + 2 : ip + 4]) or packet.length - ip
        version = 4
    elif kind == 0x86DD and len(data) >= ip + 60 and data[ip + 6] == 6:
        tcp, total, version = ip + 40, 40 + int.from_bytes(data[ip + 4 : ip + 6]), 6
    else:
        return None
    if len(data) < tcp + 20:
        return None
    payload = tcp + (data[tcp + 12] >> 4 << 2)
    return Place(version, ip, tcp, payload, ip + total - payload)


# -- what is lost or doubled ---------------------------------------------------------------------------------------


def lose(packets: Iterable[Packet], chance: Random, share: float) -> list[Packet]:
    """Each packet is missed with the probability `share`."""
    return [packet for packet in packets if chance.random() >= share]


def begin_late(packets: Sequence[Packet], seconds: float) -> list[Packet]:
    """The capture begins `seconds` after the first packet."""
    begin = packets[0].time + seconds
    return [packet for packet in packets if packet.time >= begin]


def one_side(packets: Iterable[Packet], servers: frozenset[bytes], *, toward_server: bool) -> list[Packet]:
    """Only the packets to, or only those from, `servers` (address and port)."""
    kept = []
    for packet in packets:
        where = place(packet)
        if where is None or (where.ends(packet.data)[1] in servers) == toward_server:
            kept.append(packet)
    return kept


def double(packets: Iterable[Packet], chance: Random, *, shift_s: float = 0.002) -> list[Packet]:
    """A mirror of two ports: each packet once more, up to `shift_s` later."""
    both = [(packet.time, packet) for packet in packets]
    both += [(time + chance.random() * shift_s, packet) for time, packet in both]
    return [packet._replace(time=time) for time, packet in sorted(both, key=lambda item: item[0])]


def reorder(packets: Iterable[Packet], chance: Random, *, shift_s: float = 0.001) -> list[Packet]:
    """Each packet is seen up to `shift_s` late, so that neighbours change places."""
    late = [packet._replace(time=packet.time + chance.random() * shift_s) for packet in packets]
    return sorted(late, key=lambda packet: packet.time)


def cut(packets: Iterable[Packet], size: int) -> list[Packet]:
    """A snap length."""
    return [packet._replace(data=packet.data[:size]) for packet in packets]


def without(packets: Iterable[Packet], flags: int) -> list[Packet]:
    """No packets with one of these TCP flags."""
    kept = []
    for packet in packets:
        where = place(packet)
        if where is None or not packet.data[where.tcp + 13] & flags:
            kept.append(packet)
    return kept


def answer_first(packets: Sequence[Packet]) -> list[Packet]:
    """Of each connection the packets before the client's second payload come in the wrong order: SYN ACK, SYN, ..."""
    seen = defaultdict[bytes, list[int]](list)
    changed = list(packets)
    for index, packet in enumerate(packets):
        where = place(packet)
        if where is not None:
            key = b"".join(sorted(where.ends(packet.data)))
            flags = packet.data[where.tcp + 13]
            if flags & SYN:
                seen[key].append(index)
                if flags & ACK and len(seen[key]) == 2:
                    first, second = seen[key]
                    changed[first] = packets[second]._replace(time=packets[first].time)
                    changed[second] = packets[first]._replace(time=packets[second].time)
    return changed


# -- other headers -------------------------------------------------------------------------------------------------


def tag(packets: Iterable[Packet], tags: Sequence[int]) -> list[Packet]:
    """VLAN tags, the outer one first; of two, the outer one is 802.1ad."""
    changed = []
    for packet in packets:
        more = b"".join(
            struct.pack("!HH", 0x88A8 if index + 1 < len(tags) else 0x8100, number) for index, number in enumerate(tags)
        )
        data = packet.data[:12] + more + packet.data[12:]
        changed.append(
            packet._replace(data=data, length=packet.length + len(more)) if packet.link_type == ETHERNET else packet
        )
    return changed


def to_ipv6(packets: Iterable[Packet]) -> list[Packet]:
    """IPv4 becomes IPv6: address a.b.c.d is fd00::a.b.c.d."""
    changed = []
    for packet in packets:
        where = place(packet)
        if where is None or where.version != 4:
            changed.append(packet)
            continue
        data = packet.data
        source, target = (
            bytes.fromhex("fd00") + bytes(10) + data[where.ip + at : where.ip + at + 4] for at in (12, 16)
        )
        inside = where.payload - where.tcp + where.size
        header = struct.pack("!IHBB", 6 << 28, inside & 0xFFFF, 6, 64) + source + target
        new = data[: where.ip - 2] + b"\x86\xdd" + header + data[where.tcp :]
        changed.append(packet._replace(data=new, length=packet.length + len(new) - len(data)))
    return changed


def move_ports(packets: Iterable[Packet], new: Callable[[bytes], int]) -> list[Packet]:
    """Every port of an end (address and port) is replaced by `new` of it."""
    known: dict[bytes, bytes] = {}
    changed = []
    for packet in packets:
        where = place(packet)
        if where is not None:
            ports = b""
            for end in where.ends(packet.data):
                if end not in known:
                    known[end] = new(end).to_bytes(2)
                ports += known[end]
            data = packet.data[: where.tcp] + ports + packet.data[where.tcp + 4 :]
            changed.append(packet._replace(data=data))
        else:
            changed.append(packet)
    return changed


# -- what can't be read ----------------------------------------------------------------------------------------------


def blind(packets: Iterable[Packet], chance: Random) -> list[Packet]:
    """All that is encrypted becomes random: of TLS what follows the hellos, of SSH what follows the key exchange.

    What a proxy is asked stays. Of each direction all is replaced from the first byte on that is neither a TLS hello,
    nor SSH's banner and key exchange, nor a proxy's dialogue; so every length stays, and no content.
    """
    open_until: dict[tuple[bytes, bytes], int] = {}
    changed = []
    for packet in packets:
        where = place(packet)
        if where is None or not where.size:
            changed.append(packet)
            continue
        ends = where.ends(packet.data)
        sequence = int.from_bytes(packet.data[where.tcp + 4 : where.tcp + 8])
        data = packet.data[where.payload : where.payload + where.size]
        start = (open_until.setdefault(ends, sequence) - sequence) & 0xFFFFFFFF
        start = 0 if start >= 1 << 31 else start
        if start < len(data) and (readable := _readable(data[start:])):
            start += readable
            open_until[ends] = sequence + start & 0xFFFFFFFF
        noise = data[:start] + chance.randbytes(max(0, len(data) - start))
        new = packet.data[: where.payload] + noise + packet.data[where.payload + len(noise) :]
        changed.append(packet._replace(data=new))
    return changed


def _readable(data: bytes) -> int:
    """How many bytes at the begin of a direction, or behind others of that kind, are no ciphertext."""
    if data[:1] == b"\x16" and data[1:2] == b"\x03" and len(data) > 5 and data[5] in (1, 2):
        return min(len(data), 5 + int.from_bytes(data[3:5]))
    if data[:4] == b"SSH-":
        return data.find(b"\n") + 1 or len(data)
    if data.startswith((b"CONNECT ", b"HTTP/1.")):
        return len(data) if b"\r\n\r\n" not in data else data.index(b"\r\n\r\n") + 4
    if (data[:1] in (b"\x05", b"\x04", b"\x01") and len(data) <= 300) or data[:2] == b"\x00\x5a":
        return len(data)
    if data[:2] == b"\0\0" and len(data) > 5 and data[5] in (20, 21, *range(30, 35)):
        return min(len(data), 4 + int.from_bytes(data[:4]))
    return 0


def write(path: Path, packets: Iterable[Packet]) -> None:
    """A compressed capture file."""
    with gzip.open(path, "wb", compresslevel=9) as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, ETHERNET))
        for packet in packets:
            seconds = int(packet.time)
            head = seconds, int((packet.time - seconds) * 1e6), len(packet.data), packet.length
            out.write(struct.pack("<IIII", *head) + packet.data)
