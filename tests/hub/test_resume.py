"""Exact resume at the hub: what a cut may not cost, whatever is cut and when, and what ends a session for good."""

import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hub.cards import QUICK, Card, Field, Refused, frame, number_of

from ukihashi.config.hub import HubConfig, Times
from ukihashi.config.hub import Resume as ResumeOptions
from ukihashi.ether import arp
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import HubPut, SessionClosed, SessionCut, SessionResumed
from ukihashi.hub.saved import SavedSession
from ukihashi.wire.blocks import encode_frames, encode_keepalive
from ukihashi.wire.extension import (
    Bye,
    PeerOptions,
    Reason,
    Resume,
    encode_bye,
    encode_have,
    encode_have_keepalive,
    encode_options,
)
from ukihashi.wire.http import pack_request
from ukihashi.wire.messages import AdditionalConnect, ErrorAnswer, Login

KIB = 1024


def pair(field: Field, **login: Any) -> tuple[Card, Card]:
    """Two cards that know each other's place."""
    a, b = field.card("a", **login), field.card("b")
    a.send(frame(0, 1))
    field.until(lambda: b.got, "hello of a")
    b.send(frame(0, 2))
    field.until(lambda: a.got, "hello of b")
    field.after(1.0)  # the acknowledgements
    field.quiet()
    a.got.clear()
    b.got.clear()
    return a, b


# -- what is granted ----------------------------------------------------------------------------------------------


def test_resume_is_granted_to_who_asks_for_it(field: Field) -> None:
    card = field.card(max_connection=8)
    assert (card.welcome.extension, card.welcome.grace_s, card.welcome.max_connection) == (1, 300, 1)
    row = field.session(card).row(field.clock())
    assert (row["state"], row["resumes"], row["cut_s"], row["grace_left_s"]) == ("online", 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("login", "extension"),
    [
        ({"extension": 0, "extension_oldest": 0}, 0),
        ({"extension": 0, "extension_oldest": 0, "resume": False}, 0),
        ({"resume": False}, 1),
    ],
)
def test_who_speaks_no_resume_gets_what_there_was_before(field: Field, login: dict[str, Any], extension: int) -> None:
    card = field.card(max_connection=2, **login)
    assert (card.welcome.extension, card.welcome.grace_s, card.welcome.max_connection) == (extension, 0, 2)
    card.say(encode_keepalive(b"") + encode_frames([frame(0, 1)]) + bytes(4))  # a keep-alive without a number
    session = field.sessions.named("", card.welcome.session_name)
    assert session is not None
    field.until(lambda: session.count.frames_in == 1, "the frame")
    assert card.link is not None
    card.link.drop()
    field.until(lambda: not session.tunnels, "the cut")
    row = session.row(field.clock())
    assert (row["state"], row["grace_left_s"], row["ledger"]) == ("cut", 20.0, {"dropped": {}})
    answer = card.dial().pack(card.request(None))
    assert answer.get_int("error") == 0
    assert "ukihashi_have" not in answer


def test_a_resumable_session_has_one_connection(field: Field) -> None:
    card = field.card()
    assert card.dial().pack(card.request(None)).get_int("error") == 15


def test_an_unknown_newer_version_speaks_ours_and_one_too_far_is_told(field: Field) -> None:
    assert field.card("a", extension=2, extension_oldest=1).welcome.grace_s == 300
    with pytest.raises(Refused) as refused:
        field.card("b", extension=2, extension_oldest=2)
    assert refused.value.code == 87
    assert "2 to 2" in str(field.told[-1])


# -- exactness ----------------------------------------------------------------------------------------------------


def test_what_was_sent_into_a_cut_comes_once_and_in_order(field: Field) -> None:
    a, b = pair(field)
    a.cut()
    b.send(*(frame(1, 2, number) for number in range(100)))  # the hub writes some into the dead link
    a.send(*(frame(2, 1, number) for number in range(100)))
    field.until(lambda: field.events(SessionCut), "the cut")
    b.send(*(frame(1, 2, number) for number in range(100, 200)))
    a.resume()
    field.until(lambda: len(a.got) >= 200 and len(b.got) >= 100, "everything")
    field.quiet()
    assert a.numbers == list(range(200))
    assert b.numbers == list(range(100))
    row = field.session(a).row(field.clock())
    assert row["ledger"]["received"] == 101
    assert (row["resumes"], row["ledger"]["cuts"], row["ledger"]["lost"], row["drops"]) == (1, 1, 0, {})
    (resumed,) = field.events(SessionResumed)
    assert (resumed.session, resumed.user) == ("SID-A-1", "a")


