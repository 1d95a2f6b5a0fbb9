"""The detector's page: findings as they are made, one finding's reasons and timeline, the allow list, judging a file.

It holds no rights. Events of the sensor's bus come in through `AlertPage.feed`; what needs rights (the allow list, an
evidence bundle, the next way in) it asks of its keeper, `cli/alert_web.py`.

Whoever opens a printed address is let in, once; a cookie keeps that browser in, and the keeper prints the next address.
"""

import asyncio
import secrets
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ukihashi.alert import duties, words
from ukihashi.alert.judge import Judge
from ukihashi.alert.page_state import Found, View, lines_of, text
from ukihashi.errors import UkihashiError, UsageError
from ukihashi.web import alert_show as show
from ukihashi.web.admin import form_of, go
from ukihashi.web.app import SAFE_HEADERS, SafeHeaders
from ukihashi.web.landing import Landing
from ukihashi.web.options import refusal
from ukihashi.web.render import STATIC_PREFIX, Reader, fragment, page
from ukihashi.web.sign_in import same

if TYPE_CHECKING:
    from ukihashi.web.app import WebApi

MAX_BROWSERS: Final = 8  # let in at once; the one let in first is put out
PUSH_S: Final = 0.5  # at most one picture of each part in this time
BEAT_S: Final = 1.0  # ages grow without events
COMMENT_S: Final = 15.0  # something is sent at least this often: proxies and browsers close silent streams
MAX_NAME: Final = 600  # characters of a file's name, as it is sent
PARTS: Final = ("status", "list", "judged")


