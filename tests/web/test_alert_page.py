"""The detector's page without a browser: who gets in, what is shown, what can be changed."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request
from tests.alert.sensor import finding

from ukihashi.alert import eve
from ukihashi.alert.page_state import key_of
from ukihashi.detect.record import Allowed, Finding
from ukihashi.errors import UsageError
from ukihashi.web.alert_page import MAX_BROWSERS, AlertPage, build_alert_app

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Visitor

SECRET = "way-in-0123456789"
PORT = 7998
HOST = f"127.0.0.1:{PORT}"


class FakeKeeper:
    """What the keeper would answer."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.secrets = iter(f"next-{number}" for number in range(99))
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        self.asked.append((do, args))
        if do == "next_way_in":
            return {"ok": True, "rows": [{"secret": next(self.secrets)}]}
        if do == "allow_list":
            return {"ok": True, "rows": self.entries}
        if do == "allow_add":
            if args["client"] == "wrong":
                return {"ok": False, "refusal": UsageError("client can't be {value}", value="wrong")}
            self.entries.append({"id": f"e{len(self.entries)}", **args})
        if do == "allow_remove":
            self.entries = [entry for entry in self.entries if entry["id"] != args["id"]]
        if do == "evidence":
            data = "UEs=" if args["offset"] == 0 else "Aw=="
            return {"ok": True, "rows": [{"name": 'x"\r\n.zip', "size": 3, "data": data}]}
        return {"ok": True, "rows": []}


@pytest.fixture
def keeper() -> FakeKeeper:
    return FakeKeeper()


@pytest.fixture
def page(keeper: FakeKeeper) -> AlertPage:
    return AlertPage(keeper, secret=SECRET, port=PORT, version="9.9.9-test")


@pytest.fixture
def stranger(page: AlertPage, new_visitor: Callable[..., "Visitor"]) -> "Visitor":
    names = frozenset({"127.0.0.1", "localhost", "[::1]"})
    return new_visitor(build_alert_app(page, port=PORT, names=names, addresses=False, version="9.9.9-test"), host=HOST)


@pytest.fixture
def manager(stranger: "Visitor") -> "Visitor":
    assert stranger.get(f"/?key={SECRET}")["location"] == "/"
    return stranger


def told(page: AlertPage, found: Finding) -> str:
    """The page hears of it; its key."""
    event = eve.explained(eve.Eve("eth1").event(found), found)
    page.feed(json.dumps(event).encode())
    return key_of(event)


def csrf(answer: "Answer") -> str:
    found = re.search(r'(?:name="csrf" value|data-csrf)="([^"]+)"', answer.text)
    assert found is not None
    return found[1]


PATHS = ["/", "/live?parts=status", "/allow", "/judge", "/finding/0123456789abcdef", "/judge/0123456789abcdef"]


@pytest.mark.parametrize("path", [*PATHS, "/?key=", "/?key=wrong", "/finding/0123456789abcdef/evidence"])
def test_a_stranger_sees_nothing(stranger: "Visitor", path: str) -> None:
    answer = stranger.get(path)
    assert answer.status == 403
    assert "alert web" in answer.text
    assert not stranger.cookies


@pytest.mark.parametrize("path", ["/allow", "/allow/remove", "/judge", "/judge/stop", "/judge/forget"])
def test_a_change_needs_the_cookie_and_the_token(
    stranger: "Visitor", keeper: FakeKeeper, page: AlertPage, path: str
) -> None:
    form = {"client": "10.0.0.1", "owner": "x", "reason": "y", "expires": "2030-01-01"}
    assert stranger.post(path, form).status == 403
    stranger.get(f"/?key={SECRET}")
    assert stranger.post(path, {**form, "csrf": "guess"}).status == 403
    assert [do for do, _args in keeper.asked] == ["next_way_in"]
    assert page.judge.last is None