def test_what_a_card_has_kept_is_taken_no_faster_than_another_takes_it(field: Field) -> None:
    """6 MiB come at once after a cut, for a member whose queue holds 512 KiB and who reads slowly."""
    a, b = pair(field)
    assert b.link is not None
    field.session(b).tunnels[-1].connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
    field.cards.remove(b)
    slow, waiting = b.link, 0
    ahead = field.clock.now - time.monotonic()

    def step() -> bool:
        nonlocal waiting
        field.clock.now = ahead + time.monotonic()
        field.turn()
        waiting = max(waiting, field.session(b).queue.bytes)
        with suppress(BlockingIOError):
            slow.plain += slow.tls.receive(slow.sock.recv(32 * KIB))
        b.feed(slow)
        return len(b.got) >= 4000

    field.cut(a)
    a.machine.send(encode_frames(sent := [frame(2, 1, number, 1500) for number in range(4000)]), len(sent))
    a.wait = step
    link = a.dial()
    link.wait = step
    a.ask(link)
    a.answered(link)
    link.until(step, "everything")
    assert b.numbers == list(range(4000))
    assert waiting > 128 * KIB
    assert field.session(b).drops.total() == 0
    field.cards.append(b)


def test_the_first_replayed_frame_leaves_in_the_turn_of_the_answer(field: Field) -> None:
    a, b = pair(field)
    field.cut(a)
    b.send(frame(1, 2, 7))
    field.quiet()
    link = a.dial()
    resume = a.machine.ask(link.number)
    assert resume is not None
    link.write(pack_request(link.http, a.request(resume)))
    writes = field.session(a).count.tls_writes
    field.until(lambda: field.session(a).tunnels, "the answer")
    assert field.session(a).count.tls_writes == writes + 1


@pytest.mark.parametrize("seed", range(6))
def test_cuts_at_every_stage_lose_double_and_reorder_nothing(field: Field, seed: int) -> None:
    chance = random.Random(seed)
    a, b = pair(field)
    sent = {a: 0, b: 0}

    def offer(card: Card, to: int, by: int) -> list[bytes]:
        count = chance.randrange(1, 30)
        frames = [frame(to, by, sent[card] + at, chance.choice((18, 60, 700, 1514))) for at in range(count)]
        sent[card] += count
        card.machine.send(encode_frames(frames), count)
        return frames

    def stage(card: Card) -> None:
        """One cut and whatever led to it."""
        kind = chance.randrange(8)
        if card.link is None:
            return
        if kind == 0:
            card.flush_part(chance.random())  # inside a record
        elif kind == 1:
            card.flush()
            card.cut(reset=chance.random() < 0.5)
        elif kind == 2:  # the answer is never read
            card.flush()
            link = card.dial() if chance.random() < 0.5 else None
            card.cut()
            link = link or card.dial()
            card.ask(link)
            for _ in range(chance.randrange(4)):
                field.turn()
            link.drop(reset=chance.random() < 0.5)
            card.machine.lost(link.number)
        elif kind == 3:  # the request never gets there whole
            card.cut()
            link = card.dial()
            resume = card.machine.ask(link.number)
            assert resume is not None
            request = pack_request(link.http, card.request(resume))
            link.write(request[: chance.randrange(len(request))])
            link.drop()
            card.machine.lost(link.number)
        elif kind == 4:  # the hub notices before the card does
            field.session(card).tunnels[0].connection.abort("the test says so")
            card.flush()
        elif kind == 5:  # both
            card.flush()
            for tunnel in field.session(card).tunnels:
                tunnel.connection.abort("the test says so")
            card.cut()
        elif kind == 6:  # the new link is there while the old one works
            old = card.link
            assert old is not None
            card.machine.silent()
            card.ask(card.dial())
            card.answered(card.links[-1])
            if not old.ended:
                old.write(encode_frames([frame(2, 1, 999999)]))  # back from the dead
        else:
            card.flush()
        for _ in range(chance.randrange(3)):
            field.turn()

    for _ in range(40):
        for card, to, by in ((a, 2, 1), (b, 1, 2)):
            offer(card, to, by)
        card = chance.choice((a, b))
        stage(card)
        for one in (a, b):
            one.pump()
            if one.machine.link is None:
                if chance.random() < 0.7:
                    one.resume()
            else:
                one.flush()
        if chance.random() < 0.3:
            field.clock.now += 1.1  # acknowledgements fall due
            field.turn()
    for card in (a, b):
        card.pump()
        if card.machine.link is None:
            card.resume()
        card.flush()

    def arrived() -> bool:
        for card in (a, b):
            if card.machine.link is None:  # what the hub cut last is noticed only now
                card.resume()
                card.flush()
        return len(a.got) >= sent[b] and len(b.got) >= sent[a]

    field.until(arrived, "everything")
    field.after(1.1)
    field.quiet()
    assert a.numbers == list(range(sent[b]))
    assert b.numbers == list(range(sent[a]))
    for card, other in ((a, b), (b, a)):
        session = field.session(card)
        ledger = session.row(field.clock())["ledger"]
        assert ledger["received"] == card.machine.ledger.sent == sent[card] + 1
        assert card.machine.ledger.received == ledger["sent"] == sent[other] + 1
        assert (ledger["lost"], ledger["dropped"]) == (0, {})
        assert ledger["cuts"] == ledger["resumes"]


