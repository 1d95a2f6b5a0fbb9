"""The terminal's view: what stands on the screen at every size, and what keys do."""

import time
from dataclasses import replace

import pytest
from rich.cells import cell_len
from tests.alert.sensor import finding, findings

from ukihashi.alert import eve
from ukihashi.alert.page_state import View
from ukihashi.alert.top import Allow, Mode, Quit, Top, fitted, keys, wrapped
from ukihashi.detect.record import Allowed, Finding, Verdict
from ukihashi.locale import set_language


def event(found: Finding) -> dict[str, object]:
    """As the bus gives it."""
    return eve.explained(eve.Eve("eth1").event(found), found)


def view_of(*found: Finding) -> View:
    view, now = View(), time.time()
    view.take({"event_type": "hello", "version": "1", "cards": ["eth1"], "findings": [*map(event, found)]}, now)
    view.take({"event_type": "stats", "stats": {"packets": 0, "drops": 0, "coverage": 1.0, "uptime": 60}}, now)
    told = {"packets": 5000, "drops": 7, "coverage": 0.9987, "flows": 12, "uptime": 61}
    view.take({"event_type": "stats", "stats": told}, now + 1)
    return view


def screen(top: Top, width: int = 80, height: int = 24) -> str:
    lines = top.lines(width, height, time.time())
    assert len(lines) == height
    assert max(cell_len(line.plain) for line in lines) <= max(width, 20)
    return "\n".join(line.plain for line in lines)


def press(top: Top, *names: str) -> Allow | Quit | None:
    wish = None
    for name in names:
        wish = top.press(name)
    return wish


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 5), (200, 60), (33, 7)])
def test_every_view_fits_every_terminal(language: str, width: int, height: int) -> None:
    set_language(language)
    long = finding("2001:db8:1111:2222:3333:4444:5555:6666", target="名前のとても長いサーバー.example.com:443" * 3)
    for top in (Top(View()), Top(view_of()), Top(view_of(*findings(50), long))):
        screen(top, width, height)
        press(top, "enter")
        screen(top, width, height)
        press(top, "down", "page down", "down", "escape", "a", "山")
        screen(top, width, height)
    set_language("en")


def test_at_80_columns_addresses_stand_whole_with_verdict_and_state() -> None:
    far = finding("192.168.126.229", ago=3000)
    shown = screen(Top(view_of(far)))
    for word in (
        "192.168.126.229:50412",
        "61.197.235.210:7777",
        "confirmed",
        "alive 50 min",
        "99.87 %",
        "7 packets lost",
    ):
        assert word in shown
    assert "5,000 packets/s" in shown
    assert "findings: 1, alive: 1" in shown


def test_the_newest_is_first_and_the_selection_stays_with_its_finding() -> None:
    view = view_of(*findings(5))
    top = Top(view)
    rows = [line for line in screen(top).splitlines() if "192.168.126." in line]
    assert [row.split("192.168.126.")[1][:3] for row in rows] == ["204", "203", "202", "201", "200"]
    press(top, "down", "down")
    view.take(event(finding("192.168.126.250", ago=1)), time.time())
    (marked,) = [line for line in screen(top).splitlines() if line.startswith("> ")]
    assert "192.168.126.202" in marked
    press(top, *["up"] * 9)
    assert "192.168.126.250" in next(line for line in screen(top).splitlines() if line.startswith("> "))


def test_reasons_and_timeline_of_one_finding() -> None:
    top = Top(view_of(finding()))
    press(top, "enter")
    shown = screen(top, 100, 60)
    for word in (
        "login dialogue: 7,000 times likelier",
        "order, the sizes and the pace",
        "2,739 bytes  C1",
        "of silence",
    ):
        assert word in shown
    before = screen(top, 80, 12)
    press(top, "down", "down")
    assert screen(top, 80, 12) != before
    press(top, "enter")
    assert top.mode is Mode.LIST


def test_what_is_only_probable_is_shown_when_asked_for() -> None:
    doubtful = finding("10.0.0.7", verdict=Verdict.PROBABLE)
    top = Top(view_of(doubtful))
    assert "1 only probable" in screen(top)
    assert "10.0.0.7" not in screen(top)
    press(top, "p")
    assert "10.0.0.7" in screen(top)


def test_allowing_asks_for_an_owner_a_reason_and_a_day() -> None:
    top = Top(view_of(finding()))
    press(top, "a", "enter")
    assert "must not be empty" in screen(top)
    wish = press(top, *"Annx", "erase", "enter", *"test", "enter", "enter")
    assert isinstance(wish, Allow)
    assert (wish.owner, wish.reason, wish.found.client) == ("Ann", "test", "192.168.126.229:50412")
    assert wish.until > time.strftime("%Y-%m-%d")
    assert "Enter why" in screen(top)
    press(top, "a", "q")
    assert top.mode is Mode.FORM  # a letter there, no command
    press(top, "escape")
    assert isinstance(press(top, "q"), Quit)


def test_what_is_allowed_says_by_whom() -> None:
    known = finding(allowed=Allowed("ab12", "Ann Mori", "branch office", "2027-03-31"))
    top = Top(view_of(known))
    assert "allowed" in screen(top, 100)
    press(top, "a")
    assert top.mode is Mode.LIST
    assert "allowed already" in screen(top)
    press(top, "enter")
    assert "Allowed by Ann Mori until 2027-03-31: branch office" in screen(top)


def test_without_a_sensor_it_says_since_when() -> None:
    top = Top(View())
    assert "no sensor yet" in screen(top)
    top = Top(view_of(finding()))
    gone = time.time()
    top.view.lost(gone)
    top.view.lost(gone + 60)  # a later attempt does not move it
    assert f"no sensor since {time.strftime('%H:%M:%S', time.localtime(gone))}" in screen(top)
    assert "192.168.126.229" in screen(top)  # what was found stays


def test_control_characters_of_a_stranger_do_not_reach_the_terminal() -> None:
    top = Top(view_of(replace(finding(), target="a\x1b[2Jb\x07")))
    press(top, "enter")
    shown = screen(top, 100, 60)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "a\N{REPLACEMENT CHARACTER}[2Jb" in shown


def test_keys_of_a_terminal() -> None:
    assert keys("\x1b[A\x1bOB\r\x7fq\x1b") == ["up", "down", "enter", "erase", "q", "escape"]
    assert keys("\x1b[5~\x1b[6~山") == ["page up", "page down", "山"]
    assert keys("\x1b[1;5Cx\x1b[15~y") == ["x", "y"]


def test_lines_are_broken_where_one_may_and_nothing_is_lost() -> None:
    text = "The first exchanges after the greeting, 仮想 HUB へのログインと一致しました。" + "x" * 50
    for width in range(20, 70):
        lines = [line.plain for line in wrapped(text, width, first="  ", rest="    ")]
        assert all(cell_len(line) <= width for line in lines)
        assert "".join("".join(lines).split()) == "".join(text.split())
    assert [cell_len(fitted("192.168.126.229:50412", width)) for width in range(1, 40)] == [*range(1, 40)]
