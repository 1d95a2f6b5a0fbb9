import json
from typing import Any

import pytest

from ukihashi.cli.output import Column, cell, moment, show


def test_rows_become_a_table_of_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "本社", "count": 5, "list": ["a", "b"]},
        {"name": "x" * 300, "count": None, "list": []},
    ]
    show(
        rows,
        [Column("name", "NAME"), Column("count", "COUNT", right=True), Column("list", "LIST")],
        as_json=False,
        empty="",
    )
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "COUNT", "LIST"]
    assert first.split() == ["本社", "5", "a,", "b"]
    assert second.split() == ["x" * 300, "-", "-"]


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "本社"}, {"name": "b\n"}]
    show(rows, [], as_json=True, empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert "本社" in lines[0]


def test_no_rows_are_said_aside(capsys: pytest.CaptureFixture[str]) -> None:
    show([], [], as_json=False, empty="nothing there")
    show([], [], as_json=True, empty="nothing there")
    assert capsys.readouterr() == ("", "nothing there\n")


def test_what_a_peer_chose_can_not_control_the_terminal() -> None:
    assert cell("\x1b[31mred\n\u202e") == "\\x1b[31mred\\x0a\\x202e"


def test_moments_carry_their_zone() -> None:
    assert moment(0.0)[:4] in ("1969", "1970")
    assert moment(0.0)[-6] in "+-"