def test_a_partial_record_at_a_cut_never_counts(field: Field) -> None:
    a, b = pair(field)
    session = field.session(a)
    have = session.machine.have
    batch = encode_frames([frame(2, 1, 1), frame(2, 1, 2)])
    a.say(batch[:-1])
    field.until(lambda: b.got, "the whole one")
    assert session.machine.have == have + 1


def test_a_record_that_the_switch_drops_counts_all_the_same(field: Field) -> None:
    a, b = pair(field)
    a.send(frame(2, 1, 0, 3200), b"short", frame(1, 1), frame(2, 1, 5))
    field.until(lambda: b.got, "the good one")
    assert [number_of(one) for one in b.got] == [5]
    assert field.session(a).machine.have == 5
    assert field.session(a).row(field.clock())["ledger"]["dropped"] == {"size": 2, "source": 1}


def test_acknowledgements_come_after_a_second_or_256_kib(field: Field) -> None:
    a, b = pair(field)
    field.after(1.0)
    field.quiet()
    a.send(frame(2, 1, 1))
    field.until(lambda: b.got, "the frame")
    field.quiet()
    assert a.machine.out.bytes > 0
    field.after(1.0)
    field.until(lambda: not a.machine.out.bytes, "the acknowledgement")
    a.send(*[frame(2, 1, 1, 1514)] * 200)
    # of as many as had come by then; the last few may have come after it
    field.until(lambda: a.machine.ledger.acknowledged > 170, "the acknowledgement, while no time passes")


def test_an_idle_session_is_silent_but_for_its_keepalives(field: Field) -> None:
    a, _ = pair(field)
    field.after(1.0)  # the last acknowledgements
    field.quiet()
    assert a.link is not None
    before, keepalives = a.link.came, a.link.decoder.keepalives
    for _ in range(60):
        field.after(1.0)
        if int(field.clock()) % 5 == 0:
            for card in field.cards:
                card.say(encode_have_keepalive(card.machine.acknowledge(), b"x" * 99))
        field.quiet()
    assert 11 <= a.link.decoder.keepalives - keepalives <= 13
    assert a.link.came - before <= 13 * 520
    assert len(field.sessions) == 2


@pytest.mark.parametrize("login", [{}, {"extension": 0, "resume": False}], ids=["resume", "standard"])
@pytest.mark.parametrize("good", [True, False])
def test_what_comes_right_behind_the_login_is_the_tunnels(field: Field, login: dict[str, Any], good: bool) -> None:
    """In one read with it. What can't be read costs this connection, and nothing else."""
    b = field.card("b")
    card = field.card("a", joined=False)
    link = card.dial()
    field.cards.remove(card)
    values: dict[str, Any] = {"extension": 1, "extension_oldest": 1, "resume": True, **login}
    request = pack_request(link.http, Login("LAN", "a", 2, plain_password="x", **values).to_pack(b""))
    link.write(request + (encode_frames([frame(0, 1, 5)]) if good else b"\0\0\0\1\xff\xff\xff\xff"))
    if good:
        field.until(lambda: b.numbers == [5], "the frame")
    else:
        link.until(lambda: link.ended, "the end")
        assert link.ended == "close_notify"
    assert len(field.sessions) == 2
    link.drop()


# -- attempts -----------------------------------------------------------------------------------------------------


def test_a_stale_attempt_changes_nothing(field: Field) -> None:
    a, b = pair(field)
    a.cut()
    a.resume()
    late = a.dial()
    answer = ErrorAnswer.from_pack(late.pack(a.request(Resume(1, 0))))
    assert answer.code == 14
    assert answer.numbers is not None
    assert (answer.numbers.attempt, answer.numbers.have) == (1, 1)
    late.until(lambda: late.ended, "the end of that dial")
    assert late.ended == "close_notify"
    b.send(frame(1, 2, 1))
    field.until(lambda: a.got, "the session goes on")
    assert len(field.session(a).tunnels) == 1


def test_the_newer_of_two_dials_wins_whichever_comes_first(field: Field) -> None:
    a, b = pair(field)
    a.cut()
    slow, fast = a.dial(), a.dial()
    early = a.machine.ask(slow.number)
    assert early is not None
    a.ask(fast)
    a.answered(fast)
    assert ErrorAnswer.from_pack(slow.pack(a.request(early))).code == 14
    b.send(frame(1, 2, 1))
    a.send(frame(2, 1, 1))
    field.until(lambda: a.got and b.got, "the session goes on")


def test_a_link_that_is_back_from_the_dead_does_no_harm(field: Field) -> None:
    a, b = pair(field)
    old = a.link
    assert old is not None
    session = field.session(a)
    stage = session.tunnels[0]
    a.machine.silent()
    link = a.dial()
    a.machine.send(encode_frames([frame(2, 1, 1)]), 1)
    old.tls.send(a.machine.take(65536))
    resume = a.machine.ask(link.number)
    assert resume is not None
    # both are ready in the same turn: what the old link brings counts before the answer
    link.tls.send(pack_request(link.http, a.request(resume)))
    old.flush()
    link.flush()
    field.until(lambda: session.machine.attempt == 1, "the resume")
    have = session.machine.have
    assert have == 2
    a.answered(link)
    assert a.machine.out.first == have
    old.tls.send(encode_frames([frame(2, 1, 2)]))
    old.flush()
    field.quiet()
    stage.received(encode_frames([frame(2, 1, 3)]), field.clock())  # even if somebody still held on to it
    assert session.machine.have == have
    assert len(b.got) == have - 1
    old.until(lambda: old.ended, "the old link's end")
    assert old.ended == "close_notify"


