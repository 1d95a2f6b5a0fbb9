"""Super-frames at the switch: decided like any frame, passed on as they are, or finished once for all who need it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ether.super_frames import UDP, Packet, packets
from tests.switch.frames import ALL as EVERYBODY
from tests.switch.frames import P1, P2, P3, P4, A, B, C, frame

from ukihashi.ether.offload import ALL, NONE, Kind, SuperFrame
from ukihashi.ether.segment import finish, finish_all
from ukihashi.switch import forward, reasons
from ukihashi.switch.access import Rule
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.policy import Policy

FREE = PortRules(policy=Policy(no_broadcast_limiter=True))
BULK = Packet(data=bytes(range(250)) * 20, each=1448)  # four segments
TRAIN = Packet(protocol=UDP, data=bytes(5000), each=1000)


def sent(packet: Packet, destination: bytes = B, source: bytes = A) -> SuperFrame:
    return SuperFrame(destination + source + packet.unfinished()[12:])


def switch(kinds: dict[PortId, Kind], rules: dict[PortId, PortRules] | None = None) -> Switch:
    """Knows A at the first port, B at the second, C at the third."""
    made = Switch()
    for port, takes in kinds.items():
        made.add_port(port, (rules or {}).get(port, FREE), kinds=takes)
    for port, station in zip(kinds, (A, B, C), strict=False):
        made.forward([frame(EVERYBODY, station)], port, 0.0)
    return made


def test_it_goes_unchanged_to_who_takes_its_kind() -> None:
    made = switch({P1: ALL, P2: Kind.CHECKSUM | Kind.TSO4, P3: ALL})
    bulk, train = sent(BULK), sent(TRAIN)
    plain = frame(B, A)
    (got,) = made.forward([plain, bulk, plain, bulk], P1, 1.0).values()
    assert got == [plain, bulk, plain, bulk]
    assert [type(one) for one in got] == [bytes, SuperFrame, bytes, SuperFrame]
    assert made.forward([bulk, train], P1, 1.0) == {P2: [bulk, *finish(train)]}
    assert not made.drops[P1]


def test_it_is_decided_and_remembered_like_any_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    made, decided = switch({P1: ALL, P2: ALL, P3: ALL}), []
    decide = Switch._decide

    def counting(self: Switch, frame: bytes, *rest: object) -> object:
        decided.append(frame)
        return decide(self, frame, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Switch, "_decide", counting)
    bulk, back = sent(BULK), sent(BULK, A, B)
    assert len(bulk) > MAX_FRAME
    for now in (1.0, 1.1, 1.2):
        assert made.forward([bulk] * 20, P1, now) == {P2: [bulk] * 20}
        assert made.forward([back] * 20, P2, now) == {P1: [back] * 20}
    assert decided == [bulk, back]


def test_a_long_frame_that_is_none_is_dropped_whatever_came_before() -> None:
    made = switch({P1: ALL, P2: ALL})
    bulk = sent(BULK)
    for long in (bytes(bulk), frame(B, A, length=MAX_FRAME + 1)):
        made.drops[P1].clear()
        assert made.forward([bulk, long, bulk, long], P1, 1.0) == {P2: [bulk, bulk]}
        assert made.forward([long], P1, 1.0) == {}
        assert made.drops[P1] == {reasons.SIZE: 3}
        tail = frame(B, A, kind=bulk[12:14])
        assert made.forward([tail, long, tail], P1, 5.0) == {P2: [tail, tail]}


def test_a_flood_is_finished_once_for_each_class_of_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = Switch(), list[Kind]()
    plain, able, some = ([PortId(base + n) for n in range(20)] for base in (10, 40, 70))
    half = Kind.CHECKSUM | Kind.TSO6
    for ports, kinds in (([P1], ALL), (plain, NONE), (able, ALL), (some, half)):
        for port in ports:
            made.add_port(port, FREE, kinds=kinds)

    def counting(frame: bytes, kinds: Kind = NONE) -> list[bytes]:
        calls.append(kinds)
        return finish(frame, kinds)

    monkeypatch.setattr(forward, "finish", counting)
    first, second, short = sent(BULK, EVERYBODY), sent(TRAIN, EVERYBODY), sent(Packet(), EVERYBODY)
    out = made.forward([first, frame(EVERYBODY, A), second, short], P1, 0.0)
    assert sorted(calls) == sorted([NONE, half] * 3)
    for ports in (plain, able, some):
        assert len({tuple(map(id, out[port])) for port in ports}) == 1
    assert out[able[0]] == [first, frame(EVERYBODY, A), second, short]
    assert out[some[0]] == [*finish(first), frame(EVERYBODY, A), *finish(second), short]
    assert out[plain[0]] == [*finish(first), frame(EVERYBODY, A), *finish(second), *finish(short)]


def test_rules_where_it_comes_in_see_finished_frames() -> None:
    rules = {P1: PortRules(policy=Policy(no_broadcast_limiter=True, max_upload=1 << 31))}
    made = switch({P1: ALL, P2: ALL, P3: ALL}, rules)
    assert made.forward([sent(BULK)], P1, 1.0) == {P2: finish(sent(BULK))}
    made.set_rules(HubRules(), [Rule(protocol=6, destination_ports=(443, 443))])
    assert made.forward([sent(BULK), sent(TRAIN)], P1, 2.0) == {P2: finish(sent(TRAIN))}
    assert made.drops[P1] == {reasons.ACCESS: 4}


def test_rules_where_it_leaves_see_finished_frames_and_other_ports_do_not_care() -> None:
    rules = {P2: PortRules(policy=Policy(no_broadcast_limiter=True, max_download=1 << 31))}
    made = switch({P1: ALL, P2: ALL, P3: ALL}, rules)
    bulk = sent(BULK)
    assert made.forward([bulk], P1, 1.0) == {P2: finish(bulk)}
    assert made.forward([sent(BULK, C)], P1, 1.0) == {P3: [sent(BULK, C)]}
    flood = sent(BULK, EVERYBODY)
    assert made.forward([flood], P1, 1.0) == {P2: finish(flood), P3: [flood]}


def test_a_hub_without_rules_any_more_passes_it_on_again() -> None:
    made = switch({P1: ALL, P2: ALL})
    for access, wanted in (((), [sent(BULK)]), ((Rule(protocol=17),), finish(sent(BULK))), ((), [sent(BULK)])):
        made.set_rules(HubRules(), access)
        assert made.forward([sent(BULK)], P1, 1.0) == {P2: wanted}


def test_a_vlan_port_gets_and_gives_finished_frames() -> None:
    bound = PortRules(policy=Policy(no_broadcast_limiter=True, vlan_id=5))
    made = switch({P1: ALL, P2: ALL, P3: ALL}, {P1: bound, P3: bound})
    tag = b"\x81\0\0\5"
    tagged = [one[:12] + tag + one[12:] for one in finish(sent(BULK, EVERYBODY))]
    assert made.forward([sent(BULK, EVERYBODY)], P1, 1.0) == {P2: tagged, P3: finish(sent(BULK, EVERYBODY))}
    inner = sent(BULK._replace(tag=tag), C, B)
    assert made.forward([inner], P2, 2.0) == {P3: [one[:12] + one[16:] for one in finish(inner)]}


def test_a_storm_is_judged_by_the_frames_that_arrive() -> None:
    rules = {P1: PortRules()}
    made = switch({P1: ALL, P2: ALL, P3: NONE}, rules)
    made.set_rules(HubRules(storm_threshold=10))
    many = Packet(protocol=UDP, data=bytes(128), each=1)
    storm = sent(many, EVERYBODY)
    passed = [made.forward([storm], P1, now)[P2] for now in (1.0, 2.0)]
    assert passed[0] == finish(storm)
    assert len(passed[1]) < 128
    assert made.drops[P1] == {reasons.STORM: 256 - 128 - len(passed[1])}
    short = sent(Packet(), EVERYBODY, C)
    fresh = switch({P1: ALL, P2: ALL, P3: NONE}, rules)
    assert fresh.forward([short], P1, 1.0) == {P2: [short], P3: finish(short)}


def test_a_monitor_hears_what_it_takes() -> None:
    made = switch({P1: ALL, P2: ALL})
    made.add_port(P4, PortRules(monitor=True))
    assert made.forward([sent(BULK)], P1, 1.0) == {P2: [sent(BULK)], P4: finish(sent(BULK))}


some_kinds = st.sampled_from(
    [NONE, ALL, Kind.CHECKSUM, Kind.CHECKSUM | Kind.TSO4 | Kind.TSO_ECN, Kind.CHECKSUM | Kind.USO6 | Kind.TSO6]
)
some_rules = st.sampled_from(
    [
        FREE,
        FREE,
        PortRules(policy=Policy(no_broadcast_limiter=True, max_upload=1 << 40)),
        PortRules(policy=Policy(no_broadcast_limiter=True, max_download=1 << 40)),
        PortRules(policy=Policy(no_broadcast_limiter=True, dhcp_no_server=True)),
    ]
)


@given(
    st.lists(st.tuples(some_kinds, some_rules), min_size=3, max_size=3),
    st.lists(
        st.tuples(packets(), st.booleans(), st.sampled_from([A, B, C, EVERYBODY]), st.sampled_from([P1, P2, P3])),
        max_size=6,
    ),
)
def test_the_same_frames_leave_as_if_none_had_been_super(
    ports: list[tuple[Kind, PortRules]], said: list[tuple[Packet, bool, bytes, PortId]]
) -> None:
    numbers = (P1, P2, P3)
    rules = {number: rules for number, (_, rules) in zip(numbers, ports, strict=True)}
    kinds = {number: kinds for number, (kinds, _) in zip(numbers, ports, strict=True)}
    with_them, without = switch(kinds, rules), switch(dict.fromkeys(numbers, NONE), rules)
    stations = {P1: A, P2: B, P3: C}
    for at, (packet, finished, to, by) in enumerate(said):
        whole = sent(packet, to, stations[by])
        if to == stations[by]:
            continue
        given = finish_all([whole], NONE if finished else kinds[by])
        got = with_them.forward(given, by, 1.0 + at)
        for port, frames in got.items():
            assert finish_all(frames, kinds[port]) is frames or finish_all(frames, kinds[port]) == frames
        wanted = without.forward(finish(whole), by, 1.0 + at)
        assert {port: list(finish_all(frames)) for port, frames in got.items()} == wanted
    assert {port: +Counter(drops) for port, drops in with_them.drops.items()} == without.drops
