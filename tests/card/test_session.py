"""An exactly resumable session on the test's clock, over links in memory."""

from typing import Any, cast

import pytest

from ukihashi.card.link import Link
from ukihashi.card.messages import Settings
from ukihashi.card.session import AHEAD, QUEUE, STALL_S, ExactSession
from ukihashi.card.tally import Tally
from ukihashi.errors import DialError, PeerViolation, Refused, UkihashiError
from ukihashi.ether.offload import ALL, SuperFrame
from ukihashi.session.machine import CARD_MOVES, Machine, State
from ukihashi.tap.device import Batch
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import Code
from ukihashi.wire.extension import (
    Bye,
    ControlRecord,
    Have,
    PeerOptions,
    Reason,
    Resume,
    encode_bye,
    encode_have,
    encode_have_keepalive,
    encode_options,
)

FRAME = b"f" * 60


class Line:
    """What a session needs of a `Link`; what it wrote, read as the hub would."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.backlog = self.unsent = 0
        self.is_stalled = False
        self.writes: list[bytes] = []
        self.asked: list[Resume] = []
        self._decoder = BlockDecoder(extended=True)

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def takes_super_frames(self) -> None:
        self._decoder = BlockDecoder(extended=True, super_frames=True)

    def ask(self, resume: Resume) -> None:
        self.asked.append(resume)

    def said(self) -> tuple[list[bytes], list[ControlRecord]]:
        """Frames and control records since the last look."""
        self._decoder.controls = []
        frames = self._decoder.feed(b"".join(self.writes))
        self.writes = []
        return frames, self._decoder.controls


def session(line: Line, **settings: Any) -> ExactSession:
    made = ExactSession(Machine(CARD_MOVES, line.number), cast(Link, line), Tally(), Settings(**settings), 0.0)
    made.tick(0.0)
    line.writes.clear()  # the first keep-alive
    return made


def stands(made: ExactSession) -> State:
    return made.machine.state


def give(made: ExactSession, data: bytes, now: float) -> list[bytes]:
    made.heard(now)
    frames = made.receive(data, now)
    made.obey(now)
    return frames


def test_all_frames_of_a_turn_are_one_write() -> None:
    line = Line()
    made = session(line)
    made.send([FRAME] * 3, 1.0)
    made.send([FRAME], 1.0)
    made.pump(1.0)
    assert len(line.writes) == 1
    assert line.said() == ([FRAME] * 4, [])
    assert not made.pending


def test_while_the_socket_is_full_nothing_is_taken_and_nothing_wanted() -> None:
    line = Line()
    made = session(line)
    line.backlog = 1
    assert not made.hungry
    made.send([FRAME], 1.0)
    made.pump(1.0)
    assert line.writes == []
    assert made.machine.out.waiting == 1
    line.backlog = 0
    made.pump(1.0)
    assert line.said()[0] == [FRAME]
    assert made.hungry


def test_what_came_is_acknowledged_after_a_second_or_beside_data() -> None:
    line = Line()
    made = session(line)
    give(made, encode_frames([FRAME] * 2), 1.0)
    made.pump(1.0)
    assert line.writes == []
    assert made.due_at == 2.0
    made.tick(2.0)
    assert line.said() == ([], [Have(2)])
    give(made, encode_frames([FRAME]), 2.5)
    made.send([FRAME], 3.6)
    made.pump(3.6)
    assert len(line.writes) == 1
    assert line.said() == ([FRAME], [Have(3)])


def test_a_quarter_of_a_mebibyte_is_acknowledged_in_the_same_turn() -> None:
    line = Line()
    made = session(line)
    give(made, encode_frames([b"x" * 1500] * 180), 1.0)
    made.pump(1.0)
    assert line.said() == ([], [Have(180)])


def test_a_due_acknowledgement_does_not_wake_a_full_link() -> None:
    line = Line()
    made = session(line)
    give(made, encode_frames([FRAME]), 1.0)
    line.backlog = 1
    made.tick(1.5)
    assert made.due_at == 1.5 + STALL_S  # not the acknowledgement's time
    made.tick(5.0)
    assert line.writes == []
    assert made.due_at == 5.0 + STALL_S


def test_a_stalled_link_is_the_beginning_of_a_cut_and_a_slow_one_is_not() -> None:
    line = Line()
    made = session(line, buffer=4096)
    made.send([FRAME], 1.0)
    made.pump(1.0)
    line.backlog = 1
    assert made.due_at == 1.0 + STALL_S
    made.tick(1.0 + STALL_S)
    assert not made.hungry  # slow: the interface's queue is the one to drop
    line.is_stalled = True
    made.tick(1.0 + 2 * STALL_S)
    assert made.hungry
    while made.hungry:
        made.send([FRAME] * 4, 2.0)
    assert made.machine.out.bytes >= 4096
    kept = made.machine.out.end
    line.backlog = 0
    made.pump(3.0)
    assert line.said()[0] == [FRAME] * kept
    assert not made.hungry  # all of it is unacknowledged
    give(made, encode_have(kept), 3.1)
    assert made.hungry


def test_while_it_catches_up_the_tap_is_read_on_but_not_for_ever() -> None:
    line, other = Line(1), Line(2)
    made = session(line)
    made.lost(cast(Link, line))
    made.send([FRAME] * 100, 1.0)
    made.ask(cast(Link, other))
    made.machine.answered(2, 0)
    made.go_on(cast(Link, other), 2.0)
    other.backlog = 1
    assert made.hungry
    made.send([FRAME] * 40, 2.0)
    other.backlog = 0
    made.pump(2.1)
    other.backlog = 1
    assert not made.hungry  # nothing waits any more: as always
    made.tick(2.2)
    assert made.machine.out.waiting == 0


def test_an_idle_link_carries_a_keepalive_each_interval_with_our_number() -> None:
    line = Line()
    made = session(line)
    give(made, encode_have_keepalive(0, b""), 4.0)
    made.tick(5.0)
    (data,) = line.writes
    assert line.said() == ([], [Have(0)])
    assert 16 <= len(data) <= 8 + 511
    made.send([FRAME], 9.0)
    made.pump(9.0)
    assert made.due_at == 14.0  # anything sent restarts it; and silence is judged then, too


def test_frames_are_kept_until_acknowledged_and_the_bound_stops_the_tap() -> None:
    line = Line()
    made = session(line, buffer=2000)
    while made.hungry:
        made.send([FRAME] * 4, 1.0)
        made.pump(1.0)
    kept = made.machine.out.end
    assert made.machine.out.bytes >= 2000
    give(made, encode_have(kept), 1.1)
    assert made.machine.out.bytes == 0
    assert made.hungry


def test_a_cut_session_takes_frames_up_to_the_bound() -> None:
    line = Line()
    made = session(line, buffer=2000)
    made.lost(cast(Link, line))
    assert stands(made) is State.CUT
    while made.hungry:
        made.send([FRAME], 1.0)
    assert 2000 <= made.machine.out.bytes < 2400
    assert made.due_at == float("inf")


@pytest.mark.parametrize(("silent", "state"), [(9.9, State.ONLINE), (10.0, State.SUSPECT), (14.9, State.SUSPECT)])
def test_silence_makes_it_suspect(silent: float, state: State) -> None:
    made = session(Line())
    made.heard(100.0)
    made.tick(100.0 + silent)
    assert stands(made) is state


def test_any_byte_ends_suspicion() -> None:
    line = Line()
    made = session(line)
    made.tick(10.0)
    made.heard(14.0)  # half a record
    assert stands(made) is State.ONLINE
    made.tick(23.9)
    assert stands(made) is State.ONLINE


def test_longer_silence_is_the_end_of_the_link() -> None:
    made = session(Line())
    with pytest.raises(DialError, match="nothing came from the hub for 15 s"):
        made.tick(15.0)


def test_a_hub_that_speaks_seldom_is_given_time_over_this_link() -> None:
    line = Line()
    made = session(line)
    give(made, encode_options(PeerOptions(20_000)), 0.0)
    made.tick(39.0)
    assert stands(made) is State.ONLINE
    made.tick(40.0)
    assert stands(made) is State.SUSPECT
    with pytest.raises(DialError):
        made.tick(60.0)
    other = Line(2)
    made.lost(cast(Link, line))
    made.ask(cast(Link, other))
    made.machine.answered(2, 0)
    made.go_on(cast(Link, other), 100.0)
    made.tick(110.0)  # the next link's hub has said nothing of that
    assert stands(made) is State.SUSPECT


def test_unusual_times_of_our_own_are_told_on_each_link_and_when_they_change() -> None:
    line = Line()
    made = ExactSession(Machine(CARD_MOVES, 1), cast(Link, line), Tally(), Settings(keepalive=20.0), 0.0)
    assert line.said()[1] == [PeerOptions(20_000)]
    made.apply(Settings(keepalive=30.0), 1.0)
    assert line.said()[1] == [PeerOptions(30_000)]
    made.apply(Settings(keepalive=30.0, dead=60.0, suspect=40.0), 1.0)
    assert line.said()[1] == []
    made.tick(1.0)
    made.tick(39.9)
    assert stands(made) is State.ONLINE
    assert session(Line()).machine.state is State.ONLINE


def test_usual_times_are_not_told() -> None:
    line = Line()
    ExactSession(Machine(CARD_MOVES, 1), cast(Link, line), Tally(), Settings(), 0.0)
    assert line.writes == []


def test_after_a_resume_the_hub_gets_what_it_lacks_and_nothing_twice() -> None:
    line, other = Line(), Line(2)
    made = session(line)
    frames = [bytes([n]) * 60 for n in range(5)]
    made.send(frames[:3], 1.0)
    made.pump(1.0)
    give(made, encode_frames([FRAME]), 1.0)
    made.lost(cast(Link, line))
    made.send(frames[3:], 2.0)
    assert made.ask(cast(Link, other))
    assert other.asked == [Resume(1, 1)]
    assert not made.pending  # else the loop would turn round and round until the answer comes
    assert made.machine.answered(2, 2) == 1
    made.go_on(cast(Link, other), 3.0)
    made.pump(3.0)
    assert other.said()[0] == frames[2:]


def test_a_link_that_works_is_not_replaced() -> None:
    made = session(Line())
    assert not made.ask(cast(Link, Line(2)))


@pytest.mark.parametrize(
    ("reason", "kind", "code"),
    [
        (Reason.STOPPING, DialError, 0),
        (Reason.OFFLINE, Refused, Code.HUB_STOPPING),
        (Reason.REMOVED, Refused, Code.SESSION_REMOVED),
        (Reason.LEFT, DialError, 0),
    ],
)
def test_a_goodbye_of_the_hub_ends_the_session_and_says_why(
    reason: Reason, kind: type[UkihashiError], code: int
) -> None:
    made = session(Line())
    made.heard(1.0)
    assert made.receive(encode_frames([FRAME]) + encode_bye(Bye(reason)), 1.0) == [FRAME]
    with pytest.raises(kind) as caught:
        made.obey(1.0)
    assert getattr(caught.value, "code", 0) == code
    assert made.is_over
    assert not made.hungry


def test_leaving_is_said_over_the_link_that_carries_it() -> None:
    line = Line()
    made = session(line)
    made.leave()
    assert line.said() == ([], [Bye(Reason.LEFT)])
    assert made.is_over
    cut = session(other := Line())
    cut.lost(cast(Link, other))
    cut.leave()
    assert other.writes == []


@pytest.mark.parametrize("data", [encode_have(1), b"\x00\x00\x00\x01\x00\x00\x00\x00"])
def test_a_hub_that_says_what_can_not_be_breaks_the_protocol(data: bytes) -> None:
    made = session(Line())
    with pytest.raises(PeerViolation):
        give(made, data, 1.0)


def test_frames_too_long_for_us_are_counted_as_records_and_dropped() -> None:
    line = Line()
    made = session(line)
    assert give(made, encode_frames([b"x" * 1601, FRAME]), 1.0) == [FRAME]
    made.tick(2.0)
    assert line.said()[1] == [Have(2)]


# -- super-frames, and what waits before it is a record ----------------------------------------------------------------

LONG = SuperFrame(bytes(12) + b"\x08\x00" + bytes(30_000))

SMALL = Batch(encode_frames([FRAME]), 1, 0, 0)


def long_ones(count: int = 1) -> Batch:
    return Batch(encode_frames([LONG] * count), count, count, 0)


def wide(line: Line, **settings: Any) -> ExactSession:
    made = ExactSession(Machine(CARD_MOVES, line.number), cast(Link, line), Tally(), Settings(**settings), 0.0, ALL)
    made.tick(0.0)
    line.writes.clear()
    line.takes_super_frames()
    return made


def test_while_super_frames_come_the_interface_is_read_on_and_a_small_frame_passes_them() -> None:
    line = Line()
    made = wide(line)
    made.send_batch(long_ones(), 1.0)
    made.pump(1.0)
    assert line.said()[0] == [LONG]
    line.backlog = 1
    assert made.hungry
    for _ in range(10):
        made.send_batch(long_ones(), 1.0)
        assert made.to_the_end
        assert made.hungry
    made.send_batch(SMALL, 1.0)
    assert made.machine.out.waiting == 0
    assert made.counted()["ledger"]["waiting"] == 1 + 11
    line.backlog = 0
    assert made.pending
    made.pump(1.1)
    first = line.said()[0]
    assert FRAME in first
    assert len(first) < 5
    while made.pending:
        made.pump(1.2)
    assert line.said()[0] == [LONG] * (11 - len(first))
    line.backlog = 1
    made.send_batch(SMALL, 3.0)
    assert not made.to_the_end
    assert not made.hungry  # none came for a while: as always


def test_what_finds_no_room_before_a_full_link_is_counted() -> None:
    line = Line()
    made = wide(line)
    line.backlog = 1
    for _ in range(100):
        made.send_batch(long_ones(), 1.0)
    assert made.machine.out.end == 0
    waiting = made.counted()["ledger"]["waiting"]
    assert made._tally.crowded == 100 - waiting
    line.backlog = 0
    while made.pending:
        made.pump(1.0)
        line.unsent += 1 << 20
    assert (made._tally.frames_out, made._tally.super_frames_out) == (waiting, waiting)
    assert made._tally.bytes_out == waiting * len(LONG)
    assert QUEUE // 2 < made.counted()["waiting_bytes"] <= QUEUE + len(LONG) + 1000


def test_a_cut_keeps_all_that_waited() -> None:
    line, other = Line(1), Line(2)
    made = wide(line)
    line.backlog = 1
    for _ in range(5):
        made.send_batch(long_ones(), 1.0)
    made.lost(cast(Link, line))
    made.send_batch(SMALL, 1.0)
    assert made.machine.out.end == 6
    made.ask(cast(Link, other))
    made.machine.answered(2, 0)
    made.go_on(cast(Link, other), 2.0)
    other.takes_super_frames()
    while made.pending:
        made.pump(2.0)
    assert other.said()[0] == [LONG] * 5 + [FRAME]


def test_no_more_is_given_than_the_hub_reads_and_a_hub_that_reads_nothing_is_a_cut_that_begins() -> None:
    line = Line()
    made = wide(line)
    given = 0
    while not made._is_ahead:
        made.send_batch(long_ones(2), 1.0)
        made.pump(1.0)
        given += len(line.said()[0])
    assert AHEAD <= given * len(LONG) < AHEAD + 130_000
    made.send_batch(long_ones(), 1.0)
    assert made.machine.out.waiting == 0
    line.unsent = 100_000  # it is the line that is slow, not the hub
    assert made.pending
    line.unsent = 0
    give(made, encode_have(given // 2), 1.1)
    assert made.pending
    made.pump(1.1)
    assert line.said()[0] == [LONG]
    while not made._is_ahead:
        made.send_batch(long_ones(2), 1.1)
        made.pump(1.1)
    assert made.due_at == 1.1 + STALL_S
    made.tick(1.1 + STALL_S)
    end = made.machine.out.end
    made.send_batch(long_ones(), 1.5)
    made.pump(1.5)
    assert made.machine.out.end == end + 1  # kept, and not to be dropped
    assert made.due_at > 2.0
    give(made, encode_have(made.machine.out.cursor), 2.0)
    assert made.pending


def test_what_waits_goes_on_in_the_session_after_this_one() -> None:
    line = Line()
    made = wide(line)
    line.backlog = 1
    for _ in range(3):
        made.send_batch(long_ones(), 1.0)
    assert made.succeed(2, ALL).out.end == 3
