"""Documents that are promised exist, twins agree, and the table of requirements tells the truth about files."""

import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from ukihashi import __version__

ROOT: Final = Path(__file__).resolve().parent.parent.parent
IDS: Final = [f"A{n}" for n in range(1, 39)] + [f"B{n}" for n in range(1, 42)]
STATES: Final = ("done", "part", "not yet")
TWINS: Final = (("README.md", "README.ja.md"), ("CHANGELOG.md", "CHANGELOG.ja.md"))


class Row(NamedTuple):
    """One line of the table."""

    id: str
    what: str
    where: list[str]
    shown_by: list[str]
    state: str


def rows() -> list[Row]:
    """The table of docs/requirements.md; where and shown_by are what stands in backticks."""
    found = []
    for line in (ROOT / "docs/requirements.md").read_text().splitlines():
        if re.match(r"\| [AB]\d+ \|", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            number, what, where, shown_by, state = cells
            found.append(Row(number, what, re.findall(r"`([^`]+)`", where), re.findall(r"`([^`]+)`", shown_by), state))
    return found


def test_every_requirement_stands_in_the_table_exactly_once_and_in_order() -> None:
    assert [row.id for row in rows()] == IDS


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_a_requirement_says_what_and_how_far_and_points_to_what_exists(row: Row) -> None:
    assert row.what
    assert row.state.startswith(STATES)
    if row.state == "done":
        assert row.where, "done, but where?"
        assert row.shown_by, "done, but what shows it?"
    if row.state.startswith("part"):
        assert len(row.state) > len("part: "), "part of it is done: which part is missing?"
    for place in row.where:
        assert (ROOT / "src/ukihashi" / place).exists() or (ROOT / place).exists(), place
    for test in row.shown_by:
        file, _, name = test.partition("::")
        assert (ROOT / file).exists(), test
        if name:
            assert f"def {name}(" in (ROOT / file).read_text(), test


@pytest.mark.parametrize(("english", "japanese"), TWINS)
def test_twins_have_the_same_parts_and_point_to_each_other(english: str, japanese: str) -> None:
    texts = [(ROOT / name).read_text() for name in (english, japanese)]
    shapes = [[len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in texts]
    assert shapes[0] == shapes[1]
    assert f"({japanese})" in texts[0]
    assert f"({english})" in texts[1]
    assert not re.search(r"[\u3040-\u30ff]", texts[0].replace("日本語", ""))
    assert len(re.findall(r"[\u3040-\u30ff]", texts[1])) > 100


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CHANGELOG.ja.md"])
def test_the_changelog_begins_with_this_version_and_names_a_contact(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"^## (\S+) — ", text, re.MULTILINE)[0] == __version__
    assert re.search(r"^## (Contact|連絡先)$", text, re.MULTILINE)


def test_the_readme_says_that_the_tunnel_does_not_hide() -> None:
    said = {"README.md": "never disguises itself", "README.ja.md": "偽装は"}
    for name, words in said.items():
        assert words in (ROOT / name).read_text()


def test_promised_documents_exist() -> None:
    for name in ("architecture.md", "protocol.md", "requirements.md", "decisions.md"):
        assert (ROOT / "docs" / name).exists(), name
    for name in ("LICENSE", "SECURITY.md"):
        assert (ROOT / name).exists(), name


def test_documents_that_the_source_refers_to_exist() -> None:
    named: dict[str, str] = {}
    for folder in ("src", "lab", "bench", "fuzz", "tests", "packaging"):
        for path in (ROOT / folder).rglob("*.py"):
            for found in re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text()):
                named.setdefault(found, str(path.relative_to(ROOT)))
    assert {name: place for name, place in named.items() if not (ROOT / name).exists()} == {}
