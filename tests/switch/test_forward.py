"""The switch against a slow, obvious one on random input; the rules of acceptance one by one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.switch.frames import ALL, GROUP, P1, P2, P3, P4, ZERO, A, B, C, D, E, F, arp, frame, ip4, ip6, tagged

from ukihashi.switch import reasons
from ukihashi.switch.forward import Switch
from ukihashi.switch.reasons import ARP_SHORT, OWN_PORT, PORT_FULL, SIZE, SOURCE, TABLE_FULL
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.policy import Policy


def switch(**options: int) -> Switch:
    made = Switch(**options)  # type: ignore[arg-type]
    for port in (P1, P2, P3):
        made.add_port(port)
    return made


Address = tuple[int, bytes]  # version, bytes


@dataclass
class Naive:
    """One frame at a time, by the book; nothing of a storm passes that may be dropped."""

    ports: dict[PortId, PortRules]
    limit: int = 65536
    table: dict[tuple[bytes, int], tuple[PortId, float]] = field(default_factory=dict)
    newest: list[tuple[PortId, tuple[bytes, int]]] = field(default_factory=list)  # in the order of arrival
    order: list[PortId] = field(default_factory=list)  # ports in the order of their first station
    addresses: dict[bytes, tuple[PortId, float]] = field(default_factory=dict)
    storms: dict[tuple[PortId, bytes, bytes], list[float]] = field(default_factory=dict)  # count, since, discard value
    drops: dict[PortId, Counter[str]] = field(default_factory=dict)

    def forward(self, data: bytes, port: PortId, now: float) -> dict[PortId, bytes]:
        vlan = self.ports[port].policy.vlan_id
        if vlan and len(data) >= 14:
            data = data[:12] + b"\x81\0" + vlan.to_bytes(2, "big") + data[12:]
        verdict = self.verdict(data, port, now)
        if isinstance(verdict, str):
            self.drops.setdefault(port, Counter())[verdict] += 1
            return {}
        given = {}
        for to in verdict:
            bare = self.ports[to].policy.vlan_id and not self.ports[to].monitor
            given[to] = data[:12] + data[16:] if bare else data
        return given

    def verdict(self, data: bytes, port: PortId, now: float) -> list[PortId] | str:
        rules = self.ports[port]
        if rules.monitor:
            return reasons.MONITOR
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
        self.table = {key: entry for key, entry in self.table.items() if now - entry[1] < 600}
        if by[0] % 2 == 0 and (reason := self.learn((by, vlan), port, now)):
            return reason
        sender, receiver = b"", b""
        if kind == b"\x08\0" and len(rest) >= 20:
            sender, receiver = rest[12:16], rest[16:20]
        elif kind == b"\x86\xdd" and len(rest) >= 40:
            sender, receiver = rest[8:24], rest[24:40]
        if reason := self.note(rest[14:18] if kind == b"\x08\x06" else sender, port, now):
            return reason
        found = self.table.get((to, vlan)) if to[0] % 2 == 0 else None
        monitors = [other for other in self.ports if self.ports[other].monitor]
        if found is not None:
            if found[0] == port:
                return OWN_PORT
            bound = self.ports[found[0]].policy.vlan_id
            return [found[0], *monitors] if bound in (0, vlan) else reasons.VLAN
        others = [
            other
            for other, its in self.ports.items()
            if other != port and (its.monitor or its.policy.vlan_id in (0, vlan))
        ]
        if others and not rules.policy.no_broadcast_limiter and self.storms_at((port, by, sender + receiver), now):
            return reasons.STORM
        return others

    def learn(self, station: tuple[bytes, int], port: PortId, now: float) -> str:
        rules = self.ports[port]
        self.newest = [pair for pair in self.newest if self.table.get(pair[1], (None,))[0] == pair[0]]
        known = self.table.get(station)
        count = Counter(entry[0] for entry in self.table.values())
        if known is None or known[0] != port:
            if known is not None and now - known[1] < 13 and (rules.policy.check_mac or rules.is_hub_port):
                return reasons.STATION_TAKEN
            if (rules.confined or rules.policy.max_mac) and count[port] >= 3:
                return PORT_FULL
            if known is None and len(self.table) >= self.limit:
                if count[port] >= self.limit // max(1, len(count) + (not count[port])):
                    return TABLE_FULL
                hog = max(self.order, key=lambda each: count[each])
                victim = next(key for holder, key in reversed(self.newest) if holder == hog)
                del self.table[victim]
                self.newest.remove((hog, victim))
            self.newest = [pair for pair in self.newest if pair[1] != station] + [(port, station)]
            if port not in self.order:
                self.order.append(port)
        self.table[station] = (port, now)
        return ""

    def note(self, address: bytes, port: PortId, now: float) -> str:
        rules = self.ports[port]
        self.addresses = {key: entry for key, entry in self.addresses.items() if now - entry[1] < 60}
        known = self.addresses.get(address)
        if address in (b"", bytes(4), bytes(16)):
            return ""
        if known is None or known[0] != port:
            check = rules.policy.check_ip if len(address) == 4 else rules.policy.check_ipv6
            if known is not None and now - known[1] < 13 and check:
                return reasons.ADDRESS_TAKEN
            mine = sum(entry[0] == port and len(key) == len(address) for key, entry in self.addresses.items())
            if len(address) == 4 and rules.confined and mine >= 4:
                return reasons.ADDRESSES_FULL
            if not address.startswith((b"\x0a", b"\xfe\x80")):
                return ""
        self.addresses[address] = (port, now)
        return ""

    def storms_at(self, key: tuple[PortId, bytes, bytes], now: float) -> bool:
        state = self.storms.setdefault(key, [0, now, 0])
        state[0] += 1
        if (elapsed := now - state[1]) >= 0.5:
            if 2 * state[0] >= 32:
                state[:] = [0, now, min(2 * max(state[2], 1), 1024)]
                return True
            state[:] = [0, now, state[2] // max(2, int(elapsed / 0.5))]
        return state[2] >= 3


macs = st.sampled_from([A, A, B, B, C, D, E, F])
targets = st.sampled_from([A, A, B, B, C, D, ALL, ALL, GROUP])
odd = st.builds(
    frame,
    targets,
    st.sampled_from([A, B, ALL, GROUP, ZERO]),
    st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x08\x06", b"\x81\0\0\x05\x08\0", b"\x81\0\0\x06\x08\x06"]),
    st.sampled_from([60, 0, 13, 14, 15, 41, 42, 45, 46, 1600, 1601]),
)
hosts = st.sampled_from([f"10.0.0.{n}" for n in range(1, 7)] + ["8.8.8.8", "0.0.0.0"])
ours = st.one_of(
    st.builds(ip4, targets, macs, hosts, hosts),
    st.builds(ip6, targets, macs, st.sampled_from(["fe80::1", "fe80::2", "2001:db8::1", "::"])),
    st.builds(arp, macs, hosts, hosts, st.sampled_from([ALL, A, B])),
    st.builds(frame, targets, macs),
)
frames = st.one_of(ours, ours, ours, st.builds(tagged, ours, st.sampled_from([5, 6])), odd)
batches = st.lists(st.tuples(frames, st.sampled_from([1, 1, 2, 17])), max_size=8).map(
    lambda pairs: [each for each, times in pairs for _ in range(times)]
)
waits = st.sampled_from([0, 0, 0.3, 0.6, 1, 13, 61, 700])
steps = st.lists(st.tuples(batches, st.sampled_from([P1, P2, P3, P4]), waits), max_size=8)
kinds = st.sampled_from(
    [
        PortRules(),
        PortRules(),
        PortRules(confined=True),
        PortRules(is_hub_port=True),
        PortRules(monitor=True),
        PortRules(policy=Policy(check_mac=True, check_ip=True, check_ipv6=True)),
        PortRules(policy=Policy(vlan_id=5)),
        PortRules(policy=Policy(max_mac=1, no_broadcast_limiter=True)),
    ]
)


@settings(deadline=None)
@given(steps, st.sampled_from([2, 4, 65536, 65536]), st.tuples(kinds, kinds, kinds, kinds))
def test_it_does_what_a_slow_obvious_switch_does(
    traffic: list[tuple[list[bytes], PortId, float]], limit: int, rules: Sequence[PortRules]
) -> None:
    ports = dict(zip((P1, P2, P3, P4), rules, strict=True))
    fast, slow, now = Switch(limit=limit), Naive(ports, limit), 0.0
    if limit < 100:
        slow.note = lambda *_: ""  # type: ignore[method-assign]  # whose addresses go is test_ip_table's
        ports = slow.ports = {
            port: PortRules(is_hub_port=its.is_hub_port, monitor=its.monitor) for port, its in ports.items()
        }
    for port, its in ports.items():
        fast.add_port(port, its)
    for batch, port, wait in traffic:
        now += wait
        expected: dict[PortId, list[bytes]] = {}
        for each in batch:
            for to, one in slow.forward(each, port, now).items():
                expected.setdefault(to, []).append(one)
        assert {to: run for to, run in fast.forward(batch, port, now).items() if run} == expected
        assert {at: drops for at, drops in fast.drops.items() if +drops} == slow.drops
    stations = {(row.mac, row.vlan): row.port for row in fast.rows(now)}
    assert stations == {key: port for key, (port, seen) in slow.table.items() if now - seen < 600}


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


def test_what_was_decided_a_moment_ago_holds_until_the_table_changes() -> None:
    hub = switch()
    each = frame(B, A)
    hub.forward([frame(ALL, B)], P2, 0.0)
    assert hub.forward([each], P1, 0.0) == {P2: [each]}
    hub.forward([frame(ALL, B)], P3, 0.0)  # it moves
    assert hub.forward([each], P1, 0.0) == {P3: [each]}
    (row,) = [row for row in hub.rows(0.0) if row.mac == B]
    assert hub.forget_station(row.key)
    assert not hub.forget_station(row.key)
    assert hub.forward([each], P1, 0.0) == {P2: [each], P3: [each]}


def test_a_sender_is_noted_again_within_a_quarter_of_a_second() -> None:
    hub = switch()
    hub.forward([frame(ALL, B)], P2, 0.0)
    for n in range(100):
        hub.forward([frame(B, A)], P1, 0.1 * n)
    (seen,) = [row.seen for row in hub.rows(10.0) if row.mac == A]
    assert 9.65 < seen <= 9.9


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
        frame(b"\x01\x80\xc2\0\0\x01", A, kind=b"\x88\x08"),  # PAUSE
        frame(B, A, kind=b"\x08\0", length=16),  # IPv4 without a header
        frame(B, A, kind=b"\x81\0", length=15),  # a tag cut short
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


@pytest.mark.parametrize(
    ("rules", "most"),
    [
        (PortRules(confined=True), 3),
        (PortRules(policy=Policy(no_bridge=True)), 3),
        (PortRules(policy=Policy(max_mac=1)), 3),  # a lower limit counts as three
        (PortRules(policy=Policy(max_mac=5)), 5),
        (PortRules(confined=True, policy=Policy(max_mac=5)), 3),
        (PortRules(bridge=True), 6),  # all there are
    ],
)
def test_a_port_may_have_few_stations_only(rules: PortRules, most: int) -> None:
    hub = Switch()
    hub.add_port(P1, rules)
    hub.add_port(P2)
    stations = [A, B, C, D, E, F]
    out = hub.forward([frame(ALL, station) for station in (*stations, A)], P1, 0.0)
    assert [each[6:12] for each in out[P2]] == [*stations[:most], A]
    assert hub.drops[P1] == ({PORT_FULL: 6 - most} if most < 6 else {})
    again = hub.forward([frame(ALL, F)], P1, 600.0)  # the others have aged
    assert len(again[P2]) == 1


def test_a_flood_of_forged_sources_stops_at_the_limit_and_takes_nothing_from_others() -> None:
    hub = switch(limit=100)
    hub.forward([frame(ALL, B)], P2, 0.0)
    forged = [frame(ALL, b"\x02" + n.to_bytes(5, "big")) for n in range(1000, 1299)]
    assert len(hub.forward(forged, P1, 0.0)[P2]) == 99
    assert hub.drops[P1] == {TABLE_FULL: 200}
    assert len(hub.rows(0.0)) == 100
    assert hub.forward([frame(ALL, C), frame(B, C)], P3, 0.0) == {P1: [frame(ALL, C)], P2: [frame(ALL, C), frame(B, C)]}
    assert hub.forward([frame(C, B)], P2, 0.0) == {P3: [frame(C, B)]}
    assert len(hub.rows(0.0)) == 100


# -- moves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [PortRules(policy=Policy(check_mac=True)), PortRules(is_hub_port=True)])
def test_a_checked_port_takes_over_no_station_that_was_heard_within_13_s(rules: PortRules) -> None:
    hub = Switch()
    hub.add_port(P1)
    hub.add_port(P2, rules)
    hub.add_port(P3)
    hub.forward([frame(ALL, A)], P1, 0.0)
    assert hub.forward([frame(ALL, A)], P2, 12.9) == {}
    assert hub.drops[P2] == {reasons.STATION_TAKEN: 1}
    assert set(hub.forward([frame(ALL, A)], P2, 13.0)) == {P1, P3}
    assert set(hub.forward([frame(ALL, A)], P3, 13.0)) == {P1, P2}  # who is not checked may
    assert [row.port for row in hub.rows(13.0)] == [P3]


# -- VLANs ----------------------------------------------------------------------------------------------------------


def bound() -> Switch:
    """Ports 1 and 2 in VLAN 5, 3 in 6, 4 in none."""
    hub = Switch()
    for port, vlan in ((P1, 5), (P2, 5), (P3, 6), (P4, 0)):
        hub.add_port(port, PortRules(policy=Policy(vlan_id=vlan)))
    return hub


def test_a_bound_port_talks_in_its_vlan_without_knowing_it() -> None:
    hub = bound()
    hello, answer = frame(ALL, A), frame(A, B)
    assert hub.forward([hello], P1, 0.0) == {P2: [hello], P4: [tagged(hello, 5)]}
    assert hub.forward([answer], P2, 0.0) == {P1: [answer]}
    assert [(row.mac, row.vlan) for row in hub.rows(0.0)] == [(A, 5), (B, 5)]
    assert hub.forward([frame(A, C)], P3, 0.0) == {P4: [tagged(frame(A, C), 6)]}  # unknown in VLAN 6


def test_an_unbound_port_reaches_bound_ones_by_their_tag_only() -> None:
    hub = bound()
    assert hub.forward([frame(ALL, D)], P4, 0.0) == {}
    assert hub.forward([tagged(frame(ALL, D), 5)], P4, 0.0) == {P1: [frame(ALL, D)], P2: [frame(ALL, D)]}


def test_a_bound_port_cannot_leave_its_vlan_by_a_tag_of_its_own() -> None:
    hub = bound()
    sly = tagged(frame(ALL, A), 6)
    assert hub.forward([sly], P1, 0.0) == {P2: [sly], P4: [tagged(sly, 5)]}


def test_a_frame_that_the_tag_makes_too_long_is_dropped() -> None:
    hub = bound()
    longest, longer, short = frame(ALL, A, length=1596), frame(ALL, A, length=1597), frame(ALL, A, length=13)
    assert hub.forward([longest, longer, short], P1, 0.0)[P2] == [longest]
    assert hub.drops[P1] == {SIZE: 2}


def test_without_vlans_apart_an_address_is_one_station() -> None:
    hub = bound()
    hub.set_rules(HubRules(vlans_apart=False))
    hub.forward([frame(ALL, A)], P1, 0.0)
    assert hub.forward([frame(A, D)], P4, 0.0) == {}
    assert hub.drops[P4] == {reasons.VLAN: 1}
    assert hub.forward([tagged(frame(A, D), 5)], P4, 0.0) == {P1: [frame(A, D)]}
    assert [row.vlan for row in hub.rows(0.0)] == [0, 0]


# -- monitors -------------------------------------------------------------------------------------------------------


def test_a_monitor_hears_every_accepted_frame_once_and_says_nothing() -> None:
    hub = switch()
    hub.add_port(P4, PortRules(monitor=True))
    hello, answer, own = frame(ALL, A), frame(A, B), frame(A, C)
    assert hub.forward([hello], P1, 0.0)[P4] == [hello]
    assert hub.forward([answer, answer], P2, 0.0) == {P1: [answer] * 2, P4: [answer] * 2}
    assert hub.forward([own, frame(B, ZERO)], P1, 0.0) == {}  # neither is accepted
    assert hub.forward([hello], P4, 0.0) == {}
    assert hub.drops[P4] == {reasons.MONITOR: 1}
    hub.remove_port(P4)
    assert hub.forward([answer], P2, 0.0) == {P1: [answer]}


def test_a_monitor_hears_all_vlans_with_their_tags() -> None:
    hub = bound()
    hub.add_port(PortId(9), PortRules(monitor=True, policy=Policy(vlan_id=6)))
    assert hub.forward([frame(ALL, A)], P1, 0.0)[PortId(9)] == [tagged(frame(ALL, A), 5)]


# -- bridges --------------------------------------------------------------------------------------------------------


def bpdu(source: bytes, bridge: bytes, kind: int = 0) -> bytes:
    """A configuration BPDU (802.1D, 9.3.1), or one of a topology change."""
    root = b"\x80\0" + bridge
    body = b"\x42\x42\x03\0\0\0" + bytes([kind, 0]) + root + bytes(4) + b"\x80\0" + bridge + bytes(10)
    return b"\x01\x80\xc2\0\0\0" + source + len(body).to_bytes(2, "big") + body


def test_bpdus_are_learned_by_the_bridge_they_are_from() -> None:
    hub = switch()
    assert len(hub.forward([bpdu(A, B), bpdu(A, C), bpdu(A, D, kind=0x80)], P1, 0.0)[P2]) == 3
    assert [row.mac for row in hub.rows(0.0)] == [B, C, A]
    hub.set_rules(HubRules(bridges_by_id=False))
    hub.forward([bpdu(E, F)], P1, 0.0)
    assert [row.mac for row in hub.rows(0.0)][-1] == E
