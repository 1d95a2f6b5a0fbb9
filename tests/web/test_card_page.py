"""The card's page on the loopback: who gets in, what it shows, what can be changed."""

import re
from collections.abc import Callable
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.test_options import row

from ukihashi.config.card import CardConfig, Hub, Interface, Login
from ukihashi.config.options import applied, options, parse, rows
from ukihashi.errors import DaemonUnreachable, UkihashiError
from ukihashi.web.card_page import build_card_app

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Visitor

SECRET = "way-in-0123456789"
PORT = 7999
CARD = CardConfig(
    hub=Hub(host="h.example", hub="LAN", user="ann"),
    login=Login(password="hush-hush-hush"),
    interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
)
ROW = {
    "account": "lan",
    "state": "online",
    "hub": "LAN",
    "peer": "192.0.2.1:443",
    "interface": "uklan",
    "addresses": ["10.9.0.2/24"],
    "reason": None,
    "ledger": {"sent": 12, "acknowledged": 10, "waiting": 2, "dropped": {"full": 3, "old": 1}, "of_tomorrow": 5},
}


class FakeCard:
    """What the keeper would answer."""

    def __init__(self) -> None:
        self.config = CARD
        self.row: dict[str, Any] = dict(ROW)
        self.error: UkihashiError | None = None
        self.asked: list[str] = []

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        self.asked.append(do)
        if self.error is not None:
            raise self.error
        if do == "options":
            return {"ok": True, "rows": rows("card", self.config)}
        if do == "set_option":
            try:
                self.config = applied(self.config, {args["key"]: parse("card", args["key"], args["value"])})
            except UkihashiError as error:
                return {"ok": False, "error": str(error), "refusal": error}
        return {"ok": True, "rows": [self.row]}


@pytest.fixture
def card() -> FakeCard:
    return FakeCard()


@pytest.fixture
def stranger(card: FakeCard, new_visitor: Callable[..., "Visitor"]) -> "Visitor":
    app = build_card_app(card, account="lan", secret=SECRET, port=PORT, version="9.9.9-test")
    return new_visitor(app, host=f"127.0.0.1:{PORT}")


@pytest.fixture
def owner(stranger: "Visitor") -> "Visitor":
    assert stranger.get(f"/?key={SECRET}")["location"] == "/"
    return stranger


def csrf(answer: "Answer") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
    assert found is not None
    return found[1]


def test_the_address_opens_once_and_the_cookie_keeps(stranger: "Visitor", card: FakeCard) -> None:
    for target in ("/", "/?key=", "/?key=wrong"):
        assert stranger.get(target).status == 403
    assert stranger.ask("HEAD", f"/?key={SECRET}").status == 403  # a link that is only looked at isn't spent
    assert card.asked == []
    answer = stranger.get(f"/?key={SECRET}&lang=ja")
    assert (answer.status, answer["location"]) == (303, "/?lang=ja")
    (cookie,) = stranger.set_cookies
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert SECRET not in cookie
    assert stranger.get("/").status == 200
    kept = dict(stranger.cookies)
    stranger.cookies.clear()
    assert stranger.get(f"/?key={SECRET}").status == 403
    assert "card page" in stranger.get("/").text
    stranger.cookies = kept
    assert stranger.get("/").status == 200


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "", "192.0.2.1"])
def test_a_name_that_was_bent_to_this_machine_is_refused(owner: "Visitor", card: FakeCard, host: str) -> None:
    assert owner.get("/", host=host).status == 421
    assert owner.post("/", {"option": "times.dead", "value": "20"}, host=host).status == 421
    assert card.asked == []
    for own in (f"localhost:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"):
        assert owner.get("/", host=own).status == 200


def test_state_ledger_and_every_option_are_shown(owner: "Visitor") -> None:
    answer = owner.get("/")
    text = unescape(answer.text)
    for shown in ("online", "192.0.2.1:443", "uklan 10.9.0.2/24", "4 (full 3, old 1)", "of_tomorrow"):
        assert shown in text
    for one in options("card"):
        own = row(answer.text, one.key)
        assert ("<form" in own) == (not one.secret and not one.is_table)
    assert "hush-hush-hush" not in text
    assert '<td data-label="Value">\nset' in row(answer.text, "login.password")
    assert answer["cache-control"] == "no-store"
    assert "a virtual HUB answers here" not in text  # a probe must not take it for one
    japanese = owner.get("/?lang=ja").text
    assert "仮想 LAN カード “lan”" in japanese
    assert "台帳" in japanese


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("echo_guard.enabled", "false", False),
        ("echo_guard.target", "2001:db8::1", "2001:db8::1"),
        ("echo_guard.period", "5", 5.0),
        ("interface.addresses", "10.9.0.3/24, fd00::3/64", ["10.9.0.3/24", "fd00::3/64"]),
    ],
)
def test_an_option_is_changed(owner: "Visitor", card: FakeCard, key: str, value: str, kept: object) -> None:
    answer = owner.post("/", {"csrf": csrf(owner.get("/")), "option": key, "value": value})
    assert (answer.status, answer["location"]) == (303, f"/#{key}")
    assert {one["option"]: one["value"] for one in rows("card", card.config)}[key] == kept
    assert "Changed." in row(owner.get("/").text, key)
    assert "Changed." not in owner.get("/").text


def test_a_wrong_value_is_told_beside_its_field(owner: "Visitor", card: FakeCard) -> None:
    form = csrf(owner.get("/"))
    for value, said in (("soon", "takes a number"), ("1", "must be below")):
        answer = owner.post("/", {"csrf": form, "option": "times.dead", "value": value})
        assert (answer.status, said in row(answer.text, "times.dead")) == (422, True)
    assert card.config == CARD


def test_forms_of_others_and_forbidden_options_are_refused(owner: "Visitor", card: FakeCard) -> None:
    form = csrf(owner.get("/"))
    for fields in (
        {"option": "times.dead", "value": "20"},
        {"csrf": "x", "option": "times.dead", "value": "20"},
        {"csrf": form, "option": "login.password", "value": "known"},
        {"csrf": form, "option": "interface.routes", "value": "[]"},
        {"csrf": form, "option": "nothing", "value": "1"},
        {"csrf": form},
    ):
        assert owner.post("/", fields).status == 403
    owner.cookies.clear()
    assert owner.post("/", {"csrf": form, "option": "times.dead", "value": "20"}).status == 403
    assert "set_option" not in card.asked
    assert owner.get("/nothing").status == 404
    assert owner.ask("DELETE", "/").status == 405


def test_why_the_card_is_not_online_is_said_in_the_readers_language(owner: "Visitor", card: FakeCard) -> None:
    template = "{address} refused the connection"
    card.row["reason"] = {"template": template, "values": {"address": "192.0.2.1"}, "text": "x"}
    assert "192.0.2.1 refused the connection" in owner.get("/").text
    card.row["reason"] = {"template": template, "values": {}, "text": "in plain words"}
    assert "in plain words" in owner.get("/").text
    card.row = {"account": "lan", "state": "down"}
    assert owner.get("/").status == 200


def test_a_keeper_that_is_gone_is_told(owner: "Visitor", card: FakeCard) -> None:
    card.error = DaemonUnreachable("the command that serves this page has ended")
    answer = owner.get("/?lang=ja")
    assert (answer.status, answer.text) == (503, "このページを表示していたコマンドは終了しました")


def test_every_answer_has_the_safe_headers(owner: "Visitor") -> None:
    for answer in (owner.get("/"), owner.get("/nothing"), owner.get("/", host="x"), owner.get("/favicon.ico")):
        assert "frame-ancestors 'none'" in answer["content-security-policy"]
