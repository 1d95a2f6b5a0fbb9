"""What a browser sees at the hub's address (A12, A14): our page in its language, or the administrator's own."""

import asyncio
import re
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ukihashi.web import own_page
from ukihashi.web.render import STATIC_PREFIX, Reader, page, static_files, static_url, validated

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
        return validated(request, file.body, file.media_type, fields)