def test_the_replaced_link_is_let_go_after_its_linger(field: Field) -> None:
    a, _ = pair(field)
    old = a.link
    assert old is not None
    a.machine.silent()
    a.resume()
    assert len(field.wiring.lingering) == 1
    field.after(0.1)
    assert len(field.wiring.lingering) == 1
    field.after(0.2)
    assert len(field.wiring.lingering) == 0


def test_what_can_not_be_resumed_ends(field: Field) -> None:
    a, _ = pair(field)
    a.cut()
    answer = ErrorAnswer.from_pack(a.dial().pack(a.request(Resume(1, 77))))
    assert answer.code == 13
    assert answer.numbers is not None
    assert (answer.numbers.have, answer.numbers.first, answer.numbers.end) == (1, 1, 1)
    (closed,) = field.events(SessionClosed)
    assert closed.reason.startswith("can't be resumed: ")
    assert "77" in closed.reason
    assert a.dial().pack(a.request(Resume(2, 1))).get_int("error") == 13


def test_a_wrong_key_resumes_nothing(field: Field) -> None:
    a, _ = pair(field)
    a.key = bytes(20)
    answer = ErrorAnswer.from_pack(a.dial().pack(a.request(Resume(1, 0))))
    assert (answer.code, answer.numbers) == (13, None)
    assert field.session(a).tunnels


def test_an_impossible_acknowledgement_cuts_and_does_not_end(field: Field) -> None:
    a, b = pair(field)
    a.say(encode_have(1 << 40))
    field.until(lambda: field.events(SessionCut), "the cut")
    b.send(frame(1, 2, 1))
    a.machine.lost(len(a.links))
    a.resume()
    field.until(lambda: a.got, "the frame")


def test_an_acknowledgement_that_had_to_wait_is_not_behind_a_later_one(field: Field) -> None:
    """The link is full when one is due; in the turn in which there is room again a keep-alive is due, too."""
    a, b = pair(field)
    session, deaf = field.session(a), a.link
    assert deaf is not None
    connection = session.tunnels[-1].connection
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
    deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    field.cards.remove(a)
    while session.queue.bytes < 100 * KIB:  # so the kernel's buffers are full, too
        b.send(*[frame(1, 2, 0, 1514)] * 20)
        field.quiet()
    while session.machine.ledger.received < 200:  # 256 KiB, and some
        a.machine.send(encode_frames([frame(2, 1, 0, 1514)] * 7), 7)
        deaf.tls.send(a.machine.take(64 * KIB))
        deaf.flush()
        field.turn()
    assert connection.backlog
    deaf.read()
    field.cards.append(a)
    field.after(5.0)
    field.until(lambda: session.machine.out.bytes == 0 or not session.tunnels, "the end of what waited")
    assert a.machine.out.first == a.machine.out.end


# -- the end ------------------------------------------------------------------------------------------------------


def test_after_a_goodbye_nothing_is_heard(field: Field) -> None:
    a, _ = pair(field)
    a.say(encode_bye(Bye(Reason.LEFT, "good night")) + encode_have(1 << 40) + encode_options(PeerOptions(1000)))
    (closed,) = field.until(lambda: field.events(SessionClosed), "the end")
    assert closed.reason == "the card left: good night"
    assert not field.events(SessionCut)


def test_a_card_that_leaves_frees_its_place_at_once(field: Field) -> None:
    a, _ = pair(field)
    link = a.link
    assert link is not None
    a.say(encode_have(1) + encode_bye(Bye(Reason.LEFT, "")))
    (closed,) = field.until(lambda: field.events(SessionClosed), "the end")
    assert (closed.session, closed.reason, closed.lost) == ("SID-A-1", "the card left", 0)
    assert len(field.sessions) == 1
    link.until(lambda: link.ended, "the hub's close")
    assert link.ended == "close_notify"
    field.quiet()
    assert field.sessions.memory.used == field.session(field.cards[1]).held
    assert len(field.sessions.memory) == 1


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda field: field.sessions.put_hub(HubPut("LAN", online=False)), Reason.OFFLINE),
        (lambda field: field.sessions.remove_hub("LAN"), Reason.OFFLINE),
        (lambda field: [one.close("x", Reason.REMOVED) for one in field.sessions], Reason.REMOVED),
    ],
    ids=["offline", "deleted", "removed"],
)
def test_a_hub_that_ends_a_session_says_so(field: Field, end: Callable[[Field], object], reason: Reason) -> None:
    a, _ = pair(field)
    a.send(frame(2, 1, 1))
    field.quiet()
    end(field)
    field.until(lambda: a.byes, "the goodbye")
    assert a.byes[0].reason == reason
    assert a.machine.out.bytes == 0  # it was told what had come, so that it knows what is lost
    assert a.dial().pack(a.request(Resume(1, 1))).get_int("error") == 13


