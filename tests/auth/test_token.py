import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.auth.token import Invite, Redeemed, make_password, make_token, redeem, token_digest

MINE, OTHER = b"m" * 20, b"o" * 20


def test_an_unused_token_lets_in_until_it_expires() -> None:
    invite = Invite(expires_at=100.0)
    assert redeem(invite, MINE, b"", 99.9) is Redeemed.FIRST
    assert redeem(invite, MINE, b"", 100.0) is Redeemed.EXPIRED


def test_a_used_token_answers_the_same_card_again_even_after_expiry() -> None:
    invite = Invite(expires_at=100.0, used_hash=MINE)
    assert redeem(invite, MINE, MINE, 50.0) is Redeemed.AGAIN
    assert redeem(invite, MINE, MINE, 500.0) is Redeemed.AGAIN


def test_a_used_token_refuses_another_password() -> None:
    assert redeem(Invite(100.0, used_hash=MINE), OTHER, MINE, 50.0) is Redeemed.USED


def test_a_used_token_does_not_bring_back_a_password_that_was_changed_since() -> None:
    assert redeem(Invite(100.0, used_hash=MINE), MINE, OTHER, 50.0) is Redeemed.USED
    assert redeem(Invite(100.0, used_hash=MINE), MINE, b"", 50.0) is Redeemed.USED


def test_a_revoked_token_never_lets_in() -> None:
    assert redeem(Invite(100.0, revoked=True), MINE, b"", 1.0) is Redeemed.REVOKED
    assert redeem(Invite(100.0, used_hash=MINE, revoked=True), MINE, MINE, 1.0) is Redeemed.REVOKED


@given(st.binary(min_size=16, max_size=16))
def test_a_token_is_short_and_plain(random: bytes) -> None:
    token = make_token(random)
    assert len(token) == 22
    assert token.replace("-", "").replace("_", "").isalnum()
    assert len(token_digest(token)) == 32


@given(st.binary(min_size=13, max_size=13), st.integers(0, 99))
def test_a_hundred_bits_of_the_random_bytes_are_in_the_password(random: bytes, bit: int) -> None:
    password = make_password(random)
    assert len(password) == 23
    assert password.count("-") == 3
    assert not set(password) & set("01loIO")
    flipped = (int.from_bytes(random, "big") ^ (1 << bit)).to_bytes(13, "big")
    assert make_password(flipped) != password


def test_too_little_randomness_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="16"):
        make_token(b"short")
    with pytest.raises(ValueError, match="13"):
        make_password(b"short")
