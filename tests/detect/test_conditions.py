"""Tunnels are found on poor mirrors too, and nothing else is: loss, one direction, copies, disorder, tags, snap length.

The quick tests take some captures of `tests/corpus`; the long one takes all there are and prints the share that was
CONFIRMED in each condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import pytest

from lab import rewrite
from lab.captures import HERE, LARGER, Capture, captures, here, judge, packets
from lab.rewrite import Packet
from ukihashi.detect.record import Family, Verdict


@dataclass(frozen=True)
class Condition:
    """How the capture is spoiled, and the least share of sessions that must be CONFIRMED nevertheless."""

    spoil: Callable[[list[Packet], Random, Capture], list[Packet]]
    least: float
    seeds: int = 1


CONDITIONS: Final[dict[str, Condition]] = {
    "whole": Condition(lambda found, _chance, _capture: found, 0.97),
    "5 % lost": Condition(lambda found, chance, _: rewrite.lose(found, chance, 0.05), 0.95, 3),
    "20 % lost": Condition(lambda found, chance, _: rewrite.lose(found, chance, 0.2), 0.85, 3),
    "client's packets only": Condition(
        lambda found, _, one: rewrite.one_side(found, frozenset([one.end]), toward_server=True), 0.9
    ),
    "server's packets only": Condition(
        lambda found, _, one: rewrite.one_side(found, frozenset([one.end]), toward_server=False), 0.9
    ),
    "begins 6 s late": Condition(lambda found, _chance, _capture: rewrite.begin_late(found, 6.0), 0.3),
    "copies up to 2 ms later": Condition(lambda found, chance, _: rewrite.double(found, chance), 0.97),
    "out of order by 1 ms": Condition(lambda found, chance, _: rewrite.reorder(found, chance), 0.95),
    "QinQ": Condition(lambda found, _chance, _capture: rewrite.tag(found, (100, 200)), 0.97),
    "IPv6": Condition(lambda found, _chance, _capture: rewrite.to_ipv6(found), 0.97),
    "snap length 128": Condition(lambda found, _chance, _capture: rewrite.cut(found, 128), 0.97),
    "no SYN": Condition(lambda found, _chance, _capture: rewrite.without(found, rewrite.SYN), 0.97),
    "SYN ACK before SYN": Condition(lambda found, _chance, _capture: rewrite.answer_first(found), 0.97),
}
HARD: Final = ("begins 6 s late",)  # what is found depends on the traffic
SOME: Final = ("se-n443-idle", "se-ssh-idle", "se-h-squid-t12", "se-s5-dante-t12", "se-cbc")
OTHERS: Final = ("ng-ssh-D-browse", "ng-wss-chat", "ng-mqtt-5s", "ng-ssh-interactive")


def confirmed(found: list[Packet], label: str) -> int:
    return sum(
        finding.verdict is Verdict.CONFIRMED and (not label or finding.family is Family[label.upper()])
        for finding in judge(found)
    )


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name not in HARD])
def test_some_tunnels_are_found_nevertheless(condition: str) -> None:
    spoil = CONDITIONS[condition].spoil
    for name in SOME:
        capture = here(name)
        assert confirmed(spoil(packets(capture), Random(3), capture), capture.label) == capture.expect, name


@pytest.mark.parametrize("condition", CONDITIONS)
def test_some_others_are_no_tunnels_nevertheless(condition: str) -> None:
    spoil = CONDITIONS[condition].spoil
    for name in OTHERS:
        capture = here(name)
        assert confirmed(spoil(packets(capture), Random(4), capture), "") == 0, name


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("folder", [HERE, LARGER], ids=["here", "larger"])
def test_all_captures_in_all_conditions(folder: Path) -> None:
    if not (folder / "labels.csv").is_file():
        pytest.skip("no larger collection of captures here; UKIHASHI_CORPUS names one")
    found, of = dict.fromkeys(CONDITIONS, 0), dict.fromkeys(CONDITIONS, 0)
    missed, alarms = list[str](), list[str]()
    for capture in captures(folder):
        original = packets(capture)
        for name, condition in CONDITIONS.items():
            for seed in range(condition.seeds):
                spoiled = condition.spoil(original, Random(f"{seed} {capture.name}"), capture)
                count = confirmed(spoiled, capture.label if capture.expect else "")
                if not capture.expect:
                    alarms += [f"{capture.name}, {name}, seed {seed}"] * count
                    continue
                found[name] += min(count, capture.expect)
                of[name] += capture.expect
                if count != capture.expect:
                    missed.append(f"{capture.name}, {name}, seed {seed}: {count} of {capture.expect}")
    print("\n".join(missed))
    for name in CONDITIONS:
        print(f"{name:<26} {found[name]:>4} of {of[name]:>4}")
    assert alarms == []
    assert {name for name in CONDITIONS if found[name] < CONDITIONS[name].least * of[name]} == set()
