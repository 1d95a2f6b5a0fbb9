"""The data process beside a fake hub: every kind of cut."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from tests.card.rig import QUICK, SECONDS, Rig, frame

from lab.fake_hub import FakeHub
from lab.wait import until
from ukihashi.card.messages import (
    Apply,
    Asked,
    Failed,
    GiveUp,
    LoopFound,
    Lost,
    Opened,
    Recovered,
    Settings,
    Stop,
    Suspect,
    Trouble,
)
from ukihashi.errors import DialError, NotTrusted
from ukihashi.net.tls import spki_pin
from ukihashi.pki import ca
from ukihashi.session.machine import State
from ukihashi.wire.blocks import encode_frames
from ukihashi.wire.constants import Code
from ukihashi.wire.extension import Blocked, PeerOptions, Reason, encode_blocked


@pytest.fixture
def rig(hub: FakeHub) -> Iterator[Rig]:
    hub.grace_s = 300
    made = Rig(hub)
    try:
        yield made
    finally:
        made.close()


def lost_by(cut: Callable[[], None], rig: Rig) -> Lost:
    cut()
    return rig.hear(Lost)


def test_a_session_is_granted_and_frames_are_counted_both_ways(rig: Rig) -> None:
    opened = rig.join()
    assert (opened.grace_s, opened.extension, opened.resumed) == (300, 1, False)
    rig.send(1, 2, 3)
    rig.reaches_hub(1, 2, 3)
    rig.hub.send([frame(7), frame(8)])
    rig.reaches_kernel(7, 8)
    until(lambda: rig.counters().ledger["acknowledged"] == 3, seconds=5, what="the acknowledgement")
    ledger = rig.counters().ledger
    assert (ledger["sent"], ledger["received"], ledger["waiting"], ledger["cuts"]) == (3, 2, 0, 0)


@pytest.mark.parametrize("reset", [False, True])
def test_after_a_cut_everything_arrives_once_and_in_order(rig: Rig, reset: bool) -> None:
    opened = rig.join()
    rig.send(1)
    rig.reaches_hub(1)
    lost = lost_by(lambda: rig.hub.cut(reset=reset), rig)
    assert (lost.attempt, lost.over) == (1, False)
    rig.send(2, 3)
    rig.hub.send([frame(7)])
    rig.resume(opened)
    rig.reaches_hub(2, 3)
    rig.reaches_kernel(7)
    rig.send(4)
    rig.reaches_hub(4)
    assert rig.hub.frames.empty()
    ledger = rig.counters().ledger
    assert (ledger["cuts"], ledger["resumes"], ledger["sent"], ledger["lost"]) == (1, 1, 4, 0)


def test_what_a_cut_swallowed_is_sent_again_and_only_that(rig: Rig) -> None:
    opened = rig.join()
    rig.send(1)
    rig.reaches_hub(1)
    rig.hub.heeded.clear()
    rig.send(2, 3)
    until(lambda: rig.counters().ledger["sent"] == 3, seconds=5, what="the frames being written")
    lost_by(lambda: rig.hub.cut(reset=True), rig)
    rig.hub.heeded.set()
    rig.resume(opened)
    rig.reaches_hub(2, 3)
    assert rig.hub.frames.empty()
    assert rig.counters().ledger["replayed"] >= 1


def test_cuts_during_resumes_lose_nothing(rig: Rig) -> None:
    opened = rig.join()
    lost_by(lambda: rig.hub.cut(reset=True), rig)
    rig.send(1, 2)
    rig.hub.resumes_to_cut = 3
    for _ in range(3):
        number = rig.connect(opened)
        assert rig.hear(Asked).attempt == number
        failed = rig.hear(Failed)
        assert (failed.attempt, failed.over) == (number, False)
    rig.resume(opened)
    rig.reaches_hub(1, 2)
    assert rig.hub.frames.empty()
    assert rig.counters().ledger["cuts"] == 1


def test_a_silent_hub_is_suspect_then_another_link_takes_over_and_the_old_one_is_heard_no_more(rig: Rig) -> None:
    rig.hub.keepalive_ms = 500
    opened = rig.join(settings=Settings(keepalive=0.5, suspect=1.0, dead=60.0))
    rig.hub.send([frame(1)])
    rig.reaches_kernel(1)
    old = rig.hub.link()
    assert rig.hear(Suspect).attempt == 1
    rig.resume(opened)
    with contextlib.suppress(OSError):
        old.write(encode_frames([frame(2)]))  # back from the dead
    rig.hub.send([frame(3)])
    rig.reaches_kernel(3)


def test_a_link_that_speaks_again_is_kept_and_what_was_opened_beside_it_closed(rig: Rig) -> None:
    rig.hub.keepalive_ms = 500
    opened = rig.join(settings=Settings(keepalive=0.5, suspect=1.0, dead=60.0))
    rig.hear(Suspect)
    rig.hub.heeded.clear()  # nobody greets the new link
    rig.connect(opened)
    rig.counters()  # it has been taken over
    rig.hub.speak()
    assert rig.hear(Recovered).attempt == 1
    rig.hub.heeded.set()
    rig.send(1)
    rig.reaches_hub(1)
    assert rig.counters().ledger["resumes"] == 0
    assert rig.hub.resumes == []


def test_a_dead_link_is_given_up_in_time(rig: Rig) -> None:
    rig.hub.keepalive_ms = 500
    began = time.monotonic()
    rig.join(settings=QUICK)
    rig.hear(Suspect)
    assert time.monotonic() - began >= 1.0
    assert "nothing came" in str(rig.hear(Lost).trouble.error())
    assert time.monotonic() - began >= 1.5


def test_a_newer_dial_supersedes_one_that_was_asked(rig: Rig) -> None:
    opened = rig.join()
    lost_by(rig.hub.cut, rig)
    rig.send(1)
    rig.hub.answers = False
    first = rig.connect(opened)
    assert rig.hear(Asked).attempt == first
    until(lambda: rig.hub.resumes, seconds=5, what="the question reaching the hub")
    rig.hub.answers = True
    second = rig.connect(opened)
    assert rig.hear(Asked).attempt == second
    assert rig.hear(Opened).attempt == second
    rig.reaches_hub(1)
    assert rig.hub.frames.empty()


def test_a_dial_that_nobody_needs_is_closed_without_a_word_to_the_hub(rig: Rig) -> None:
    opened = rig.join()
    number = rig.connect(opened)
    assert rig.hear(Failed).attempt == number
    assert rig.hub.resumes == []


def test_a_hub_that_forgot_is_told_from_one_that_fails_and_what_was_kept_goes_on_in_the_next_session(rig: Rig) -> None:
    opened = rig.join()
    rig.hub.heeded.clear()
    rig.send(1, 2)
    until(lambda: rig.counters().ledger["sent"] == 2, seconds=5, what="the frames being written")
    lost_by(lambda: rig.hub.cut(reset=True), rig)
    rig.hub.heeded.set()
    rig.send(3, 4, 5)
    until(lambda: rig.counters().ledger["waiting"] == 5, seconds=5, what="the frames being kept")
    rig.hub.forgetful = True
    rig.connect(opened)
    rig.hear(Asked)
    failed = rig.hear(Failed)
    assert failed.over
    assert failed.trouble.code == Code.SESSION_TIMEOUT
    again = rig.join()
    assert (again.lost, again.carried) == (2, 3)
    rig.reaches_hub(3, 4, 5)
    assert rig.counters().ledger["lost"] == 2


def test_a_resume_that_the_hub_can_not_answer_is_refused_with_its_numbers(rig: Rig) -> None:
    opened = rig.join()
    rig.hub.send([frame(1)])
    rig.reaches_kernel(1)
    lost_by(rig.hub.cut, rig)
    with rig.hub.session().lock:
        rig.hub.machine().out.clear()
        rig.hub.machine().out.first = rig.hub.machine().out.high = 9  # it let go of what we lack
    rig.connect(opened)
    rig.hear(Asked)
    failed = rig.hear(Failed)
    assert failed.over
    assert "9" in str(failed.trouble.error())


def test_the_key_of_the_session_is_demanded_whatever_the_trust(rig: Rig, other_identity: ca.Identity) -> None:
    opened = rig.join(trust="first-use", pin=b"")
    lost_by(rig.hub.cut, rig)
    with FakeHub(other_identity.certificate, other_identity.key) as impostor:
        rig.hub, right = impostor, rig.hub
        rig.connect(opened, trust="first-use", pin=opened.pin)
        failed = rig.hear(Failed)
        assert isinstance(failed.trouble.error(), NotTrusted)
        assert not failed.over
        rig.hub = right
        assert impostor.resumes == []
    rig.resume(opened)


def test_the_goodbye_of_the_hub_ends_the_session_and_ours_ends_it_there(rig: Rig) -> None:
    rig.join()
    rig.hub.say_bye(Reason.REMOVED)
    lost = rig.hear(Lost)
    assert lost.over
    assert lost.trouble.code == Code.SESSION_REMOVED
    rig.join()
    rig.tell(Stop())
    until(lambda: rig.hub.byes, seconds=5, what="our goodbye")
    until(lambda: rig.hub.goodbyes, seconds=5, what="close_notify behind it")
    assert rig.hub.machine().state is State.ENDED


def test_a_link_given_up_for_its_path_is_resumed_over_the_next(rig: Rig) -> None:
    opened = rig.join()
    rig.send(1)
    rig.tell(GiveUp(1, Trouble.of(DialError("the way has changed"))))
    lost = rig.hear(Lost)
    assert (lost.attempt, str(lost.trouble.error())) == (1, "the way has changed")
    rig.send(2)
    rig.resume(opened)
    rig.reaches_hub(1, 2)
    assert rig.hub.frames.empty()


def test_a_cut_session_takes_frames_until_its_bound_and_then_leaves_the_tap_alone(rig: Rig) -> None:
    opened = rig.join(settings=Settings(suspect=60.0, dead=60.0, buffer=20_000))
    lost_by(rig.hub.cut, rig)
    rig.kernel.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            rig.send(sent)
            sent += 1
    kept = rig.counters()
    assert kept.ledger["waiting"] < sent  # the rest waits in the socket pair, as in the kernel's ring
    assert 20_000 <= kept.waiting_bytes < 20_000 + 70_000
    rig.kernel.settimeout(SECONDS)
    rig.resume(opened)
    rig.reaches_hub(*range(sent))


def test_new_settings_rule_at_once_and_the_hub_is_told(rig: Rig) -> None:
    rig.hub.keepalive_ms = 500
    rig.join(settings=Settings())
    rig.tell(Apply(QUICK))
    until(lambda: PeerOptions(500) in rig.hub.peer_options, seconds=5, what="the new interval")
    rig.hear(Suspect)
    rig.hear(Lost)


def test_the_dialler_hears_of_a_loop_and_that_it_is_gone(rig: Rig) -> None:
    rig.join()
    for because in ("SID-B-2", "SID-C-3", None):
        rig.hub.send_raw(encode_blocked(Blocked(because)))
        assert rig.hear(LoopFound).because == because


def test_garbage_behind_tls_ends_the_session_so_that_it_is_not_sent_again_for_ever(rig: Rig) -> None:
    rig.join()
    rig.hub.send_raw(b"\x00\x00\x00\x01\x1f\xff\xff\xff")
    lost = rig.hear(Lost)
    assert lost.over
    again = rig.join()
    assert again.session != ""


def test_a_hub_without_resume_keeps_its_own_way(rig: Rig) -> None:
    rig.hub.grace_s = 0
    opened = rig.join()
    assert opened.grace_s == 0
    assert rig.counters().ledger == {}
    lost = lost_by(rig.hub.cut, rig)
    assert not lost.over
    rig.connect(session_key=opened.session_key, extension=1)
    assert rig.hear(Opened).resumed
    rig.send(1)
    rig.reaches_hub(1)


def test_the_pin_is_of_the_key_that_was_shown(rig: Rig, identity: ca.Identity) -> None:
    import ssl

    certificate = ssl.PEM_cert_to_DER_cert(identity.certificate.read_text())
    assert rig.join(trust="first-use", pin=b"").pin == spki_pin(certificate)


def test_the_loop_rests_in_every_state(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, turn = [0], rig.process._turn

    def counted() -> None:
        turns[0] += 1
        turn()

    monkeypatch.setattr(rig.process, "_turn", counted)

    def rests() -> None:
        before = turns[0]
        time.sleep(0.3)
        assert turns[0] - before < 20

    opened = rig.join()
    rig.send(1)
    rig.reaches_hub(1)
    rests()
    lost_by(rig.hub.cut, rig)
    rig.send(2, 3)
    rests()
    rig.hub.answers = False
    rig.connect(opened)
    rig.hear(Asked)
    rests()  # asked, and not answered
    rig.hub.answers = True
    rig.resume(opened)
    rig.reaches_hub(2, 3)
    rests()
