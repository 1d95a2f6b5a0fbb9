"""The session machine: its moves, its numbers, its ledger."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest
from tests.session.world import check_machine

from ukihashi.errors import PeerViolation
from ukihashi.session.machine import (
    ACK_BYTES,
    ACK_S,
    CARD_MOVES,
    HUB_MOVES,
    CannotResume,
    Event,
    Machine,
    Saved,
    Stale,
    State,
)
from ukihashi.session.replay import Batch, Kept
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.extension import Numbers, Resume

ALL: Final = 1 << 30
OLD, NEW, NEWER, OTHER = 1, 2, 3, 99  # links

Action = Callable[[Machine], object]


def card() -> Machine:
    return Machine(CARD_MOVES, OLD)


def hub() -> Machine:
    return Machine(HUB_MOVES, OLD)


def send(machine: Machine, *frames: bytes) -> None:
    machine.send(encode_frames(frames), len(frames))


def taken(machine: Machine) -> list[bytes]:
    return BlockDecoder(extended=True).feed(machine.take(ALL))


# -- moves ------------------------------------------------------------------------------------------------------------

CARD_IN: Final[dict[State, Action]] = {
    State.ONLINE: lambda _: None,
    State.SUSPECT: lambda machine: machine.silent(),
    State.CUT: lambda machine: machine.lost(OLD),
    State.RESUMING: lambda machine: (machine.lost(OLD), machine.ask(OLD)),
    State.ENDED: lambda machine: machine.bye(),
}
HUB_IN: Final[dict[State, Action]] = {
    State.ONLINE: lambda _: None,
    State.CUT: lambda machine: machine.lost(OLD),
    State.ENDED: lambda machine: machine.bye(),
}
CARD_EVENTS: Final[dict[Event, Action]] = {
    Event.SILENT: lambda machine: machine.silent(),
    Event.HEARD: lambda machine: machine.heard(),
    Event.LOST: lambda machine: machine.lost(OLD),
    Event.ASKED: lambda machine: machine.ask(NEW) is not None,
    Event.ANSWERED: lambda machine: machine.answered(OLD, 0) is not None,
    Event.REFUSED: lambda machine: machine.refused(OLD),
    Event.BYE: lambda machine: machine.bye(),
}
HUB_EVENTS: Final[dict[Event, Action]] = {
    Event.LOST: lambda machine: machine.lost(OLD),
    Event.ASKED: lambda machine: machine.asked(NEW, Resume(1, 0)),
    Event.BYE: lambda machine: machine.bye(),
}


@pytest.mark.parametrize("event", CARD_EVENTS)
@pytest.mark.parametrize("state", CARD_IN)
def test_a_card_moves_as_its_table_says_and_else_stays(state: State, event: Event) -> None:
    machine = card()
    CARD_IN[state](machine)
    assert machine.state is state
    happened = CARD_EVENTS[event](machine)
    assert machine.state is CARD_MOVES.get((state, event), state)
    if event is not Event.BYE:
        assert happened is ((state, event) in CARD_MOVES)
    assert (machine.link is None) is (machine.state in {State.CUT, State.ENDED})


@pytest.mark.parametrize("event", HUB_EVENTS)
@pytest.mark.parametrize("state", HUB_IN)
def test_a_hub_moves_as_its_table_says_and_else_stays(state: State, event: Event) -> None:
    machine = hub()
    HUB_IN[state](machine)
    assert machine.state is state
    if (state, event) == (State.ENDED, Event.ASKED):
        with pytest.raises(Stale):
            HUB_EVENTS[event](machine)
    else:
        HUB_EVENTS[event](machine)
    assert machine.state is HUB_MOVES.get((state, event), state)
    assert (machine.link is None) is (machine.state in {State.CUT, State.ENDED})


def test_nothing_leads_out_of_the_end_and_everything_leads_to_it() -> None:
    for moves in (CARD_MOVES, HUB_MOVES):
        states = {state for state, _ in moves} | set(moves.values())
        assert not [event for state, event in moves if state is State.ENDED]
        assert {state for state, event in moves if event is Event.BYE} == states - {State.ENDED}
        assert states == (set(CARD_IN) if moves is CARD_MOVES else set(HUB_IN))


def test_a_hub_suspects_nothing_and_asks_nothing() -> None:
    machine = hub()
    assert not machine.silent()
    assert not machine.heard()
    machine.lost(OLD)
    machine.lost(OLD)
    assert machine.state is State.CUT


@pytest.mark.parametrize("state", CARD_IN)
def test_bytes_belong_to_the_session_only_over_its_link(state: State) -> None:
    machine = card()
    CARD_IN[state](machine)
    assert machine.carries(OLD) is (state in {State.ONLINE, State.SUSPECT})
    assert not machine.carries(OTHER)


@pytest.mark.parametrize("state", CARD_IN)
def test_nothing_is_written_to_a_link_that_does_not_carry(state: State) -> None:
    machine = card()
    send(machine, b"x")
    CARD_IN[state](machine)
    assert bool(machine.take(ALL)) is (state in {State.ONLINE, State.SUSPECT})
    assert machine.ledger.sent == (state in {State.ONLINE, State.SUSPECT})


def test_a_link_that_does_not_matter_may_go() -> None:
    machine = card()
    assert not machine.lost(OTHER)
    assert machine.lost(OLD)
    assert not machine.lost(OLD)
    machine.ask(NEW)
    assert not machine.lost(OLD)
    assert machine.ask(NEWER) == Resume(2, 0)
    assert not machine.lost(NEW)
    assert (machine.state, machine.link, machine.ledger.cuts) == (State.RESUMING, NEWER, 1)


# -- acknowledgements -------------------------------------------------------------------------------------------------


def test_an_acknowledgement_is_due_after_a_second() -> None:
    machine = card()
    assert machine.ack_at is None
    assert machine.ack(50.0) is None
    machine.received(3, 100, 10.0)
    assert machine.ack_at == 10.0 + ACK_S
    machine.received(2, 100, 10.5)
    assert machine.ack(10.9) is None
    assert machine.ack_at == 10.0 + ACK_S, "counted from the first"
    assert machine.ack(11.0) == 5
    assert (machine.ack(99.0), machine.ack_at) == (None, None)
    machine.received(1, 100, 12.0)
    assert machine.ack(13.0) == 6


def test_an_acknowledgement_is_due_after_many_bytes() -> None:
    machine = hub()
    machine.received(100, ACK_BYTES - 1, 0.0)
    assert machine.ack(0.0) is None
    machine.received(1, 1, 0.0)
    assert machine.ack(0.0) == 101
    machine.received(1, 1, 0.0)
    assert machine.ack(0.0) is None, "counted anew"


def test_a_keepalive_acknowledges_too() -> None:
    machine = card()
    assert machine.acknowledge() == 0
    machine.received(4, ACK_BYTES, 0.0)
    assert machine.acknowledge() == 4
    assert machine.ack(9.0) is None


def test_what_is_no_record_is_not_acknowledged() -> None:
    """Else two idle ends would answer each other's acknowledgements for ever."""
    machine = card()
    machine.received(0, ACK_BYTES, 0.0)
    assert (machine.ack_at, machine.ack(9.0), machine.have) == (None, None, 0)


