"""How commands show rows: a table for people, one JSON object a line for programs."""

import datetime as dt
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ukihashi.locale import _

Row = Mapping[str, Any]

DASH: Final = "-"
WIDE: Final = 1000  # columns where the output is no terminal: nothing is cut or folded


class Column(NamedTuple):
    """One column of a table."""

    key: str
    heading: str  # in the reader's language already
    form: Callable[[Any], str] = str
    right: bool = False  # numbers


def show(rows: Sequence[Row], columns: Sequence[Column], *, as_json: bool, empty: str) -> None:
    """Print rows on standard output; `empty` (a sentence) on standard error when there are none."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        say_aside(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column.heading), justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(column.key), column.form)) for column in columns))
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    for line in console.render_lines(table, pad=False):
        text = "".join(segment.text for segment in line).rstrip()
        if sys.stdout.isatty():
            console.print(Text.assemble(*((segment.text, segment.style or "") for segment in line)), soft_wrap=True)
        else:
            write(text)


def print_json(row: Row) -> None:
    """One object on one line; keys stay English (D15)."""
    write(json.dumps(row, ensure_ascii=False, default=str))


def write(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(f"{text}\n")


def say_aside(text: str) -> None:
    """A line on standard error: for people, never part of a result."""
    sys.stderr.write(f"{text}\n")


def cell(value: Any, form: Callable[[Any], str] = str) -> str:
    """A value as a cell; nothing as a dash. A peer chose some of these texts: no control character passes."""
    if value is None or value in ("", [], {}):
        return DASH
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else form(value)
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def moment(at: float) -> str:
    """Seconds since 1970 as ISO 8601 with zone."""
    return dt.datetime.fromtimestamp(at, dt.UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def yes_no(value: object) -> str:
    """A truth value in the reader's language."""
    return _("yes") if value else _("no")
