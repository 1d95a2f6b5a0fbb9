"""The detector's manual has every part that the manual of 2004 had, in both languages (requirement B41)."""

import re
from pathlib import Path

import pytest

from ukihashi.alert.duties import DUTIES
from ukihashi.locale import catalogue

DOCS = Path(__file__).parents[2] / "docs"
PARTS = {
    "en": (
        "Terms", "Limits", "Environment", "Placement", "Installation", "Use", "Log format", "Questions and answers",
        "Contact",
    ),
    "ja": (
        "使用条件", "制限事項", "動作環境", "設置場所", "導入", "使用方法", "ログの形式", "質問と回答", "問い合わせ先"
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", PARTS)
def test_each_part_is_there_in_order(language: str) -> None:
    text = (DOCS / f"alert.{language}.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.*)$", text, re.MULTILINE)) == PARTS[language]
    assert re.search(r"!\[[^]]+\]\(images/placement-\w+\.svg\)", text)
    assert [int(number) for number in re.findall(r"^\*\*(\d)\. ", text, re.MULTILINE)] == list(range(1, 10))


@pytest.mark.parametrize("language", PARTS)
def test_the_four_duties_are_those_that_stand_beside_a_finding(language: str) -> None:
    text = " ".join((DOCS / f"alert.{language}.md").read_text(encoding="utf-8").split())
    assert len(DUTIES) == 4
    for number, duty in enumerate(DUTIES, 1):
        assert f"{number}. {catalogue(language).gettext(duty)}" in text


@pytest.mark.parametrize("language", PARTS)
def test_every_command_named_is_there(language: str) -> None:
    from ukihashi.cli.alert import SUBCOMMANDS

    text = (DOCS / f"alert.{language}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"ukihashi alert ([a-z]+)", text))
    assert named == set(SUBCOMMANDS) - {"replay"}