def test_without_a_link_no_acknowledgement_is_due() -> None:
    machine = card()
    machine.received(4, ACK_BYTES, 0.0)
    machine.lost(OLD)
    assert (machine.ack_at, machine.ack(9.0)) == (None, None)
    assert machine.ask(NEW) == Resume(1, 4)
    assert machine.answered(NEW, 0) == 0
    machine.received(1, 1, 20.0)
    assert machine.ack_at == 20.0 + ACK_S


def test_the_peers_acknowledgement_lets_go() -> None:
    machine = card()
    send(machine, b"a", b"b")
    send(machine, b"c")
    machine.take(1)
    machine.acknowledged(1)
    assert (machine.ledger.acknowledged, machine.out.first) == (1, 1)
    with pytest.raises(PeerViolation):
        machine.acknowledged(3)
    with pytest.raises(PeerViolation):
        machine.acknowledged(0)
    check_machine(machine)
    assert machine.ledger.acknowledged == 1


# -- resume, card -----------------------------------------------------------------------------------------------------


def test_a_card_asks_with_what_it_has_and_goes_on_from_the_answer() -> None:
    machine = card()
    send(machine, b"a", b"b", b"c")
    send(machine, b"d")
    machine.take(1)
    machine.received(7, 100, 0.0)
    machine.lost(OLD)
    assert machine.ask(NEW) == Resume(1, 7)
    assert machine.ack_at is None, "the request says it"
    assert machine.answered(NEW, 1) == 2
    assert (machine.state, machine.link) == (State.ONLINE, NEW)
    assert taken(machine) == [b"b", b"c", b"d"]
    assert machine.ledger.row(0) | {"dropped": 0} == {
        "sent": 4,
        "acknowledged": 1,
        "waiting": 0,
        "replayed": 2,
        "received": 7,
        "cuts": 1,
        "resumes": 1,
        "lost": 0,
        "dropped": 0,
    }
    check_machine(machine)


def test_a_suspect_link_that_is_replaced_was_cut() -> None:
    machine = card()
    machine.silent()
    assert machine.carries(OLD)
    assert machine.ask(NEW) is not None
    assert not machine.carries(OLD), "from here on it is read no more"
    assert machine.ledger.cuts == 1
    assert not machine.heard(), "whatever it says now"
    machine.lost(NEW)
    assert (machine.state, machine.ledger.cuts) == (State.CUT, 1), "still the same cut"


