"""`ukihashi alert web`: the findings of a running sensor as a page, on this machine unless told otherwise.

Two processes, see `cli/page_process.py`. The keeper reads the sensor's bus, which takes the rights of the sensor's
user, and passes it on line by line; an empty line says that the bus is gone. It takes six requests from the page:
`ready`, `next_way_in`, `allow_list`, `allow_add`, `allow_remove`, `evidence`.
"""

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

import click
import msgspec

from ukihashi import __version__
from ukihashi.alert import allow
from ukihashi.alert.follow import MAX_LINE, follow
from ukihashi.alert.judge import warm_up
from ukihashi.alert.page_state import MAX_FOUND, key_of, lines_of, mapping, text
from ukihashi.cli import page_process
from ukihashi.cli.output import say_aside, write
from ukihashi.cli.page_process import LOOPBACK, ToKeeper
from ukihashi.config.places import runtime_dir
from ukihashi.errors import N_, EnvironmentLacks, UsageError
from ukihashi.locale import _
from ukihashi.net import control_socket
from ukihashi.net.control_socket import Handler, Row, Verbs

MAX_EVIDENCE: Final = 256 << 20  # bytes of one bundle
PIECE: Final = 192 << 10  # bytes of it in one answer
ZIP: Final = b"PK\x03\x04"  # how each bundle begins; nothing else is given away
MAX_BEHIND: Final = 64 << 20  # bytes that the page may be behind; then the oldest state it has is as good as none


@click.command(
    "web",
    help=_(
        "Show the findings of a running sensor as a page in a web browser, until Ctrl-C. Capture files can be judged"
        " there, too."
    ),
)
@click.option("--listen", default="", metavar="ADDR:PORT", help=_("Where to listen [127.0.0.1, and a free port]."))
@click.option("--remote", is_flag=True, help=_("Let --listen name an address that other machines reach."))
@click.option("--name", "names", multiple=True, metavar="NAME", help=_("A name that the page is reached by, too."))
@click.option("--bus", type=click.Path(path_type=Path), metavar="PATH", help=_("The sensor's socket."))
@click.option(
    "--max-file",
    type=click.IntRange(1, 65_536),
    default=1024,
    metavar="MIB",
    help=_("Size of a capture file that may be judged on the page [1024]."),
)
@click.option("--with-parent", is_flag=True, hidden=True)
def web(listen: str, remote: bool, names: tuple[str, ...], bus: Path | None, max_file: int, with_parent: bool) -> None:
    """Exit status: 0 ended by Ctrl-C or SIGTERM, 2 a wrong address, 3 the port is taken, or the page failed."""
    host, port = address_of(listen)
    open_to_all = not _is_loopback(host)
    if open_to_all and not remote:
        raise UsageError(
            N_("{host} is reached by other machines; add --remote if that is meant, or listen on {loopback}"),
            host=host,
            loopback=LOOPBACK,
        )
    listeners = page_process.loopback_listeners(port) if host == LOOPBACK else [_listener(host, port)]
    port = listeners[0].getsockname()[1]
    shown = socket.gethostname() if ip_address(host).is_unspecified else f"[{host}]" if ":" in host else host
    if open_to_all:
        say_aside(
            _(
                "Other machines can reach this page, and it is plain HTTP: whoever listens on the way can read it and"
                " act in it. Better: leave it on {loopback} and reach it through ssh -L."
            ).format(loopback=LOOPBACK)
        )
    known = frozenset({LOOPBACK, "[::1]", "localhost", shown.lower(), *(name.lower() for name in names)})
    ours, theirs = socket.socketpair()
    feed, fed = socket.socketpair()
    keeper = Keeper(f"http://{shown}:{port}/")
    secret = keeper.secret
    page_process.warm_up("ukihashi.web.alert_page")
    warm_up()

    async def show() -> None:
        await _show(theirs, fed, listeners, secret, port, known, open_to_all, max_file << 20)

    child = page_process.start(theirs, [ours, feed], listeners, show)
    fed.close()
    try:
        asked_to = asyncio.run(_keep(ours, feed, keeper, bus or runtime_dir() / "alert.sock", with_parent=with_parent))
    finally:
        page_process.end(child)
    if not asked_to:
        raise EnvironmentLacks(N_("the page's process ended by itself; start the command again"))


