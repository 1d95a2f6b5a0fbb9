"""The pages in a real browser, over HTTPS: A2, A14.

Chromium comes from the system, not from playwright. It may talk to nobody but us: every other request is an error.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import uvicorn

from ukihashi.web.app import build_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.web.conftest import FakeHub

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]

ONE_TIME = "one-time-0123456789abcdef"
PASSWORD = "a bridge that floats"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
]


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
def address(hub: "FakeHub") -> Iterator[str]:
    """The application behind TLS, as the worker would show it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = build_app(hub, page_dir=None, version="9.9.9-test")
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False)
        config.load()
        config.ssl = context
        server = Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: "Browser", address: str) -> Iterator[Open]:
    """A fresh profile's page; afterwards: nothing went elsewhere, nothing was written to the console as an error."""
    faults: list[str] = []
    contexts = []

    def open_one(path: str = "/", *, locale: str = "en-US", expect_status: int = 200, **options: Any) -> "Page":
        context = browser.new_context(locale=locale, ignore_https_errors=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: _note(faults, request.url, address))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type in {"error", "warning"} else None)
        answer = page.goto(address + path)
        assert answer is not None
        assert answer.status == expect_status
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert [fault for fault in faults if "status of 4" not in fault] == []


def _note(faults: list[str], url: str, address: str) -> None:
    if not url.startswith(address + "/"):
        faults.append(f"asked elsewhere: {url}")


@pytest.mark.parametrize(
    ("locale", "language", "heading"),
    [("ja-JP", "ja", "仮想 HUB"), ("en-US", "en", "A virtual HUB"), ("fr-FR", "en", "A")],
)
def test_the_page_comes_in_the_browsers_language(open_page: Open, locale: str, language: str, heading: str) -> None:
    page = open_page(locale=locale)
    assert page.locator("html").get_attribute("lang") == language
    assert heading in page.locator("h1").inner_text()
    assert page.locator(".scene").is_visible()
    host = page.locator(".values dd").first.inner_text()
    assert host == "127.0.0.1"