def test_a_suspicion_that_was_wrong_leaves_no_trace() -> None:
    machine = card()
    assert machine.silent()
    assert not machine.silent(), "no news"
    assert machine.heard()
    assert not machine.heard()
    assert machine.ask(NEW) is None
    assert (machine.state, machine.link, machine.attempt, machine.ledger.cuts) == (State.ONLINE, OLD, 0, 0)


def test_only_the_newest_request_is_answered() -> None:
    machine = card()
    send(machine, b"a")
    machine.take(1)
    machine.lost(OLD)
    assert machine.ask(NEW) == Resume(1, 0)
    assert machine.ask(NEWER) == Resume(2, 0)
    assert machine.answered(NEW, 1) is None
    assert not machine.refused(NEW)
    assert (machine.state, machine.out.first) == (State.RESUMING, 0)
    assert machine.answered(NEWER, 1) == 0
    assert machine.answered(NEWER, 1) is None, "an answer is given once"
    assert machine.ledger.resumes == 1


@pytest.mark.parametrize("have", [0, 3])
def test_an_answer_that_cannot_be_ends_the_session(have: int) -> None:
    machine = card()
    send(machine, b"a", b"b")
    send(machine, b"never sent")
    machine.take(1)
    machine.acknowledged(1)
    machine.lost(OLD)
    machine.ask(NEW)
    with pytest.raises(PeerViolation, match=f"records from {have} on, but the card holds 1 to 2"):
        machine.answered(NEW, have)
    assert (machine.state, machine.link) == (State.ENDED, None)
    heir = machine.succeed(NEWER)
    assert taken(heir) == [b"never sent"]
    check_machine(heir)


def test_after_a_refusal_a_fresh_session_carries_on_with_what_was_never_sent() -> None:
    machine = card()
    send(machine, b"a", b"b", b"c")
    machine.take(1)
    machine.acknowledged(1)
    send(machine, b"d", b"e")
    send(machine, b"f")
    machine.received(5, 100, 0.0)
    machine.lost(OLD)
    machine.ask(NEW)
    assert machine.refused(NEW)
    assert (machine.state, machine.link) == (State.ENDED, None)
    heir = machine.succeed(NEWER)
    assert (heir.state, heir.link, heir.attempt, heir.have) == (State.ONLINE, NEWER, 0, 0), "counted from 0 again"
    assert (heir.ledger.lost, heir.ledger.sent, heir.ledger.received) == (2, 3, 5), "the ledger goes on"
    assert taken(heir) == [b"d", b"e", b"f"]
    heir.acknowledged(3)
    check_machine(heir)
    row = heir.ledger.row(0)
    assert (row["sent"], row["acknowledged"], row["lost"]) == (6, 4, 2)
    assert heir.lost(NEWER)
    assert heir.ask(100) == Resume(1, 0)


def test_an_end_on_purpose_counts_what_was_under_way_as_lost() -> None:
    machine = card()
    send(machine, b"a")
    machine.take(1)
    machine.bye()
    machine.bye()
    assert machine.state is State.ENDED
    heir = machine.succeed(NEW)
    assert (heir.ledger.lost, heir.out.bytes, taken(heir)) == (1, 0, [])


# -- resume, hub ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noticed", [True, False])
def test_a_hub_answers_with_what_it_has_and_goes_on_from_the_request(noticed: bool) -> None:
    machine = hub()
    send(machine, b"a", b"b")
    machine.take(1)
    machine.received(4, 100, 0.0)
    if noticed:
        machine.lost(OLD)
    assert machine.asked(NEW, Resume(1, 1)) == 4
    assert (machine.state, machine.link, machine.attempt) == (State.ONLINE, NEW, 1)
    assert machine.ack_at is None, "the answer says it"
    assert not machine.carries(OLD)
    assert machine.carries(NEW)
    assert taken(machine) == [b"b"]
    ledger = machine.ledger
    assert (ledger.cuts, ledger.resumes, ledger.replayed, ledger.acknowledged) == (1, 1, 1, 1)
    assert not machine.lost(OLD), "the close of the old connection is no cut of the new one"
    check_machine(machine)


@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_a_request_that_was_overtaken_changes_nothing(attempt: int) -> None:
    machine = hub()
    send(machine, b"a")
    machine.take(1)
    machine.asked(NEW, Resume(2, 0))
    before = machine.save()
    for call in (machine.check, lambda resume: machine.asked(OTHER, resume)):
        with pytest.raises(Stale, match=f"attempt {attempt} came after attempt 2"):
            call(Resume(attempt, 1))
    assert (machine.save(), machine.state, machine.link) == (before, State.ONLINE, NEW)