def test_a_stop_and_an_order_are_said_by_the_worker(hub: Any) -> None:
    a = Card("a", hub.address, lambda: None, lambda: 0.0)
    b = Card("b", hub.address, lambda: None, lambda: 0.0)
    for card in (a, b):
        card.join()

    def goodbye(card: Card) -> Bye:
        assert card.link is not None
        link = card.link
        link.until(lambda: link.ended, "the end")
        card.feed(link)
        assert link.ended == "close_notify"
        link.drop()
        return card.byes[0]

    assert hub.control.rows("disconnect", "LAN", "SID-A-1")
    assert goodbye(a) == Bye(Reason.REMOVED, "ended by the admin")
    hub.stop()
    assert goodbye(b) == Bye(Reason.STOPPING, "the hub stops")


def test_the_grace_runs_from_the_cut_and_then_everything_is_free(field: Field) -> None:
    a, b = pair(field)
    field.cut(a)
    b.send(frame(1, 2, 1))
    field.quiet()
    field.clock.now += 14.0
    b.say(encode_have_keepalive(b.machine.acknowledge(), b""))
    field.quiet()
    row = field.session(a).row(field.clock())
    assert (row["state"], row["cut_s"], row["grace_left_s"], row["connections"]) == ("cut", 14.0, 286.0, 0)
    assert row["waiting_bytes"] > 0
    for _ in range(28):
        field.clock.now += 10.0
        b.say(encode_have_keepalive(b.machine.acknowledge(), b""))
        field.quiet()
    assert not field.events(SessionClosed)
    field.clock.now += 6.0
    field.quiet()
    (closed,) = field.events(SessionClosed)
    assert (closed.reason, closed.dropped) == ("its card did not come back", 1)
    assert field.sessions.memory.used == field.session(b).held
    assert [row["session"] for row in field.sessions.hubs["lan"].mac_rows(field.clock())] == ["SID-B-2"]
    assert a.dial().pack(a.request(Resume(1, 1))).get_int("error") == 13


@pytest.mark.slow
def test_grace_and_dead_time_by_the_clock_on_the_wall(make_hub: Callable[..., Any], until: Callable[..., Any]) -> None:
    hub = make_hub(replace(QUICK, idle_s=0.5, first_s=0.25, dead_s=1.5, grace_s=1.0))
    card = Card("a", hub.address, lambda: None, time.monotonic)
    card.join()
    assert card.welcome.grace_s == 1
    card.say(encode_options(PeerOptions(500)))  # else it would be given time for three of the usual keep-alives
    began = time.monotonic()
    until(lambda: hub.control.events(SessionCut), "the cut")
    assert time.monotonic() - began > 1.4
    until(lambda: hub.control.events(SessionClosed), "the end")
    assert time.monotonic() - began > 2.4
    for link in card.links:
        link.drop()


def test_a_session_over_which_nothing_ever_came_gets_no_grace(field: Field) -> None:
    card = field.card()
    field.cut(card)
    assert field.session(card).row(field.clock())["grace_left_s"] == 20.0
    field.after(19.9)
    assert not field.events(SessionClosed)
    field.after(0.2)
    assert field.events(SessionClosed)


def test_stations_and_counters_stay_during_a_cut(field: Field) -> None:
    a, b = pair(field)
    field.cut(a)
    assert {row["session"] for row in field.sessions.hubs["lan"].mac_rows(field.clock())} == {"SID-A-1", "SID-B-2"}
    c = field.card("c")
    b.send(frame(1, 2, 1))
    a.resume()
    field.until(lambda: a.got, "the frame")
    field.quiet()
    assert c.got == []  # it was not flooded
    assert field.session(a).row(field.clock())["frames_in"] == 1


# -- bounds -------------------------------------------------------------------------------------------------------


def test_overflow_of_the_buffer_is_bounded_counted_and_named(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, resume_buffer=256 * KIB, queue_bytes=64 * KIB))
    a, b = pair(field)
    field.cut(a)
    session, sent = field.session(a), 0
    for _ in range(20):
        frames = [frame(1, 2, sent + at, 1014) for at in range(32)]
        sent += len(frames)
        b.send(*frames)
        field.quiet()
        assert session.machine.out.bytes + session.queue.bytes <= 256 * KIB
    dropped = session.row(field.clock())["ledger"]["dropped"]
    assert set(dropped) == {"resume_buffer"}
    a.resume()
    field.until(lambda: len(a.got) == sent - dropped["resume_buffer"], "what was kept")
    field.quiet()
    assert a.numbers == list(range(len(a.numbers)))  # the newest were dropped
    b.send(frame(1, 2, sent))
    field.until(lambda: a.numbers[-1] == sent, "it goes on")
    assert session.row(field.clock())["drops"] == dropped


