"""Templates to answers: the reader's language, the address of style and pictures, validators, Content-Length."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from ukihashi.locale import LANGUAGES, catalogue
from ukihashi.web.language import choose, named
from ukihashi.web.texts import COMMON, PAGES
from ukihashi.wire.constants import PROBE_TAG

STATIC_PREFIX: Final = "/ukihashi/"  # a prefix of our own: an administrator's folder may well have a `static/`
STATIC_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LANGUAGE_NAMES: Final = {"en": "English", "ja": "日本語"}  # each in itself, never translated


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One of our own files: bytes, media type, and 16 hex digits of its SHA-256."""

    body: bytes
    media_type: str
    digest: str


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Our style sheet and pictures by name; read once, there are few and they are small."""
    files: dict[str, StaticFile] = {}
    for entry in resources.files("ukihashi.web").joinpath("static").iterdir():
        media_type = STATIC_TYPES.get(PurePosixPath(entry.name).suffix)
        if media_type is not None:
            body = entry.read_bytes()
            files[entry.name] = StaticFile(body, media_type, hashlib.sha256(body).hexdigest()[:16])
    return files


def static_url(name: str) -> str:
    """Address of one of our files; it changes with the content, so a browser may keep it for ever."""
    return f"{STATIC_PREFIX}{name}?v={static_files()[name].digest}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ukihashi.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # see `preload`
    )
    environment.filters["code"] = _code
    environment.globals.update(static=static_url, languages=LANGUAGE_NAMES, probe_tag=PROBE_TAG.decode())
    return environment


def preload() -> None:
    """Read every template and file now: a process that gives up its rights may not reach them afterwards."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)
    static_files()


def _code(text: str) -> Markup:
    """Escape a sentence and set what stands between backquotes as code."""
    parts = str(text).split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: the language, and whether it was asked for by `?lang=` (links then carry it on)."""

    language: str
    asked: bool

    @classmethod
    def of(cls, request: Request) -> "Reader":
        """`?lang=` first, then Accept-Language."""
        wish = named(request.query_params.get("lang"))
        if wish is not None:
            return cls(wish, asked=True)
        return cls(choose(",".join(request.headers.getlist("accept-language"))), asked=False)

    @property
    def translate(self) -> Callable[[str], str]:
        """gettext in the reader's language; never the process's (other readers speak others)."""
        return catalogue(self.language).gettext

    def link(self, path: str) -> str:
        """`path` on this server, with `?lang=` where the reader asked for it."""
        return f"{path}?lang={self.language}" if self.asked else path


def page(
    request: Request,
    name: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    version: str,
    **values: Any,
) -> Response:
    """Render template `name`.html, with the sentences of its area (the name up to `_`), for the one who asks.

    A 200 to a reader without a session has an ETag and is answered 304 when the browser has it already.
    """
    reader = Reader.of(request)
    translate = reader.translate
    area = name.partition("_")[0]
    home = getattr(request.app.state, "home", "/")
    body = (
        _environment()
        .get_template(f"{name}.html")
        .render(
            t={key: translate(text) for key, text in (COMMON | dict(PAGES[area])).items()},
            other=_others(area, reader.language),
            language=reader.language,
            link=reader.link,
            home=home,
            switch_path=values.pop("switch_path", home),
            version=version,
            **values,
        )
        .encode()
    )
    fields = {"Content-Language": reader.language, "Vary": "Accept-Language", **(headers or {})}
    fields.setdefault("Cache-Control", "no-cache")
    if status == 200 and fields["Cache-Control"] != "no-store":
        return validated(request, body, "text/html; charset=utf-8", fields)
    return Response(body, status, fields, "text/html; charset=utf-8")


def fragment(reader: Reader, name: str, **values: Any) -> str:
    """A part of a page: template `name`.html with the sentences of its area."""
    sentences = COMMON | dict(PAGES[name.partition("_")[0]])
    return (
        _environment()
        .get_template(f"{name}.html")
        .render(
            t={key: reader.translate(text) for key, text in sentences.items()},
            language=reader.language,
            link=reader.link,
            **values,
        )
    )


def validated(request: Request, body: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """200 with an ETag, or 304 when `If-None-Match` names it (RFC 9110, 13.1.2)."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    fields = {**headers, "ETag": tag}
    if is_known(request, tag):
        return Response(status_code=304, headers=fields)
    return Response(body, 200, fields, media_type)


def is_known(request: Request, tag: str) -> bool:
    """The reader has what `tag` names (`If-None-Match`)."""
    known = [given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")]
    return tag in known or known == ["*"]


def _others(area: str, language: str) -> Mapping[str, Mapping[str, str]]:
    """The page's sentences in the languages that the reader did not choose, by language."""
    return {
        code: {key: catalogue(code).gettext(text) for key, text in PAGES[area].items()}
        for code in LANGUAGES
        if code != language
    }
