"""The administration: who gets in, and how often a stranger may try."""

import re
from typing import TYPE_CHECKING

import pytest

from ukihashi.errors import DaemonUnreachable
from ukihashi.web import sign_in

if TYPE_CHECKING:
    from tests.web.conftest import Answer, FakeHub, Visitor

ONE_TIME = "one-time-0123456789abcdef"
PASSWORD = "a bridge that floats"
SESSION = "__Secure-ukihashi-admin"


def token(answer: "Answer") -> str:
    match = re.search(r'name="csrf" value="([^"]+)"', answer.text)
    assert match is not None
    return match[1]


def sign(visitor: "Visitor", secret: str, **headers: str) -> "Answer":
    form = visitor.get("/admin")
    return visitor.post("/admin/sign-in", {"csrf": token(form), "secret": secret}, **headers)


def choose(visitor: "Visitor", new: str, again: str | None = None) -> "Answer":
    form = visitor.get("/admin/password")
    fields = {"csrf": token(form), "new": new, "again": new if again is None else again}
    return visitor.post("/admin/password", fields)


@pytest.fixture
def signed_in(visitor: "Visitor", hub: "FakeHub") -> "Visitor":
    hub.secret, hub.one_time = PASSWORD, False
    assert sign(visitor, PASSWORD).status == 303
    return visitor


def test_the_first_sign_in_must_choose_a_password(visitor: "Visitor", hub: "FakeHub") -> None:
    answer = sign(visitor, ONE_TIME)
    assert (answer.status, answer["location"]) == (303, "/admin/password")
    assert visitor.get("/admin")["location"] == "/admin/password"  # nothing else is open before
    before = visitor.cookies[SESSION]
    answer = choose(visitor, PASSWORD)
    assert (answer.status, answer["location"]) == (303, "/admin")
    assert (hub.secret, hub.one_time) == (PASSWORD, False)
    assert visitor.cookies[SESSION] != before
    state = visitor.get("/admin")
    assert "The hub now" in state.text
    assert "Your password is set" in state.text
    assert "Your password is set" not in visitor.get("/admin").text
    assert visitor.get("/admin/password")["location"] == "/admin"
    assert ONE_TIME not in state.text


@pytest.mark.parametrize(
    ("new", "again", "sentence"),
    [
        ("short", None, "at least 12 characters"),
        ("", None, "at least 12 characters"),
        (PASSWORD, PASSWORD + "x", "two entries differ"),
        (ONE_TIME, None, "another one than the one-time secret"),
        ("x" * 257, None, "at most 256 characters"),
    ],
)
def test_a_poor_choice_is_refused_with_the_reason(
    visitor: "Visitor", hub: "FakeHub", new: str, again: str | None, sentence: str
) -> None:
    sign(visitor, ONE_TIME)
    answer = choose(visitor, new, again)
    assert answer.status == 422
    assert sentence in answer.text
    assert hub.secret == ONE_TIME


def test_a_password_may_be_japanese(visitor: "Visitor", hub: "FakeHub") -> None:
    sign(visitor, ONE_TIME)
    choose(visitor, "浮橋は水の上に浮かぶ道です")
    assert hub.secret == "浮橋は水の上に浮かぶ道です"


def test_the_session_cookie_stays_where_it_belongs(signed_in: "Visitor") -> None:
    cookie = next(c for c in signed_in.set_cookies if c.startswith(SESSION))
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"secure", "httponly", "samesite=strict", "path=/admin"} <= attributes
    assert len(signed_in.cookies[SESSION]) == 43


def test_signing_in_gives_another_id_and_ends_the_old(signed_in: "Visitor") -> None:
    old = signed_in.cookies[SESSION]
    form = signed_in.cookies["__Secure-ukihashi-form"]
    signed_in.post("/admin/sign-in", {"csrf": form, "secret": PASSWORD})
    new = signed_in.cookies[SESSION]
    assert new != old
    signed_in.cookies[SESSION] = old
    assert "Your session has ended" in signed_in.get("/admin").text


def test_a_wrong_secret_is_refused(visitor: "Visitor", hub: "FakeHub") -> None:
    answer = sign(visitor, "wrong")
    assert answer.status == 403
    assert "not the administrator" in answer.text
    assert SESSION not in visitor.cookies
    assert hub.asked == ["admin_check"]


def test_guessing_is_slowed_by_address(visitor: "Visitor", hub: "FakeHub") -> None:
    for _ in range(sign_in.FAILURES):
        assert sign(visitor, "wrong", x_forwarded_for="203.0.113.9, 192.0.2.7").status == 403
    answer = sign(visitor, ONE_TIME, x_forwarded_for="198.51.100.1, 192.0.2.7")
    assert answer.status == 429
    assert 0 < int(answer["retry-after"]) <= sign_in.WINDOW_S + 1
    assert len(hub.asked) == sign_in.FAILURES
    assert sign(visitor, ONE_TIME, x_forwarded_for="192.0.2.7, 192.0.2.8").status == 303


