"""The card's page as a person uses it: the command, the printed address, a real browser (A32, A36)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from tests.web.test_browser import ARGUMENTS, CONTRAST

from ukihashi.card import account
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, Login

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What `ukihashi card page` prints."""
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    config = CardConfig(
        hub=Hub(host="h.example", hub="LAN", user="ann"),
        login=Login(password="hush-hush-hush"),
        interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
    )
    account.write("lan", config)
    argv = [sys.executable, "-m", "ukihashi.cli.main", "card", "page", "lan"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


def test_the_echo_guard_is_set_from_the_page(browser: "Browser", address: str) -> None:
    context = browser.new_context(locale="ja-JP", java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert "key=" not in page.url
    field = page.get_by_role("textbox", name="echo_guard.period")
    field.fill("0")
    field.press("Enter")
    page.get_by_text("0.5 ～ 3600 の数を指定してください").wait_for()
    field.fill("7")
    page.get_by_role("button", name="変更: echo_guard.period").click()
    page.get_by_text("変更しました").wait_for()
    assert field.input_value() == "7"
    page.get_by_role("combobox", name="echo_guard.enabled").select_option("false")
    page.get_by_role("button", name="変更: echo_guard.enabled").click()
    page.get_by_text("変更しました").wait_for()
    guard = account.read("lan").echo_guard
    assert (guard.enabled, guard.period) == (False, 7.0)
    page.reload()
    assert page.get_by_role("textbox", name="echo_guard.period").input_value() == "7"
    page.get_by_role("link", name="English").click()
    page.get_by_role("heading", name="The virtual LAN card “lan”").wait_for()


def test_it_fits_and_stands_out(browser: "Browser", address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    for width in (320, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == []
