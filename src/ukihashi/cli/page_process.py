"""A page in two processes, for commands that show one: the page itself, and its keeper.

The page reads what a browser sends, so it gives up every right first (another account, no capability, no file). The
keeper has the rights of who started it, and answers the page's requests over a socket pair.
"""

import asyncio
import codecs
import contextlib
import importlib
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from ukihashi.cli.output import say_aside
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError
from ukihashi.locale import LANGUAGES, catalogue, say
from ukihashi.net import control_socket
from ukihashi.net.control_socket import Verbs
from ukihashi.net.privileges import die_with, drop, identity

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PAGE_USER: Final = "ukihashi-page"
LOOPBACK: Final = "127.0.0.1"
LATE_MODULES: Final = (  # what libraries import by name, or only when they come to it
    "anyio._backends._asyncio",
    "linecache",
    "stringprep",
    "uvicorn.lifespan.off",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
)
LATE_CODECS: Final = ("ascii", "latin-1", "utf-8", "idna", "punycode")


async def keep(sock: socket.socket, verbs: Verbs) -> bool:
    """Answer the page until told to end (True) or until it is gone (False)."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=control_socket.MAX_REQUEST)

    async def answer_all() -> None:
        while (line := await reader.readline()).endswith(b"\n"):
            writer.write(await control_socket.answer(verbs, line) + b"\n")
            await writer.drain()

    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    answering, stopping = asyncio.create_task(answer_all()), asyncio.create_task(told.wait())
    await asyncio.wait([answering, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (answering, stopping):
        task.cancel()
    await asyncio.gather(answering, stopping, return_exceptions=True)
    writer.close()
    return told.is_set()


def end(child: int) -> None:
    """End the page and take its status."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)


# -- the page's process -------------------------------------------------------------------------------------------


class ToKeeper:
    """The page's way to the keeper: one question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        """As `web.app.WebApi`. Raises: DaemonUnreachable: the keeper is gone."""
        async with self._turn:
            try:
                self._writer.write(json.dumps({"do": do, **args}).encode() + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
            except OSError:
                line = b""
        if not line.endswith(b"\n"):
            raise DaemonUnreachable(N_("the command that serves this page has ended"))
        told = json.loads(line)
        if told["ok"]:
            return {"ok": True, "rows": told["rows"]}
        error = told["error"]
        refusal = control_socket.Answered(error["template"], error["exit_status"], error["values"])
        return {"ok": False, "error": str(refusal), "refusal": refusal}


def start(
    pipe: socket.socket,
    not_its: Sequence[socket.socket],
    listeners: Sequence[socket.socket],
    show: Callable[[], Coroutine[Any, Any, None]],
) -> int:
    """Fork the page, which gives up its rights and runs `show`; its pid.

    Here, afterwards, the listeners and its end of the pipe are closed; there, `not_its` are.
    """
    parent = os.getpid()
    child = os.fork()
    if child:
        for sock in (pipe, *listeners):
            sock.close()
        return child
    status = 1
    try:
        for sock in not_its:
            sock.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the keeper's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        drop(identity(PAGE_USER))
        die_with(parent, signal.SIGKILL)
        asyncio.run(show())
        status = 0
    except UkihashiError as error:
        say_aside(say(error))
    finally:
        os._exit(status)


async def serve_until_told(
    listeners: Sequence[socket.socket], app: "ASGIApp", ready: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """In the page: answer on `listeners` until SIGTERM; `ready` is awaited once it does."""
    from ukihashi.web.serve import serve

    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    servers = [asyncio.create_task(serve(listener, app)) for listener in listeners]
    await ready()
    await asyncio.wait([*servers, asyncio.create_task(told.wait())], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.cancel()
    await asyncio.gather(*servers, return_exceptions=True)


# -- small help ---------------------------------------------------------------------------------------------------


def loopback_listeners(port: int) -> list[socket.socket]:
    """Both loopback addresses, on one port; IPv4 alone where the other can't be had."""
    try:
        first = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise EnvironmentLacks(
            N_("{address} can't be listened on: {reason}; choose another --port"),
            address=f"{LOOPBACK}:{port}",
            reason=error.strerror,
        ) from error
    with contextlib.suppress(OSError):
        return [first, socket.create_server(("::1", first.getsockname()[1]), family=socket.AF_INET6)]
    return [first]


def warm_up(*modules: str) -> None:
    """Read what the page needs later: it may reach no file of ours once it has given up its rights."""
    from ukihashi.web import render

    for name in (*LATE_MODULES, "ukihashi.web.serve", *modules):
        importlib.import_module(name)
    for name in LATE_CODECS:
        codecs.lookup(name)
    for language in LANGUAGES:
        catalogue(language)
    render.preload()
    asyncio.new_event_loop().close()
