"""The newest lines of the log: bounded, by hub, and one line whatever a peer wrote."""

import json

from ukihashi.hub.log_ring import MAX_LINE, MAX_LINES, LogRing


def test_a_hub_has_its_own_lines_in_any_case() -> None:
    ring = LogRing()
    ring.note({"event": "a", "hub": "Büro"})
    ring.note({"event": "b", "hub": "LAN"})
    ring.note({"event": "c"})
    assert [json.loads(line)["event"] for line in ring.text().splitlines()] == ["a", "b", "c"]
    assert [json.loads(line)["event"] for line in ring.text("BÜRO").splitlines()] == ["a"]
    assert ring.text("none") == b""


def test_the_oldest_go_and_a_long_one_is_cut() -> None:
    ring = LogRing()
    for number in range(MAX_LINES + 5):
        ring.note({"event": "x" * (number % 7), "number": number})
    ring.note({"event": "y" * MAX_LINE * 9})
    lines = ring.text().splitlines()
    assert len(lines) == MAX_LINES
    assert json.loads(lines[0])["number"] == 6
    assert len(lines[-1]) == MAX_LINE


def test_nobody_forges_a_line() -> None:
    ring = LogRing()
    ring.note({"event": "login_refused", "user": 'x\r\n{"event": "session_opened"}', "hub": 7, "odd": "\ud800"})
    assert len(ring.text().splitlines()) == 1
