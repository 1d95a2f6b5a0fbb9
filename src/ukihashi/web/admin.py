"""`/admin`: sign in, choose a password at the first time, see how the hub is.

Nothing here changes the hub but the administrator's own password. Every form carries a token: before the sign-in the
one of a cookie (double submit), afterwards the session's.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ukihashi.errors import N_, DaemonUnreachable
from ukihashi.web.render import Reader, page
from ukihashi.web.sign_in import LIFE_S, Session, Sessions, Throttle, same
from ukihashi.web.status import gather
from ukihashi.web.texts import NOTICES

if TYPE_CHECKING:
    from ukihashi.web.app import WebApi

PATH: Final = "/admin"
SESSION_COOKIE: Final = "__Secure-ukihashi-admin"  # the prefix makes browsers refuse it without `Secure` (RFC 6265bis)
FORM_COOKIE: Final = "__Secure-ukihashi-form"
MIN_PASSWORD: Final = 12  # characters
MAX_PASSWORD: Final = 256
MAX_FORM: Final = 8 * 1024  # bytes
CHECKS_AT_ONCE: Final = 4  # each costs the hub an argon2; further ones are told to come again
ASK_S: Final = 10.0  # seconds the hub may take for one answer


class Administration:
    """The pages under `/admin`. One of these a process; who is signed in lives in it."""

    def __init__(self, api: "WebApi", *, version: str) -> None:
        self._api = api
        self._version = version
        self._sessions = Sessions()
        self._throttle = Throttle()
        self._checking = 0

    def routes(self) -> list[Route]:
        """The addresses and their methods."""
        return [
            Route(PATH, self.front, methods=["GET"]),
            Route(f"{PATH}/", self.front, methods=["GET"]),
            Route(f"{PATH}/sign-in", self.sign_in, methods=["POST"]),
            Route(f"{PATH}/sign-in", self.back, methods=["GET"]),  # typed into the address bar after a failure
            Route(f"{PATH}/sign-out", self.back, methods=["GET"]),
            Route(f"{PATH}/password", self.password, methods=["GET"]),
            Route(f"{PATH}/password", self.save_password, methods=["POST"]),
            Route(f"{PATH}/sign-out", self.sign_out, methods=["POST"]),
        ]

    async def front(self, request: Request) -> Response:
        """The sign-in form, or how the hub is."""
        session = self.session(request)
        if session is None:
            return self._sign_in_page(request, notice="ended" if SESSION_COOKIE in request.cookies else "")
        if session.one_time:
            return go(request, f"{PATH}/password")
        state = await gather(self.ask, Reader.of(request).translate)
        notice, session.notice = _notice(request, session.notice), ""
        return self.page(request, "admin_state", csrf=session.csrf, state=state, notice=notice)

    async def back(self, request: Request) -> Response:
        """To the front of the administration."""
        return go(request, PATH)

    async def sign_in(self, request: Request) -> Response:
        """Check a password or the one-time secret."""
        form = await form_of(request)
        if not same(form.get("csrf", ""), request.cookies.get(FORM_COOKIE, "")):
            raise HTTPException(403)
        source, now = _source(request), time.monotonic()
        wait = self._throttle.wait(source, now)
        if wait > 0:
            minutes = int(wait // 60) + 1
            answer = self._sign_in_page(request, status=429, notice="wait", minutes=minutes)
            answer.headers["Retry-After"] = str(int(wait) + 1)
            return answer
        if self._checking >= CHECKS_AT_ONCE:
            return self._sign_in_page(request, status=503, notice="busy")
        secret = form.get("secret", "")[:MAX_PASSWORD]
        self._checking += 1
        try:
            checked = await self.ask("admin_check", secret=secret)
        finally:
            self._checking -= 1
        if checked.get("ok") is not True:
            self._throttle.failed(source, now)
            return self._sign_in_page(request, status=403, notice="wrong")
        self._throttle.succeeded(source)
        self._sessions.close(request.cookies.get(SESSION_COOKIE, ""))
        one_time = secret if checked.get("one_time") else ""
        answer = go(request, f"{PATH}/password" if one_time else PATH)
        self._open(answer, one_time=one_time)
        return answer

    async def password(self, request: Request) -> Response:
        """The form for the first password."""
        session = self.session(request)
        if session is None or not session.one_time:
            return go(request, PATH)
        return self._password_page(request, session)

    async def save_password(self, request: Request) -> Response:
        """Put the chosen password in the place of the one-time secret; every other session ends."""
        session, form = await self.signed_in(request)
        if not session.one_time:
            return go(request, PATH)
        new, again = form.get("new", ""), form.get("again", "")
        if len(new) < MIN_PASSWORD:
            return self._password_page(request, session, status=422, notice="short")
        if len(new) > MAX_PASSWORD:
            return self._password_page(request, session, status=422, notice="long")
        if new != again:
            return self._password_page(request, session, status=422, notice="differ")
        if same(new, session.one_time):
            return self._password_page(request, session, status=422, notice="same")
        saved = await self.ask("admin_set_password", old=session.one_time, new=new)
        self._sessions.close_all()
        if saved.get("ok") is not True:
            return self._sign_in_page(request, status=403, notice="refused")
        answer = go(request, PATH)
        self._open(answer, notice="saved")
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End this browser's session."""
        if self.session(request) is not None:
            await self.signed_in(request)
            self._sessions.close(request.cookies.get(SESSION_COOKIE, ""))
        answer = self._sign_in_page(request, notice="out")
        answer.delete_cookie(SESSION_COOKIE, path=PATH, secure=True, httponly=True, samesite="strict")
        return answer

    # -- for the other pages under `/admin`, too ------------------------------------------------------------------

    def session(self, request: Request) -> Session | None:
        """The session of a browser that is signed in."""
        return self._sessions.find(request.cookies.get(SESSION_COOKIE, ""), time.monotonic())

    async def signed_in(self, request: Request) -> tuple[Session, Mapping[str, str]]:
        """Session and fields of a form that one of our pages sent; else 403."""
        session, form = self.session(request), await form_of(request)
        if session is None or not same(form.get("csrf", ""), session.csrf):
            raise HTTPException(403)
        return session, form

    def page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
        """A page that no cache keeps."""
        own = {"switch_path": PATH, "here": PATH} | values
        return page(request, name, status=status, headers={"Cache-Control": "no-store"}, version=self._version, **own)

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        """What the hub answers. Raises: DaemonUnreachable."""
        try:
            async with asyncio.timeout(ASK_S):
                return await self._api.ask(do, **args)
        except TimeoutError:
            raise DaemonUnreachable(N_("the hub did not answer within {seconds:g} s"), seconds=ASK_S) from None

    # -- parts ----------------------------------------------------------------------------------------------------

    def _open(self, answer: Response, *, one_time: str = "", notice: str = "") -> None:
        session_id, session = self._sessions.open(time.monotonic(), one_time=one_time)
        session.notice = notice
        answer.set_cookie(
            SESSION_COOKIE, session_id, max_age=int(LIFE_S), path=PATH, secure=True, httponly=True, samesite="strict"
        )

    def _sign_in_page(self, request: Request, *, status: int = 200, notice: str = "", minutes: int = 0) -> Response:
        known = request.cookies.get(FORM_COOKIE, "")
        token = known if 20 <= len(known) <= 64 else secrets.token_urlsafe(32)  # kept: two open tabs both work
        answer = self.page(
            request,
            "admin_sign_in",
            status=status,
            csrf=token,
            notice=_notice(request, notice, minutes=minutes),
            good=notice == "out",
        )
        answer.set_cookie(FORM_COOKIE, token, path=PATH, secure=True, httponly=True, samesite="strict")
        return answer

    def _password_page(self, request: Request, session: Session, *, status: int = 200, notice: str = "") -> Response:
        return self.page(
            request,
            "admin_password",
            status=status,
            csrf=session.csrf,
            notice=_notice(request, notice),
            minimum=MIN_PASSWORD,
            maximum=MAX_PASSWORD,
        )


def go(request: Request, path: str, *, place: str = "") -> Response:
    """303: the browser fetches `path` next; a reload won't send the form again (RFC 9110, 15.4.4).

    Args:
        place: id of the element to show first.
    """
    location = Reader.of(request).link(path) + (f"#{place}" if place else "")
    return Response(status_code=303, headers={"Location": location, "Cache-Control": "no-store"})


def _notice(request: Request, key: str, *, minutes: int = 0) -> str:
    if not key:
        return ""
    template = Reader.of(request).translate(NOTICES[key])
    return template.format(minimum=MIN_PASSWORD, maximum=MAX_PASSWORD, minutes=minutes)


def _source(request: Request) -> str:
    """Who asks. The worker appends the address it sees, so only the last entry is to be believed."""
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    return forwarded.rpartition(",")[2].strip()


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a posted form; 413 above `MAX_FORM`, nothing for another media type."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            raise HTTPException(413)
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=16))
    except ValueError:  # covers UnicodeDecodeError
        return {}
