"""Made-up traffic for tests of the detector: TCP conversations as packets, with times, written as a capture file.

No socket, no clock, no chance of its own: times and random numbers come in as arguments.
"""

import struct
from ipaddress import ip_address
from random import Random
from typing import Final

SYN, ACK, FIN, PUSH, RST = 0x02, 0x10, 0x01, 0x08, 0x04
MSS: Final = 1448
CLIENT_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
SERVER_HELLO: Final = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76"

OWN_TURNS: Final = (160, 349, 1225, 1917)  # bytes of our opening's turns without padding (docs/detection.md)

Frame = tuple[float, bytes]


class Talk:
    """One TCP connection; each method adds its packets to `frames` and returns when the last was sent."""

    def __init__(
        self,
        client: tuple[str, int],
        server: tuple[str, int],
        *,
        begin: float = 1_700_000_000.0,
        delay: float = 0.005,
        tags: tuple[int, ...] = (),
    ) -> None:
        self.ends = client, server
        self.now = begin  # seconds
        self.delay = delay  # seconds one way
        self.tags = tags  # VLAN ids, outer first
        self.frames: list[Frame] = []
        self.next = [1000, 2_000_000_000]  # sequence numbers: client's, server's

    def open(self) -> None:
        """SYN, SYN ACK, ACK."""
        self._packet(0, SYN, b"", options=b"\x02\x04\x05\xb4")
        self.next[0] = self.next[0] + 1 & 0xFFFFFFFF
        self.now += 2 * self.delay
        self._packet(1, SYN | ACK, b"", options=b"\x02\x04\x05\xb4")
        self.next[1] = self.next[1] + 1 & 0xFFFFFFFF
        self._packet(0, ACK, b"")

    def say(self, side: int, size: int, *, head: bytes = b"", at: float | None = None) -> None:
        """`size` payload bytes from client (0) or server (1), acknowledged by the other."""
        self.now = self.now if at is None else at
        data = head + bytes((size * 7 + n) & 0xFF for n in range(size - len(head)))
        for start in range(0, size, MSS):
            self._packet(side, ACK | PUSH, data[start : start + MSS])
            self.next[side] = self.next[side] + len(data[start : start + MSS]) & 0xFFFFFFFF
        self.now += self.delay
        self._packet(1 - side, ACK, b"")
        self.now += self.delay

    def close(self) -> None:
        """FIN both ways."""
        for side in (0, 1):
            self._packet(side, FIN | ACK, b"")
            self.next[side] = self.next[side] + 1 & 0xFFFFFFFF

    def _packet(self, side: int, flags: int, data: bytes, *, options: bytes = b"") -> None:
        (source, source_port), (target, target_port) = self.ends if side == 0 else self.ends[::-1]
        acknowledged = self.next[1 - side] if flags & ACK else 0
        size = 20 + len(options)
        tcp = struct.pack(
            "!HHIIBBHHH", source_port, target_port, self.next[side], acknowledged, size // 4 << 4, flags, 65000, 0, 0
        )
        self.frames.append((self.now, ethernet(source, target, tcp + options + data, tags=self.tags)))


def ethernet(source: str, target: str, tcp: bytes, *, tags: tuple[int, ...] = ()) -> bytes:
    """A TCP segment in IPv4 or IPv6 in Ethernet; checksums are left 0."""
    here, there = ip_address(source), ip_address(target)
    if here.version == 4:
        kind = 0x0800
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + here.packed + there.packed
    else:
        kind = 0x86DD
        header = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + here.packed + there.packed
    frame = b"\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02"
    for place, tag in enumerate(tags):
        frame += struct.pack("!HH", 0x88A8 if place + 1 < len(tags) else 0x8100, tag)
    return frame + struct.pack("!H", kind) + header + tcp