@pytest.mark.parametrize("have", [0, 3, 4])
def test_a_request_for_what_is_not_held_says_the_numbers(have: int) -> None:
    machine = hub()
    send(machine, b"a", b"b")
    machine.take(1)
    machine.acknowledged(1)
    send(machine, b"never sent")
    machine.received(9, 100, 0.0)
    machine.lost(OLD)
    before = machine.save()
    for call in (machine.check, lambda resume: machine.asked(OTHER, resume)):
        with pytest.raises(CannotResume, match=f"asks for records from {have} on, but the hub holds 1 to 2") as caught:
            call(Resume(1, have))
        assert caught.value.numbers == Numbers(attempt=0, have=9, first=1, end=2)
    assert (machine.save(), machine.state) == (before, State.CUT)
    machine.check(Resume(1, 1))
    machine.check(Resume(1, 2))


def test_a_buffer_that_was_given_up_is_counted_and_ends_what_lacks_some_of_it() -> None:
    machine = hub()
    send(machine, b"a", b"b")
    machine.take(1)
    machine.acknowledged(1)
    send(machine, b"c")
    machine.lost(OLD)
    machine.lose("resume_memory")
    assert machine.out.bytes == 0
    assert (machine.ledger.lost, machine.ledger.dropped) == (1, Counter(resume_memory=1))
    check_machine(machine)
    for have in (1, 2):
        with pytest.raises(CannotResume):
            machine.check(Resume(1, have))
    machine.lose("resume_memory")
    assert (machine.ledger.lost, machine.ledger.dropped) == (1, Counter(resume_memory=1)), "counted once"


def test_a_card_that_had_everything_goes_on_though_the_buffer_was_given_up() -> None:
    machine = hub()
    send(machine, b"a", b"b")
    machine.take(1)
    machine.lost(OLD)
    machine.lose("resume_memory")
    send(machine, b"c")
    assert machine.asked(NEW, Resume(1, 2)) == 0
    assert taken(machine) == [b"c"]
    machine.acknowledged(3)
    check_machine(machine)
    assert (machine.ledger.sent, machine.ledger.acknowledged, machine.ledger.lost) == (3, 1, 2)


# -- another process --------------------------------------------------------------------------------------------------


def test_another_process_goes_on_where_this_one_stood() -> None:
    machine = hub()
    send(machine, b"a", b"b", b"c")
    machine.take(1)
    machine.acknowledged(1)
    send(machine, b"d")
    machine.received(5, 100, 0.0)
    machine.ledger.dropped["full"] += 3
    machine.asked(NEW, Resume(4, 2))
    machine.lost(NEW)
    saved = machine.save()
    other = Machine.restore(HUB_MOVES, saved)
    assert (other.state, other.link, other.attempt, other.have, other.ack_at) == (State.CUT, None, 4, 5, None)
    assert other.ledger == machine.ledger
    assert other.ledger is not machine.ledger
    assert other.save() == saved
    check_machine(other)
    with pytest.raises(Stale):
        other.check(Resume(4, 2))
    assert other.asked(OLD, Resume(5, 2)) == 5
    assert taken(other) == [b"c", b"d"]
    assert (other.ledger.sent, other.ledger.replayed, other.ledger.resumes) == (4, 1, 2)
    other.ledger.dropped["full"] += 1
    assert machine.ledger.dropped["full"] == 3


def test_what_is_saved_is_plain() -> None:
    """It goes through a socket to the next process."""
    machine = hub()
    send(machine, b"a")
    machine.lose("resume_memory")
    send(machine, b"b")
    machine.lost(OLD)
    saved = machine.save()
    assert all(isinstance(batch.data, bytes) for batch in saved.kept.batches)
    numbers = [saved.have, saved.attempt, saved.kept.first, saved.kept.high, [b.records for b in saved.kept.batches]]
    have, attempt, first, high, records = json.loads(json.dumps(numbers))
    data = [batch.data for batch in saved.kept.batches]
    kept = Kept(first, high, tuple(map(Batch, data, records)))
    again = Machine.restore(HUB_MOVES, Saved(have, attempt, kept, json.loads(json.dumps(saved.ledger))))
    assert again.save() == saved
    assert taken(again) == []
    assert again.asked(NEW, Resume(1, 1)) == 0
    assert taken(again) == [b"b"]


def test_the_ledger_as_a_row_says_what_waits_and_copies_the_drops() -> None:
    machine = card()
    machine.ledger.dropped["full"] += 2
    row = machine.ledger.row(7)
    assert (row["waiting"], row["dropped"]) == (7, {"full": 2})
    row["dropped"]["full"] = 0
    assert machine.ledger.dropped["full"] == 2
    assert json.loads(json.dumps(row)) == row
