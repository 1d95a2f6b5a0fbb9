"""`ukihashi alert top`: the findings of a running sensor in the terminal, live."""

import asyncio
import codecs
import contextlib
import os
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from ukihashi.alert.follow import follow
from ukihashi.alert.page_state import View, lines_of
from ukihashi.alert.top import Allow, Quit, Top, keys
from ukihashi.cli.output import write
from ukihashi.config.places import runtime_dir
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError
from ukihashi.locale import _, say

PAINT_S: Final = 1.0
ONCE_S: Final = 2.5  # to wait for the sensor's figures, which come each second
ESCAPE_S: Final = 0.05  # what follows an escape character within this time belongs to it
ENTER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
LEAVE_SCREEN: Final = "\x1b[?25h\x1b[?1049l"


@click.command(
    "top",
    help=_("Watch the findings of a running sensor in the terminal. Several may watch; the sensor does not notice."),
)
@click.option("--bus", type=click.Path(path_type=Path), metavar="PATH", help=_("The sensor's socket."))
@click.option("--once", is_flag=True, help=_("Print what there is, once, and leave."))
@click.option("--probable", is_flag=True, help=_("Show findings that are only PROBABLE, too."))
def top(bus: Path | None, once: bool, probable: bool) -> None:
    """Exit status: 0 left by q or Ctrl-C, 3 no terminal or no right to read, 4 no sensor (with --once)."""
    path = bus or runtime_dir() / "alert.sock"
    screen = Top(View(), probable=probable)
    if once:
        _print_once(path, screen)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        asyncio.run(_watch(path, screen))
    else:
        raise EnvironmentLacks(N_("this is no terminal; --once prints what there is"))


# -- once ---------------------------------------------------------------------------------------------------------


def _print_once(path: Path, screen: Top) -> None:
    asyncio.run(_glance(path, screen.view))
    if not screen.view.connected:
        raise DaemonUnreachable(N_("no sensor answers on {path}; start one with `ukihashi alert -i CARD`"), path=path)
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 1000
    for line in screen.report(width, time.time()):
        write(line.plain.rstrip())


async def _glance(path: Path, view: View) -> None:
    """Snapshot and two seconds' figures, which make a rate; as much of it as comes in time."""
    told = asyncio.Event()
    figures = 0

    def took(line: bytes) -> None:
        nonlocal figures
        for event in lines_of(line):
            view.take(event, time.time())
            figures += event.get("event_type") == "stats"
        if figures > 1:
            told.set()

    following = asyncio.create_task(follow(path, took, told.set))
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait([following, waiting], timeout=ONCE_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    following.cancel()
    (ended,) = await asyncio.gather(following, return_exceptions=True)
    if isinstance(ended, UkihashiError):
        raise ended


# -- live ---------------------------------------------------------------------------------------------------------


async def _watch(path: Path, screen: Top) -> None:
    loop = asyncio.get_running_loop()
    dirty, ended = asyncio.Event(), asyncio.Event()
    typed: asyncio.Queue[str] = asyncio.Queue()

    def took(line: bytes) -> None:
        for event in lines_of(line):
            screen.view.take(event, time.time())
            if event.get("event_type") != "stats":
                dirty.set()

    def lost() -> None:
        screen.view.lost(time.time())
        dirty.set()

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGWINCH, dirty.set)
    with _raw_terminal(), _reading(loop, typed, ended):
        console = Console(force_terminal=True, highlight=False, markup=False, emoji=False)
        tasks = [
            asyncio.create_task(follow(path, took, lost)),
            asyncio.create_task(_obey(screen, typed, dirty, ended)),
            asyncio.create_task(_paint(console, screen, dirty)),
            asyncio.create_task(ended.wait()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """The alternate screen, keys as they are typed; everything as before afterwards, whatever happens."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(ENTER_SCREEN)
        sys.stdout.flush()
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        with contextlib.suppress(OSError):
            sys.stdout.write(LEAVE_SCREEN)
            sys.stdout.flush()


@contextlib.contextmanager
def _reading(loop: asyncio.AbstractEventLoop, typed: asyncio.Queue[str], ended: asyncio.Event) -> Iterator[None]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    number = sys.stdin.fileno()

    def read() -> None:
        try:
            data = os.read(number, 4096)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            loop.remove_reader(number)
            ended.set()
        typed.put_nowait(decoder.decode(data))

    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)


async def _obey(screen: Top, typed: asyncio.Queue[str], dirty: asyncio.Event, ended: asyncio.Event) -> None:
    while True:
        data = await typed.get()
        if data.endswith("\x1b"):  # alone, or the begin of more
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ESCAPE_S):
                    data += await typed.get()
        for key in keys(data):
            wish = screen.press(key)
            if isinstance(wish, Quit):
                ended.set()
                return
            if isinstance(wish, Allow):
                screen.message = await asyncio.to_thread(_allow, wish)
        dirty.set()


async def _paint(console: Console, screen: Top, dirty: asyncio.Event) -> None:
    """At each change, and each second; the whole screen in one write."""
    while True:
        dirty.clear()
        width, height = os.get_terminal_size(sys.stdout.fileno())
        console.size = (width, height)
        await asyncio.to_thread(_put, _picture(console, screen.lines(width, height, time.time())))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAINT_S):
                await dirty.wait()


def _picture(console: Console, lines: list[Text]) -> str:
    """What the terminal is sent."""
    with console.capture() as capture:
        for line in lines:
            console.print(line, end="\n", no_wrap=True, overflow="crop", crop=True)
    rows = capture.get().split("\n")[: len(lines)]
    return "\x1b[H" + "\r\n".join(f"{row}\x1b[K" for row in rows) + "\x1b[J"


def _put(picture: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(picture)
        sys.stdout.flush()


def _allow(wish: Allow) -> str:
    """Add it to the allow list; the sentence to show."""
    from ukihashi.cli.alert_allow import add_entry

    try:
        entry = add_entry(wish.found.event, owner=wish.owner, reason=wish.reason, until=wish.until)
    except UkihashiError as error:
        return say(error)
    return _("Allowed until {until}, as entry {id}.").format(until=wish.until, id=entry)
