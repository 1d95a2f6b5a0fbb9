"""JSON-RPC 2.0 on the hub's pages (protocol section 19.2): the calls of administration tools, for scripts.

`POST /api/` with `{"jsonrpc": "2.0", "id": "1", "method": "EnumUser", "params": {"HubName_str": "LAN"}}`, or
`GET /api/EnumUser?HubName_str=LAN`. Who asks proves it with each request, by headers or by HTTP Basic. Calls that
change something are taken by POST only, since a GET can be made by any link on any page. For the same reason no other
site's page is allowed to ask: `OPTIONS` grants nothing, and a request that names another origin is refused, as a
browser adds a Basic password by itself.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ukihashi.errors import Refused
from ukihashi.wire.constants import Code

PATH: Final = "/api"
MAX_BODY: Final = 1 << 20  # bytes of a request
PASSWORD: Final = "x-vpnadmin-password"  # noqa: S105 - the name of a header
HUB: Final = "x-vpnadmin-hubname"
ADMINISTRATOR: Final = "administrator"
READS: Final = ("enum", "get", "read", "test")  # how the names begin of calls that change nothing
VERSION: Final = "2.0"
NO_ID: Final = "0"  # of a request without one
PARSE_ERROR: Final = -32700  # these three are JSON-RPC's own
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
UNAUTHORIZED: Final = (
    "<!doctype html><html><head><title>401 Unauthorized</title></head>"
    "<body><h1>Unauthorized</h1><p>ukihashi hub admin tools --on</p></body></html>"
)


class JsonRpc(Protocol):
    """The hub's side."""

    async def password_login(self, hub: str, password: str, peer: str) -> int:
        """0: let in; else the code of section 11."""

    async def call_json(self, hub: str, name: str, params: Mapping[str, Any], peer: str) -> dict[str, Any]:
        """The result. Raises: Refused: with a code."""


class JsonPages:
    """The routes."""

    def __init__(self, hub: JsonRpc) -> None:
        self._hub = hub

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(PATH, self.post, methods=["POST"]),
            Route(f"{PATH}/", self.post, methods=["POST"]),
            Route(f"{PATH}/{{method:str}}", self.get, methods=["GET"]),
            Route(f"{PATH}{{rest:path}}", self.options, methods=["OPTIONS"]),
        ]

    async def options(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's shape
        """Which methods there are. No `Access-Control-Allow-Origin`: pages of other sites stay out."""
        return Response(status_code=204, headers={"Allow": "GET, POST, OPTIONS", "Cache-Control": "no-store"})

    async def post(self, request: Request) -> Response:
        """One call in the body."""
        hub = await self._let_in(request)
        if hub is None:
            return _unauthorized()
        try:
            asked = json.loads(await _body(request))
        except (ValueError, RecursionError):
            return _answer(NO_ID, error=(PARSE_ERROR, "the request is no JSON"))
        if not isinstance(asked, dict):
            return _answer(NO_ID, error=(INVALID_REQUEST, "the request is no object"))
        number = asked.get("id", NO_ID)
        if not isinstance(number, str | int) or isinstance(number, bool):
            number = NO_ID
        method, params = asked.get("method"), asked.get("params", {})
        if not isinstance(method, str):
            return _answer(number, error=(INVALID_REQUEST, "the request names no method"))
        if not isinstance(params, dict):
            return _answer(number, error=(INVALID_PARAMS, "params is no object"))
        return await self._call(request, hub, number, method, params)

    async def get(self, request: Request) -> Response:
        """One call in the address."""
        hub = await self._let_in(request)
        if hub is None:
            return _unauthorized()
        method = str(request.path_params["method"])
        if not method.casefold().startswith(READS):
            raise HTTPException(405, headers={"Allow": "POST"})
        return await self._call(request, hub, NO_ID, method, dict(request.query_params), media="text/plain")

    async def _call(
        self,
        request: Request,
        hub: str,
        number: str | int,
        method: str,
        params: Mapping[str, Any],
        media: str = "application/json",
    ) -> Response:
        try:
            result = await self._hub.call_json(hub, method, params, _peer(request))
        except Refused as refused:
            code = refused.code or int(Code.INTERNAL_ERROR)
            return _answer(number, error=(code, str(refused)), media=media)
        return _answer(number, result=result, media=media)

    async def _let_in(self, request: Request) -> str | None:
        """The hub that the caller may administrate ("" = the whole); None: nobody is let in."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403)
        given = _credentials(request)
        if given is None:
            return None
        hub, password = given
        return hub if await self._hub.password_login(hub, password, _peer(request)) == Code.NONE else None


def _credentials(request: Request) -> tuple[str, str] | None:
    """Hub and password, from our headers, else from Basic (RFC 7617)."""
    password = request.headers.get(PASSWORD)
    if password is not None:
        return request.headers.get(HUB, "").strip(), password
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.casefold() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        return None
    if not colon:
        return None
    return ("" if user.casefold() in {"", ADMINISTRATOR} else user), password


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413)
    return bytes(body)


def _peer(request: Request) -> str:
    """Who asks. The worker appends the address it sees, so only the last entry is to be believed."""
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    return forwarded.rpartition(",")[2].strip() + ":0"


def _unauthorized() -> Response:
    headers = {"WWW-Authenticate": 'Basic realm="ukihashi", charset="UTF-8"', "Cache-Control": "no-store"}
    return Response(UNAUTHORIZED, status_code=401, headers=headers, media_type="text/html")


def _answer(
    number: str | int,
    *,
    result: Mapping[str, Any] | None = None,
    error: tuple[int, str] | None = None,
    media: str = "application/json",
) -> Response:
    body: dict[str, Any] = {"jsonrpc": VERSION, "id": number}
    if error is not None:
        body["error"] = {"code": error[0], "message": error[1]}
    else:
        body["result"] = result
    return Response(json.dumps(body), media_type=media, headers={"Cache-Control": "no-store"})
