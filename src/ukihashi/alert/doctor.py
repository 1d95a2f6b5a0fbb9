"""Is this machine, this card and this place fit to see the traffic? Questions of B25 to B31, each with what to do.

`Survey` counts packets; `examine` draws the conclusions from it and from what is known of the card. Both are without
I/O; `watch` and `ukihashi.capture.card_facts` do that.
"""

import enum
import ipaddress
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ukihashi.capture.batch import Batch
from ukihashi.capture.card_facts import CardFacts
from ukihashi.capture.live import LiveCapture, Statistics
from ukihashi.detect.layers import ETHERNET, IPV4, IPV6, locate
from ukihashi.errors import N_

ENOUGH_PACKETS: Final = 20  # TCP packets; fewer say nothing
ENOUGH_FLOWS: Final = 5
ENOUGH_CLIENTS: Final = 10  # connections of one client that are not one user's any more
MEMORY: Final = 4096  # packets among which a copy is looked for
MAX_FLOWS: Final = 100_000
MUCH: Final = 0.02  # share of packets that is more than chance
BUSY: Final = 0.7  # share of a link, or of a processor, that leaves too little room
FULL_FRAME: Final = 1518  # bytes of an Ethernet frame without FCS, with a VLAN tag
SMALL_RING: Final = 0.5  # share of the possible receive ring
MBIT: Final = 1_000_000


class Level(enum.Enum):
    """How bad it is."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


class Finding(NamedTuple):
    """One answer: its name never changes; the sentence is a template for the catalogue."""

    name: str
    level: Level
    template: str
    values: dict[str, object]


@dataclass(slots=True)
class Survey:
    """What was seen on a card."""

    own: frozenset[bytes] = frozenset()  # addresses of this machine, packed
    packets: int = 0
    wire_bytes: int = 0
    tcp: int = 0
    tcp_own: int = 0  # from or to this machine
    copies: int = 0
    jumbo: int = 0  # larger than any frame: put together by card or kernel
    longest: int = 0
    kinds: Counter[str] = field(default_factory=Counter)  # VLAN, QinQ, VXLAN, GRE, ...
    flows: dict[bytes, int] = field(default_factory=dict)  # 1 = first direction seen, 2 = the other
    clients: dict[bytes, set[bytes]] = field(default_factory=dict)  # who opened connections to whom
    _recent: deque[bytes] = field(default_factory=deque)
    _known: set[bytes] = field(default_factory=set)

    def take(self, batch: Batch) -> None:
        """Count a batch. Cost: O(1) a packet."""
        buffer = batch.buffer
        for _, at, captured, length in batch.packets:
            self.packets += 1
            self.wire_bytes += length
            self.longest = max(self.longest, length)
            self.jumbo += length > FULL_FRAME
            end = at + captured
            if batch.link_type == ETHERNET and captured >= 14:
                self._note_layers(buffer, at, end)
            tcp, addresses, version, _ = locate(buffer, batch.link_type, at, end, at + length)
            if version:
                self._take_tcp(
                    bytes(buffer[addresses : min(end, tcp + 60)]), 4 if version == 4 else 16, tcp - addresses
                )

    def _note_layers(self, buffer: bytes | bytearray | memoryview, at: int, end: int) -> None:
        kind, tags = buffer[at + 12] << 8 | buffer[at + 13], 0
        at += 14
        while kind in (0x8100, 0x88A8, 0x9100) and end - at >= 4:
            kind, tags = buffer[at + 2] << 8 | buffer[at + 3], tags + 1
            at += 4
        if tags:
            self.kinds["VLAN" if tags == 1 else "QinQ"] += 1
        if kind == 0x8864:
            self.kinds["PPPoE"] += 1
        elif kind == 0x8847:
            self.kinds["MPLS"] += 1
        elif kind in (IPV4, IPV6):
            self._note_tunnel(buffer, at, end, kind)

    def _note_tunnel(self, buffer: bytes | bytearray | memoryview, at: int, end: int, kind: int) -> None:
        size = (buffer[at] & 15) * 4 if kind == IPV4 and end > at else 40
        if end - at < size + 4:
            return
        protocol = buffer[at + 9] if kind == IPV4 else buffer[at + 6]
        if protocol == 47:
            self.kinds["GRE"] += 1
        elif protocol == 17 and (buffer[at + size + 2] << 8 | buffer[at + size + 3]) in (4789, 4790, 8472):
            self.kinds["VXLAN"] += 1

    def _take_tcp(self, packet: bytes, size: int, tcp: int) -> None:
        """`packet`: from the addresses on, `size` bytes each; the TCP header lies at `tcp`."""
        if len(packet) < tcp + 14:
            return
        self.tcp += 1
        source, target = packet[:size], packet[size : 2 * size]
        self.tcp_own += source in self.own or target in self.own
        ports = packet[tcp : tcp + 4]
        forward = source + target + ports
        backward = target + source + ports[2:] + ports[:2]
        key, bit = (forward, 1) if forward <= backward else (backward, 2)
        if key in self.flows or len(self.flows) < MAX_FLOWS:
            self.flows[key] = self.flows.get(key, 0) | bit
        if packet[tcp + 13] & 0x12 == 0x02 and len(self.clients) < MAX_FLOWS:  # SYN
            self.clients.setdefault(source, set()).add(target + ports)
        self._note_copy(packet[: 2 * size] + packet[tcp : tcp + 18])

    def _note_copy(self, mark: bytes) -> None:
        """Addresses, numbers and checksum that were just there: a copy, or the same sent again at once."""
        if mark in self._known:
            self.copies += 1
            return
        self._known.add(mark)
        self._recent.append(mark)
        if len(self._recent) > MEMORY:
            self._known.discard(self._recent.popleft())


class Seen(NamedTuple):
    """A survey, how long it took, and what was lost meanwhile."""

    survey: Survey
    seconds: float
    statistics: Statistics
    busy: float  # 0..1, share of all processors
    has_ring: bool
    snap: int


def watch(
    capture: LiveCapture, seconds: float, own: Iterable[bytes], busy: Callable[[], float], stop: Callable[[], bool]
) -> Seen:
    """Count for so long. Raises: EnvironmentLacks: the card went away."""
    survey = Survey(own=frozenset(own))
    begin = time.monotonic()
    busy()
    while (left := begin + seconds - time.monotonic()) > 0 and not stop():
        batch = capture.read(min(left, 0.25))
        if batch.packets:
            survey.take(batch)
    spent = max(time.monotonic() - begin, 1e-3)
    return Seen(survey, spent, capture.statistics(), busy(), capture.has_ring, capture.options.snap)


def examine(card: CardFacts, seen: Seen) -> list[Finding]:
    """All answers, those about the place first."""
    survey = seen.survey
    return [
        _traffic(survey),
        _both_ways(survey),
        _nat(survey),
        _copies(survey),
        _drops(seen),
        _joined(card, survey),
        _receive_ring(card),
        _load(card, seen),
        _processor(seen),
        _layers(survey),
        _buffer(seen),
    ]


def worst(findings: Iterable[Finding]) -> Level:
    """The worst of them."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


