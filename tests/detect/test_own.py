"""What proves our own tunnel while it is never silent, and what must not."""

from random import Random

import pytest

from lab.scene import Frame, Talk, acknowledged, standard_keepalives, tls, ukihashi_login
from ukihashi.detect import own
from ukihashi.detect.flow import Crumb, FlowTable
from ukihashi.detect.record import Family, Finding, Verdict
from ukihashi.detect.verdict import Detector

BEGIN = 1_700_000_000.0
VOICE, ECHO = (0.02, 0.02), (1.0, 1.0)


def judge(talk: Talk, *, lose: float = 0.0, chance: Random | None = None) -> list[Finding]:
    """What the detector says at the end of a capture in which that share of the packets is lost."""
    frames: list[Frame] = sorted(talk.frames, key=lambda item: item[0])
    detector = Detector()
    table = FlowTable(detector)
    for time, frame in frames:
        if chance is None or chance.random() >= lose:
            table.take(1, frame, [(time, 0, len(frame), len(frame))])
    table.advance(frames[-1][0])
    detector.finish(frames[-1][0])
    return [entry for entry in detector.drain() if isinstance(entry, Finding)]


def talk(delay: float = 0.0004) -> Talk:
    return Talk(("10.0.0.1", 50000), ("10.0.0.2", 443), begin=BEGIN, delay=delay)


@pytest.mark.parametrize("version", [12, 13])
@pytest.mark.parametrize("periods", [VOICE, ECHO, (0.02, 1.4), (0.3, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_busy_tunnel_is_known_by_its_acknowledgements(seed: int, periods: tuple[float, float], version: int) -> None:
    chance = Random(seed)
    one = talk()
    ukihashi_login(one, chance, version=version)
    acknowledged(one, chance, seconds=40, periods=periods, size=39 if version == 13 else 46)
    found = judge(one)
    assert [(line.family, line.verdict) for line in found] == [(Family.UKIHASHI, Verdict.CONFIRMED)]
    assert found[0].rule in {"own, acknowledged", "own, mixed"}
    assert found[0].decided < BEGIN + 40
    assert own.ACKNOWLEDGEMENTS in {reason.name for reason in found[0].reasons}


@pytest.mark.parametrize("seed", range(5))
def test_lost_packets_change_little(seed: int) -> None:
    chance = Random(seed)
    one = talk()
    ukihashi_login(one, chance)
    acknowledged(one, chance, seconds=40, periods=VOICE)
    assert [line.family for line in judge(one, lose=0.05, chance=chance)] == [Family.UKIHASHI]


def test_a_way_of_a_third_of_a_second_is_allowed_for() -> None:
    chance = Random(7)
    one = talk(delay=0.15)
    ukihashi_login(one, chance)
    acknowledged(one, chance, seconds=60, periods=(0.7, 0.9))
    assert [(line.family, line.verdict) for line in judge(one)] == [(Family.UKIHASHI, Verdict.CONFIRMED)]


@pytest.mark.parametrize(
    ("size", "wait"),
    [(39, 0.5), (39, 0.05), (57, 1.0), (39, 1.9)],
    ids=["twice a second", "at once", "another size", "late"],
)
def test_other_short_messages_prove_nothing(size: int, wait: float) -> None:
    chance = Random(8)
    one = talk()
    ukihashi_login(one, chance)
    acknowledged(one, chance, seconds=50, periods=VOICE, size=size, wait=wait)
    assert [line for line in judge(one) if line.verdict is Verdict.CONFIRMED] == []


def test_acknowledgements_without_the_login_prove_nothing() -> None:
    chance = Random(9)
    one = talk()
    tls(one, chance)
    for side, size in ((0, 900), (1, 700), (0, 400), (1, 5000)):
        one.say(side, size)
    acknowledged(one, chance, seconds=60, periods=VOICE)
    assert judge(one) == []


def test_a_poll_of_the_same_size_each_second_proves_nothing() -> None:
    """The client asks 1 s after each answer, in as many bytes as an acknowledgement has."""
    chance = Random(10)
    one = talk()
    ukihashi_login(one, chance)
    for _ in range(60):
        one.say(0, 39, at=one.now + 1.0)
        one.say(1, 300 + chance.randint(0, 200))
    found = judge(one)
    assert [line for line in found if line.verdict is Verdict.CONFIRMED] == []


def test_our_card_at_a_standard_server_is_known_by_that_ones_law() -> None:
    chance = Random(11)
    one = talk()
    ukihashi_login(one, chance)
    standard_keepalives(one, chance, seconds=70)
    found = judge(one)
    assert [(line.family, line.rule, line.verdict) for line in found] == [
        (Family.SOFTETHER, "2, our card", Verdict.CONFIRMED)
    ]


def test_a_second_is_counted_from_the_first_record_that_is_not_acknowledged() -> None:
    law = [Crumb(10.0 * n, 39, 1.001, 0.02, 9000) for n in range(1, 11)]
    good = own.acknowledgements(law, 39)
    assert good.score > 20
    assert (good.number, good.kept, good.apart) == (10, 1.0, 1.0)
    with_others = [crumb for each in law for crumb in (Crumb(each.time - 0.4, 60, 0.601, 0.01, 5000), each)]
    for crumb in with_others[1::2]:
        crumb.wait, crumb.passed = 0.3, 4000
    assert own.acknowledgements(with_others, 39).kept == 1.0
    assert own.acknowledgements(law, 46) == own.Acks(size=46)


def test_enough_bytes_are_acknowledged_sooner() -> None:
    enough = [Crumb(0.4 * n, 39, 0.39, 0.001, 270_000 + n) for n in range(1, 13)]
    too_few = [Crumb(0.4 * n, 39, 0.39, 0.001, 100_000 + n) for n in range(1, 13)]
    assert own.acknowledgements(enough, 39).score > 16
    assert own.acknowledgements(too_few, 39).score < 0