def start_beside(listen: str, bus: Path | None) -> None:
    """Start the page of a sensor, in a process that has the rights of now and ends with the sensor.

    Raises:
        UsageError: there is no bus that it could read, or no such address.
    """
    if bus is None:
        raise UsageError(N_("--web reads the sensor's bus; leave --bus on"))
    host, port = address_of(listen)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    argv = [sys.executable, "-P", "-m", "ukihashi.cli.main", "alert", "web", "--with-parent"]
    _beside.append(subprocess.Popen([*argv, "--listen", where, "--bus", str(bus)], stdin=subprocess.PIPE, stdout=2))


_beside: Final[list["subprocess.Popen[bytes]"]] = []  # holds the pipe open: the sensor has no right to signal it later


async def _keep(
    ours: socket.socket, feed: socket.socket, keeper: "Keeper", bus: Path, *, with_parent: bool = False
) -> bool:
    if with_parent:
        loop = asyncio.get_running_loop()

        def parent_is_gone() -> None:  # nothing is ever written to this pipe
            loop.remove_reader(0)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(0, parent_is_gone)
    _reader, writer = await asyncio.open_unix_connection(sock=feed)

    def took(line: bytes) -> None:
        keeper.note(line)
        if writer.transport.get_write_buffer_size() < MAX_BEHIND:
            writer.write(line)

    following = asyncio.create_task(follow(bus, took, lambda: took(b"\n")))
    keeping = asyncio.create_task(page_process.keep(ours, keeper.verbs()))
    await asyncio.wait([following, keeping], return_when=asyncio.FIRST_COMPLETED)
    if following.done():  # it ends by an error only
        keeping.cancel()
        await following
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    writer.close()
    return await keeping


class Keeper:
    """What the page may ask."""

    def __init__(self, address: str, *, tell: Callable[[str], None] = write) -> None:
        self.secret = secrets.token_urlsafe(24)
        self._address = address
        self._tell = tell
        self._bundles: OrderedDict[str, Path] = OrderedDict()  # of findings that the sensor told

    def note(self, line: bytes) -> None:
        """Remember which finding has which bundle: the page names findings, never files."""
        if b'"evidence_file"' not in line:
            return
        for event in lines_of(line):
            for one in (event, *map(mapping, event.get("findings") or ())):
                file = mapping(one.get("ukihashi")).get("evidence_file")
                if isinstance(file, str) and file:
                    self._bundles[key_of(one)] = Path(file)
        while len(self._bundles) > MAX_FOUND:
            self._bundles.popitem(last=False)

    def verbs(self) -> Verbs:
        """All of them."""
        handlers: dict[str, Handler] = {
            "ready": self.ready,
            "next_way_in": self.next_way_in,
            "allow_list": self.allow_list,
            "allow_add": self.allow_add,
            "allow_remove": self.allow_remove,
            "evidence": self.evidence,
        }
        return Verbs(handlers)

    async def ready(self) -> list[Row]:
        """The page has given up its rights and serves."""
        say_aside(_("Open this address in a browser; it works once. Ctrl-C ends the page."))
        self._invite()
        return []

    async def next_way_in(self) -> list[Row]:
        """The address was used; there is another one for the next browser."""
        self.secret = secrets.token_urlsafe(24)
        say_aside(_("A browser was let in at {time}. For another one:").format(time=time.strftime("%H:%M:%S")))
        self._invite()
        return [{"secret": self.secret}]

    def _invite(self) -> None:
        self._tell(f"{self._address}?key={self.secret}")
        sys.stdout.flush()

    async def allow_list(self) -> list[Row]:
        """All entries, expired ones too."""
        entries = await asyncio.to_thread(allow.read, allow.default_path())
        return [msgspec.to_builtins(entry) for entry in entries]

    async def allow_add(
        self, client: str, server: str, port: str, family: str, owner: str, reason: str, expires: str
    ) -> list[Row]:
        """One entry more."""
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1 if port else 0
        if not 0 <= number <= 65535:
            raise UsageError(N_("“{port}” is no port; write 1 to 65535, or nothing"), port=text(port))
        try:
            until = date.fromisoformat(expires)
        except ValueError:
            raise UsageError(N_("“{text}” is no day; write it as 2027-03-31"), text=text(expires)) from None
        entry = await asyncio.to_thread(
            allow.add,
            allow.default_path(),
            client=client,
            server=server,
            port=number,
            family=family,
            owner=owner,
            reason=reason,
            expires=until,
        )
        return [{"id": entry.id}]

    async def allow_remove(self, id: str) -> list[Row]:  # noqa: A002 - the request's own word
        """One entry less."""
        await asyncio.to_thread(allow.remove, allow.default_path(), id)
        return []

    async def evidence(self, key: str, offset: int) -> list[Row]:
        """A piece of a finding's bundle."""
        path = self._bundles.get(key)
        if path is None:
            raise UsageError(N_("there is no evidence bundle for this finding"))
        return [await asyncio.to_thread(_piece, path, offset)]


