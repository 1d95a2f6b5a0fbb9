"""The report of an evidence bundle in a real browser: from a file, without network and scripts, in both languages."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.alert.kept import findings, of_corpus, own_session, session
from tests.web.test_browser import ARGUMENTS

from ukihashi.alert.bundle import Circumstances
from ukihashi.alert.bundle_page import TEXTS, render
from ukihashi.detect.record import Finding
from ukihashi.detect.whatif import changes
from ukihashi.locale import catalogue

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]
ABOUT = Circumstances(interface="eth0", host="sensor", packets=1234567, dropped=3, coverage=0.9876)
MARK = "SHA256:abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
HEADINGS = ("in_short", "why", "timeline", "whatif", "limits", "next", "privacy", "check")
CONTRAST = """
() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const f = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b);
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const a = light(parse(svg ? style.fill : style.color)), b = light(behind(svg ? e.ownerSVGElement : e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push(ratio.toFixed(2) + ' ' + e.textContent.trim().slice(0, 40));
  }
  return low;
}
"""


@cache
def kinds() -> dict[str, Finding]:
    return {
        "two connections": findings(session())[0],
        "timers": findings(own_session())[0],
        "begin unseen": of_corpus("se-d443-mc32-idle-midstream.pcap.gz")[0],
        "inside ssh": of_corpus("se-ssh-idle.pcap.gz")[0],
    }


@cache
def html(kind: str, language: str = "en") -> str:
    finding = kinds()[kind]
    return render(finding, changes(finding), ABOUT, fingerprint=MARK, language=language, made=1_700_000_100.0)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


Open = Callable[..., "Page"]


@pytest.fixture
def open_report(browser: "Browser", tmp_path: Path) -> Iterator[Open]:
    faults: list[str] = []
    contexts = []

    def open_one(kind: str = "two connections", *, language: str = "en", **options: Any) -> "Page":
        path = tmp_path / "report.html"
        path.write_text(html(kind, language), encoding="utf-8")
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: faults.append(request.url) if request.url != path.as_uri() else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type in {"error", "warning"} else None)
        page.goto(path.as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize("language", ["en", "ja"])
def test_it_opens_in_the_sensors_language_and_the_switch_shows_the_other(open_report: Open, language: str) -> None:
    page = open_report(language=language, java_script_enabled=False)
    other = "ja" if language == "en" else "en"
    assert page.locator(f"article[lang={language}] h1").is_visible()
    assert not page.locator(f"article[lang={other}] h1").is_visible()
    page.locator(f"label[for=show-{other}]").click()
    assert page.locator(f"article[lang={other}] h1").is_visible()
    assert not page.locator(f"article[lang={language}] h1").is_visible()


def test_the_switch_works_by_keyboard(open_report: Open) -> None:
    page = open_report()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("article[lang=ja] h1").is_visible()


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("kind", ["two connections", "timers", "begin unseen", "inside ssh"])
def test_it_says_who_why_when_and_what_else(open_report: Open, kind: str, language: str) -> None:
    page = open_report(kind, language=language)
    article = page.locator(f"article[lang={language}]")
    headings = article.locator("h2").all_inner_texts()
    assert headings == [catalogue(language).gettext(TEXTS[name]) for name in HEADINGS]
    assert all(heading.isascii() == (language == "en") for heading in headings)
    text = article.inner_text()
    finding = kinds()[kind]
    for wanted in (str(finding.client), str(finding.server), finding.verdict.value, "1,234,567", "98.7%", MARK):
        assert wanted in text, wanted
    assert article.locator("ol li").count() == 4
    assert article.locator(".reason").count() == len(finding.reasons)
    assert "nan" not in text
    assert "None" not in text


def test_the_opening_and_the_messages_are_drawn_and_told_in_a_table(open_report: Open) -> None:
    page = open_report("timers")
    article = page.locator("article[lang=en]")
    finding = kinds()["timers"]
    turns = [step for step in finding.timeline if step.kind == "turn"]
    messages = [step for step in finding.timeline if step.kind == "message"]
    drawings = article.locator("svg[role=img]")
    assert drawings.count() == 2
    assert drawings.nth(0).locator("path").count() == len(turns)
    assert drawings.nth(1).locator(".up, .down").count() == len(messages)
    article.locator("summary").click()
    assert article.locator("details tbody tr").count() == len(finding.timeline)
    for drawing in drawings.all():
        name = drawing.get_attribute("aria-labelledby")
        assert page.locator(f"#{name}").inner_text().strip()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_it_fits_every_width(open_report: Open, language: str, width: int) -> None:
    for kind in ("two connections", "timers"):
        page = open_report(kind, language=language, viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, kind


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_all_text_stands_out_from_what_is_behind_it(open_report: Open, language: str, scheme: str) -> None:
    page = open_report("timers", language=language, color_scheme=scheme)
    page.locator(f"article[lang={language}] summary").click()
    assert page.evaluate(CONTRAST) == []


def test_tables_have_headers_and_headings_skip_no_level(open_report: Open) -> None:
    page = open_report()
    levels = page.evaluate(
        "[...document.querySelectorAll('article[lang=en] :is(h1,h2,h3)')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("article[lang=en] table:not(:has(thead th[scope=col]))").count() == 0
    assert page.locator("article[lang=en] .sizes tbody tr:not(:has(th[scope=row]))").count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_it_prints_on_white_paper_without_the_switch_and_within_the_page(open_report: Open) -> None:
    page = open_report("timers", color_scheme="dark", viewport={"width": 680, "height": 960})
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".choice").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert 20_000 < len(page.pdf(format="A4", print_background=False)) < 3_000_000


def test_a_hostile_name_stays_text(open_report: Open) -> None:
    from dataclasses import replace

    kinds()["hostile"] = replace(kinds()["two connections"], target='<img src=x onerror="alert(1)">:443', rule="<b>")
    page = open_report("hostile")
    assert page.locator("article[lang=en] dd img, article[lang=en] dd b").count() == 0
    assert "<img src=x" in page.locator("article[lang=en] dl").inner_text()
