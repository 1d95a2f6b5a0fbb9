"""What is said to have changed a verdict is tried on traffic that is made so, and judged without `whatif`."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from tests.alert.kept import BEGIN, FURTHER, LOGIN, findings, of_corpus, own_session, session

from lab.scene import Frame
from ukihashi.detect import whatif
from ukihashi.detect.record import Verdict
from ukihashi.detect.whatif import Change

NAMES = ("C1", "S1", "C2", "S2")


def verdict(frames: list[Frame]) -> Verdict | None:
    return max(
        (found.verdict for found in findings(frames, probable=True)), key=lambda one: one.value[0] == "C", default=None
    )


@cache
def changed() -> tuple[Change, ...]:
    (finding,) = findings(session())
    assert finding.rule == "1"
    return tuple(whatif.changes(finding))


def kinds(found: list[Change]) -> set[str]:
    return {change.kind for change in found}


def of(kind: str, name: str = "", connection: int = 0) -> Change:
    (found,) = [c for c in changed() if (c.kind, c.name, c.connection) == (kind, name, connection)]
    return found


def with_size(name: str, connection: int, size: int) -> list[Frame]:
    """The session with one turn of another size. The first request has 80 bytes of the handshake with it."""
    sizes = [list(LOGIN), list(FURTHER)]
    sizes[connection][NAMES.index(name)] = size
    return session(tuple(sizes[0]), tuple(sizes[1]))


def test_each_bound_of_a_size_is_where_the_verdict_really_changes() -> None:
    sized = [change for change in changed() if change.kind in {"larger", "smaller"}]
    assert {(change.name, change.connection) for change in sized} >= {(name, at) for name in NAMES for at in (0, 1)}
    for change in sized:
        was = (LOGIN, FURTHER)[change.connection][NAMES.index(change.name)]
        assert change.was == was
        beyond = 1 if change.kind == "larger" else -1
        assert verdict(with_size(change.name, change.connection, int(change.bound))) is Verdict.CONFIRMED, change
        assert verdict(with_size(change.name, change.connection, int(change.bound) + beyond)) is change.verdict, change


def test_without_the_further_connection_it_is_what_a_capture_without_it_gives() -> None:
    change = of("without further")
    assert change.verdict is Verdict.PROBABLE
    assert verdict(session(further=None)) is Verdict.PROBABLE


def test_a_further_connection_that_begins_too_late() -> None:
    change = of("further later")
    assert change.was == pytest.approx(1.5)
    assert 60 < change.bound < 300
    assert verdict(session(later=change.bound - 1)) is Verdict.CONFIRMED
    assert verdict(session(later=change.bound + 1)) is change.verdict


def test_a_server_that_answers_too_late() -> None:
    change = of("slower", "S1")
    assert 1.5 < change.bound < 10
    assert verdict(session(slow=change.bound - 0.2, later=9.0)) is Verdict.CONFIRMED
    assert verdict(session(slow=change.bound + 0.2, later=9.0)) is change.verdict


def test_timers_are_tried_by_size_by_wait_and_by_a_silence() -> None:
    (finding,) = findings(own_session())
    found = whatif.changes(finding)
    assert {"equal sizes", "silence"} <= kinds(found)
    assert verdict(own_session(sizes=range(77, 78))) is not Verdict.CONFIRMED
    silence = next(change for change in found if change.kind == "silence")
    assert 5 < silence.bound < 20
    middle = (BEGIN + finding.decided) / 2
    until_then = [frame for frame in own_session() if frame[0] <= finding.decided]
    for pause, expected in ((0.0, Verdict.CONFIRMED), (silence.bound + 1, silence.verdict)):
        assert verdict([(time + (pause if time > middle else 0), data) for time, data in until_then]) is expected


def test_a_connection_that_began_before_the_capture() -> None:
    (finding,) = of_corpus("se-d443-mc32-idle-midstream.pcap.gz")
    assert "equal sizes" in kinds(whatif.changes(finding))


def test_the_true_packets_give_the_true_verdict_at_the_true_moment() -> None:
    for frames in (session(), own_session()):
        (finding,) = findings(frames)
        again = whatif.replay(finding.packets, finding)
        assert again is not None
        assert (again.verdict, again.rule) == (finding.verdict, finding.rule)
        assert again.score == pytest.approx(finding.score)
        assert again.decided == pytest.approx(finding.decided, abs=1e-5)


def test_without_packets_nothing_is_claimed() -> None:
    (finding,) = findings(session())
    assert whatif.changes(replace(finding, packets=())) == []


def test_packets_that_do_not_carry_the_verdict_give_no_claims() -> None:
    (finding,) = findings(session())
    assert whatif.changes(replace(finding, packets=finding.packets[:12])) == []


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = findings(session())
    monkeypatch.setattr(whatif, "BUDGET", 1000)
    few = whatif.changes(finding)
    assert 0 < len(few) < len(changed())


def test_a_busy_connection_is_thinned_without_another_verdict() -> None:
    (finding,) = of_corpus("se-d443-noqos-browse.pcap.gz")
    play = whatif.Replay(finding.packets)
    opened = max(step.time for step in finding.timeline if step.kind == "turn")
    thin = whatif._thin(play.segments, opened)
    assert len(thin) < 0.5 * len(play.segments)
    assert all(before[0] <= after[0] for before, after in pairwise(thin))
    found = whatif.same_ends(play.judge(thin, finding.decided), finding)
    assert found is not None
    assert found.verdict is finding.verdict
