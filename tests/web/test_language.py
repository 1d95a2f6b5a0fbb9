"""Accept-Language: RFC 9110, 12.5.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.locale import LANGUAGES
from ukihashi.web.language import choose, named, weights


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en-US;q=0.8,en;q=0.7", "ja"),
        ("en-US,en;q=0.9,ja;q=0.95", "en"),
        ("en;q=0.5, ja;q=0.8", "ja"),
        ("EN-gb", "en"),
        ("JA", "ja"),
        ("fr, ja;q=0.1", "ja"),
        ("fr, de", "en"),
        ("*", "en"),
        ("en;q=0.2, *;q=0.9", "ja"),
        ("ja;q=0", "en"),
        ("en;q=0", "ja"),
        ("en;q=0, *", "ja"),
        ("en;q=0, ja;q=0", "en"),
        ("en;q=0.8, ja;q=0.8", "en"),
        ("ja;q=0.8, en;q=0.8", "ja"),
        ("ja ; q = 0.9 , en;q=0.3", "ja"),
        ("ja;q=2, en;q=0.1", "en"),
        ("ja;q=0.1234, en;q=0.1", "en"),
        ("ja;q=x, en;q=0.1", "en"),
        (";;,,;q=1,ja", "ja"),
        ("jam, jav;q=0.9", "en"),
    ],
)
def test_the_reader_gets_the_language_of_the_highest_weight(header: str, language: str) -> None:
    assert choose(header) == language


def test_weights_keep_the_order_and_leave_bad_ones_out() -> None:
    assert weights("ja-JP, en;q=0.5, fr;q=1.5, *;q=0.001") == [("ja-jp", 1.0), ("en", 0.5), ("*", 0.001)]


@pytest.mark.parametrize(("tag", "language"), [("ja", "ja"), ("ja_JP", "ja"), ("EN", "en"), ("fr", None), (None, None)])
def test_a_tag_names_a_language_or_none(tag: str | None, language: str | None) -> None:
    assert named(tag) == language


@given(st.text(alphabet="jaen-JPUS*;q=.,019 \t", max_size=80) | st.text(max_size=40))
def test_any_header_gives_a_language(header: str) -> None:
    assert choose(header) in LANGUAGES


def test_an_endless_header_costs_little() -> None:
    assert len(weights("ja;q=0.1," * 100_000)) <= 64