def _traffic(survey: Survey) -> Finding:
    name, values = "traffic", dict[str, object](packets=survey.packets, tcp=survey.tcp, own=survey.tcp_own)
    if not survey.packets:
        return Finding(
            name, Level.FAIL, N_("no packet came; is the cable in the mirror port, and is the mirror on?"), {}
        )
    if survey.tcp < ENOUGH_PACKETS:
        return Finding(
            name, Level.WARN, N_("only {tcp} TCP packets of {packets} came; look again when people work"), values
        )
    if survey.tcp_own == survey.tcp:
        return Finding(
            name,
            Level.FAIL,
            N_(
                "all {tcp} TCP packets are this machine's own; connect the card to a mirror port of the switch before"
                " the router"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("{tcp} TCP packets, {own} of them this machine's own"), values)


def _both_ways(survey: Survey) -> Finding:
    name, ways = "both-ways", Counter(survey.flows.values())
    total = sum(ways.values())
    one_sided = ways[1] + ways[2]
    values = dict[str, object](one_sided=one_sided, total=total)
    if total < ENOUGH_FLOWS:
        return Finding(name, Level.WARN, N_("only {total} TCP connections came; look again when people work"), values)
    if one_sided > total * 0.9:
        return Finding(
            name,
            Level.WARN,
            N_(
                "{one_sided} of {total} TCP connections show one direction only; let the switch mirror both (transmit"
                " and receive), or listen on the other card, too (-i CARD -i CARD)"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("{total} TCP connections, {one_sided} of them in one direction only"), values)


def _nat(survey: Survey) -> Finding:
    name, clients = "nat", survey.clients
    opened = sum(map(len, clients.values()))
    outward = {client: targets for client, targets in clients.items() if not _is_private(client)}
    if not opened:
        return Finding(name, Level.OK, N_("no connection was opened meanwhile; clients are not known"), {})
    client, targets = max(clients.items(), key=lambda entry: len(entry[1]))
    values = dict[str, object](client=ipaddress.ip_address(client), opened=len(targets), clients=len(clients))
    others = opened - len(targets)
    if len(targets) >= ENOUGH_CLIENTS and others <= opened * 0.05 and client in outward:
        return Finding(
            name,
            Level.WARN,
            N_(
                "{client} opened {opened} connections and others hardly any: this looks like a router's NAT address;"
                " listen inside of it, else the log can't tell its users apart"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("{clients} clients opened connections"), values)


def _copies(survey: Survey) -> Finding:
    name, values = "copies", dict[str, object](copies=survey.copies, tcp=survey.tcp)
    if survey.copies > max(ENOUGH_PACKETS, MUCH * survey.tcp):
        return Finding(
            name,
            Level.WARN,
            N_(
                "{copies} of {tcp} TCP packets came twice: the mirror copies each where it enters and where it leaves;"
                " findings stay right, but mirror one port only to halve the load"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("packets come once ({copies} of {tcp} came again)"), values)


def _drops(seen: Seen) -> Finding:
    name, counts = "drops", seen.statistics
    values = dict[str, object](dropped=counts.dropped, lost=counts.card_lost, packets=counts.packets)
    if counts.card_lost:
        return Finding(
            name,
            Level.FAIL,
            N_(
                "the card lost {lost} packets before the system saw them; enlarge its receive ring (ethtool -G), or use"
                " a better card for capture alone"
            ),
            values,
        )
    if counts.dropped:
        return Finding(
            name,
            Level.FAIL,
            N_(
                "{dropped} packets were dropped for lack of time; stop other programs, or use --workers, --ring or"
                " --filter"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("no packet of {packets} was lost"), values)


def _joined(card: CardFacts, survey: Survey) -> Finding:
    name = "offloads"
    values = dict[str, object](jumbo=survey.jumbo, longest=survey.longest, which=", ".join(card.joining) or "-")
    if survey.jumbo:
        return Finding(
            name,
            Level.OK,
            N_(
                "{jumbo} packets of up to {longest} bytes were joined by card or system ({which}); sizes are still"
                " counted right, so this need not be switched off"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("packets come as they were on the wire (offloads that are on: {which})"), values)


def _receive_ring(card: CardFacts) -> Finding:
    name, values = "receive-ring", dict[str, object](
        driver=card.driver or "-", now=card.ring, most=card.ring_most, card=card.name
    )  # fmt: skip
    if card.ring and card.ring < card.ring_most * SMALL_RING:
        return Finding(
            name,
            Level.WARN,
            N_(
                "the receive ring of the driver {driver} holds {now} packets of {most} possible; enlarge it: ethtool -G"
                " {card} rx {most}"
            ),
            values,
        )
    if not card.ring:
        return Finding(name, Level.OK, N_("the driver {driver} has no receive ring to set"), values)
    return Finding(name, Level.OK, N_("the receive ring of the driver {driver} holds {now} packets"), values)


def _load(card: CardFacts, seen: Seen) -> Finding:
    name = "link"
    load = seen.survey.wire_bytes * 8 / seen.seconds / MBIT
    values = dict[str, object](load=load, speed=card.speed_mbit)
    if not card.speed_mbit:
        return Finding(name, Level.OK, N_("{load:.1f} Mbit/s; the card tells no speed"), values)
    if load > BUSY * card.speed_mbit:
        return Finding(
            name,
            Level.WARN,
            N_(
                "{load:.1f} of {speed} Mbit/s: a mirror port carries both directions and loses packets when full; use a"
                " faster card"
            ),
            values,
        )
    return Finding(name, Level.OK, N_("{load:.1f} of {speed} Mbit/s"), values)


def _processor(seen: Seen) -> Finding:
    values = dict[str, object](busy=seen.busy)
    if seen.busy > BUSY:
        return Finding(
            "processor",
            Level.WARN,
            N_("this machine was {busy:.0%} busy; give the detector a machine of its own, or packets will be missed"),
            values,
        )
    return Finding("processor", Level.OK, N_("this machine was {busy:.0%} busy"), values)


def _layers(survey: Survey) -> Finding:
    values = dict[str, object](kinds=", ".join(f"{kind} {count}" for kind, count in survey.kinds.most_common()))
    if survey.kinds["MPLS"] > MUCH * survey.packets:
        return Finding(
            "layers",
            Level.WARN,
            N_("wrapped packets: {kinds}; what is inside MPLS is not read, mirror another place"),
            values,
        )
    if survey.kinds:
        return Finding("layers", Level.OK, N_("wrapped packets: {kinds}; all are read"), values)
    return Finding("layers", Level.OK, N_("no packets with VLAN tags or in tunnels"), {})


def _buffer(seen: Seen) -> Finding:
    values = dict[str, object](snap=seen.snap)
    if not seen.has_ring:
        return Finding(
            "buffer",
            Level.WARN,
            N_(
                "the system gave no memory for a ring, so packets are read one by one; give it more, or use a smaller"
                " --ring"
            ),
            values,
        )
    return Finding("buffer", Level.OK, N_("packets are read from a ring, {snap} bytes of each"), values)


def _is_private(address: bytes) -> bool:
    return ipaddress.ip_address(address).is_private