def test_while_it_catches_up_more_may_wait_than_with_a_link(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, resume_buffer=1024 * KIB, queue_bytes=16 * KIB, batch_bytes=8 * KIB))
    a, b = pair(field)
    field.cut(a)
    sent = 0
    for _ in range(12):
        b.send(*(frame(1, 2, sent + at, 1014) for at in range(50)))
        sent += 50
    field.quiet()
    link = a.dial()
    a.ask(link)
    a.answered(link)
    for _ in range(4):  # the queue is still above its usual bound
        b.send(*(frame(1, 2, sent + at, 1014) for at in range(20)))
        sent += 20
    field.until(lambda: len(a.got) == sent, "everything")
    assert a.numbers == list(range(sent))
    assert field.session(a).row(field.clock())["drops"] == {}


def test_without_acknowledgements_no_more_than_the_buffer_is_kept(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, resume_buffer=128 * KIB, queue_bytes=64 * KIB, batch_bytes=16 * KIB))
    a, b = pair(field)
    session = field.session(a)
    deaf = a.link
    assert deaf is not None
    a.machine.silent()  # it reads, but says nothing
    field.cards.remove(a)
    for number in range(60):
        b.send(*(frame(1, 2, number * 10 + at, 1014) for at in range(10)))
        field.after(0.2)  # for some seconds b is held back; a congested port may not do so for ever
        field.quiet()
        deaf.read()
    assert session.machine.out.bytes < (128 + 17) * KIB
    assert session.queue.bytes <= 64 * KIB
    assert session.row(field.clock())["drops"]["queue_full"] > 300
    turns = session.count.tls_writes
    for _ in range(50):
        field.turn()
    assert session.count.tls_writes == turns
    field.cards.append(a)
    for _ in range(5):  # it reads, and a second later it says so
        field.quiet()
        field.after(1.0)
    field.until(lambda: not session.queue and not session.machine.out.bytes, "it goes on")


def test_the_session_cut_longest_loses_its_memory_first(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, resume_memory=600 * KIB, resume_buffer=400 * KIB))
    a, c, b = field.card("a"), field.card("c"), field.card("b")
    for number, card in ((1, a), (3, c), (2, b)):
        card.send(frame(0, number))
        field.quiet()
    for card in (a, c):
        field.cut(card)
        field.clock.now += 1.0
    old, new = field.session(a), field.session(c)
    for number in range(50):
        for to in (1, 3):
            b.send(*(frame(to, 2, number * 10 + at, 1014) for at in range(10)))
        field.quiet()
        assert field.sessions.memory.used <= 600 * KIB
    assert old.row(field.clock())["drops"]["resume_memory"] > 0
    assert "resume_memory" not in new.row(field.clock())["drops"]
    assert new.queue.bytes > 390 * KIB
    assert old.held == old.machine.out.bytes
    kept = len(new.queue)
    a.got.clear()
    c.got.clear()
    a.resume()  # its records are all there: only frames that were none yet are gone
    c.resume()
    field.until(lambda: len(c.got) >= kept, "what was kept")
    b.send(frame(1, 2, 777))
    field.until(lambda: a.numbers == [777], "it goes on")
    lost = {one: one.drops["resume_memory"] + one.machine.ledger.lost for one in (old, new)}
    field.sessions.set_limits(replace(QUICK, resume_memory=1))
    b.send(frame(1, 2, 778), frame(3, 2, 778))
    for _ in range(3):  # it waits for acknowledgements instead
        field.quiet()
        field.after(1.0)
    field.until(lambda: a.numbers[-1] == c.numbers[-1] == 778, "who has a link is never robbed")
    assert lost == {one: one.drops["resume_memory"] + one.machine.ledger.lost for one in (old, new)}


def test_records_that_had_to_go_end_the_session_when_its_card_asks(make_field: Callable[..., Field]) -> None:
    field = make_field()
    a, b = pair(field)
    a.machine.silent()
    field.cards.remove(a)
    b.send(*(frame(1, 2, at, 1014) for at in range(60)))
    field.quiet()
    session = field.session(a)
    assert session.machine.out.bytes > 50 * KIB
    field.cards.append(a)
    field.cut(a)
    field.sessions.set_limits(replace(QUICK, resume_memory=40 * KIB))
    b.send(*(frame(1, 2, at, 1014) for at in range(60)))
    field.quiet()
    row = session.row(field.clock())
    assert row["ledger"]["lost"] == 60
    assert row["ledger"]["dropped"]["resume_memory"] > 0
    assert field.sessions.memory.used == field.session(b).held
    with pytest.raises(Refused) as refused:
        a.resume()
    assert refused.value.code == 13
    assert a.refusal.numbers is not None
    assert a.refusal.numbers.first == a.refusal.numbers.end
    (closed,) = field.events(SessionClosed)
    assert closed.lost == row["ledger"]["lost"]