def test_the_switch_on_the_page_changes_the_language_and_it_stays(open_page: Open) -> None:
    page = open_page(locale="ja-JP")
    page.get_by_role("link", name="English").click()
    page.wait_for_url(re.compile(r"\?lang=en"))
    assert page.locator("html").get_attribute("lang") == "en"
    page.get_by_role("link", name="For the administrator").click()
    assert page.locator("html").get_attribute("lang") == "en"
    page.get_by_role("link", name="日本語").click()
    page.wait_for_url(re.compile(r"/admin\?lang=ja"))
    assert page.locator("h1").inner_text() == "HUB の管理"


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
@pytest.mark.parametrize("locale", ["ja-JP", "en-US"])
def test_the_page_fits_every_width(open_page: Open, locale: str, width: int) -> None:
    page = open_page(locale=locale, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lead = page.locator(".hero .lead").bounding_box()
    hero = page.locator(".hero").bounding_box()
    assert lead is not None
    assert hero is not None
    assert lead["y"] + lead["height"] < hero["y"] + hero["height"] - 200  # the words leave the picture its room


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/admin", "/nowhere"])
def test_every_text_stands_out_from_its_ground(open_page: Open, scheme: str, path: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1 where the ground is one colour (texts over the picture are seen by eye)."""
    page = open_page(path, color_scheme=scheme, expect_status=404 if path == "/nowhere" else 200)
    poor = page.evaluate(CONTRAST)
    assert poor == []


def test_the_keyboard_reaches_everything_and_shows_where_it_is(open_page: Open) -> None:
    page = open_page()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        where: dict[str, Any] = page.evaluate(FOCUS)
        if not where["text"]:
            break
        assert where["outline"] >= 2, where
        assert where["visible"], where
        reached.append(where["text"])
    assert reached[0] == "Skip to the content"
    assert {"English", "日本語", "For the administrator"} <= set(reached)


def test_signing_in_for_the_first_time(open_page: Open, hub: "FakeHub") -> None:
    page = open_page("/admin", locale="ja-JP")
    page.keyboard.type("wrong")  # the field has the focus already
    page.keyboard.press("Enter")
    page.get_by_text("一致しません").wait_for()
    page.fill("#secret", ONE_TIME)
    page.get_by_role("button", name="サインイン").click()
    page.wait_for_url("**/admin/password")
    page.fill("#new", PASSWORD)
    page.fill("#again", PASSWORD + "x")
    page.get_by_role("button").click()
    page.get_by_text("二つの入力が一致しません").wait_for()
    page.fill("#new", PASSWORD)
    page.fill("#again", PASSWORD)
    hub.rows = {"sessions": [{"session": "SID-ALICE-1", "user": "alice"}], "status": [{"uptime_s": 61}]}
    page.get_by_role("button").click()
    page.wait_for_url("**/admin")
    assert page.get_by_text("SID-ALICE-1").is_visible()
    assert page.get_by_text("1 分 1 秒").is_visible()
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    session = cookies["__Secure-ukihashi-admin"]
    assert (session["path"], session["httpOnly"], session["secure"], session["sameSite"]) == (
        "/admin",
        True,
        True,
        "Strict",
    )
    page.get_by_role("button", name="サインアウト").click()
    page.get_by_text("サインアウトしました").wait_for()
    page.goto(page.url.split("/admin")[0] + "/admin")
    assert page.locator("#secret").is_visible()
    assert hub.secret == PASSWORD


def sign_in(page: "Page", hub: "FakeHub") -> None:
    """With the administrator's own password, to the options."""
    page.fill("#secret", PASSWORD)
    page.locator("main button").click()
    page.wait_for_url("**/admin**")
    page.locator('.actions a[href*="/options"]').click()
    page.wait_for_url("**/admin/options**")


def test_changing_an_option(open_page: Open, hub: "FakeHub") -> None:
    hub.secret, hub.one_time = PASSWORD, False
    page = open_page("/admin", locale="ja-JP", java_script_enabled=False)
    sign_in(page, hub)
    field = page.get_by_role("textbox", name="times.dead_s")
    field.fill("2000")
    field.press("Enter")
    page.get_by_text("0.3 ～ 600 の数を指定してください").wait_for()
    field.fill("20")
    page.get_by_role("button", name="変更: times.dead_s").click()
    page.get_by_text("変更しました").wait_for()
    assert field.input_value() == "20"
    assert hub.config.times.dead_s == 20.0


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (768, "light"), (1280, "dark")])
def test_the_options_fit_every_width_and_stand_out(open_page: Open, hub: "FakeHub", width: int, scheme: str) -> None:
    hub.secret, hub.one_time = PASSWORD, False
    page = open_page("/admin", viewport={"width": width, "height": 800}, color_scheme=scheme)
    sign_in(page, hub)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []


def test_it_works_without_javascript(open_page: Open, tmp_path: Path) -> None:
    page = open_page(java_script_enabled=False, locale="ja-JP")
    page.screenshot(path=tmp_path / "page.png")
    page.get_by_role("link", name="English").click()
    assert page.locator("html").get_attribute("lang") == "en"


FOCUS = """() => {
  const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  return {
    text: e === document.body ? "" : e.innerText || e.title,
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    visible: box.width > 0 && box.right > 0 && box.bottom > 0 && box.left < innerWidth,
  };
}"""

CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest(".hero, .quiet, .skip, svg") || !e.getClientRects().length) continue;
    let ground = e;
    while (ground && rgba(getComputedStyle(ground).backgroundColor)[3] < 255) ground = ground.parentElement;
    const a = light(rgba(getComputedStyle(e).color));
    const b = light(rgba(getComputedStyle(ground || document.body).backgroundColor));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}`);
  }
  return poor;
}"""
