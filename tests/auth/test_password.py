"""The forms of a password; their values are in tests/wire/softether-vectors.json."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.auth.password import admin_hash, check_secure_password, hash_password, secure_password, sha0


@given(st.text(st.characters(codec="ascii"), max_size=30), st.text(max_size=30))
def test_the_case_of_the_user_name_does_not_matter(user: str, password: str) -> None:
    assert hash_password(user.lower(), password) == hash_password(user.upper(), password)


def test_only_ascii_is_made_upper_case() -> None:
    assert hash_password("é", "") == sha0("é".encode())


@pytest.mark.parametrize("length", [0, 55, 56, 63, 64, 119, 120])
def test_padding_at_block_borders(length: int) -> None:
    digest = sha0(bytes(length))
    assert len(digest) == 20
    assert digest != hashlib.sha1(bytes(length), usedforsecurity=False).digest()


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20), st.binary(max_size=25))
def test_only_the_right_answer_is_taken(hashed: bytes, challenge: bytes, wrong: bytes) -> None:
    answer = secure_password(hashed, challenge)
    assert check_secure_password(hashed, challenge, answer)
    if wrong != answer:
        assert not check_secure_password(hashed, challenge, wrong)


def test_a_user_without_a_stored_hash_never_passes() -> None:
    assert not check_secure_password(b"", bytes(20), secure_password(b"", bytes(20)))


def test_admin_and_user_forms_differ() -> None:
    assert admin_hash("pw") != hash_password("administrator", "pw")
