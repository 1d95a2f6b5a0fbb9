"""Recall and false alarms over labelled captures: those beside this file, and a larger collection if there is one."""

import os
from pathlib import Path

import pytest

from bench.alert import Table, judge_corpus

HERE = Path(__file__).resolve().parent
BESIDE = HERE.parents[2] / "shared" / "corpus"
LARGER = Path(os.environ["UKIHASHI_CORPUS"]) if os.environ.get("UKIHASHI_CORPUS") else BESIDE


def check(table: Table) -> None:
    print(table.text())
    assert table.false_alarms == []
    direct = table.recall("direct")
    assert direct.of > 0
    assert direct.found >= 0.9 * direct.of
    assert table.wrong_transport == []
    assert table.doubled == []


def test_direct_tunnels_are_found_and_nothing_else_is() -> None:
    check(judge_corpus(HERE))


@pytest.mark.slow
def test_the_larger_collection_where_there_is_one() -> None:
    if not (LARGER / "labels.csv").is_file():
        pytest.skip("no larger collection of captures here; UKIHASHI_CORPUS names one")
    check(judge_corpus(LARGER))
