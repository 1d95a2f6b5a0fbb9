"""What `./run bench alert` does to a capture before it judges it again: packets lost, one direction missing.

Only what the capture shows is changed, as a busy mirror port or a mirror of one direction would; the two ends of the
connections had no trouble.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from lab.look_alikes.pcap import Packet, read, write

LOSS: Final = 0.05
CLEAR: Final = 10  # packets
UNSEEN_S: Final = 15.0
BLIND: Final = "other bytes and ports"
_TCP: Final = 6
_EXTENSIONS: Final = frozenset((0, 43, 60))
_IPV4, _IPV6 = 0x0800, 0x86DD
_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100))
_LINK_BYTES: Final = {0: 4, 108: 4, 12: 0, 101: 0, 228: 0, 229: 0, 113: 16, 276: 20}  # before the IP header


class Segment(NamedTuple):
    """What of a TCP packet tells its direction."""

    source: tuple[bytes, int]  # address, port
    target: tuple[bytes, int]
    syn: bool
    ack: bool
    begin: int  # of the TCP header, in the packet


def segment(packet: Packet) -> Segment | None:
    """The TCP segment of a packet; None if it holds none, or too little of one."""
    data, at = packet.data, _LINK_BYTES.get(packet.link_type, 14)
    if packet.link_type == 1:
        while int.from_bytes(data[at - 2 : at]) in _TAGS:
            at += 4
        if int.from_bytes(data[at - 2 : at]) not in (_IPV4, _IPV6):
            return None
    if len(data) < at + 40:
        return None
    if data[at] >> 4 == 4:
        protocol, size, width, begin = data[at + 9], (data[at] & 15) * 4, 4, at + 12
    elif data[at] >> 4 == 6:
        protocol, size, width, begin = data[at + 6], 40, 16, at + 8
        while protocol in _EXTENSIONS and len(data) > at + size + 1:
            protocol, size = data[at + size], size + 8 * (data[at + size + 1] + 1)
    else:
        return None
    tcp = at + size
    if protocol != _TCP or len(data) < tcp + 14:
        return None
    ends = [
        (data[begin + place * width : begin + (place + 1) * width], int.from_bytes(data[tcp + 2 * place :][:2]))
        for place in (0, 1)
    ]
    return Segment(ends[0], ends[1], bool(data[tcp + 13] & 2), bool(data[tcp + 13] & 16), tcp)


def lossy(packets: Iterable[Packet], *, seed: str, share: float = LOSS) -> list[Packet]:
    """Without that share of the packets, drawn by `seed`: the same ones each time."""
    chance = Random(seed)
    return [packet for packet in packets if chance.random() >= share]


def one_sided(packets: Iterable[Packet], *, toward_server: bool) -> list[Packet]:
    """One direction of every TCP connection; all that is not TCP stays.

    The client is who sent the SYN; where none was captured, who has the higher port.
    """
    kept, packets = list[Packet](), list(packets)
    clients: dict[frozenset[tuple[bytes, int]], tuple[bytes, int]] = {}
    found = [segment(packet) for packet in packets]
    for one in found:
        if one is not None and one.syn:  # a later connection of the same ports has the same client
            clients.setdefault(frozenset((one.source, one.target)), one.target if one.ack else one.source)
    for packet, one in zip(packets, found, strict=True):
        if one is not None:
            key = frozenset((one.source, one.target))
            client = clients.setdefault(key, max(one.source, one.target, key=lambda end: end[1]))
            if (one.source == client) is not toward_server:
                continue
        kept.append(packet)
    return kept


def begin_unseen(packets: Iterable[Packet], *, seconds: float = UNSEEN_S) -> list[Packet]:
    """Without the first `seconds` of the capture, as if it had begun later."""
    packets = list(packets)
    return [packet for packet in packets if packet.time >= packets[0].time + seconds]


def blind(packets: Iterable[Packet], *, seed: str) -> list[Packet]:
    """With other ports, and other bytes in place of all payload but what both ends say in the clear at the begin.

    That is: the TLS hellos and what comes before, the first packets of an SSH connection; at most CLEAR packets.
    """
    chance, ports = Random(seed), dict[int, int]()
    clear: dict[frozenset[tuple[bytes, int]], _Clear] = {}

    def other(port: int) -> bytes:
        while port not in ports:
            if (drawn := chance.randrange(1024, 65536)) not in ports.values():
                ports[port] = drawn
        return ports[port].to_bytes(2)

    changed = []
    for packet in packets:
        one = segment(packet)
        if one is not None:
            data = packet.data
            body = one.begin + (data[one.begin + 12] >> 4) * 4
            payload = data[body:]
            begun = payload[:2] == b"\x16\x03" or payload[:4] == b"SSH-"  # its SYN was not captured
            state = clear.setdefault(frozenset((one.source, one.target)), _Clear(begun=begun))
            if one.syn and not (one.ack and state.begun):
                clear[frozenset((one.source, one.target))] = state = _Clear(begun=True)
            if payload and not state.keeps(payload, one.source):
                payload = chance.randbytes(len(payload))
            head = data[: one.begin] + other(one.source[1]) + other(one.target[1]) + data[one.begin + 4 : body]
            changed.append(packet._replace(data=head + payload))
        else:
            changed.append(packet)
    return changed


class _Clear:
    """What of a connection is still in the clear."""

    def __init__(self, *, begun: bool = False) -> None:
        self.begun = begun
        self._left = CLEAR if begun else 0
        self._hello: tuple[bytes, int] | None = None  # who said it
        self._answered = False

    def keeps(self, payload: bytes, source: tuple[bytes, int]) -> bool:
        """Is this packet's payload to stay as it is?"""
        self._left -= 1
        if payload[:4] == b"SSH-":
            self._left = min(self._left, 4)
        elif payload[:2] == b"\x16\x03":
            self._hello = self._hello or source
            self._answered = self._answered or source != self._hello
        elif self._hello is not None and (self._answered or source != self._hello):
            self._left = 0
        return self._left > 0


Change = Callable[[list[Packet], str], list[Packet]]
CONDITIONS: Final[dict[str, Change | None]] = {
    "full": None,
    "5 % loss": lambda packets, name: lossy(packets, seed=name),
    "client to server": lambda packets, _name: one_sided(packets, toward_server=True),
    "server to client": lambda packets, _name: one_sided(packets, toward_server=False),
    "begin not seen": lambda packets, _name: begin_unseen(packets),
    BLIND: lambda packets, name: blind(packets, seed=name),
}


def rewritten(source: Path, change: Change, folder: Path) -> Path:
    """The changed capture, in `folder`. Raises: ValueError: `source` is no capture file."""
    target = folder / f"{source.name}.pcap"
    write(target, change(read(source), source.name))
    return target