@pytest.mark.slow
def test_five_hundred_cut_sessions_stay_within_the_memory(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, resume_memory=8 * KIB * KIB, resume_buffer=256 * KIB))
    b = field.card("b")
    b.send(frame(0, 2))
    for number in range(500):
        card = field.card(f"u{number}")
        card.say(encode_have_keepalive(0, b""))
        field.quiet()
        field.cut(card)
        field.cards.remove(card)
    field.until(lambda: len(field.events(SessionCut)) == 500, "cuts")
    sent = 0
    for number in range(40):
        frames = [frame(0, 2, number * 20 + at, 1014) for at in range(20)]
        sent += len(frames)
        b.send(*frames)
        field.quiet()
        memory = field.sessions.memory
        assert memory.used <= 8 * KIB * KIB
        assert memory.used == sum(one.held for one in field.sessions if hasattr(one, "held"))
    rows = [one.row(field.clock()) for one in field.sessions if one.name != b.welcome.session_name]
    assert len(rows) == 500
    for row in rows:  # every frame waits or is counted
        assert row["queued_bytes"] // 1014 + sum(row["drops"].values()) == sent
    assert any(row["queued_bytes"] for row in rows)


# -- liveness -----------------------------------------------------------------------------------------------------


def test_a_silent_card_is_cut_after_the_dead_time_and_any_byte_counts(field: Field) -> None:
    a, _ = pair(field)
    half = encode_frames([frame(2, 1, 1, 1514)])
    field.clock.now += 14.0
    a.say(half[:100])  # not one whole record
    field.until(lambda: field.session(a).heard == field.clock(), "it was heard")
    field.after(14.9)
    assert field.session(a).tunnels
    field.after(0.2)
    assert not field.session(a).tunnels
    assert field.events(SessionCut)[-1].reason == "nothing heard"


def test_any_byte_counts_without_resume_too_but_not_from_a_standard_peer(field: Field) -> None:
    ours, standard = field.card("a", resume=False), field.card("b", resume=False, extension=0)
    sessions = [field.sessions.named("", card.welcome.session_name) for card in (ours, standard)]
    field.clock.now += 14.0
    for card in (ours, standard):
        card.say(encode_frames([frame(0, 1, 1, 1514)])[:100])
    field.turn()
    assert [session and session.heard for session in sessions] == [1014.0, 1000.0]


@pytest.mark.slow
def test_a_hub_that_stood_still_reads_before_it_judges(make_field: Callable[..., Field]) -> None:
    """More sessions than one turn handles; the process was stopped for a minute, the kernel was not."""
    field = make_field(replace(QUICK, dead_s=15.0))
    cards = [field.card(f"u{number}") for number in range(150)]
    field.quiet()
    for card in cards:
        card.say(encode_have_keepalive(0, b"alive"))
    field.after(60.0)
    assert not field.events(SessionCut)
    field.after(15.1)
    assert len(field.events(SessionCut)) == 150


def test_a_stop_between_the_wait_and_the_clock_harms_nobody(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = pair(field)
    field.quiet()
    asked = iter([field.clock.now, field.clock.now + 60.0])

    def stopped() -> float:
        now = next(asked, field.clock.now + 60.0)
        if now > field.clock.now:  # the process stands still; the card does not
            for card in field.cards:
                assert card.link is not None
                card.link.tls.send(encode_have_keepalive(card.machine.acknowledge(), b""))
                card.link.flush()
        return now

    monkeypatch.setattr(field.loop, "_clock", stopped)
    field.turn()
    assert field.session(a).tunnels
    assert not field.events(SessionCut)


def test_a_slower_card_is_given_more_time(field: Field) -> None:
    a, b = pair(field)
    a.say(encode_options(PeerOptions(20_000)))
    field.quiet()
    field.clock.now += 59.0
    field.quiet()
    assert field.session(a).tunnels
    assert not field.session(b).tunnels
    field.after(1.1)
    assert not field.session(a).tunnels


def test_a_hub_with_another_interval_tells_it_on_each_link(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, idle_s=2.0, first_s=1.0))
    a, _ = pair(field)
    assert a.options == [PeerOptions(2000)]
    a.cut()
    a.resume()
    field.until(lambda: len(a.options) == 2, "said again")
    field.sessions.set_limits(replace(QUICK, dead_s=30.0))
    field.until(lambda: a.options[2:] == [PeerOptions(5000)], "said when it changes")
    field.after(29.0)
    assert field.session(a).tunnels
    field.after(1.1)
    assert not field.session(a).tunnels


def test_limits_are_as_the_file_says() -> None:
    config = HubConfig(
        times=Times(keepalive_s=2.0, dead_s=6.0), resume=ResumeOptions(grace_s=60.0, buffer_kib=64, memory_mib=100)
    )
    limits = Limits.of(config)
    assert (limits.idle_s, limits.first_s, limits.dead_s, limits.grace_s) == (2.0, 1.0, 6.0, 60.0)
    assert (limits.resume_buffer, limits.resume_memory) == (64 * KIB, 100 * KIB * KIB)
    assert Limits.of(HubConfig()) == Limits()
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    assert Limits().resume_memory == int(memory.split()[1]) * KIB // 8


