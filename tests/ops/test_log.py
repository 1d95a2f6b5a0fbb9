import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ukihashi.locale import set_language
from ukihashi.ops import log

TEXTS = {"session_opened": "a session began"}


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    set_language("en")


def logged(form: str, event: str, **fields: object) -> str:
    stream = io.StringIO()
    log.configure(form, TEXTS, stream)
    structlog.get_logger().info(event, **fields)
    return stream.getvalue()


def test_text_is_a_sentence_with_fields() -> None:
    line = logged("text", "session_opened", session="SID-1", hub="本社", count=0, by="")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d a session began  session=SID-1 hub=\"本社\" count=0\n", line
    )


def test_text_is_in_the_readers_language() -> None:
    set_language("ja")
    assert "セッションを開始しました" in logged("text", "session_opened")


def test_json_is_english_in_any_language() -> None:
    set_language("ja")
    told = json.loads(logged("json", "session_opened", session="SID-1", drops={"full": 1}))
    assert (told["event"], told["level"], told["session"], told["drops"]) == (
        "session_opened",
        "info",
        "SID-1",
        {"full": 1},
    )


@pytest.mark.parametrize("form", log.FORMATS)
def test_a_peer_can_not_forge_a_line(form: str) -> None:
    line = logged(form, "session_opened", client="x\n2026 a session ended\x1b[2J\u202e")
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_under_systemd_a_line_begins_with_its_priority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        monkeypatch.setenv("JOURNAL_STREAM", log._identity(stream))
        log.configure("text", TEXTS, stream)
        structlog.get_logger().warning("session_opened")
        stream.seek(0)
        assert stream.read() == "<4>a session began\n"


def test_a_trace_goes_into_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("UKIHASHI_DEBUG", raising=False)
    stream = io.StringIO()
    log.configure("text", TEXTS, stream)
    try:
        raise ZeroDivisionError  # noqa: TRY301 - what the log shall find
    except ZeroDivisionError:
        structlog.get_logger().exception("internal_error")
    line = stream.getvalue()
    assert "Traceback" not in line
    report = next(tmp_path.iterdir())
    assert f"report={report}" in line
    assert "Traceback" in report.read_text()


def test_what_is_kept_is_the_event_itself() -> None:
    kept: list[dict[str, object]] = []
    stream = io.StringIO()
    log.configure("text", TEXTS, stream)
    log.keep(lambda event: kept.append(dict(event)))
    structlog.get_logger().info("session_opened", hub="LAN")
    assert "a session began" in stream.getvalue()
    assert [(event["event"], event["hub"]) for event in kept] == [("session_opened", "LAN")]
