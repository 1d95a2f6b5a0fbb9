"""The terminal's live view: what stands on the screen, and what a key does. No terminal is touched here.

`Top.lines` gives exactly as many lines as the terminal has, none wider than it; colours only support what words and
places say already.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from ukihashi.alert import words
from ukihashi.alert.page_state import Found, View, mapping, number, numbers, text
from ukihashi.locale import _

UP: Final = "up"
DOWN: Final = "down"
PAGE_UP: Final = "page up"
PAGE_DOWN: Final = "page down"
ENTER: Final = "enter"
BACK: Final = "escape"
ERASE: Final = "erase"
_SEQUENCES: Final = {
    "\x1b[A": UP, "\x1bOA": UP, "\x1b[B": DOWN, "\x1bOB": DOWN, "\x1b[5~": PAGE_UP, "\x1b[6~": PAGE_DOWN,
    "\r": ENTER, "\n": ENTER, "\x1b": BACK, "\x7f": ERASE, "\b": ERASE,
}  # fmt: skip
_DAYS: Final = 90  # until an entry of the allow list expires, unless said otherwise
_GAUGE: Final = 20  # cells
_MIN_WIDTH: Final = 20
_ADDRESS: Final = 21  # cells that an address keeps while columns can be left out: all of IPv4 and a port
_SELECTED: Final = "reverse"


class Mode(Enum):
    """What the keys mean now."""

    LIST = 1
    DETAIL = 2
    FORM = 3


@dataclass(frozen=True, slots=True)
class Allow:
    """The reader wants this finding allowed."""

    found: Found
    owner: str
    reason: str
    until: str  # YYYY-MM-DD


class Quit:
    """The reader wants to leave."""


@dataclass(slots=True)
class _Form:
    found: Found
    values: list[str]
    at: int = 0


class _Column(NamedTuple):
    heading: str
    cells: list[str]
    right: bool = False
    dropped: int = 0  # in a narrow terminal the highest goes first; 0 stays
    shrinks: bool = False


def keys(data: str) -> list[str]:
    """The keys of what a terminal sent: names above for special ones, else the character."""
    found: list[str] = []
    while data:
        whole = next((one for one in sorted(_SEQUENCES, key=len, reverse=True) if data.startswith(one)), "")
        if whole == "\x1b" and len(data) > 2 and data[1] in "[O":  # a key we don't know
            end = next((at for at, letter in enumerate(data[2:], 2) if "@" <= letter <= "~"), len(data) - 1)
            data = data[end + 1 :]
            continue
        if whole:
            found.append(_SEQUENCES[whole])
            data = data[len(whole) :]
        else:
            found.append(data[0])
            data = data[1:]
    return found


@dataclass(slots=True)
class Top:
    """The screen's state."""

    view: View
    probable: bool = False
    mode: Mode = Mode.LIST
    selected: str = ""  # key of a finding
    message: str = ""  # said once, until the next key
    _scroll: int = 0
    _height: int = 24
    _form: _Form | None = field(default=None)

    # -- keys ----------------------------------------------------------------------------------------------------

    def press(self, key: str) -> Allow | Quit | None:
        """One key; what the reader wants done."""
        self.message = ""
        if self.mode is Mode.FORM and self._form is not None:
            return self._type(self._form, key)
        if key in {"q", "Q", "\x03", "\x04"}:
            return Quit()
        if key in {"p", "P"}:
            self.probable = not self.probable
        elif key in {"a", "A"}:
            self._begin_form()
        elif self.mode is Mode.DETAIL:
            if key in {BACK, ENTER, ERASE}:
                self.mode = Mode.LIST
            else:
                self._scroll = max(0, self._scroll + self._step(key))
        elif key == ENTER:
            if self._chosen() is not None:
                self.mode, self._scroll = Mode.DETAIL, 0
        else:
            self._move(self._step(key))
        return None

    def _step(self, key: str) -> int:
        far = max(1, self._height - 9)
        return {UP: -1, "k": -1, DOWN: 1, "j": 1, PAGE_UP: -far, PAGE_DOWN: far}.get(key, 0)

    def _shown(self) -> list[Found]:
        return self.view.found(probable=self.probable)

    def _chosen(self) -> Found | None:
        """The selected finding; the newest while none was selected."""
        shown = self._shown()
        return next((one for one in shown if one.key == self.selected), shown[0] if shown else None)

    def _move(self, step: int) -> None:
        shown, chosen = self._shown(), self._chosen()
        if chosen is not None and step:
            self.selected = shown[min(max(shown.index(chosen) + step, 0), len(shown) - 1)].key

    def _begin_form(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if chosen.allowed:
            self.message = _("It is allowed already; `ukihashi alert allow list` says by whom.")
            return
        until = date.today() + timedelta(days=_DAYS)  # noqa: DTZ011 - the reader's own calendar
        self._form = _Form(chosen, ["", "", until.isoformat()])
        self.selected = chosen.key
        self.mode = Mode.FORM

    def _type(self, form: _Form, key: str) -> Allow | Quit | None:
        if key in {BACK, "\x03"}:
            self._leave_form()
        elif key == ERASE:
            form.values[form.at] = form.values[form.at][:-1]
        elif key == UP:
            form.at = max(0, form.at - 1)
        elif key in {ENTER, DOWN, "\t"}:
            if not form.values[form.at].strip():
                self.message = _("This must not be empty: an entry needs an owner, a reason and a last day.")
            elif form.at < len(form.values) - 1:
                form.at += 1
            elif key == ENTER:
                self._leave_form()
                owner, reason, until = (value.strip() for value in form.values)
                return Allow(form.found, owner, reason, until)
        elif len(key) == 1 and key.isprintable() and len(form.values[form.at]) < 200:
            form.values[form.at] += key
        return None

    def _leave_form(self) -> None:
        self._form = None
        self.mode = Mode.LIST

    # -- the screen ----------------------------------------------------------------------------------------------

    def lines(self, width: int, height: int, now: float) -> list[Text]:
        """The whole screen."""
        self._height = height
        width = max(width, _MIN_WIDTH)
        head = self.head(width, now)
        foot = self._foot(width)
        room = max(1, height - len(head) - len(foot))
        chosen = self._chosen()
        if self.mode is Mode.DETAIL and chosen is not None:
            body = self.detail(chosen, width, now)
            self._scroll = min(self._scroll, max(0, len(body) - room))
            body = body[self._scroll : self._scroll + room]
        else:
            body = self._list(width, room, now)
        body += [Text()] * (room - len(body))
        return [_cut(line, width) for line in (head + body + foot)[:height]]

    def report(self, width: int, now: float) -> list[Text]:
        """All there is, for a pipe or a screenful of its own; as long as it needs."""
        shown = self._shown()
        body = [Text(row) for row in table(_columns(shown, now), width)] if shown else list(map(Text, self._empty()))
        return [_cut(line, width) for line in self.head(min(width, 100), now) + body]

    def head(self, width: int, now: float) -> list[Text]:
        """Where the sensor stands."""
        view, gauge = self.view, self.view.gauge
        first = Text.assemble(("ukihashi alert", "bold"))
        if view.connected:
            cards = ", ".join(view.cards) or "-"
            first.append(_("  on {cards}, for {span}").format(cards=cards, span=words.span(gauge.uptime, _)))
        clock = words.clock(now, now)
        first.append(" " * max(1, width - first.cell_len - cell_len(clock)) + clock)
        if not view.connected:
            gone = (
                _("no sensor yet; waiting for `ukihashi alert -i CARD`")
                if view.since is None
                else _("no sensor since {time}").format(time=words.clock(view.since, now))
            )
            return [first, Text(gone, style="bold red"), Text(_("Nothing is being watched now."), style="red"), Text()]
        seen = 1.0 if gauge.coverage is None else gauge.coverage
        filled = min(_GAUGE - (seen < 1), round(seen * _GAUGE))
        style = "green" if seen >= 0.999 else "yellow" if seen >= 0.95 else "bold red"
        second = Text.assemble(
            _("Seen "),
            (f"{words.share(gauge.coverage):>8} ", style),
            "[",
            ("#" * filled, style),
            "-" * (_GAUGE - filled),
            "]",
        )
        lost = _("  {lost:,} packets lost in the last minute").format(lost=gauge.lost)
        second.append(lost, style="bold red" if gauge.lost else "")
        found = self.view.found()
        third = Text(
            _("{rate:,} packets/s   {flows:,} connections   findings: {count}, alive: {alive}").format(
                rate=round(gauge.rate),
                flows=gauge.flows,
                count=sum(one.confirmed for one in found),
                alive=sum(one.confirmed and one.ended is None for one in found),
            )
        )
        return [first, second, third, Text()]

    def _list(self, width: int, room: int, now: float) -> list[Text]:
        shown, chosen = self._shown(), self._chosen()
        if chosen is None:
            return [Text(line, style="dim") for line in self._empty()]
        at = shown.index(chosen)
        top = max(0, min(at - (room - 1) // 2, len(shown) - (room - 1)))
        part = shown[top : top + room - 1]
        rows = table(_columns(part, now), width - 2)
        lines = [Text("  " + rows[0], style="bold underline")]
        for one, row in zip(part, rows[1:], strict=True):
            style = "dim" if one.ended is not None or one.allowed else "" if one.confirmed else "yellow"
            mark = "> " if one is chosen else "  "
            lines.append(Text(mark + row, style=f"{style} {_SELECTED}".strip() if one is chosen else style))
        return lines

    def _empty(self) -> list[str]:
        hidden = len(self.view.found()) - len(self._shown())
        if hidden:
            return [_("Nothing confirmed. {count} only probable; p shows them.").format(count=hidden)]
        if not self.view.connected:
            return []
        return [_("Nothing found so far. How far that can be trusted is what “seen” says above.")]

    def detail(self, found: Found, width: int, now: float) -> list[Text]:
        """One finding: who, why, when."""
        rows = [
            (_("Verdict"), f"{words.verdict(found, _)}, {words.likelihood(found.score, _)}"),
            (_("Tunnel"), f"{words.family(found)}, {words.transport(found, _)}"),
            (_("Client"), found.client),
            (_("Server"), found.server),
            (_("Target"), text(found.about.get("target"))),
            (_("Began"), f"{words.clock(found.begin, now)}, {words.life(found, now, _)}"),
            (_("Connections"), str(found.connections)),
            (_("Evidence"), text(found.about.get("evidence_file"))),
        ]
        wide = max(cell_len(name) for name, _value in rows) + 2
        lines = []
        for name, value in rows:
            if value:
                lines += wrapped(value, width, first=set_cell_size(name, wide), rest=" " * wide)
        allowed = mapping(found.about.get("allowed"))
        if allowed:
            lines.append(Text())
            told = _("Allowed by {owner} until {expires}: {reason}").format(
                owner=text(allowed.get("owner")),
                expires=text(allowed.get("expires")),
                reason=text(allowed.get("reason")),
            )
            lines += wrapped(told, width)
        lines += [Text(), Text(_("Why"), style="bold")]
        for name, score in found.reasons:
            lines += wrapped(f"{_(name)}: {words.likelihood(score, _)}", width, first="  ", rest="  ")
            if name in words.EXPLANATIONS:
                lines += wrapped(_(words.EXPLANATIONS[name]), width, first="    ", rest="    ", style="dim")
        lines += self._timeline(found, width)
        return lines

    @staticmethod
    def _timeline(found: Found, width: int) -> list[Text]:
        """What was exchanged when, from the client's side."""
        steps = found.about.get("timeline")
        lines = [Text(), Text(_("Timeline"), style="bold")]
        for step in steps[:200] if isinstance(steps, list) else ():
            one = mapping(step)
            arrow = "->" if one.get("toward_server") else "<-"
            after = number(one.get("time")) - found.begin
            kind = text(one.get("kind"))
            line = f"  {after:8.2f} s  {arrow} " + _("{size:,} bytes").format(size=int(number(one.get("size"))))
            if kind == "connection":
                line = f"  {after:8.2f} s  " + _("connection {count} begins").format(
                    count=int(number(one.get("connection"))) + 1
                )
            elif kind == "message":
                line += _(", after {seconds:.2f} s of silence").format(seconds=number(one.get("seconds")))
            elif one.get("name"):
                line += f"  {text(one.get('name'))}"
            lines += wrapped(line, width)
        if len(lines) > 2:
            return lines
        evidence = mapping(found.about.get("evidence"))
        turns = numbers(evidence.get("turn_bytes"))
        if turns:
            told = "  ".join(f"{'->' if at % 2 == 0 else '<-'} {size:,.0f}" for at, size in enumerate(turns))
            lines += wrapped(_("  Bytes of the first turns: {turns}").format(turns=told), width, rest="    ")
        gaps = numbers(evidence.get("keepalive_gaps_s"))
        if gaps:
            told = " ".join(f"{gap:.1f}" for gap in gaps[:24])
            lines += wrapped(
                _("  Seconds of silence before small messages: {gaps}").format(gaps=told), width, rest="    "
            )
        return lines if len(lines) > 2 else []

    def _foot(self, width: int) -> list[Text]:
        if self.mode is Mode.FORM and self._form is not None:
            return self._form_lines(self._form, width)
        state = _("on") if self.probable else _("off")
        if self.mode is Mode.DETAIL:
            told = _("Enter back   Up/Down scroll   a allow   q quit")
        else:
            told = _("Up/Down select   Enter why   a allow   p probable: {state}   q quit").format(state=state)
        return [Text(self.message, style="bold"), Text(told, style="dim")]

    def _form_lines(self, form: _Form, width: int) -> list[Text]:
        names = (_("Owner"), _("Reason"), _("Last day"))
        about = _("Allow {client} to {server} ({family})").format(
            client=form.found.client.rsplit(":", 1)[0], server=form.found.server, family=words.family(form.found)
        )
        wide = max(map(cell_len, names)) + 1
        lines = [Text(about, style="bold")]
        for at, (name, value) in enumerate(zip(names, form.values, strict=True)):
            room = max(4, width - wide - 4)
            tail = value
            while cell_len(tail) > room - 1:
                tail = tail[1:]
            here = at == form.at
            lines.append(
                Text.assemble(
                    "> " if here else "  ",
                    set_cell_size(name, wide),
                    ": ",
                    (tail, "bold"),
                    ("_" if here else "", "blink"),
                )
            )
        lines.append(Text(self.message, style="bold"))
        lines.append(Text(_("Enter next   Up before   Esc leave it"), style="dim"))
        return lines


def _columns(part: Sequence[Found], now: float) -> list[_Column]:
    return [
        _Column(_("Began"), [words.clock(one.begin, now) for one in part]),
        _Column(_("Tunnel"), [words.family(one).removesuffix(" VPN") for one in part], dropped=2),
        _Column(_("Way"), [words.transport(one, _) for one in part], dropped=3),
        _Column(_("Client"), [one.client for one in part], shrinks=True),
        _Column(_("Server"), [one.server for one in part], shrinks=True),
        _Column(_("Verdict"), [words.verdict(one, _) for one in part]),
        _Column(_("Score"), [f"{one.score:.1f}" for one in part], right=True, dropped=4),
        _Column(_("State"), [words.life(one, now, _) for one in part], dropped=1),
    ]


def table(columns: Sequence[_Column], width: int) -> list[str]:
    """Heading and rows in `width` cells: addresses are shortened in the middle, then columns left out."""
    kept = list(columns)
    while True:
        widths = [max(map(cell_len, (column.heading, *column.cells))) for column in kept]
        over = sum(widths) + 2 * (len(kept) - 1) - width
        shrinking = [at for at, column in enumerate(kept) if column.shrinks]
        spare = sum(max(0, widths[at] - _ADDRESS) for at in shrinking)
        droppable = [column for column in kept if column.dropped]
        if over <= spare or not droppable:
            break
        kept.remove(max(droppable, key=lambda column: column.dropped))
    for at in shrinking:
        for _cell in range(max(0, over)):
            if widths[at] > _ADDRESS and widths[at] == max(widths[other] for other in shrinking):
                widths[at] -= 1
                over -= 1
    while over > 0 and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
        over -= 1
    rows = zip(*([column.heading, *column.cells] for column in kept), strict=True)
    return [
        "  ".join(fitted(cell, wide, right=column.right) for cell, wide, column in zip(row, widths, kept, strict=True))
        for row in rows
    ]


def fitted(cell: str, width: int, *, right: bool = False) -> str:
    """`cell` in exactly `width` cells; what is too long loses its middle."""
    length = cell_len(cell)
    if length <= width:
        return " " * (width - length) + cell if right else cell + " " * (width - length)
    if width < 5:
        return set_cell_size(cell, width)
    tail = ""
    for letter in reversed(cell):
        if cell_len(tail + letter) > (width - 1) // 2:
            break
        tail = letter + tail
    return set_cell_size(cell, width - 1 - cell_len(tail)) + "…" + tail


def wrapped(content: str, width: int, *, first: str = "", rest: str = "", style: str = "") -> list[Text]:
    """Lines of at most `width` cells, broken at blanks and anywhere in Japanese."""
    lines, line = list[str](), first
    for piece in _pieces(content):
        left = piece
        if cell_len(line) + cell_len(left.rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line, left = rest, left.lstrip()
        while cell_len(line) + cell_len(left.rstrip()) > width and cell_len(rest) < width - 2:  # longer than a line
            room = width - cell_len(line)
            at = next(at for at in range(1, len(left) + 1) if cell_len(left[:at]) > room) - 1
            lines.append(line + left[:at])
            line, left = rest, left[at:]
        line += left
    return [Text(one, style=style) for one in (*lines, line.rstrip())]


def _pieces(content: str) -> list[str]:
    """Words with the blanks behind them; each wide character for itself, with the stop behind it."""
    pieces = list[str]()
    for letter in content:
        wide = unicodedata.east_asian_width(letter) in "WF"
        joins = bool(pieces) and (
            letter in " 、。」）)." or (not wide and not pieces[-1].endswith(" ") and cell_len(pieces[-1][-1]) == 1)
        )
        if joins:
            pieces[-1] += letter
        else:
            pieces.append(letter)
    return pieces


def _cut(line: Text, width: int) -> Text:
    if line.cell_len > width:
        line = line.copy()
        line.truncate(width, overflow="ellipsis")
    return line
