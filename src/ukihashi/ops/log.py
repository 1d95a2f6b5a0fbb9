"""One log for all our daemons: on standard error, as text in the user's language or as JSON lines (D15).

    text   2026-11-21T21:51:03+09:00 a session began  session=SID-HANAKO-1 hub=LAN
    json   {"event": "session_opened", "level": "info", "timestamp": "...", "session": "SID-HANAKO-1", "hub": "LAN"}

An event has a stable English name; keys are English in both forms. A fault's trace goes into a report file, whose place
is in the line. Under systemd each text line begins with the priority that journald understands (sd-daemon(3)).
"""

import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from ukihashi.config.hub import LOG_FORMATS
from ukihashi.locale import _
from ukihashi.ops.report import write_report

FORMATS: Final = LOG_FORMATS
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@%+,[]()*#=")

Event = MutableMapping[str, Any]


def configure(form: str, texts: Mapping[str, str], stream: TextIO | None = None) -> None:
    """Set up the log of this process.

    Args:
        form: one of `FORMATS`.
        texts: English sentence by event name; others are shown by their name.
        stream: standard error unless given.
    """
    stream = stream or sys.stderr
    # journald is at the other end of this very stream: sd-daemon's test is by device and inode
    journal = os.environ.get("JOURNAL_STREAM") == _identity(stream)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _stamp,
            _report,
            _json if form == "json" else _Text(texts, journal=journal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(stream),  # a line in one piece: several processes write here
        cache_logger_on_first_use=False,
    )


def keep(note: Callable[[Mapping[str, Any]], None]) -> None:
    """Give every event to `note`, too, as it is before it becomes a line."""

    def told(_logger: object, _method: str, event: Event) -> Event:
        note(event)
        return event

    *before, shape = structlog.get_config()["processors"]
    structlog.configure(processors=[*before, told, shape])


def _stamp(_logger: object, _method: str, event: Event) -> Event:
    event["timestamp"] = dt.datetime.now(dt.UTC).astimezone().isoformat(timespec="milliseconds")
    return event


def _report(_logger: object, _method: str, event: Event) -> Event:
    if event.pop("exc_info", None) and (error := sys.exc_info()[1]) is not None:
        event["error"] = f"{type(error).__name__}: {error}"
        event["report"] = str(write_report(error) or "")
    return event


def _json(_logger: object, _method: str, event: Event) -> str:
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return json.dumps({**ordered, **event}, ensure_ascii=False, default=str)


class _Text:
    def __init__(self, texts: Mapping[str, str], *, journal: bool) -> None:
        self._texts = texts
        self._journal = journal

    def __call__(self, _logger: object, _method: str, event: Event) -> str:
        name, level, stamp = (event.pop(key) for key in ("event", "level", "timestamp"))
        sentence = _(self._texts[name]) if name in self._texts else str(name)
        fields = " ".join(f"{key}={_shown(value)}" for key, value in event.items() if value not in ("", None))
        start = f"<{_PRIORITY.get(level, 6)}>" if self._journal else f"{stamp} "
        return f"{start}{sentence}  {fields}".rstrip()


def _shown(value: object) -> str:
    """A value on one line; quoted as JSON where it isn't one plain word, so that no peer's text can forge a line."""
    if isinstance(value, int | float):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if set(text) <= _PLAIN:
        return text
    quoted = json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in quoted)


def _identity(stream: TextIO) -> str:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return ""
    return f"{status.st_dev}:{status.st_ino}"
