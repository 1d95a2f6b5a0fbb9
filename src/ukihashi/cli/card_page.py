"""`ukihashi card page`: a card's state and options in a web browser on this machine.

Two processes. The page reads what a browser sends, so it gives up every right first (another account, no capability, no
file). The keeper has the rights of who started it, and takes four requests from the page: `ready`, `status`, `options`,
`set_option`.
"""

import asyncio
import codecs
import contextlib
import importlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from ukihashi import __version__
from ukihashi.card import account
from ukihashi.cli.options import not_taken, written
from ukihashi.cli.output import say_aside, write
from ukihashi.config.options import option, parse, rows
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.locale import LANGUAGES, _, catalogue, say
from ukihashi.net import control_socket
from ukihashi.net.control_socket import Handler, Row, Verbs
from ukihashi.net.privileges import die_with, drop, identity

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


@click.command("page", help=_("Show a card's state and options in a web browser on this machine, until Ctrl-C."))
@click.argument("name", metavar="[ACCOUNT]", default="")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help=_("TCP port [a free one]."))
def card_page(name: str, port: int) -> None:
    """Exit status: 0 ended by Ctrl-C or SIGTERM, 2 no such account, 3 the port is taken, or the page failed."""
    name = name or _only_account()
    account.read(name)
    listeners = _listeners(port)
    port = listeners[0].getsockname()[1]
    secret = secrets.token_urlsafe(24)
    _warm_up()
    ours, theirs = socket.socketpair()
    child = _start(theirs, [ours], listeners, name, secret, port)
    try:
        asked_to = asyncio.run(_keep(ours, Keeper(name, lambda: _invite(port, secret))))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    if not asked_to:
        raise EnvironmentLacks(N_("the page's process ended by itself; start the command again"))


def _invite(port: int, secret: str) -> None:
    say_aside(_("Open this address in a browser on this machine; it works once. Ctrl-C ends the page."))
    write(f"http://{LOOPBACK}:{port}/?key={secret}")
    sys.stdout.flush()


class Keeper:
    """What the page may ask. A secret never goes out, and none comes in."""

    def __init__(self, name: str, invite: Callable[[], None]) -> None:
        self._name = name
        self._invite = invite

    def verbs(self) -> Verbs:
        """All of them."""
        handlers: dict[str, Handler] = {
            "ready": self.ready,
            "status": self.status,
            "options": self.options,
            "set_option": self.set_option,
        }
        return Verbs(handlers)

    async def ready(self) -> list[Row]:
        """The page has given up its rights and serves."""
        self._invite()
        return []

    async def status(self) -> list[Row]:
        """The card's own row; of a card that is not up, what its account says."""
        from ukihashi.cli.card import status_of  # it holds the command group that this command belongs to

        return [await asyncio.to_thread(status_of, self._name)]

    async def options(self) -> list[Row]:
        """Every option with the account's value."""
        return rows("card", await asyncio.to_thread(account.read, self._name))

    async def set_option(self, key: str, value: str) -> list[Row]:
        """Write one option; a card that is up takes it over."""
        if option("card", key).secret:
            raise UsageError(N_("{key} is a secret; change it with `ukihashi card set`"), key=key)
        changes = {key: parse("card", key, value)}
        found, problem = await asyncio.to_thread(written, self._name, changes)
        if problem is not None and not isinstance(problem, DaemonUnreachable):
            raise not_taken(problem)
        return found


async def _keep(sock: socket.socket, keeper: Keeper) -> bool:
    """Answer the page until told to end (True) or until it is gone (False)."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=control_socket.MAX_REQUEST)
    verbs = keeper.verbs()

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


def _start(
    pipe: socket.socket,
    not_its: Sequence[socket.socket],
    listeners: Sequence[socket.socket],
    name: str,
    secret: str,
    port: int,
) -> int:
    """Fork the page; its pid. Here, afterwards, the listeners and its end of the pipe are closed."""
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
        asyncio.run(_show(pipe, listeners, name, secret, port))
        status = 0
    except UkihashiError as error:
        say_aside(say(error))
    finally:
        os._exit(status)


async def _show(pipe: socket.socket, listeners: Sequence[socket.socket], name: str, secret: str, port: int) -> None:
    from ukihashi.web.card_page import build_card_app
    from ukihashi.web.serve import serve

    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    streams = await asyncio.open_unix_connection(sock=pipe, limit=control_socket.MAX_REQUEST)
    keeper = ToKeeper(*streams)
    app = build_card_app(keeper, account=name, secret=secret, port=port, version=__version__)
    servers = [asyncio.create_task(serve(listener, app)) for listener in listeners]
    await keeper.ask("ready")
    await asyncio.wait([*servers, asyncio.create_task(told.wait())], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.cancel()
    await asyncio.gather(*servers, return_exceptions=True)


# -- small help ---------------------------------------------------------------------------------------------------


def _only_account() -> str:
    known = account.names()
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError(N_("no account yet; make one with `ukihashi card join LINK`"))
    raise UsageError(N_("there are several accounts; name one of: {names}"), names=", ".join(known))


def _listeners(port: int) -> list[socket.socket]:
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


def _warm_up() -> None:
    """Read what the page needs later: it may reach no file of ours once it has given up its rights."""
    from ukihashi.web import card_page as _page  # noqa: F401
    from ukihashi.web import render, serve  # noqa: F401

    for name in LATE_MODULES:
        importlib.import_module(name)
    for name in LATE_CODECS:
        codecs.lookup(name)
    for language in LANGUAGES:
        catalogue(language)
    render.preload()
    asyncio.new_event_loop().close()