@pytest.mark.parametrize("csrf", ["", "guessed"])
def test_a_form_from_elsewhere_is_refused(visitor: "Visitor", hub: "FakeHub", csrf: str) -> None:
    assert visitor.post("/admin/sign-in", {"csrf": csrf, "secret": ONE_TIME}).status == 403
    visitor.get("/admin")
    assert visitor.post("/admin/sign-in", {"csrf": csrf, "secret": ONE_TIME}).status == 403
    assert hub.asked == []
    sign(visitor, ONE_TIME)
    fields = {"csrf": csrf, "new": PASSWORD, "again": PASSWORD}
    assert visitor.post("/admin/password", fields).status == 403
    assert hub.secret == ONE_TIME


def test_the_forms_token_does_not_open_the_session(visitor: "Visitor", hub: "FakeHub") -> None:
    sign(visitor, ONE_TIME)
    fields = {"csrf": visitor.cookies["__Secure-ukihashi-form"], "new": PASSWORD, "again": PASSWORD}
    assert visitor.post("/admin/password", fields).status == 403
    assert hub.secret == ONE_TIME


def test_signing_out_ends_the_session(signed_in: "Visitor") -> None:
    session = signed_in.cookies[SESSION]
    assert signed_in.post("/admin/sign-out", {"csrf": "guessed"}).status == 403
    answer = signed_in.post("/admin/sign-out", {"csrf": token(signed_in.get("/admin"))})
    assert "You are signed out" in answer.text
    assert SESSION not in signed_in.cookies
    signed_in.cookies[SESSION] = session
    assert "The hub now" not in signed_in.get("/admin").text


def test_a_hub_that_says_no_to_the_new_password(visitor: "Visitor", hub: "FakeHub") -> None:
    sign(visitor, ONE_TIME)
    hub.secret = "changed meanwhile"
    answer = choose(visitor, PASSWORD)
    assert answer.status == 403
    assert "no longer valid" in answer.text


def test_the_state_shows_hubs_sessions_and_users(signed_in: "Visitor", hub: "FakeHub") -> None:
    hub.rows = {
        "status": [{"uptime_s": 3 * 3600 + 120}],
        "list": [{"name": "LAN", "online": True, "users": 2, "sessions": 1, "subnet4": "10.181.7.0/24"}],
        "sessions": [
            {
                "session": "SID-ALICE-1",
                "hub": "LAN",
                "user": "<alice>",
                "bytes_in": 2048,
                "since": 0.0,
                "drops": {"a": 40, "b": 2},
            }
        ],
        "users": [{"name": "bob", "group": "<sales>", "last_login_at": 86_400.0, "bytes_in": 3 << 20}],
    }
    text = signed_in.get("/admin").text
    for expected in ("3 h 2 min", "10.181.7.0/24", "SID-ALICE-1", "&lt;alice&gt;", "2.00 KiB", "1970-01-01", ">42<"):
        assert expected in text
    for expected in ("bob", "&lt;sales&gt;", "1970-01-02", "3.00 MiB"):
        assert expected in text
    assert "<alice>" not in text
    japanese = signed_in.get("/admin?lang=ja").text
    assert "3 時間 2 分" in japanese
    assert 'action="/admin/sign-out?lang=ja"' in japanese


def test_a_silent_hub_is_told_so(signed_in: "Visitor", hub: "FakeHub") -> None:
    hub.error = DaemonUnreachable("nobody answers on {path}", path="/run/x")
    answer = signed_in.get("/admin")
    assert answer.status == 503
    assert "nobody answers on /run/x" in answer.text


def test_a_part_that_does_not_answer_is_named(signed_in: "Visitor", hub: "FakeHub") -> None:
    hub.silent["sessions"] = "the worker does not answer"
    answer = signed_in.get("/admin")
    assert answer.status == 200
    assert "the worker does not answer" in answer.text
    assert "Nobody is connected" not in answer.text


def test_nothing_of_it_is_kept_by_a_cache(signed_in: "Visitor") -> None:
    assert signed_in.get("/admin")["cache-control"] == "no-store"
    assert "etag" not in signed_in.get("/admin")


def test_strange_forms_are_refused(visitor: "Visitor") -> None:
    visitor.get("/admin")
    assert visitor.ask("POST", "/admin/sign-in", b"{}", {"content-type": "application/json"}).status == 403
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert visitor.ask("POST", "/admin/sign-in", b"csrf=" + b"x" * 9000, form).status == 413
    assert visitor.ask("POST", "/admin/sign-in", b"csrf=%ff\xff&" + b"a=1&" * 40, form).status == 403
    assert visitor.get("/admin/sign-in")["location"] == "/admin"
    assert visitor.post("/admin", {}).status == 405


def test_the_language_is_carried_through(visitor: "Visitor") -> None:
    form = visitor.get("/admin?lang=ja")
    assert 'action="/admin/sign-in?lang=ja"' in form.text
    answer = visitor.post("/admin/sign-in?lang=ja", {"csrf": token(form), "secret": ONE_TIME})
    assert answer["location"] == "/admin/password?lang=ja"


def test_commands_in_a_sentence_are_set_as_code(signed_in: "Visitor") -> None:
    text = signed_in.get("/admin").text
    assert "<code>ukihashi hub create NAME</code>" in text
    assert "`" not in text
