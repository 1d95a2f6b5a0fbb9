"""Contents and ports say nothing to the detector (requirement B4): with others it says the same of the same sizes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest

from lab import rewrite
from lab.captures import HERE, LARGER, captures, here, judge, packets
from lab.rewrite import Packet
from ukihashi.detect.record import Finding

SOME = (
    "se-ssh-idle", "se-ssh-plink", "se-n443-idle", "se-h-squid-t12", "se-s5-dante-t12", "se-cbc-noqos", "uk-idle4",
    "ng-ssh-L-rpc5", "ng-wss-chat", "ng-ovpn-tcp-idle",
)  # fmt: skip


def verdicts(findings: Iterable[Finding]) -> list[tuple[object, ...]]:
    return sorted((f.family.name, f.verdict.value, f.rule, f.outer.name, f.begin, round(f.score, 6)) for f in findings)


def other_ports(chance: Random) -> Callable[[bytes], int]:
    """Every end gets a port of its own, whatever it had."""
    free = list(range(1, 65536))
    chance.shuffle(free)
    return lambda end: free.pop()


def changed(original: list[Packet], chance: Random) -> list[Packet]:
    return rewrite.move_ports(rewrite.blind(original, chance), other_ports(chance))


@pytest.mark.parametrize("name", SOME)
def test_other_contents_and_other_ports_change_no_verdict(name: str) -> None:
    original = packets(here(name))
    blind = changed(original, Random(name))
    assert verdicts(judge(blind)) == verdicts(judge(original))
    shown = [one.data for one in blind]
    assert sum(one != other.data for one, other in zip(shown, original, strict=True)) > len(original) / 2


@pytest.mark.soak
@pytest.mark.parametrize("folder", [HERE, LARGER], ids=["here", "larger"])
def test_in_every_capture(folder: Path) -> None:
    if not (folder / "labels.csv").is_file():
        pytest.skip("no larger collection of captures here; UKIHASHI_CORPUS names one")
    different = []
    for capture in captures(folder):
        original = packets(capture)
        if verdicts(judge(changed(original, Random(capture.name)))) != verdicts(judge(original)):
            different.append(capture.name)
    assert different == []
