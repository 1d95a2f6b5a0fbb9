import unicodedata

import pytest

from ukihashi.auth.names import check_hub_name, check_user_name, name_key
from ukihashi.errors import UsageError


@pytest.mark.parametrize("name", ["LAN", "本社", "user@example.jp", "a b", "ü", "x" * 255, "田中 太郎", "1"])
def test_people_may_use_their_own_writing(name: str) -> None:
    assert check_hub_name(name) == name
    assert check_user_name(name) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        (" LAN", "space"),
        ("x" * 256, "255 bytes"),
        ("本" * 86, "255 bytes"),
        ("a/b", "contain /"),
        ("a\nb", r"U\+000A"),
        ("a\u202eb", r"U\+202E"),
        ("a\u200bb", r"U\+200B"),
        ("-x", "hyphen"),
        ("\ud800", "valid text"),
    ],
)
def test_names_that_break_lines_files_or_screens_are_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_hub_name(name)


def test_case_and_composition_make_no_difference() -> None:
    assert name_key("Lan") == name_key("LAN")
    assert name_key("Müller") == name_key(unicodedata.normalize("NFD", "MÜLLER"))
    assert check_hub_name(unicodedata.normalize("NFD", "Müller")) == "Müller"