def test_an_address_works_once_and_the_next_one_lets_the_next_browser_in(
    manager: "Visitor", new_visitor: Callable[..., "Visitor"]
) -> None:
    second = new_visitor(manager.app, host=HOST)
    assert second.get(f"/?key={SECRET}").status == 403
    assert second.get("/?key=next-0").status == 303
    assert second.get("/").status == manager.get("/").status == 200
    (cookie,) = manager.set_cookies
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_only_so_many_browsers_are_let_in(manager: "Visitor", new_visitor: Callable[..., "Visitor"]) -> None:
    for number in range(MAX_BROWSERS):
        assert new_visitor(manager.app, host=HOST).get(f"/?key=next-{number}").status == 303
    assert manager.get("/").status == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"10.0.0.1:{PORT}"]
)
def test_another_name_is_refused(manager: "Visitor", host: str) -> None:
    assert manager.get("/", host=host).status == 421
    assert manager.get("/", host=f"localhost:{PORT}").status == 200


def test_where_it_is_open_to_a_network_an_address_is_enough_but_no_name(
    page: AlertPage, new_visitor: Callable[..., "Visitor"]
) -> None:
    app = build_alert_app(page, port=PORT, names=frozenset({"sensor.example"}), addresses=True, version="1")
    visitor = new_visitor(app, host=f"192.0.2.1:{PORT}")
    assert visitor.get(f"/?key={SECRET}").status == 303
    for host, status in (("[2001:db8::1]:80", 200), (f"sensor.example:{PORT}", 200), ("evil.example", 421)):
        assert visitor.get("/", host=host).status == status