class Hosts:
    """Refuses requests meant for another name: a web site may point its own at this address (DNS rebinding).

    An IP address in the Host field can't have come from a name, so it is taken where the page is open to a network.
    """

    def __init__(self, app: ASGIApp, *, names: frozenset[str], addresses: bool) -> None:
        self._app = app
        self._names = names
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).getlist("host") if scope["type"] == "http" else []
        if len(given) == 1 and self._is_own(given[0].lower()):
            await self._app(scope, receive, send)
            return
        answer = PlainTextResponse(HTTPStatus.MISDIRECTED_REQUEST.phrase, HTTPStatus.MISDIRECTED_REQUEST)
        await answer(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        if host in self._names:
            return True
        bare = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        try:
            ip_address(bare.strip("[]"))
        except ValueError:
            return False
        return self._addresses


class AlertPage:
    """One page, for a few browsers of the same manager."""

    def __init__(
        self,
        api: "WebApi",
        *,
        secret: str,
        port: int,
        version: str,
        judge: Judge | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.view: Final = View()
        self.judge: Final = judge or Judge()
        self._api = api
        self._secret = secret  # of the printed address; "" while none is out
        self._cookie = f"ukihashi-alert-{port}"  # browsers share cookies between the ports of a host
        self._browsers: dict[str, str] = {}  # cookie -> csrf, the oldest first
        self._notices: dict[str, str] = {}  # csrf -> what to say once
        self._version = version
        self._clock = clock
        self._changed = asyncio.Event()

    def feed(self, line: bytes) -> None:
        """A line of the bus; `b""`: the bus is gone."""
        now = self._clock()
        if not line:
            self.view.lost(now)
        for event in lines_of(line):
            self.view.take(event, now)
        self.wake()

    def wake(self) -> None:
        """Something has changed: browsers are told."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def routes(self) -> list[Route]:
        """Addresses and methods."""
        return [
            Route("/", self.front, methods=["GET"]),
            Route("/live", self.live, methods=["GET"]),
            Route("/finding/{key:str}", self.finding, methods=["GET"]),
            Route("/finding/{key:str}/evidence", self.evidence, methods=["GET"]),
            Route("/allow", self.allow_list, methods=["GET"]),
            Route("/allow", self.allow_add, methods=["POST"]),
            Route("/allow/remove", self.allow_remove, methods=["POST"]),
            Route("/judge", self.judged, methods=["GET"]),
            Route("/judge", self.take_file, methods=["POST"]),
            Route("/judge/stop", self.stop, methods=["POST"]),
            Route("/judge/forget", self.forget, methods=["POST"]),
            Route("/judge/{key:str}", self.judged_finding, methods=["GET"]),
        ]

    # -- who is let in -------------------------------------------------------------------------------------------

    async def front(self, request: Request) -> Response:
        """The list; with a printed address's secret, the way in."""
        key = request.query_params.get("key")
        if key is not None:
            return await self._let_in(request, key)
        csrf = self._check(request)
        return self._page(request, "alert_front", csrf, parts=self._parts(request, ("status", "list")))

    async def _let_in(self, request: Request, key: str) -> Response:
        if not self._secret or not same(key, self._secret):
            raise HTTPException(403)
        self._secret = ""
        while len(self._browsers) >= MAX_BROWSERS:
            self._notices.pop(self._browsers.pop(next(iter(self._browsers))), None)
        session = secrets.token_urlsafe(32)
        self._browsers[session] = secrets.token_urlsafe(32)
        answer = go(request, "/")  # the secret leaves the address bar
        answer.set_cookie(self._cookie, session, httponly=True, samesite="strict")
        told = await self._api.ask("next_way_in")
        self._secret = str(told["rows"][0]["secret"])
        return answer

    def _check(self, request: Request) -> str:
        """The browser's csrf value; 403 for a stranger."""
        given = request.cookies.get(self._cookie, "")
        for session, csrf in self._browsers.items():
            if same(given, session):
                return csrf
        raise HTTPException(403)

    def _is_in(self, request: Request) -> bool:
        """The browser was let in, and not put out since."""
        given = request.cookies.get(self._cookie, "")
        return any(same(given, session) for session in self._browsers)

    async def _form(self, request: Request) -> Mapping[str, str]:
        """A form of our own page."""
        csrf = self._check(request)
        form = await form_of(request)
        if not same(form.get("csrf", ""), csrf):
            raise HTTPException(403)
        return form

    # -- the list, live ------------------------------------------------------------------------------------------

    async def live(self, request: Request) -> Response:
        """Parts of the page as they change, as server-sent events (HTML living standard, 9.2)."""
        self._check(request)
        wanted = tuple(part for part in PARTS if part in request.query_params.get("parts", "").split(","))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(request, wanted), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request, wanted: tuple[str, ...]) -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        spoke = self._clock()
        yield "retry: 1000\n\n"
        while self._is_in(request):
            changed = self._changed
            said = ""
            for name, html in self._parts(request, wanted).items():
                if sent.get(name) != html:
                    sent[name] = html
                    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
                    said += f"event: {name}\n{lines}\n"
            if not said and self._clock() - spoke >= COMMENT_S:
                said = ":\n\n"
            if said:
                spoke = self._clock()
                yield said
            await asyncio.sleep(PUSH_S)
            try:
                async with asyncio.timeout(BEAT_S - PUSH_S):
                    await changed.wait()
            except TimeoutError:
                pass

    def _parts(self, request: Request, wanted: tuple[str, ...]) -> dict[str, str]:
        reader, now = Reader.of(request), self._clock()
        probable = request.query_params.get("probable") == "1"
        made = {}
        for name in wanted:
            if name == "status":
                values = show.status(self.view, now, reader.translate)
            elif name == "list":
                values = show.listed(self.view, now, reader, probable=probable)
            else:
                values = show.judged(self.judge, now, reader) | {"csrf": self._check(request)}
            made[name] = fragment(reader, f"alert_{name}", **values)
        return made

    # -- one finding ---------------------------------------------------------------------------------------------

    async def finding(self, request: Request) -> Response:
        """Why, what was seen when, what to do next."""
        self._check(request)
        return await self._finding(request, self.view.find(request.path_params["key"]), judged=False)

    async def judged_finding(self, request: Request) -> Response:
        """The same for one of a file."""
        self._check(request)
        last = self.judge.last
        return await self._finding(request, last.find(request.path_params["key"]) if last else None, judged=True)

    async def _finding(
        self,
        request: Request,
        found: Found | None,
        *,
        judged: bool,
        trouble: str = "",
        form: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Response:
        csrf = self._check(request)
        reader = Reader.of(request)
        back = "/judge" if judged else "/"
        if found is None:
            return self._page(request, "alert_unknown", csrf, status=404, back=back)
        values = show.finding(found, self._clock(), reader, judged=judged)
        values["duties"] = [reader.translate(duty) for duty in (duties.ASK, *duties.DUTIES)]
        values["allow"] = None if judged or found.allowed else show.allow_form(found, form, self._clock())
        return self._page(
            request, "alert_finding", csrf, status=status, back=back, trouble=trouble, form_at="finding", **values
        )

    async def evidence(self, request: Request) -> Response:
        """The bundle that the sensor wrote."""
        self._check(request)
        found = self.view.find(request.path_params["key"])
        if found is None or not found.about.get("evidence_file"):
            raise HTTPException(404)
        key, first = found.key, await self._piece(found.key, 0)
        name = "".join(letter for letter in first["name"] if letter.isalnum() or letter in "-_.")

        async def body() -> AsyncIterator[bytes]:
            at, row = 0, first
            while data := b64decode(row["data"]):
                yield data
                at += len(data)
                if at >= row["size"]:
                    return
                row = await self._piece(key, at)

        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(first["size"]),
            "Cache-Control": "no-store",
        }
        return StreamingResponse(body(), media_type="application/octet-stream", headers=headers)

    async def _piece(self, key: str, offset: int) -> dict[str, Any]:
        told = await self._api.ask("evidence", key=key, offset=offset)
        if told.get("ok") is not True:
            raise told["refusal"]
        row: dict[str, Any] = told["rows"][0]
        return row

    # -- the allow list ------------------------------------------------------------------------------------------

    async def allow_list(self, request: Request) -> Response:
        """Its entries, and a form for one more."""
        return await self._allow_page(request, self._check(request))

    async def _allow_page(
        self,
        request: Request,
        csrf: str,
        *,
        form: Mapping[str, str] | None = None,
        trouble: str = "",
        status: int = 200,
    ) -> Response:
        translate = Reader.of(request).translate
        told = await self._api.ask("allow_list")
        problem = trouble or ("" if told.get("ok") is True else refusal(told, translate))
        return self._page(
            request,
            "alert_allow",
            csrf,
            status=status,
            trouble=problem,
            done=self._notices.pop(csrf, ""),
            families=words.FAMILIES,
            entries=show.entries(told.get("rows", []), self._clock()),
            allow=show.allow_form(None, form, self._clock()),
            form_at="list",
        )

    async def allow_add(self, request: Request) -> Response:
        """One entry more, of the list's form or of a finding's."""
        form = await self._form(request)
        names = ("client", "server", "port", "family", "owner", "reason", "expires")
        entry = {name: form.get(name, "").strip() for name in names}
        told = await self._api.ask("allow_add", **entry)
        if told.get("ok") is True:
            self._notices[form["csrf"]] = "added"
            return go(request, "/allow")
        trouble = refusal(told, Reader.of(request).translate)
        if form.get("finding"):
            found = self.view.find(form["finding"])
            return await self._finding(request, found, judged=False, trouble=trouble, form=form, status=422)
        return await self._allow_page(request, self._check(request), form=form, trouble=trouble, status=422)

    async def allow_remove(self, request: Request) -> Response:
        """One entry less."""
        form = await self._form(request)
        told = await self._api.ask("allow_remove", id=form.get("id", ""))
        if told.get("ok") is True:
            self._notices[form["csrf"]] = "removed"
            return go(request, "/allow")
        trouble = refusal(told, Reader.of(request).translate)
        return await self._allow_page(request, self._check(request), trouble=trouble, status=422)

    # -- a file --------------------------------------------------------------------------------------------------

    async def judged(self, request: Request) -> Response:
        """The frame to drop a file into, and what came of the last one."""
        csrf = self._check(request)
        limit = show.amount(self.judge.max_file)
        return self._page(request, "alert_judge", csrf, limit=limit, parts=self._parts(request, ("judged",)))

    async def take_file(self, request: Request) -> Response:
        """Judge the body of the request while it comes in."""
        csrf = self._check(request)
        if not same(request.headers.get("x-csrf", ""), csrf):
            raise HTTPException(403)
        name = unquote(request.headers.get("x-file-name", "")[:MAX_NAME], errors="replace")
        length = request.headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdecimal() else None

        async def parts() -> AsyncIterator[bytes]:
            async for part in request.stream():
                self.wake()
                yield part

        try:
            judged = await self.judge.run(parts(), name, size)
        except UsageError as error:
            return JSONResponse({"trouble": error.render(Reader.of(request).translate)}, 409)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            self.wake()
        return JSONResponse({"state": judged.state.value})

    async def stop(self, request: Request) -> Response:
        """Read no further."""
        await self._form(request)
        self.judge.cancel()
        return go(request, "/judge")

    async def forget(self, request: Request) -> Response:
        """Keep nothing of the last file."""
        await self._form(request)
        self.judge.forget()
        self.wake()
        return go(request, "/judge")

    # -- small help ----------------------------------------------------------------------------------------------

    def _page(self, request: Request, name: str, csrf: str, *, status: int = 200, **values: Any) -> Response:
        return page(
            request,
            name,
            status=status,
            headers={"Cache-Control": "no-store"},
            version=self._version,
            switch_path=text(request.url.path) if request.method == "GET" else "/",
            csrf=csrf,
            here=request.url.path,
            **values,
        )


def build_alert_app(page_: AlertPage, *, port: int, names: frozenset[str], addresses: bool, version: str) -> Starlette:
    """The ASGI application.

    Args:
        names: what the page may be called in an address, without the port.
        addresses: any IP address may stand there, too: the page is open to a network.
    """
    files = Landing(page_dir=None, version=version)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code != HTTPStatus.FORBIDDEN:
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        return page(request, "alert_closed", status=403, headers={"Cache-Control": "no-store"}, version=version)

    async def silent(request: Request, error: Exception) -> Response:
        assert isinstance(error, UkihashiError)
        return PlainTextResponse(error.render(Reader.of(request).translate), 503)

    async def broken(request: Request, error: Exception) -> Response:
        del request, error
        phrase = HTTPStatus.INTERNAL_SERVER_ERROR.phrase
        return PlainTextResponse(phrase, 500, SAFE_HEADERS)  # this handler stands outside every middleware

    hosts = frozenset(f"{name}:{port}" for name in names) | (names if port == 80 else frozenset())
    return Starlette(
        routes=[
            *page_.routes(),
            Route("/favicon.ico", files.favicon, methods=["GET"]),
            Route(f"{STATIC_PREFIX}{{name}}", files.static, methods=["GET"]),
        ],
        middleware=[Middleware(SafeHeaders), Middleware(Hosts, names=hosts, addresses=addresses)],
        exception_handlers={HTTPException: refused, UkihashiError: silent, Exception: broken},
    )
