"""Run the web application on a socket that is listening already, inside an event loop that is someone else's."""

import asyncio
import contextlib
from collections.abc import Iterator
from socket import socket
from typing import Final

import uvicorn
from starlette.types import ASGIApp

MAX_CONNECTIONS: Final = 256  # at once; beyond it uvicorn answers 503
MAX_HEAD: Final = 16 * 1024  # bytes of request line and headers, as at the worker's front door
KEEP_ALIVE_S: Final = 30  # a silent connection is closed after this
STOP_S: Final = 2  # requests under way may finish in this time


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process that runs us has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(listener: socket, app: ASGIApp, *, max_connections: int = MAX_CONNECTIONS) -> None:
    """Answer HTTP/1.1 on `listener` until cancelled; then finish what is under way, at most `STOP_S`, and close it.

    Raises:
        asyncio.CancelledError: once everything is closed.
        RuntimeError: the server ended although nobody asked it to.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # the sign-in throttle reads the worker's X-Forwarded-For itself
            server_header=False,
            limit_concurrency=max_connections,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
    )
    running = asyncio.create_task(server.serve([listener]), name="web")
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        server.should_exit = True
        await asyncio.wait([running], timeout=STOP_S + 2)
        running.cancel()
        raise
    msg = "the web server ended by itself"
    raise RuntimeError(msg)
