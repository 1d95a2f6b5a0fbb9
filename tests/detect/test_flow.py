from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.scene import CLIENT_HELLO, MSS, SERVER_HELLO, Frame, Talk
from ukihashi.detect.columns import FLOW_TIMES, LAST
from ukihashi.detect.flow import AGE_S, DEAD, OPENING, WATCHED, Flow, FlowTable, Half

CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 443)


@dataclass
class Notes:
    """A watcher that writes down what it is told, and watches a flow after `turns` turns."""

    turns: int = 99
    seen: list[tuple[bool, int]] = field(default_factory=list)
    spoken: list[tuple[bool, float]] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    ended: int = 0
    mid: int = 0

    def turned(self, flow: Flow, time: float) -> None:
        turn = flow.turns[-1]
        self.seen.append((turn.toward_server, turn.size))
        if flow not in self.flows:
            self.flows.append(flow)
        if len(self.seen) >= self.turns:
            flow.watch(time)

    def joined(self, flow: Flow, time: float) -> None:
        self.mid += 1
        self.flows.append(flow)

    def spoke(self, half: Half, time: float) -> None:
        assert half.message is not None
        self.spoken.append((half is half.flow.client, half.message.gap))

    def closed(self, flow: Flow, time: float) -> None:
        self.ended += 1

    def tick(self, now: float) -> None:
        pass


def feed(table: FlowTable, frames: list[Frame]) -> None:
    for time, frame in sorted(frames, key=lambda item: item[0]):
        table.take(1, frame, [(time, 0, len(frame), len(frame))])


def conversation(sizes: list[int]) -> Talk:
    """Turns of these sizes, the client's first."""
    talk = Talk(CLIENT, SERVER)
    talk.open()
    for place, size in enumerate(sizes):
        talk.say(place % 2, size, head=(CLIENT_HELLO, SERVER_HELLO)[place] if place < 2 else b"")
    return talk


def turns_of(frames: list[Frame]) -> list[tuple[bool, int]]:
    notes = Notes()
    table = FlowTable(notes)
    feed(table, frames)
    return notes.seen


SIZES = [517, 3000, 80, 1500, 4200, 64]
EXPECTED = [(place % 2 == 0, size) for place, size in enumerate(SIZES)]


def test_turns_are_the_bytes_of_one_direction_until_the_other_speaks() -> None:
    talk = conversation(SIZES)
    talk.close()
    assert turns_of(talk.frames) == EXPECTED


@given(st.randoms(use_true_random=False))
def test_repeats_change_nothing(chance: Random) -> None:
    talk = conversation(SIZES)
    talk.close()
    frames = list(talk.frames)
    for time, frame in talk.frames:
        if chance.random() < 0.3:
            frames.append((time + 0.0004 * chance.random(), frame))
    assert turns_of(frames) == EXPECTED


@pytest.mark.parametrize("side", [0, 1])
def test_with_one_direction_captured_the_acknowledgements_tell_the_other(side: int) -> None:
    talk = conversation(SIZES)
    talk.close()
    source = b"\x0a\x00\x00" + bytes([1 + side])
    assert turns_of([(time, frame) for time, frame in talk.frames if frame[26:30] == source]) == EXPECTED


@given(st.sets(st.integers(3, 30), max_size=6))
def test_packets_the_capture_lost_are_credited_to_their_sender(lost: set[int]) -> None:
    talk = conversation(SIZES)
    kept = [frame for place, frame in enumerate(talk.frames) if place not in lost]
    notes = Notes()
    table = FlowTable(notes)
    feed(table, [*kept, *closing(talk)])
    assert sum(size for _, size in notes.seen) == sum(SIZES)


def closing(talk: Talk) -> list[Frame]:
    before = len(talk.frames)
    talk.close()
    return talk.frames[before:]


def test_sequence_numbers_may_pass_zero() -> None:
    talk = Talk(CLIENT, SERVER)
    talk.next = [0xFFFFFFFF - 600, 0xFFFFFFFF]
    talk.open()
    for place, size in enumerate(SIZES):
        talk.say(place % 2, size, head=CLIENT_HELLO if not place else b"")
    talk.close()
    assert turns_of(talk.frames) == EXPECTED


def test_the_first_message_of_a_turn_ends_with_a_segment_that_is_not_full() -> None:
    talk = conversation([517, 1000])
    talk.say(0, MSS + 500)
    talk.say(0, 70)
    notes = Notes()
    table = FlowTable(notes)
    feed(table, talk.frames)
    flow = table._flow(0)
    assert (flow.turns[-1].size, flow.turns[-1].first) == (MSS + 570, MSS + 500)