def pcap(frames: list[Frame], *, link_type: int = 1, order: str = "<", nanoseconds: bool = False) -> bytes:
    """A capture file of `frames`, sorted by time."""
    scale = 1_000_000_000 if nanoseconds else 1_000_000
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)]
    for time, frame in sorted(frames, key=lambda item: item[0]):
        seconds = int(time)
        head = struct.pack(order + "IIII", seconds, int((time - seconds) * scale), len(frame), len(frame))
        out.append(head + frame)
    return b"".join(out)


def tls(talk: Talk, chance: Random, *, version: int = 13) -> None:
    """TCP and TLS handshake; in TLS 1.3 the client's Finished goes with its first request (80 bytes)."""
    talk.open()
    talk.say(0, 517, head=CLIENT_HELLO)
    talk.say(1, chance.randint(1300, 1450), head=SERVER_HELLO)
    if version == 12:
        talk.say(0, 126)
        talk.say(1, 51)


def ukihashi_login(
    talk: Talk, chance: Random, *, version: int = 13, base: tuple[int, int, int, int] = OWN_TURNS
) -> None:
    """TLS and the opening dialogue of our two ends; `base` = bytes of the four turns without their padding."""
    tls(talk, chance, version=version)
    talk.say(0, base[0] + (80 if version == 13 else 0))
    for side, size in zip((1, 0, 1), base[1:], strict=True):
        talk.say(side, size + chance.randint(0, 999))


def softether_login(talk: Talk, chance: Random, *, further: bool = False) -> None:
    """TLS and the opening dialogue of the SoftEther protocol: of a login, or of a further connection."""
    tls(talk, chance)
    talk.say(0, 1640 + chance.randint(0, 1999))
    talk.say(1, 470 + chance.randint(0, 999))
    talk.say(0, (430 if further else 2670) + chance.randint(0, 999))
    talk.say(1, (330 if further else 2130) + chance.randint(0, 999))
    for side in (0, 1):  # the first keep-alives come at once
        talk.say(side, 30 + chance.randint(0, 511))


def keepalives(
    talk: Talk,
    chance: Random,
    *,
    seconds: float,
    wait: float = 5.0,
    offset: float = 2.5,
    overhead: int = 30,
    sizes: range = range(512),
    late: float = 0.004,
) -> None:
    """Both sides idle: a message after `wait` seconds of silence, the server's first `offset` behind."""
    begin = talk.now
    due = [begin, begin + offset]
    while min(due) < begin + seconds:
        side = 0 if due[0] <= due[1] else 1
        at = max(talk.now, due[side]) + chance.random() * late
        talk.say(side, overhead + chance.choice(sizes), at=at)
        due[side] = at + wait


def acknowledged(
    talk: Talk, chance: Random, *, seconds: float, periods: tuple[float, float], size: int = 39, wait: float = 1.0
) -> None:
    """Each side sends a message about every so many seconds, and a short one `wait` after the other's first since."""
    begin = talk.now
    due = [begin + chance.random() * period for period in periods]
    owed: list[float] = [0.0, 0.0]  # when each side acknowledges; 0 = nothing to
    while min(due) < begin + seconds:
        at, side, short = min(
            *((due[side], side, False) for side in (0, 1)),
            *((owed[side], side, True) for side in (0, 1) if owed[side]),
        )
        talk.say(side, size if short else 200 + chance.randint(0, 60), at=max(at, talk.now))
        if short:
            owed[side] = 0.0
            continue
        due[side] = at + periods[side] * (0.95 + chance.random() * 0.1)
        owed[1 - side] = owed[1 - side] or talk.now + wait


def standard_keepalives(talk: Talk, chance: Random, *, seconds: float, timeout: float = 20.0) -> None:
    """The SoftEther law: after max(T/5, random below T/2) of silence."""
    begin = talk.now
    due = [begin, begin]
    while min(due) < begin + seconds:
        side = 0 if due[0] <= due[1] else 1
        at = max(talk.now, due[side])
        talk.say(side, 30 + chance.randint(0, 511), at=at)
        due[side] = at + max(timeout / 5, chance.random() * timeout / 2) + chance.random() * 0.2
