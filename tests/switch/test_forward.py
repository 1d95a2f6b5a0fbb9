"""The switch against a slow, obvious one on random input; the rules of acceptance one by one."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.switch.forward import Switch
from ukihashi.switch.reasons import ARP_SHORT, OWN_PORT, PORT_FULL, SIZE, SOURCE, TABLE_FULL
from ukihashi.units import PortId

A, B, C, D = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3, 4))
ALL, GROUP, ZERO = b"\xff" * 6, b"\x01\0\x5e\0\0\x01", bytes(6)
P1, P2, P3 = PortId(1), PortId(2), PortId(3)


def frame(destination: bytes, source: bytes, kind: bytes = b"\x08\0", length: int = 60, mark: int = 0) -> bytes:
    return (destination + source + kind + bytes([mark] * 1600))[:length]


def switch(**options: int) -> Switch:
    made = Switch(**options)  # type: ignore[arg-type]
    for port in (P1, P2, P3):
        made.add_port(port)
    return made


@dataclass
class Naive:
    """One frame at a time, by the book."""

    ports: list[PortId]
    limit: int
    max_stations: int
    ageing: float = 600.0
    table: dict[tuple[bytes, int], tuple[PortId, float]] = field(default_factory=dict)
    drops: dict[PortId, Counter[str]] = field(default_factory=dict)

    def forward(self, data: bytes, port: PortId, now: float) -> list[PortId]:
        verdict = self.verdict(data, port, now)
        if isinstance(verdict, str):
            self.drops.setdefault(port, Counter())[verdict] += 1
            return []
        return verdict

    def verdict(self, data: bytes, port: PortId, now: float) -> list[PortId] | str:
        if len(data) < 14 or len(data) > 1600:
            return SIZE
        to, by, kind, rest = data[:6], data[6:12], data[12:14], data[14:]
        if by in (ZERO, ALL, to):
            return SOURCE
        vlan = 0
        if kind == b"\x81\0" and len(rest) >= 4:
            vlan, kind, rest = int.from_bytes(rest[:2], "big") % 4096, rest[2:4], rest[4:]
        if kind == b"\x08\x06" and len(rest) < 28:
            return ARP_SHORT
        self.table = {key: entry for key, entry in self.table.items() if now - entry[1] < self.ageing}
        if by[0] % 2 == 0:
            known = self.table.get((by, vlan))
            mine = sum(entry[0] == port for entry in self.table.values())
            if (known is None or known[0] != port) and self.max_stations and mine >= self.max_stations:
                return PORT_FULL
            if known is None and len(self.table) >= self.limit:
                return TABLE_FULL
            self.table[by, vlan] = (port, now)
        if to[0] % 2 == 0:
            found = self.table.get((to, vlan))
            if found is not None:
                return OWN_PORT if found[0] == port else [found[0]]
        return [other for other in self.ports if other != port]


macs = st.sampled_from([A, A, B, B, C, D, ALL, GROUP, ZERO])
kinds = st.sampled_from(
    [b"\x08\0", b"\x08\0", b"\x86\xdd", b"\x08\x06", b"\x81\0\0\x05\x08\0", b"\x81\0\0\x06\x08\x06"]
)
lengths = st.sampled_from([60, 60, 60, 0, 13, 14, 15, 41, 42, 45, 46, 1600, 1601])
batches = st.lists(st.builds(frame, macs, macs, kinds, lengths, st.integers(0, 255)), max_size=8).map(
    lambda frames: [each for each in frames for _ in range(2)]
)
steps = st.lists(st.tuples(batches, st.sampled_from([P1, P2, P3]), st.sampled_from([0, 0, 1, 300, 700])), max_size=8)


@given(steps, st.sampled_from([2, 4, 65536]), st.sampled_from([0, 0, 2]))
def test_it_does_what_a_slow_obvious_switch_does(
    traffic: list[tuple[list[bytes], PortId, int]], limit: int, max_stations: int
) -> None:
    fast, slow, now = Switch(limit=limit), Naive([P1, P2, P3], limit, max_stations), 0.0
    for port in (P1, P2, P3):
        fast.add_port(port, max_stations=max_stations)
    for frames, port, wait in traffic:
        now += wait
        expected: dict[PortId, list[bytes]] = {}
        for each in frames:
            for to in slow.forward(each, port, now):
                expected.setdefault(to, []).append(each)
        assert fast.forward(frames, port, now) == expected
        assert {at: drops for at, drops in fast.drops.items() if drops} == slow.drops


def test_unknown_is_flooded_known_goes_to_one_port() -> None:
    hub = switch()
    first, answer = frame(B, A), frame(A, B)
    assert hub.forward([first], P1, 0.0) == {P2: [first], P3: [first]}
    assert hub.forward([answer], P2, 0.0) == {P1: [answer]}
    assert hub.forward([first, first], P1, 0.0) == {P2: [first, first]}


def test_order_is_kept_for_each_destination() -> None:
    hub = switch()
    hub.forward([frame(ALL, B)], P2, 0.0)
    mixed = [frame(B if n % 3 else ALL, A, mark=n) for n in range(30)]
    out = hub.forward(mixed, P1, 0.0)
    assert out[P2] == mixed
    assert out[P3] == mixed[::3]


def test_a_station_learned_in_the_same_batch_counts_at_once() -> None:
    hub = switch()
    to_b, from_b = frame(B, A), frame(A, B)
    assert hub.forward([to_b, from_b, to_b], P1, 0.0) == {P2: [to_b], P3: [to_b]}
    assert hub.drops[P1] == {OWN_PORT: 2}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(B, A, length=13), SIZE),
        (b"", SIZE),
        (frame(B, A, length=1600) + b"x", SIZE),
        (frame(B, ZERO), SOURCE),
        (frame(B, ALL), SOURCE),
        (frame(A, A), SOURCE),
        (frame(B, b"\x02HUBHU"), SOURCE),
        (frame(B, A, kind=b"\x08\x06", length=41), ARP_SHORT),
    ],
)
def test_what_the_hub_does_not_take(bad: bytes, reason: str) -> None:
    hub = Switch(own_mac=b"\x02HUBHU")
    hub.add_port(P1)
    hub.add_port(P2)
    assert hub.forward([bad], P1, 0.0) == {}
    assert hub.drops[P1] == {reason: 1}
    assert hub.rows(0.0) == []


@pytest.mark.parametrize(
    "good",
    [
        frame(B, A, length=14),
        frame(B, A, length=1600),
        frame(B, GROUP),  # odd, but passes; it is no station
        frame(b"\x01\x80\xc2\0\0\0", A, kind=b"\0\x26"),  # a BPDU
        frame(b"\x01\x80\xc2\0\0\x0e", A, kind=b"\x88\xcc"),  # LLDP
        frame(B, A, kind=b"\x08\0", length=16),  # IPv4 without a header
    ],
)
def test_what_the_hub_passes_unchanged(good: bytes) -> None:
    assert switch().forward([good], P1, 0.0) == {P2: [good], P3: [good]}


def test_a_removed_port_gets_nothing_and_its_stations_are_unknown() -> None:
    hub = switch()
    hub.forward([frame(ALL, B)], P2, 0.0)
    hub.remove_port(P2)
    hub.remove_port(P2)
    each = frame(B, A)
    assert hub.forward([each], P1, 1.0) == {P3: [each]}
    assert hub.ports == (P1, P3)
    with pytest.raises(KeyError):
        hub.forward([each], P2, 1.0)
    with pytest.raises(ValueError, match="exists"):
        hub.add_port(P1)


def test_a_lone_port_talks_to_nobody() -> None:
    hub = Switch()
    hub.add_port(P1)
    assert hub.forward([frame(ALL, A), frame(ALL, A)], P1, 0.0) == {}
    assert hub.drops[P1] == {}


def test_a_port_may_have_few_stations_only() -> None:
    hub = Switch()
    hub.add_port(P1, max_stations=3)
    hub.add_port(P2)
    out = hub.forward([frame(ALL, station) for station in (A, B, C, D, A)], P1, 0.0)
    assert [each[6:12] for each in out[P2]] == [A, B, C, A]
    assert hub.drops[P1] == {PORT_FULL: 1}


def test_a_flood_of_forged_sources_stops_at_the_limit() -> None:
    hub = switch(limit=100)
    forged = [frame(ALL, b"\x02" + n.to_bytes(5, "big")) for n in range(1, 300)]
    assert len(hub.forward(forged, P1, 0.0)[P2]) == 100
    assert hub.drops[P1] == {TABLE_FULL: 199}
    assert len(hub.rows(0.0)) == 100