def test_messages_after_silences_are_kept_with_gap_size_and_coupling() -> None:
    talk = conversation([517, 1000])
    talk.say(0, 100, at=talk.now + 1.0)
    begin = talk.now
    talk.say(0, 300, at=begin + 5.0)
    talk.say(0, 20)
    talk.say(1, 40)
    talk.say(0, 200, at=begin + 10.0)
    talk.say(1, 50, at=begin + 12.5)
    notes = Notes(turns=2)
    table = FlowTable(notes)
    feed(table, talk.frames)
    flow = notes.flows[0]
    assert flow.stage == WATCHED
    assert [(round(m.gap, 1), m.size, m.coupled) for m in flow.client.messages][1:] == [
        (5.0, 320, True),
        (5.0, 200, False),
    ]
    assert [(round(m.gap, 1), m.size, m.coupled) for m in flow.server.messages] == [(6.0, 40, True), (7.5, 50, False)]


def test_a_connection_that_began_before_the_capture_is_watched_at_once() -> None:
    talk = conversation([517, 1000, 80])
    begin = len(talk.frames)
    talk.say(1, 200, at=talk.now + 2)
    notes = Notes()
    feed(FlowTable(notes), talk.frames[begin:])
    assert (notes.mid, notes.seen) == (1, [])
    assert notes.flows[0].client.key[-4:-2] == (50000).to_bytes(2)


def test_a_lost_syn_is_no_harm_when_the_hello_is_seen_whoever_has_the_lower_port() -> None:
    talk = Talk(("10.0.0.1", 443), ("10.0.0.2", 50000))
    talk.open()
    talk.say(0, 517, head=CLIENT_HELLO)
    talk.say(1, 900, head=SERVER_HELLO)
    talk.say(0, 90)
    notes = Notes()
    feed(FlowTable(notes), talk.frames[3:])
    assert notes.seen == [(True, 517), (False, 900)]
    assert notes.flows[0].client.key[-4:-2] == (443).to_bytes(2)


def test_a_new_connection_of_the_same_ports_is_another_flow() -> None:
    first, second = conversation([517, 900]), Talk(CLIENT, SERVER, begin=1_700_000_100.0)
    second.next = [77_000, 88_000]
    second.open()
    second.say(0, 300, head=CLIENT_HELLO)
    second.say(1, 400)
    notes = Notes()
    table = FlowTable(notes)
    feed(table, first.frames + second.frames)
    assert (table.opened, len(table), notes.ended) == (2, 1, 1)


def test_a_full_table_forgets_what_was_silent_longest_and_says_so() -> None:
    notes = Notes()
    table = FlowTable(notes, limit=64)
    for number in range(200):
        talk = Talk(("10.0.0.1", 10_000 + number), SERVER, begin=1_700_000_000.0 + number * 0.01)
        talk.open()
        feed(table, talk.frames)
    assert len(table) <= 64
    assert table.forgotten == 200 - len(table)
    newest = max(range(64), key=lambda number: table._state.times[number * FLOW_TIMES + LAST])
    assert table._flow(newest).client.key[-4:-2] == (10_199).to_bytes(2)


def test_silent_connections_age_out() -> None:
    table = FlowTable(Notes())
    feed(table, conversation([517, 900]).frames)
    assert len(table) == 1
    table.advance(1_700_000_000.0 + AGE_S + 20)
    assert len(table) == 0


def test_a_dead_flow_costs_nothing_and_stays_dead() -> None:
    notes = Notes()
    table = FlowTable(notes)
    talk = conversation([517, 900])
    feed(table, talk.frames)
    flow = table._flow(0)
    assert flow.stage == OPENING
    flow.drop()
    before = len(talk.frames)
    talk.say(0, 100, at=talk.now + 6)
    feed(table, talk.frames[before:])
    assert flow.stage == DEAD
    assert not flow.client.messages


def test_short_segments_are_kept_with_what_the_other_side_said_before() -> None:
    notes = Notes(turns=2)
    table = FlowTable(notes)
    talk = conversation([517, 900, 100])
    feed(table, talk.frames)
    flow = notes.flows[0]
    flow.small = 70
    before = len(talk.frames)
    begin = talk.now
    for side, size, after in ((1, 500, 0.0), (1, 200, 0.5), (0, 39, 1.0), (0, 71, 1.5), (1, 39, 1.75), (0, 70, 2.0)):
        talk.say(side, size, at=begin + after)
    feed(table, talk.frames[before:])
    kept = [
        [(crumb.size, round(crumb.wait, 3), round(crumb.quiet, 3), crumb.passed) for crumb in half.crumbs]
        for half in (flow.client, flow.server)
    ]
    assert kept == [[(39, 1.0, 0.5, 900 + 500 + 200), (70, -1.0, 0.25, 39)], [(39, 0.25, 0.25, 517 + 100 + 39 + 71)]]
    flow.drop()
    assert not flow.client.crumbs
