"""What a browser sees at the hub's address (A12, A14): our page in its language, or the administrator's own."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ukihashi.web import own_page
from ukihashi.web.own_page import LargeFile
from ukihashi.web.render import STATIC_PREFIX, Reader, is_known, page, static_files, static_url, validated

# A Host field (RFC 9110, 7.2): name or IPv4 address, or IPv6 address in brackets, then maybe a port.
HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")

RESERVED: Final = (STATIC_PREFIX, "/admin/")  # never looked up in the administrator's folder

# The administrator's files may style themselves in place; scripts must be files of the same folder.
OWN_PAGE_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)


def address_of(request: Request) -> tuple[str, str]:
    """Host and port as the reader typed them, for the joining instructions; ("", "") where the field is no host."""
    match = HOST.fullmatch(request.headers.get("host", ""))
    if match is None:
        return "", ""
    return match["name"].strip("[]"), match["port"] or "443"


class Landing:
    """Endpoints for everything that is neither ours under `STATIC_PREFIX` nor the administration."""

    def __init__(self, *, page_dir: Path | None, version: str) -> None:
        self._page_dir = page_dir
        self._version = version

    async def front(self, request: Request) -> Response:
        """`/`: the administrator's index, else ours."""
        own = await self._own(request)
        if own is not None:
            return own
        host, port = address_of(request)
        return page(request, "landing", version=self._version, host=host, port=port)

    async def other(self, request: Request) -> Response:
        """Any other path: a file of the administrator's folder, else 404."""
        own = await self._own(request)
        if own is None:
            raise HTTPException(404)
        return own

    async def favicon(self, request: Request) -> Response:
        """Browsers ask for this by themselves; give our mark, unless the administrator has one."""
        own = await self._own(request)
        if own is not None:
            return own
        return Response(status_code=308, headers={"Location": static_url("mark.svg"), "Cache-Control": "no-cache"})

    async def static(self, request: Request) -> Response:
        """Our style sheet and pictures."""
        file = static_files().get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        kept = request.query_params.get("v") == file.digest
        life = "public, max-age=31536000, immutable" if kept else "no-cache"
        return validated(request, file.body, file.media_type, {"Cache-Control": life})

    async def _own(self, request: Request) -> Response | None:
        if self._page_dir is None or f"{request.scope['path']}/".startswith(RESERVED):
            return None
        reader = Reader.of(request)
        file = await asyncio.to_thread(own_page.find, self._page_dir, request.scope["path"], reader.language)
        if file is None:
            return None
        fields = {"Cache-Control": "no-cache", "Content-Security-Policy": OWN_PAGE_POLICY, "Vary": "Accept-Language"}
        if file.language:
            fields["Content-Language"] = file.language
        if file.large is not None:
            return _LargeAnswer(request, file.large, file.media_type, fields)
        return validated(request, file.body, file.media_type, fields)


class _LargeAnswer(StreamingResponse):
    """A file piece by piece, or 304 for who has it; the file is closed in any case."""

    def __init__(self, request: Request, file: LargeFile, media_type: str, headers: Mapping[str, str]) -> None:
        known = is_known(request, file.tag)
        super().__init__(
            self._pieces(), 304 if known else 200, {**headers, "ETag": file.tag}, None if known else media_type
        )
        if not known:
            self.headers["Content-Length"] = str(file.size)
        self._file, self._left = file, 0 if known else file.size

    async def _pieces(self) -> AsyncIterator[bytes]:
        while self._left and (piece := await asyncio.to_thread(self._file.read)):  # it may have shrunk since
            yield piece[: self._left]
            self._left = max(0, self._left - len(piece))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
