"""The card's page on this machine's own loopback: state, ledger, and every option of one account (A29, A32, A36).

Whoever opens the address that the command printed is let in, once; a cookie keeps that browser in. The page holds no
rights: it asks its keeper (`cli/card_page.py`) with the same words that the hub's page uses.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ukihashi.errors import Translate, UkihashiError, UsageError
from ukihashi.web.admin import form_of, go
from ukihashi.web.app import SAFE_HEADERS, SafeHeaders
from ukihashi.web.landing import Landing
from ukihashi.web.options import DASH, Tried, refusal, sections, wanted
from ukihashi.web.render import STATIC_PREFIX, Reader, page
from ukihashi.web.sign_in import same
from ukihashi.web.texts import CARD_STATES, LEDGER, OPTIONS

if TYPE_CHECKING:
    from ukihashi.web.app import WebApi


HTTP: Final = 80  # the one port that a Host header leaves out


class OwnHosts:
    """Refuses requests that were meant for another name: a web site may point its own at 127.0.0.1 (DNS rebinding)."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).getlist("host") if scope["type"] == "http" else []
        if len(given) == 1 and given[0].lower() in self._hosts:
            await self._app(scope, receive, send)
            return
        answer = PlainTextResponse(HTTPStatus.MISDIRECTED_REQUEST.phrase, HTTPStatus.MISDIRECTED_REQUEST)
        await answer(scope, receive, send)


class CardPage:
    """The page of one account, for one browser."""

    def __init__(self, api: "WebApi", *, account: str, secret: str, port: int, version: str) -> None:
        self._api = api
        self._account = account
        self._secret = secret  # of the printed address; "" once it is spent
        self._cookie = f"ukihashi-card-{port}"  # browsers share cookies between the ports of a host
        self._session = ""  # the cookie's value; "" lets nobody in
        self._csrf = secrets.token_urlsafe(32)
        self._version = version
        self._changed = ""  # an option to mark once as changed

    def routes(self) -> list[Route]:
        """The address and its methods."""
        return [Route("/", self.front, methods=["GET"]), Route("/", self.change, methods=["POST"])]

    async def front(self, request: Request) -> Response:
        """State and options; with the printed address's secret, the way in."""
        key = request.query_params.get("key")
        if key is not None and request.method == "GET" and same(key, self._secret):
            self._secret, self._session = "", secrets.token_urlsafe(32)
            answer = go(request, "/")  # the secret leaves the address bar
            answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
            return answer
        self._check(request)
        changed, self._changed = self._changed, ""
        return await self._page(request, changed=changed)

    async def change(self, request: Request) -> Response:
        """Change one option."""
        self._check(request)
        form = await form_of(request)
        if not same(form.get("csrf", ""), self._csrf):
            raise HTTPException(403)
        translate = Reader.of(request).translate
        try:
            key, value = wanted("card", form)
        except UsageError as error:
            tried = Tried(form.get("option", ""), form.get("value", ""), error.render(translate))
            return await self._page(request, status=422, tried=tried)
        answer = await self._api.ask("set_option", key=key, value=value)
        if answer.get("ok") is not True:
            return await self._page(request, status=422, tried=Tried(key, value, refusal(answer, translate)))
        self._changed = key
        return go(request, "/", place=key)

    def _check(self, request: Request) -> None:
        if not same(request.cookies.get(self._cookie, ""), self._session):
            raise HTTPException(403)

    async def _page(
        self, request: Request, *, status: int = 200, tried: Tried | None = None, changed: str = ""
    ) -> Response:
        reader = Reader.of(request)
        translate = reader.translate
        state, options = await self._api.ask("status"), await self._api.ask("options")
        trouble = next((refusal(one, translate) for one in (state, options) if one.get("ok") is not True), "")
        row = state["rows"][0] if state.get("ok") is True and state["rows"] else {}
        return page(
            request,
            "options_card",
            status=status,
            headers={"Cache-Control": "no-store"},
            version=self._version,
            heading=translate(OPTIONS["card_title"]).format(account=self._account),
            csrf=self._csrf,
            action="/",
            trouble=trouble or _reason(row, translate),
            figures=_figures(row, translate),
            ledger=_ledger(row.get("ledger"), translate),
            sections=sections("card", options.get("rows", []), reader, tried=tried, changed=changed),
        )


def _figures(row: Mapping[str, Any], translate: Translate) -> dict[str, str]:
    state = str(row.get("state", ""))
    told = {
        "state": translate(CARD_STATES[state]) if state in CARD_STATES else state,
        "hub": row.get("hub"),
        "server": row.get("peer") or row.get("address"),
        "interface": " ".join([str(row.get("interface", "")), *map(str, row.get("addresses", []))]),
    }
    return {translate(OPTIONS[key]): str(value or DASH) for key, value in told.items()}


def _ledger(ledger: object, translate: Translate) -> dict[str, str]:
    """The ledger's numbers by name; drops with their reasons."""
    if not isinstance(ledger, dict):
        return {}
    told = {}
    for key, value in ledger.items():
        name = translate(LEDGER[key]) if key in LEDGER else str(key)
        if isinstance(value, dict):
            reasons = ", ".join(f"{reason} {count}" for reason, count in value.items())
            told[name] = f"{sum(value.values())} ({reasons})" if reasons else "0"
        else:
            told[name] = str(value)
    return told


def _reason(row: Mapping[str, Any], translate: Translate) -> str:
    """Why the card is not online, as it told us."""
    reason = row.get("reason")
    if not isinstance(reason, dict):
        return ""
    try:
        return UkihashiError(str(reason["template"]), **reason["values"]).render(translate)
    except (KeyError, ValueError, IndexError, TypeError):  # a card of another version
        return str(reason.get("text", ""))


def build_card_app(api: "WebApi", *, account: str, secret: str, port: int, version: str) -> Starlette:
    """The ASGI application.

    Args:
        api: the keeper; verbs `status`, `options`, `set_option` (`key`, `value`), answered as the hub's.
        secret: what lets the first browser in.
        port: where it listens on the loopback addresses.
    """
    own = CardPage(api, account=account, secret=secret, port=port, version=version)
    files = Landing(page_dir=None, version=version)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code != HTTPStatus.FORBIDDEN:
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        return page(request, "options_closed", status=403, headers={"Cache-Control": "no-store"}, version=version)

    async def silent(request: Request, error: Exception) -> Response:
        assert isinstance(error, UkihashiError)
        return PlainTextResponse(error.render(Reader.of(request).translate), 503)

    async def broken(request: Request, error: Exception) -> Response:
        del request, error
        phrase = HTTPStatus.INTERNAL_SERVER_ERROR.phrase
        return PlainTextResponse(phrase, 500, SAFE_HEADERS)  # this handler stands outside every middleware

    names = ("127.0.0.1", "[::1]", "localhost")
    hosts = frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == HTTP else frozenset())
    return Starlette(
        routes=[
            *own.routes(),
            Route("/favicon.ico", files.favicon, methods=["GET"]),
            Route(f"{STATIC_PREFIX}{{name}}", files.static, methods=["GET"]),
        ],
        middleware=[Middleware(SafeHeaders), Middleware(OwnHosts, hosts=hosts)],
        exception_handlers={HTTPException: refused, UkihashiError: silent, Exception: broken},
    )
