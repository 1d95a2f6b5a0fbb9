"""Recall and false alarms over labelled captures: those beside this file, and a larger collection if there is one."""

import os
from pathlib import Path

import pytest

from bench.alert import OUTER, Label, Table, judge, judge_all, judge_corpus, labels
from bench.alert_conditions import BLIND, CONDITIONS, rewritten

HERE = Path(__file__).resolve().parent
BESIDE = HERE.parents[2] / "shared" / "corpus"
LARGER = Path(os.environ["UKIHASHI_CORPUS"]) if os.environ.get("UKIHASHI_CORPUS") else BESIDE
KNOWN: set[str] = set()  # false alarms not mended yet
BLIND_STEP = 4  # every so many captures are judged blind in the quick tests


def false_alarms(table: Table) -> set[str]:
    return {told.partition(":")[0] for told in table.false_alarms} - KNOWN


def check(table: Table) -> None:
    print(table.text())
    assert false_alarms(table) == set()
    for kind in OUTER:
        share = table.recall(kind)
        assert share.of > 0, kind
        assert share.found >= 0.9 * share.of, kind
    assert table.wrong_transport == []
    assert table.doubled == []


def test_tunnels_of_every_kind_are_found_and_nothing_else_is() -> None:
    check(judge_corpus(HERE))


@pytest.mark.slow
def test_the_larger_collection_where_there_is_one() -> None:
    if not (LARGER / "labels.csv").is_file():
        pytest.skip("no larger collection of captures here; UKIHASHI_CORPUS names one")
    check(judge_corpus(LARGER))


def verdicts(path: Path) -> list[tuple[str, str, str]]:
    return [(one.verdict.value, one.family.value, one.rule) for one in judge(path)[0]]


@pytest.mark.parametrize("one", list(labels(HERE))[::BLIND_STEP], ids=lambda one: one.path.name)
def test_neither_ports_nor_encrypted_bytes_matter(one: Label, tmp_path: Path) -> None:
    change = CONDITIONS[BLIND]
    assert change is not None
    assert verdicts(rewritten(one.path, change, tmp_path)) == verdicts(one.path)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "full"])
def test_no_false_alarm_whatever_the_capture_lacks(condition: str) -> None:
    table = judge_all(labels(HERE), condition)
    print(table.text())
    assert false_alarms(table) == set()
    assert table.unreadable == []
