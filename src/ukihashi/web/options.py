"""Options as the pages show them: one table, each row with its meaning and, where it can be changed, a form (A32, A36).

The hub's page is here; the card's is in `card_page.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from msgspec import inspect
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ukihashi.config.option_texts import SECTIONS, Effect
from ukihashi.config.options import (
    Kind,
    Option,
    effect_words,
    number_range,
    option,
    parse,
    said_in,
    shown,
    value_text,
)
from ukihashi.errors import Translate, UkihashiError, UsageError
from ukihashi.web.admin import PATH as ADMIN_PATH
from ukihashi.web.admin import Administration, go
from ukihashi.web.render import Reader

PATH: Final = f"{ADMIN_PATH}/options"
DASH: Final = "–"


@dataclass(frozen=True, slots=True)
class Line:
    """One option in the reader's language."""

    key: str
    text: str  # the value as one types it
    value: str  # the value as one reads it
    default: str
    allowed: str
    meaning: str
    effect: str
    form: str  # choice, number, text; "" if it can't be changed here
    choices: Sequence[str]
    least: str  # of a number
    most: str
    error: str  # why `text` was not taken
    changed: bool  # just now


@dataclass(frozen=True, slots=True)
class Section:
    """Options that stand in one table of the file."""

    name: str
    meaning: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Tried:
    """A change that was not taken."""

    key: str
    text: str
    error: str


def changeable(kind: Kind, key: str) -> bool:
    """Can a page change it? The hub's: what is heeded at once. The card's: all but secrets and lists of tables."""
    try:
        one = option(kind, key)
    except UsageError:  # of a daemon of another version
        return False
    return not one.secret and not one.is_table and (kind == "card" or one.effect is Effect.NOW)


def sections(
    kind: Kind, rows: Iterable[Mapping[str, Any]], reader: Reader, *, tried: Tried | None = None, changed: str = ""
) -> list[Section]:
    """Rows of the verb `options`, section by section.

    Args:
        tried: what the reader asked for in vain.
        changed: the option that the reader has just changed.
    """
    told = said_in(kind, rows, reader.language)
    found = []
    for name, members in groupby(told, lambda row: str(row["option"]).rpartition(".")[0]):
        meaning = reader.translate(SECTIONS[kind][name]) if name in SECTIONS[kind] else ""
        lines = [_line(kind, row, reader.translate, tried, changed) for row in members]
        found.append(Section(name, meaning, lines))
    return found


def _line(kind: Kind, row: Mapping[str, Any], translate: Translate, tried: Tried | None, changed: str) -> Line:
    key = str(row["option"])
    form, choices, least, most = _form(option(kind, key)) if changeable(kind, key) else ("", (), "", "")
    failed = tried if tried is not None and tried.key == key else None
    return Line(
        key=key,
        text=failed.text if failed else value_text(row.get("value")),
        value=shown(row, "value", translate) or DASH,
        default=shown(row, "default", translate) or DASH,
        allowed=str(row.get("allowed", "")),
        meaning=str(row.get("meaning", "")),
        effect=effect_words(str(row.get("effect", "")), translate),
        form=form,
        choices=choices,
        least=least,
        most=most,
        error=failed.error if failed else "",
        changed=key == changed,
    )


def _form(one: Option) -> tuple[str, Sequence[str], str, str]:
    match one.type:
        case inspect.BoolType():
            return "choice", ("true", "false"), "", ""
        case inspect.LiteralType():
            return "choice", [str(value) for value in one.type.values], "", ""
        case inspect.IntType() | inspect.FloatType():
            least, most = map(value_text, number_range(one.type))
            return "number", (), least, most
    return "text", (), "", ""


def wanted(kind: Kind, form: Mapping[str, str]) -> tuple[str, str]:
    """Option and new value of a form, checked by itself. Raises: UsageError; HTTPException: not a form of ours."""
    key = form.get("option", "")
    if not changeable(kind, key):
        raise HTTPException(403)
    return key, value_text(parse(kind, key, form.get("value", "")))


def refusal(answer: Mapping[str, Any], translate: Translate) -> str:
    """Why a daemon said no, in the reader's language where it can be said in it."""
    error = answer.get("refusal")
    return error.render(translate) if isinstance(error, UkihashiError) else str(answer.get("error", DASH))


class OptionPages:
    """`/admin/options` of the hub."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def routes(self) -> list[Route]:
        """The address and its methods."""
        return [
            Route(PATH, self.front, methods=["GET"]),
            Route(PATH, self.change, methods=["POST"]),
        ]

    async def front(self, request: Request) -> Response:
        """All options; to the sign-in for strangers."""
        session = self._administration.session(request)
        if session is None or session.one_time:
            return go(request, ADMIN_PATH)
        changed, session.changed = session.changed, ""
        return await self._page(request, session.csrf, changed=changed)

    async def change(self, request: Request) -> Response:
        """Change one option."""
        session, form = await self._administration.signed_in(request)
        if session.one_time:
            raise HTTPException(403)
        translate = Reader.of(request).translate
        try:
            key, value = wanted("hub", form)
        except UsageError as error:
            tried = Tried(form.get("option", ""), form.get("value", ""), error.render(translate))
            return await self._page(request, session.csrf, status=422, tried=tried)
        answer = await self._administration.ask("set_option", key=key, value=value)
        if answer.get("ok") is not True:
            tried = Tried(key, value, refusal(answer, translate))
            return await self._page(request, session.csrf, status=422, tried=tried)
        session.changed = key
        return go(request, PATH, place=key)

    async def _page(
        self, request: Request, csrf: str, *, status: int = 200, tried: Tried | None = None, changed: str = ""
    ) -> Response:
        reader = Reader.of(request)
        answer = await self._administration.ask("options")
        good = answer.get("ok") is True
        return self._administration.page(
            request,
            "options_hub",
            status=status,
            csrf=csrf,
            action=PATH,
            switch_path=PATH,
            sections=sections("hub", answer["rows"], reader, tried=tried, changed=changed) if good else [],
            trouble="" if good else refusal(answer, reader.translate),
        )