def test_other_limits_hold_for_sessions_that_are_cut(field: Field) -> None:
    a, b = pair(field)
    field.cut(a)
    field.sessions.set_limits(replace(QUICK, grace_s=10.0, resume_buffer=64 * KIB, resume_memory=1 << 30))
    b.send(*(frame(1, 2, at, 1014) for at in range(100)))
    field.quiet()
    session = field.session(a)
    assert session.held <= 70 * KIB
    assert session.row(field.clock())["drops"]["resume_buffer"] >= 35
    field.after(10.1)
    assert not session.is_open


# -- another process ----------------------------------------------------------------------------------------------


def test_a_hub_goes_on_in_another_process_and_nothing_is_lost(make_field: Callable[..., Field]) -> None:
    field, heir = make_field(), make_field()
    a, b = pair(field)
    standard = field.card("s", extension=0, resume=False)
    standard.say(encode_frames([frame(0, 3)]))
    field.quiet()
    a.got.clear()
    b.got.clear()
    field.cut(a)
    field.clock.now += 100.0
    b.say(encode_have_keepalive(b.machine.acknowledge(), b""))
    standard.say(encode_keepalive(b"x"))
    field.quiet()
    standard.cut()
    field.quiet()
    b.send(*(frame(1, 2, number) for number in range(100)))
    b.send(*(frame(3, 2, number) for number in range(10)), frame(2, 2))
    field.turn()
    b.send(frame(1, 2, 100))  # the hub never reads this: it must come again
    before = {row["session"]: row for row in (one.row(field.clock()) for one in field.sessions)}
    heir.clock.now = field.clock.now - 500.0  # its clock is its own
    heir.turn()
    values = [msgspec.msgpack.encode(saved) for saved in field.sessions.save()]
    assert len(field.sessions) == 0
    assert not field.events(SessionClosed)
    assert len(field.events(SessionCut)) == 1  # not of those that were saved
    for value in values:
        heir.sessions.restore(msgspec.msgpack.decode(value, type=SavedSession))
    field.quiet()
    assert b.link is None  # close_notify was heard
    after = {row["session"]: row for row in (one.row(heir.clock()) for one in heir.sessions)}
    assert after.keys() == before.keys()
    for name, row in after.items():
        same = ("hub", "user", "peer", "client", "extension", "since", "frames_in", "bytes_in", "drops", "queued_bytes")
        assert {key: row[key] for key in same} == {key: before[name][key] for key in same}
        assert row["state"] == "cut"
    assert after["SID-A-1"]["grace_left_s"] == 200.0
    assert after["SID-B-2"]["grace_left_s"] == 300.0
    assert after["SID-B-2"]["ledger"]["dropped"] == {"source": 1}
    table = {row["mac"]: (row["session"], row["age_s"]) for row in heir.sessions.hubs["lan"].mac_rows(heir.clock())}
    assert table["02:00:00:00:00:01"] == ("SID-A-1", 101.0)
    assert table["02:00:00:00:00:02"][0] == "SID-B-2"
    for card in (a, b):
        card.address, card.wait = heir.address, heir.turn
        heir.cards.append(card)
        card.resume()
    a.send(*(frame(2, 1, number) for number in range(50)))
    heir.until(lambda: len(a.got) >= 101 and len(b.got) >= 50, "everything")
    heir.quiet()
    assert a.numbers == list(range(101))
    assert [number_of(one) for one in b.got] == list(range(50))
    assert heir.card("n").welcome.session_name == "SID-N-4"
    session = heir.sessions.named("", standard.welcome.session_name)
    assert session is not None
    assert session.queue.bytes == 180
    standard.address, standard.wait = heir.address, heir.turn
    assert standard.dial().pack(AdditionalConnect(standard.welcome.session_key).to_pack(b"")).get_int("error") == 0
    heir.until(lambda: not session.queue, "what waited for the standard peer")


def test_leased_addresses_go_on_in_another_process_too(make_field: Callable[..., Field]) -> None:
    field, heir = make_field(), make_field()
    a, _ = pair(field)
    hub, port = field.sessions.hubs["lan"], field.session(a).port
    hub.forward([arp.announcement(b"\x02\0\0\0\0\x01", IPv4Address("10.0.0.7"))], port, field.clock.now)
    (row,) = hub.switch.addresses(port)
    hub.switch.put_back_addresses(port, [])  # of none nothing changes
    hub.forget_address(row.key)
    hub.switch.put_back_addresses(port, [row._replace(leased=True)])
    field.clock.now += 100.0
    field.turn()
    heir.clock.now = 40.0
    heir.turn()
    for saved in field.sessions.save():
        heir.sessions.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(saved), type=SavedSession))
    (there,) = heir.sessions.hubs["lan"].ip_rows(40.0)
    assert (there["ip"], there["session"], there["dhcp"], there["age_s"]) == ("10.0.0.7", "SID-A-1", True, 100.0)
