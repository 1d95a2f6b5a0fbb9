"""One table of all settings."""

from typing import Any

import msgspec
import pytest

from ukihashi.config.card import CardConfig, EchoGuard, Hub, Interface, Login, Route
from ukihashi.config.hub import HubConfig, Times
from ukihashi.config.option_texts import ROUTE, SECTIONS, TEXTS, UNITS, Effect
from ukihashi.config.options import (
    KINDS,
    Kind,
    applied,
    change_rows,
    changed,
    effect_words,
    options,
    parse,
    rows,
    said_in,
    value_text,
)
from ukihashi.errors import UsageError

CARD = CardConfig(
    hub=Hub(host="h", hub="LAN", user="ann"),
    login=Login(password="hush hush"),
    interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
)


def leaves(struct: Any, place: str = "") -> list[str]:
    found = []
    for field in msgspec.structs.fields(struct):
        inner = isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
        found += leaves(field.type, f"{place}{field.name}.") if inner else [f"{place}{field.name}"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_its_words_and_no_words_are_left_over(kind: Kind) -> None:
    assert list(TEXTS[kind]) == leaves(KINDS[kind])
    assert [one.key for one in options(kind)] == leaves(KINDS[kind])
    assert {one.section for one in options(kind)} <= set(SECTIONS[kind])
    assert {one.unit for one in options(kind)} <= {"", *UNITS}
    assert list(ROUTE) == leaves(Route)


@pytest.mark.parametrize("kind", KINDS)
def test_a_default_is_what_its_own_text_says(kind: Kind) -> None:
    for one in options(kind):
        if not one.required and not one.is_table:
            assert parse(kind, one.key, value_text(one.default)) == one.default


@pytest.mark.parametrize(
    ("kind", "key", "text", "value"),
    [
        ("card", "times.dead", "20", 20.0),
        ("card", "times.dead", " 1e1 ", 10.0),
        ("card", "hub.port", "8443", 8443),
        ("card", "echo_guard.enabled", "Off", False),
        ("card", "echo_guard.enabled", "yes", True),
        ("card", "echo_guard.target", "192.0.2.1", "192.0.2.1"),
        ("card", "hub.user", "12", "12"),
        ("card", "interface.addresses", "10.0.0.2/24, fd00::2/64", ["10.0.0.2/24", "fd00::2/64"]),
        ("card", "interface.addresses", '["10.0.0.2/24"]', ["10.0.0.2/24"]),
        ("card", "tls.ciphers", "", []),
        ("hub", "listen", "443,[::1]:8443", ("443", "[::1]:8443")),
        ("hub", "log_format", "json", "json"),
        ("hub", "bridges", '{LAN = ["eth1"]}', {"LAN": ("eth1",)}),
    ],
)
def test_a_text_becomes_a_value(kind: Kind, key: str, text: str, value: object) -> None:
    assert parse(kind, key, text) == value


@pytest.mark.parametrize(
    ("kind", "key", "text", "said"),
    [
        ("card", "times.dead", "soon", "times.dead takes a number from 0.3 to 600, not “soon”"),
        ("card", "times.dead", "601", "from 0.3 to 600, not “601”"),
        ("card", "times.dead", "nan", "not “nan”"),
        ("card", "hub.port", "1.5", "a whole number from 1 to 65535"),
        ("card", "hub.port", "9" * 5000, "a whole number from 1 to 65535"),
        ("card", "echo_guard.enabled", "perhaps", "true or false"),
        ("card", "trust.mode", "hope", "one of ca, first-use, pin"),
        ("card", "tls.ciphers", "[1, 2]", "takes a list"),
        ("card", "tls.ciphers", "[[", "takes a list"),
        ("card", "interface.routes", "10.0.0.0/8", "card route add"),
        ("hub", "bridges", "{LAN = 3}", "bridges can't be “{LAN = 3}”"),
        ("card", "times.daed", "1", "did you mean times.dead?"),
        ("card", "period", "1", "did you mean echo_guard.period?"),
        ("hub", "", "1", "`ukihashi hub options` lists them"),
    ],
)
def test_a_wrong_text_is_told_with_what_is_allowed(kind: Kind, key: str, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(kind, key, text)
    assert said in str(caught.value)


def test_what_changed_and_when_it_is_heeded() -> None:
    new = applied(CARD, {"hub.port": 8443, "echo_guard.period": 5, "interface.name": "ukx"})
    assert changed(CARD, new) == [
        ("hub.port", 443, 8443, Effect.NEXT_CONNECTION),
        ("interface.name", "uklan", "ukx", Effect.NEXT_START),
        ("echo_guard.period", 30.0, 5.0, Effect.NOW),
    ]
    assert changed(CARD, CARD) == []
    assert applied(new, {"hub.port": None, "echo_guard.period": None}).echo_guard == EchoGuard()


def test_values_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match=r"times\.keepalive_s"):
        applied(HubConfig(), {"times.dead_s": 3.0})
    with pytest.raises(UsageError, match="brackets"):
        applied(HubConfig(), {"listen": ["::1:443"]})
    assert applied(HubConfig(), {"times.dead_s": 3.0, "times.keepalive_s": 1.0}).times == Times(
        keepalive_s=1.0, dead_s=3.0
    )


def test_rows_are_plain_and_hold_no_secret() -> None:
    found = {row["option"]: row for row in rows("card", CARD)}
    assert "hush" not in msgspec.json.encode(list(found.values())).decode()
    assert (found["login.password"]["value"], found["login.password"]["is_set"]) == (None, True)
    assert found["login.invite"]["is_set"] is False
    dead = found["times.dead"]
    assert (dead["value"], dead["default"], dead["is_set"], dead["effect"]) == (15.0, 15.0, False, "now")
    assert dead["allowed"] == "0.3 to 600 seconds"
    assert found["hub.host"]["is_set"]
    assert all(not row["is_set"] for row in rows("card", None))


def test_rows_speak_both_languages() -> None:
    english, japanese = ({row["option"]: row for row in rows("hub", None, code)} for code in ("en", "ja"))
    for key, row in english.items():
        assert japanese[key]["meaning"] != row["meaning"]
    assert "秒" in japanese["times.dead_s"]["allowed"]
    assert effect_words("in a year", str) == "in a year"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (15.0, "15"),
        (0.5, "0.5"),
        (True, "true"),
        (("a", "b"), "a, b"),
        ([Route(to="10.8.0.0/16", via="10.0.0.1", metric=3)], "10.8.0.0/16 via 10.0.0.1 metric 3"),
        ([{"to": "fd00::/8"}], "fd00::/8"),
        (None, ""),
        (86_400.0, "86400"),
    ],
)
def test_a_value_as_one_types_it(value: object, text: str) -> None:
    assert value_text(value) == text


def test_a_change_of_a_secret_is_told_without_it() -> None:
    new = applied(CARD, {"login.password": "still hush", "times.dead": 20.0})
    assert change_rows("card", changed(CARD, new)) == [
        {"option": "login.password", "old": None, "new": None, "effect": "next connection"},
        {"option": "times.dead", "old": 15.0, "new": 20.0, "effect": "now"},
    ]


def test_rows_of_a_daemon_are_said_in_the_readers_language() -> None:
    told: list[dict[str, Any]] = [
        {"option": "times.dead_s", "meaning": "x", "value": 1},
        {"option": "of.tomorrow", "meaning": "later"},
    ]
    known, unknown = said_in("hub", told, "ja")
    assert known["meaning"].startswith("仮想 LAN カードから")
    assert (known["value"], unknown) == (1, told[1])
