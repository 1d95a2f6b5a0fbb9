"""What anyone sees: A2, A3, A12, A14."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ukihashi.web.language import choose
from ukihashi.web.texts import LANDING

if TYPE_CHECKING:
    from tests.web.conftest import FakeHub, Visitor

TAG = "9C37197CA7C2428388C2E6E59B829B30"  # protocol section 4.1
VERSION = "9.9.9-test"


class Links(HTMLParser):
    """Every address that a page makes a browser fetch or follow, and its headings in order."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.headings: list[int] = []
        self.language: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action", "srcset"}]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "html":
            self.language = fields.get("lang")
        assert "style" not in fields, tag  # the policy would block it
        assert not [name for name in fields if name.startswith("on")], tag


def links(text: str) -> Links:
    parser = Links()
    parser.feed(text)
    return parser


@pytest.mark.parametrize(("header", "language"), [("ja-JP,ja;q=0.9", "ja"), ("en-US,en;q=0.9", "en"), ("", "en")])
def test_the_page_speaks_the_readers_language(visitor: "Visitor", header: str, language: str) -> None:
    answer = visitor.get("/", accept_language=header)
    assert answer.status == 200
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert answer["content-language"] == language
    assert answer["vary"] == "Accept-Language"
    assert links(answer.text).language == language
    assert ("仮想 HUB" in answer.text) == (language == "ja")
    assert (LANDING["heading"] in answer.text) == (language == "en")
    assert choose(header) == language


def test_the_switch_wins_over_the_header_and_links_carry_it(visitor: "Visitor") -> None:
    answer = visitor.get("/?lang=ja", accept_language="en")
    assert answer["content-language"] == "ja"
    assert "/admin?lang=ja" in links(answer.text).addresses
    assert "/admin" in links(visitor.get("/", accept_language="ja").text).addresses
    assert visitor.get("/?lang=xx", accept_language="ja")["content-language"] == "ja"


def test_a_standard_client_recognises_the_page(visitor: "Visitor") -> None:
    for language in ("ja", "en"):
        body = visitor.get("/", accept_language=language).body
        assert TAG.encode() in body[:1000]
        assert b"--" not in body[body.index(TAG.encode()) : body.index(b"-->")]


def test_length_and_head(visitor: "Visitor") -> None:
    full = visitor.get("/")
    head = visitor.ask("HEAD", "/")
    assert int(full["content-length"]) == len(full.body) < 1024 * 1024
    assert (head.status, head["content-length"], head["etag"]) == (200, full["content-length"], full["etag"])


def test_an_unchanged_page_is_not_sent_again(visitor: "Visitor") -> None:
    tag = visitor.get("/")["etag"]
    again = visitor.get("/", if_none_match=f'"other", W/{tag}')
    assert (again.status, again.body, again["etag"]) == (304, b"", tag)
    assert visitor.get("/", if_none_match=tag, accept_language="ja").status == 200


def test_version_and_instructions_stand_on_the_page(visitor: "Visitor") -> None:
    text = visitor.get("/").text
    assert f"ukihashi {VERSION}" in text
    assert "ukihashi card join LINK" in text
    assert "<dd>hub.example</dd>" in text
    assert "<dd>8443</dd>" in text


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("hub.example", "hub.example", "443"),
        ("[2001:db8::1]:992", "2001:db8::1", "992"),
        ("192.0.2.1", "192.0.2.1", "443"),
    ],
)
def test_the_host_is_the_one_that_was_typed(visitor: "Visitor", host: str, name: str, port: str) -> None:
    text = visitor.get("/", host=host).text
    assert f"<dd>{name}</dd>" in text
    assert f"<dd>{port}</dd>" in text


@pytest.mark.parametrize("host", ["", "<script>", "white space", "x" * 300, "evil/path", "[::1"])
def test_a_strange_host_is_not_repeated(visitor: "Visitor", host: str) -> None:
    text = visitor.get("/", host=host).text
    assert not host or host not in text
    assert "<dd>" not in text


def test_nothing_comes_from_elsewhere_and_nothing_is_told(visitor: "Visitor", hub: "FakeHub") -> None:
    hub.rows["list"] = [{"name": "SECRETHUB"}]
    answer = visitor.get("/")
    assert all(address.startswith(("/", "#")) for address in links(answer.text).addresses)
    assert hub.asked == []
    assert "set-cookie" not in answer


def test_headings_do_not_skip_a_level(visitor: "Visitor") -> None:
    headings = links(visitor.get("/").text).headings
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))


@pytest.mark.parametrize("target", ["/", "/nowhere", "/admin", "/ukihashi/page.css"])
def test_every_answer_is_guarded(visitor: "Visitor", target: str) -> None:
    answer = visitor.get(target)
    policy = answer["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in answer
    assert int(answer["content-length"]) == len(answer.body)


def test_an_unknown_path_is_told_so_in_both_languages(visitor: "Visitor") -> None:
    for language in ("ja", "en"):
        answer = visitor.get("/no/such", accept_language=language)
        assert answer.status == 404
        assert answer["content-language"] == language
        assert "このページはありません" in answer.text
        assert "Nothing at this address" in answer.text
    assert visitor.get("/%2e%2e/%2e%2e/etc/passwd").status == 404


def test_another_method_is_refused_with_those_allowed(visitor: "Visitor") -> None:
    answer = visitor.post("/", {})
    assert answer.status == 405
    assert set(answer["allow"].split(", ")) == {"GET", "HEAD"}


def test_our_files_may_be_kept_for_ever_under_their_digest(visitor: "Visitor") -> None:
    style = next(a for a in links(visitor.get("/").text).addresses if "page.css" in a)
    answer = visitor.get(style)
    assert answer["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer["cache-control"]
    assert "http" not in answer.text  # no resource from elsewhere
    assert visitor.get("/ukihashi/page.css?v=old")["cache-control"] == "no-cache"
    assert visitor.get("/ukihashi/mark.svg")["content-type"] == "image/svg+xml"
    assert visitor.get("/ukihashi/../app.py").status == 404
    assert visitor.get("/ukihashi/nothing.css").status == 404


def test_the_icon_that_browsers_ask_for(visitor: "Visitor") -> None:
    answer = visitor.get("/favicon.ico")
    assert answer.status == 308
    assert answer["location"].startswith("/ukihashi/mark.svg?v=")
