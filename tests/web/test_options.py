"""The hub's options page: every option is shown, what takes effect at once can be changed."""

import re
from html import unescape
from typing import TYPE_CHECKING

import pytest
from tests.web.test_admin import ONE_TIME, PASSWORD, sign, token

from ukihashi.config.options import options
from ukihashi.errors import DaemonUnreachable

if TYPE_CHECKING:
    from tests.web.conftest import FakeHub, Visitor

PATH = "/admin/options"


@pytest.fixture
def admin(visitor: "Visitor", hub: "FakeHub") -> "Visitor":
    hub.secret, hub.one_time = PASSWORD, False
    sign(visitor, PASSWORD)
    hub.asked.clear()
    return visitor


def row(text: str, key: str) -> str:
    """The table row of one option."""
    found = re.search(rf'<tr id="{re.escape(key)}">(.*?)</tr>', text, re.DOTALL)
    assert found is not None, key
    return unescape(found[1])


def test_every_option_is_shown_with_what_it_means(admin: "Visitor") -> None:
    assert f'href="{PATH}"' in admin.get("/admin").text
    english, japanese = admin.get(PATH).text, admin.get(f"{PATH}?lang=ja").text
    for one in options("hub"):
        meaning = re.sub("`(.*?)`", r"<code>\1</code>", one.meaning)
        assert meaning in row(english, one.key)
        assert ("<form" in row(english, one.key)) == (one.effect == "now")
        assert meaning not in row(japanese, one.key)
    assert "0.3 to 600 seconds" in row(english, "times.dead_s")
    assert "すぐに" in row(japanese, "times.dead_s")


def test_a_change_is_made_and_marked_once(admin: "Visitor", hub: "FakeHub") -> None:
    form = token(admin.get(PATH))
    answer = admin.post(f"{PATH}?lang=ja", {"csrf": form, "option": "times.dead_s", "value": " 20 "})
    assert (answer.status, answer["location"]) == (303, f"{PATH}?lang=ja#times.dead_s")
    assert hub.config.times.dead_s == 20.0
    assert "変更しました" in row(admin.get(f"{PATH}?lang=ja").text, "times.dead_s")
    again = admin.get(PATH).text
    assert 'value="20"' in row(again, "times.dead_s")
    assert "Changed." not in again


@pytest.mark.parametrize(
    ("key", "value", "english", "japanese"),
    [
        ("times.dead_s", "soon", "takes a number from 0.3 to 600, not “soon”", "の数を指定してください"),
        ("times.dead_s", "1", "times.keepalive_s must be below times.dead_s", "より小さくしてください"),
        ("public_address", '"><b>', "public address; write a name", "外から見たアドレスではありません"),
    ],
)
def test_a_wrong_value_stays_in_its_field_with_the_reason(
    admin: "Visitor", hub: "FakeHub", key: str, value: str, english: str, japanese: str
) -> None:
    form = token(admin.get(PATH))
    before = hub.config
    for language, said in (("en", english), ("ja", japanese)):
        answer = admin.post(f"{PATH}?lang={language}", {"csrf": form, "option": key, "value": value})
        assert answer.status == 422
        assert said in row(answer.text, key)
        assert "<b>" not in answer.text
        assert f'value="{value}"' in row(answer.text, key)
    assert hub.config == before


def test_only_the_administrator_sees_and_changes(visitor: "Visitor", hub: "FakeHub") -> None:
    assert visitor.get(PATH)["location"] == "/admin"
    fields = {"csrf": "x", "option": "times.dead_s", "value": "20"}
    assert visitor.post(PATH, fields).status == 403
    sign(visitor, ONE_TIME)  # must choose a password first
    assert visitor.get(PATH)["location"] == "/admin"
    fields["csrf"] = token(visitor.get("/admin/password"))
    assert visitor.post(PATH, fields).status == 403
    assert hub.config.times.dead_s == 15.0
    assert "options" not in hub.asked
    assert "set_option" not in hub.asked


@pytest.mark.parametrize("key", ["listen", "tls.key", "page_dir", "nothing", ""])
def test_what_needs_a_new_start_is_not_changed_here(admin: "Visitor", hub: "FakeHub", key: str) -> None:
    form = token(admin.get(PATH))
    assert admin.post(PATH, {"csrf": form, "option": key, "value": "1"}).status == 403
    assert admin.post(PATH, {"csrf": "x" * 43, "option": "times.dead_s", "value": "20"}).status == 403
    assert admin.post(PATH, {"option": "times.dead_s", "value": "20"}).status == 403
    assert "set_option" not in hub.asked


def test_a_hub_that_is_silent_or_says_no_is_told(admin: "Visitor", hub: "FakeHub") -> None:
    hub.silent["options"] = "not today"
    answer = admin.get(PATH)
    assert (answer.status, "not today" in answer.text) == (200, True)
    hub.error = DaemonUnreachable("nothing answers on {path}; is the daemon running?", path="x")
    assert admin.get(PATH).status == 503


def test_options_of_a_newer_hub_are_shown_but_not_changed(admin: "Visitor", hub: "FakeHub") -> None:
    hub.silent.clear()
    later = {"option": "later.thing", "value": [1], "default": [], "effect": "in a year", "meaning": "Of tomorrow."}
    hub.newer = [later]
    text = row(admin.get(PATH).text, "later.thing")
    assert "Of tomorrow." in text
    assert "in a year" in text
    assert "<form" not in text