def _piece(path: Path, offset: int) -> dict[str, Any]:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise EnvironmentLacks(N_("{file} can't be read: {reason}"), file=path, reason=error.strerror) from error
    with os.fdopen(number, "rb") as file:
        status = os.fstat(number)
        if not S_ISREG(status.st_mode) or status.st_size > MAX_EVIDENCE or file.read(len(ZIP)) != ZIP:
            raise EnvironmentLacks(N_("{file} is no evidence bundle"), file=path)
        file.seek(offset)
        data = base64.b64encode(file.read(PIECE)).decode()
    return {"name": path.name, "size": status.st_size, "data": data}


# -- the page's process -------------------------------------------------------------------------------------------


async def _show(
    pipe: socket.socket,
    fed: socket.socket,
    listeners: Sequence[socket.socket],
    secret: str,
    port: int,
    names: frozenset[str],
    open_to_all: bool,
    max_file: int,
) -> None:
    from ukihashi.alert.judge import Judge
    from ukihashi.web.alert_page import AlertPage, build_alert_app

    keeper = ToKeeper(*await asyncio.open_unix_connection(sock=pipe, limit=control_socket.MAX_REQUEST))
    page = AlertPage(keeper, secret=secret, port=port, version=__version__, judge=Judge(max_file=max_file))
    app = build_alert_app(page, port=port, names=names, addresses=open_to_all, version=__version__)
    reader, _writer = await asyncio.open_unix_connection(sock=fed, limit=MAX_LINE)

    async def feed() -> None:
        while (line := await reader.readline()).endswith(b"\n"):
            page.feed(line.strip())

    feeding = asyncio.create_task(feed())
    await page_process.serve_until_told(listeners, app, lambda: keeper.ask("ready"))
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding


# -- small help ---------------------------------------------------------------------------------------------------


def address_of(listen: str) -> tuple[str, int]:
    """Host and port of ADDR:PORT, ADDR, :PORT or nothing. Raises: UsageError."""
    host, colon, port = listen.rpartition(":")
    if not colon or listen.endswith("]"):
        host, port = listen, ""
    host = host.strip("[]") or LOOPBACK
    try:
        number = int(port or "0") if (port or "0").isascii() else -1
        ip_address(host)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise UsageError(
            N_("“{listen}” is no address to listen on; write it as 127.0.0.1:8080 or [::1]:8080"), listen=listen
        )
    return host, number


def _is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise EnvironmentLacks(
            N_("{address} can't be listened on: {reason}; choose another --listen"),
            address=f"{host}:{port}",
            reason=error.strerror,
        ) from error
