"""docs/reconnection says what the programs do: its diagrams are their tables, its numbers their defaults."""

import importlib
import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from ukihashi.card.messages import Counters
from ukihashi.cli.main import PROGRAMS
from ukihashi.config import card, hub
from ukihashi.session.machine import CARD_MOVES, HUB_MOVES, Event, Ledger, State

ROOT: Final = Path(__file__).parents[2]
ENGLISH: Final = (ROOT / "docs/reconnection.en.md").read_text()
JAPANESE: Final = (ROOT / "docs/reconnection.ja.md").read_text()
SOURCE: Final = "\n".join(path.read_text() for path in sorted((ROOT / "src/ukihashi").rglob("*.py")))

both = pytest.mark.parametrize("text", [ENGLISH, JAPANESE], ids=["en", "ja"])


def diagram(moves: dict[tuple[State, Event], State]) -> str:
    """The moves as mermaid draws them."""
    arrows = [f"    {before} --> {after} : {event}" for (before, event), after in moves.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> online", *arrows, "    ended --> [*]"]) + "\n"


def tables(text: str) -> list[list[list[str]]]:
    """All tables as rows of cells, heads left out."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split(" | ")] for line in one.splitlines()[2:]] for one in found]


def names(text: str, size: int) -> list[list[str]]:
    """Of each table with `size` columns: what stands in backticks in the first one."""
    return [
        [name for row in one for name in re.findall(r"`([^`]+)`", row[0])]
        for one in tables(text)
        if len(one[0]) == size and one[0][0][0] == "`"
    ]


@both
def test_the_diagrams_are_the_tables_of_moves(text: str) -> None:
    assert re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL) == [diagram(CARD_MOVES), diagram(HUB_MOVES)]


@both
def test_every_state_event_and_field_of_the_ledger_is_explained(text: str) -> None:
    states, events, ledger = names(text, 2)
    assert states == list(State)
    assert events == list(Event)
    assert ledger == list(Ledger().row(0))[: len(ledger)]
    assert set(ledger) == set(Ledger().row(0))


@both
def test_every_time_and_bound_stands_with_its_default(text: str) -> None:
    rows = [row for one in tables(text) for row in one if row[0].startswith(("`times.", "`resume.", "`interface."))]
    told = {(row[1], row[0].strip("`")): float(row[2].split()[0]) for row in rows}
    wanted = {
        ("card", f"{section}.{field.name}"): float(field.default)
        for section, kind in (("times", card.Times), ("resume", card.Resume))
        for field in msgspec.structs.fields(kind)
    }
    wanted |= {
        ("hub", f"{section}.{field.name}"): float(field.default)
        for section, kind in (("times", hub.Times), ("resume", hub.Resume))
        for field in msgspec.structs.fields(kind)
    }
    queue = next(field for field in msgspec.structs.fields(card.Interface) if field.name == "queue")
    wanted["card", "interface.queue"] = float(queue.default)
    assert told == wanted


@both
def test_reasons_and_log_entries_are_those_of_the_source(text: str) -> None:
    reasons, entries = names(text, 3)[-2:]
    assert len(reasons) > 5
    assert len(entries) > 5
    for word in (*reasons, *entries):
        assert f'"{word}"' in SOURCE, word
    assert {"refused", "oversized"} <= {field.name for field in msgspec.structs.fields(Counters)}


def test_both_languages_say_the_same() -> None:
    for text, other in ((ENGLISH, "reconnection.ja.md"), (JAPANESE, "reconnection.en.md")):
        assert f"({other})" in text
    shapes = [[len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in (ENGLISH, JAPANESE)]
    assert shapes[0] == shapes[1]
    sizes = [[(len(one), len(one[0])) for one in tables(text)] for text in (ENGLISH, JAPANESE)]
    assert sizes[0] == sizes[1]
    assert re.findall(r"^- ", ENGLISH, re.MULTILINE) == re.findall(r"^- ", JAPANESE, re.MULTILINE)
    words = [sorted(set(re.findall(r"`([^`\n]+)`", text))) for text in (ENGLISH, JAPANESE)]
    assert words[0] == words[1]
    assert not re.search(r"[\u3040-\u30ff]", ENGLISH.replace("日本語", ""))
    assert len(re.findall(r"[\u3040-\u30ff]", JAPANESE)) > 2000


@both
def test_the_commands_exist(text: str) -> None:
    said = re.findall(r"ukihashi (hub|card) ([a-z]+)\b", text)
    assert len(said) > 5
    for program, command in said:
        module, name, _ = PROGRAMS[program]
        group = getattr(importlib.import_module(module), name)
        assert command in group.commands, (program, command)
