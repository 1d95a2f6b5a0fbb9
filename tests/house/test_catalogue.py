"""Every sentence of the program exists in Japanese, with the same fields (A2, D15)."""

import io
import re
import string
from functools import cache
from pathlib import Path

import click
import pytest
from babel.messages.extract import extract
from babel.messages.pofile import read_po

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "ukihashi"
LANGUAGES = ("ja",)
PLURAL_FIELDS = {"len", "choices", "possibilities"}  # click gives them to both forms of a sentence
KEYWORDS = {"_": None, "N_": None, "ngettext": (1, 2), "gettext": None}


@cache
def marked() -> dict[str, str]:
    """Every marked message of the source, with the place where it stands first."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, message, _comments, _context in extract("python", io.BytesIO(path.read_bytes()), KEYWORDS):
            for text in [message] if isinstance(message, str) else message or ():
                if text:
                    found.setdefault(text, f"{path.relative_to(ROOT)}:{line}")
    return found


@cache
def of_click() -> set[str]:
    """What click says by itself: it asks our catalogue for it, so it may stand there."""
    found: set[str] = set()
    for path in Path(click.__file__).parent.rglob("*.py"):
        for _line, message, _comments, _context in extract("python", io.BytesIO(path.read_bytes()), KEYWORDS):
            found.update(text for text in ([message] if isinstance(message, str) else message or ()) if text)
    return found


@cache
def translated(language: str) -> dict[str, tuple[str, str]]:
    """Message -> (translation, file) of a language."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((PACKAGE / "locale" / language).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=language, abort_invalid=True):
                if not message.id:
                    continue
                assert not message.fuzzy, f"{path.name}: {message.id!r} is marked fuzzy"
                # Japanese has no plural form: singular and plural share the last string
                ids = [message.id] if isinstance(message.id, str) else list(message.id)
                strings = [message.string] if isinstance(message.string, str) else list(message.string or [""])
                for text in ids:
                    found[text] = (str(strings[-1] or ""), path.name)
    return found


def fields(text: str) -> set[str]:
    """The names between braces."""
    return {name for _literal, name, _spec, _conversion in string.Formatter().parse(text) if name}


def has_fields(text: str) -> bool:
    try:
        return bool(fields(text))
    except ValueError:  # a lone brace: not a template
        return False


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_is_translated(language: str) -> None:
    known = translated(language)
    assert [f"{place}: {text}" for text, place in marked().items() if not known.get(text, ("", ""))[0].strip()] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_left_over(language: str) -> None:
    wanted = marked().keys() | of_click()
    assert [f"{file}: {text}" for text, (_, file) in translated(language).items() if text not in wanted] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_fields_of_the_original(language: str) -> None:
    wrong = []
    for text, (string_, file) in translated(language).items():
        if has_fields(text) and fields(text) != fields(string_) and text not in of_click():
            wrong.append(f"{file}: {text} -> {string_}")
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_names_no_field_that_is_not_given(language: str) -> None:
    """Of click's plurals one string serves both forms, with fewer fields."""
    known = translated(language)
    wrong = [text for text in of_click() & known.keys() if not fields(known[text][0]) <= fields(text) | PLURAL_FIELDS]
    assert wrong == []


def test_a_template_holds_no_sentence_of_its_own() -> None:
    """Pages name their sentences by key, so that everything marked stands in Python."""
    no_words = re.compile(r"<!--.*?-->|{#.*?#}|{%.*?%}|{{.*?}}|<(style|code|pre)\b.*?</\1>|<[^>]*>", re.DOTALL)
    for path in PACKAGE.rglob("templates/**/*.html"):
        text = no_words.sub(" ", path.read_text())
        assert re.findall(r"[A-Za-z]{3,}\s+[A-Za-z]{3,}", text) == [], path.name


def test_japanese_is_japanese() -> None:
    """Nobody has copied English into the catalogue, except for what has no words."""
    same = [text for text, (string_, _) in translated("ja").items() if text == string_ and len(text.split()) > 2]
    assert same == []
