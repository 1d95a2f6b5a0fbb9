"""`ukihashi card page`: a card's state and options in a web browser on this machine.

Two processes, see `cli/page_process.py`. The keeper takes four requests from the page: `ready`, `status`, `options`,
`set_option`.
"""

import asyncio
import secrets
import socket
import sys
from collections.abc import Callable, Sequence

import click

from ukihashi import __version__
from ukihashi.card import account
from ukihashi.cli import page_process
from ukihashi.cli.options import not_taken, written
from ukihashi.cli.output import say_aside, write
from ukihashi.cli.page_process import LOOPBACK, ToKeeper
from ukihashi.config.options import option, parse, rows
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UsageError
from ukihashi.locale import _
from ukihashi.net import control_socket
from ukihashi.net.control_socket import Handler, Row, Verbs


@click.command("page", help=_("Show a card's state and options in a web browser on this machine, until Ctrl-C."))
@click.argument("name", metavar="[ACCOUNT]", default="")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help=_("TCP port [a free one]."))
def card_page(name: str, port: int) -> None:
    """Exit status: 0 ended by Ctrl-C or SIGTERM, 2 no such account, 3 the port is taken, or the page failed."""
    name = name or _only_account()
    account.read(name)
    listeners = page_process.loopback_listeners(port)
    port = listeners[0].getsockname()[1]
    secret = secrets.token_urlsafe(24)
    page_process.warm_up("ukihashi.web.card_page")
    ours, theirs = socket.socketpair()
    child = page_process.start(theirs, [ours], listeners, lambda: _show(theirs, listeners, name, secret, port))
    try:
        asked_to = asyncio.run(page_process.keep(ours, Keeper(name, lambda: _invite(port, secret)).verbs()))
    finally:
        page_process.end(child)
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
        if key.startswith("hooks.") or key == "path.ssh_config":  # what stands there runs as root: not for a browser
            raise UsageError(N_("{key} names a program to run; change it with `ukihashi card set`"), key=key)
        changes = {key: parse("card", key, value)}
        found, problem = await asyncio.to_thread(written, self._name, changes)
        if problem is not None and not isinstance(problem, DaemonUnreachable):
            raise not_taken(problem)
        return found


async def _show(pipe: socket.socket, listeners: Sequence[socket.socket], name: str, secret: str, port: int) -> None:
    """The page's process."""
    from ukihashi.web.card_page import build_card_app

    streams = await asyncio.open_unix_connection(sock=pipe, limit=control_socket.MAX_REQUEST)
    keeper = ToKeeper(*streams)
    app = build_card_app(keeper, account=name, secret=secret, port=port, version=__version__)
    await page_process.serve_until_told(listeners, app, lambda: keeper.ask("ready"))


def _only_account() -> str:
    known = account.names()
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError(N_("no account yet; make one with `ukihashi card join LINK`"))
    raise UsageError(N_("there are several accounts; name one of: {names}"), names=", ".join(known))
