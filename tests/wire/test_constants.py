"""Every code that a person can meet has a sentence, and every sentence renders."""

import string

import pytest

from ukihashi.wire.constants import SENTENCES, Code, code_name, sentence


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.NONE])
def test_every_code_has_a_sentence_without_fields(code: Code) -> None:
    assert SENTENCES[code]
    assert [field for _, field, _, _ in string.Formatter().parse(SENTENCES[code]) if field] == []


def test_unknown_codes_are_named_by_number() -> None:
    assert (code_name(9), code_name(47)) == ("AUTH_FAILED", "CODE_47")
    assert "47" in sentence(47).format(code=47)
