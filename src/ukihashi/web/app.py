"""The web application of a hub: its front page for anyone, its administration for one (A12 to A14).

It answers on a unix socket that only the hub's worker reaches; the worker speaks TLS with the browser and passes
requests on with `X-Forwarded-For` set by itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ukihashi.errors import UkihashiError
from ukihashi.web.admin import Administration
from ukihashi.web.json_rpc import JsonPages, JsonRpc
from ukihashi.web.landing import RESERVED, Landing
from ukihashi.web.options import OptionPages
from ukihashi.web.render import STATIC_PREFIX, Reader, page
from ukihashi.web.upstream import AS_IS, Upstream

SAFE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # No Strict-Transport-Security: with the hub's own certificate it would take away the browser's "continue".
}
PROBLEMS: Final = frozenset({403, 404, 405, 413, 500, 501, 502, 503, 504})  # those with a page of their own (texts.py)


class WebApi(Protocol):
    """What the pages ask the hub. The same verbs as on the admin socket."""

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        """One question, one answer: `{"ok": True, "rows": [...]}`, or `{"ok": False, "error": "..."}` for a plain no;
        UkihashiError when the question could not be answered at all.

        Verbs used here: `status`, `list`, `sessions`; `admin_check` (`secret`) answers `ok` and `one_time`;
        `admin_set_password` (`old`, `new`) answers `ok`; `options`; `set_option` (`key`, `value`). A plain no may carry
        the error itself as `refusal`, to be said in the reader's language.
        """
        ...


class SafeHeaders:
    """Adds `SAFE_HEADERS` to every answer of ours that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and AS_IS not in scope:
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def build_app(
    api: WebApi,
    *,
    page_dir: Path | None,
    version: str,
    json_rpc: JsonRpc | None = None,
    upstream: tuple[str, int] | None = None,
) -> Starlette:
    """The ASGI application.

    Args:
        api: the hub.
        page_dir: the administrator's own page (`index.html`, `index.ja.html`, `index.en.html` and what they use).
        version: the one version string (A3).
        json_rpc: the calls of administration tools; None: there are none.
        upstream: host and port of a web server that has every address but ours, "/" included; never with `page_dir`.
    """
    landing = Landing(page_dir=page_dir, version=version)
    administration = Administration(api, version=version)

    def problem(request: Request, status: int, headers: Mapping[str, str] | None = None) -> Response:
        shown = status if status in PROBLEMS else 500 if status >= 500 else 404
        fields = {**(headers or {}), "Cache-Control": "no-store"}
        return page(
            request, "problem", status=status, headers=fields, version=version, code=status, shown=shown, detail=""
        )

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(request, error.status_code, dict(error.headers or {}))

    async def hub_silent(request: Request, error: Exception) -> Response:
        assert isinstance(error, UkihashiError)
        return page(
            request,
            "problem",
            status=503,
            headers={"Cache-Control": "no-store", "Retry-After": "5"},
            version=version,
            code=503,
            shown=503,
            detail=error.render(Reader.of(request).translate),
        )

    async def broken(request: Request, error: Exception) -> Response:
        del error  # the server logs it
        return problem(request, 500, SAFE_HEADERS)  # this handler stands outside every middleware

    ours = [
        Route(STATIC_PREFIX, landing.front, methods=["GET"]),
        Route(f"{STATIC_PREFIX}{{name}}", landing.static, methods=["GET"]),
        *administration.routes(),
        *OptionPages(administration).routes(),
        *(JsonPages(json_rpc).routes() if json_rpc is not None else ()),
    ]
    if upstream is None:
        others = [
            Route("/", landing.front, methods=["GET"]),
            Route("/favicon.ico", landing.favicon, methods=["GET"]),
            Route("/{path:path}", landing.other, methods=["GET"]),
        ]
    else:
        others = [Route("/{path:path}", Upstream(*upstream, kept=(*RESERVED, "/api/")))]
    app = Starlette(
        routes=[*ours, *others],
        middleware=[Middleware(SafeHeaders)],
        exception_handlers={HTTPException: refused, UkihashiError: hub_silent, Exception: broken},
    )
    app.state.home = "/" if upstream is None else STATIC_PREFIX
    return app
