"""The page of the matrix has the matrix's form, says nothing of what was not run, and is the one the test writes."""

import re
from pathlib import Path
from typing import Final

import pytest

from lab import matrix
from lab.matrix import ROLES, SENSELESS, TROUBLES, VARIANTS, Cell, page

MARK: Final = re.compile(r"(passed, \d+ s|failed|not run|—)( \[(\d+(, \d+)*)\])?")


def tables(text: str) -> dict[str, list[str]]:
    """Row title -> its cells, of both tables."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| |", "| ---")):
            title, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert title not in found
            found[title] = cells
    return found


def notes(text: str) -> list[str]:
    return re.findall(r"^\d+\. (.+)$", text.partition("## Notes")[2], re.MULTILINE)


def check(text: str) -> None:
    assert re.findall(r"^\| \| (.+) \|$", text, re.MULTILINE) == [" | ".join(role.title for role in ROLES)] * 2
    found = tables(text)
    assert list(found) == [title for _, title in matrix.rows()]
    said = notes(text)
    used: set[int] = set()
    for name, title in matrix.rows():
        assert len(found[title]) == len(ROLES)
        for role, cell in zip(ROLES, found[title], strict=True):
            mark = MARK.fullmatch(cell)
            assert mark, cell
            numbers = [int(number) for number in re.findall(r"\d+", mark[3] or "")]
            used |= set(numbers)
            reason = SENSELESS.get((role.name, name))
            assert (mark[1] == "—") == (reason is not None)
            if reason is not None:
                assert reason in [said[number - 1] for number in numbers]
            if mark[1] == "failed":
                assert numbers, "failed, but why?"
    assert used == set(range(1, len(said) + 1))


def test_every_cell_that_makes_sense_is_in_the_matrix_once_and_the_others_have_a_reason() -> None:
    cells = matrix.cells()
    assert len(cells) == len(set(cells)) == len(ROLES) * (len(VARIANTS) + len(TROUBLES)) - len(SENSELESS)
    assert set(matrix.CORE) <= set(cells)
    names = [row.name for row in (*VARIANTS, *TROUBLES)]
    assert len(names) == len(set(names))
    assert all(role in {one.name for one in ROLES} and row in names for role, row in SENSELESS)


def test_a_page_says_what_was_found_and_of_the_rest_that_it_was_not_run() -> None:
    found = {
        ("client", "one"): Cell("passed", 9.4),
        ("card", "one"): Cell("failed", 3.0, ["no answer"]),
        ("client", "killed"): Cell("passed", 30.2, ["restarted by hand"]),
    }
    text = page(found, megabytes=4, facts={"made": "2026-01-01"})
    check(text)
    rows = tables(text)
    assert rows["1 connection"] == ["passed, 9 s", "failed [1]", "not run", "not run", "not run"]
    assert notes(text)[0] == "no answer"
    assert "- made: 2026-01-01\n" in text
    assert sum(cell.startswith("passed") for cells in rows.values() for cell in cells) == 2


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("| 1 connection |", "| 1 link |"), ("not run", "skipped"), ("— [1]", "passed, 1 s"), ("vpnclient →", "client →")],
)
def test_a_page_of_another_form_is_noticed(was: str, becomes: str) -> None:
    text = page({}, megabytes=4, facts={})
    check(text)
    assert was in text
    with pytest.raises(AssertionError):
        check(text.replace(was, becomes, 1))


def test_the_page_in_the_documents_is_of_this_matrix(repository: Path) -> None:
    text = (repository / "docs/interop.md").read_text()
    check(text)
    for fact in ("date", "version", "commit", "others"):
        assert re.search(rf"^- {fact}: \S", text, re.MULTILINE), fact