def test_every_answer_forbids_what_the_page_does_not_need(manager: "Visitor") -> None:
    for path in ("/", "/nowhere", "/?key=x"):
        answer = manager.get(path)
        assert answer["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in answer["content-security-policy"]
        assert answer["referrer-policy"] == "no-referrer"
    assert manager.get("/")["cache-control"] == "no-store"


def test_what_a_stranger_chose_is_text(manager: "Visitor", page: AlertPage) -> None:
    bad = '"><script>alert(1)</script>'
    key = told(page, finding(target=bad))
    answer = manager.get(f"/finding/{key}")
    assert "<script>alert" not in answer.text
    assert bad in unescape(answer.text)


def test_a_finding_is_told_with_reasons_drawing_and_duties(manager: "Visitor", page: AlertPage) -> None:
    key = told(page, replace(finding(), evidence_file=""))
    assert key in manager.get("/").text
    answer = unescape(manager.get(f"/finding/{key}").text)
    for word in ("7,000 times likelier", "2,739 bytes", "request (C1)", "What to do next", "Allow this tunnel"):
        assert word in answer
    assert answer.count('class="from-client"') == 8 + 1  # and the legend
    assert "Download" not in answer
    japanese = manager.get(f"/finding/{key}?lang=ja")
    assert "次にすること" in japanese.text
    assert "What" not in re.sub(r"<pre.*?</pre>", "", japanese.text, flags=re.DOTALL)


def test_an_allowed_finding_says_by_whom_and_asks_no_more(manager: "Visitor", page: AlertPage) -> None:
    key = told(page, finding(allowed=Allowed("ab", "Ann Mori", "branch", "2030-01-01")))
    answer = manager.get(f"/finding/{key}").text
    assert "Allowed by Ann Mori until 2030-01-01: branch" in answer
    assert 'action="/allow"' not in answer


def test_the_allow_list_is_filled_and_emptied(manager: "Visitor", keeper: FakeKeeper) -> None:
    token = csrf(manager.get("/allow"))
    form = {"csrf": token, "client": "10.0.0.9", "owner": "Ann", "reason": "r", "expires": "2030-01-01"}
    assert manager.post("/allow", form)["location"] == "/allow"
    shown = manager.get("/allow").text
    assert "The entry was added." in shown
    assert "10.0.0.9" in shown
    assert "The entry was added." not in manager.get("/allow").text
    assert manager.post("/allow/remove", {"csrf": token, "id": "e0"}).status == 303
    assert keeper.entries == []
    assert "The list is empty" in manager.get("/allow").text


def test_a_wrong_entry_is_refused_with_what_was_typed(manager: "Visitor", page: AlertPage) -> None:
    key = told(page, finding())
    form = {"client": "wrong", "owner": "Ann & Co", "reason": "r", "expires": "2030-01-01"}
    for more in ({}, {"finding": key}):
        answer = manager.post("/allow", {"csrf": csrf(manager.get("/allow")), **form, **more})
        assert answer.status == 422
        assert "client can&#39;t be wrong" in answer.text
        assert 'value="Ann &amp; Co"' in answer.text


def test_an_expired_entry_is_marked(manager: "Visitor", keeper: FakeKeeper) -> None:
    keeper.entries = [{"id": "old", "client": "10.0.0.9", "owner": "Ann", "reason": "r", "expires": "2020-01-01"}]
    assert "over since 2020-01-01" in manager.get("/allow").text


def test_the_bundle_is_passed_on_under_a_harmless_name(manager: "Visitor", page: AlertPage, keeper: FakeKeeper) -> None:
    key = told(page, finding(evidence_file="/var/lib/x.zip"))
    answer = manager.get(f"/finding/{key}/evidence")
    assert (answer.status, answer.body) == (200, b"PK\x03")
    assert answer["content-disposition"] == 'attachment; filename="x.zip"'
    assert manager.get(f"/finding/{told(page, finding('10.0.0.2'))}/evidence").status == 404


def test_a_sensor_that_is_gone_and_back(manager: "Visitor", page: AlertPage) -> None:
    assert "No sensor yet" in manager.get("/").text
    page.feed(b'{"event_type":"hello","cards":["eth7"],"findings":[]}')
    assert "listens on eth7" in manager.get("/").text
    page.feed(b"")
    assert re.search(r"No sensor since \d\d:\d\d:\d\d", manager.get("/").text)
    page.feed(b'{"event_type":"hello","cards":["eth7"],"findings":[]}')
    assert "listens on eth7" in manager.get("/").text


def test_a_file_is_judged_and_forgotten(manager: "Visitor") -> None:
    token = csrf(manager.get("/judge"))
    headers = {"x-csrf": token, "x-file-name": "%E5%90%8D%3Cb%3E.pcap", "content-type": "application/octet-stream"}
    answer = manager.ask("POST", "/judge", b"no capture at all", headers)
    assert json.loads(answer.text) == {"state": "failed"}
    shown = unescape(manager.get("/judge").text)
    assert "名<b>.pcap" in shown
    assert "is not a capture file" in shown
    assert manager.post("/judge/forget", {"csrf": token}).status == 303
    assert "is not a capture file" not in unescape(manager.get("/judge").text)


def test_a_thousand_findings_do_not_make_a_page_slow(manager: "Visitor", page: AlertPage) -> None:
    for number in range(1000):
        told(page, finding(f"10.{number % 256}.{number // 256}.1", timeline=(), ago=number))
    began = time.process_time()
    assert manager.get("/").text.count("<tr id=") == 300
    assert time.process_time() - began < 1.0


def test_who_is_put_out_hears_no_more(manager: "Visitor", page: AlertPage) -> None:
    """The stream of a browser ends when its place is taken."""
    request = Request(
        {"type": "http", "headers": [(b"cookie", f"ukihashi-alert-{PORT}={cookie_of(manager)}".encode())]}
    )
    heard: list[str] = []

    async def listen() -> None:
        async for part in page._stream(request, ()):
            heard.append(part)
            page._browsers.clear()

    asyncio.run(listen())
    assert heard == ["retry: 1000\n\n"]


def cookie_of(visitor: "Visitor") -> str:
    return visitor.cookies[f"ukihashi-alert-{PORT}"]
