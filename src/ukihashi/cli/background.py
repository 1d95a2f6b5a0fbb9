"""A card in the background: a daemon in a session of its own, which tells its starter how the first try went."""

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TextIO

import msgspec

from ukihashi.card.dialler import Card
from ukihashi.card.log_texts import LOG_TEXTS
from ukihashi.card.messages import Trouble
from ukihashi.config import places
from ukihashi.config.card import CardConfig
from ukihashi.errors import N_, DialError, EnvironmentLacks, UkihashiError
from ukihashi.locale import say
from ukihashi.ops.log import configure

ONLINE_S: Final = 20.0  # seconds that the starter waits for the result


def start(name: str, config: CardConfig, *, keep_trying: bool = False) -> UkihashiError | None:
    """Start the daemon; how its first try went. It goes on in a session of its own."""
    log = log_path(name)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    except OSError as error:
        raise EnvironmentLacks(
            N_("{path} can't be written: {reason}; run this as root (sudo), or choose another --state-dir"),
            path=log,
            reason=error.strerror,
        ) from error
    answer, told = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    middle = os.fork()
    if middle == 0:
        os.close(answer)
        _become_daemon(target, lambda: _serve(name, config, keep_trying, told))
    os.close(told)
    os.close(target)
    os.waitpid(middle, 0)
    with open(answer, "rb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor
        ready, _writers, _errors = select.select([pipe], [], [], ONLINE_S)
        data = pipe.read() if ready else b"late"
    if data == b"late":
        return DialError(
            N_("not online after {seconds:g} s; the card goes on trying in the background, see `ukihashi card status`"),
            seconds=ONLINE_S,
        )
    if not data:
        return EnvironmentLacks(N_("the card ended at once; {path} says why"), path=log)
    result = msgspec.json.decode(data, type=Trouble | None)
    return None if result is None else result.error()


def log_path(name: str) -> Path:
    """Where a card in the background writes its log."""
    return places.state_dir() / "log" / f"card-{name}.log"


def _become_daemon(target: int, serve: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        os.umask(0o027)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(empty)
        os.close(target)
        log_to(sys.stderr)
        status = serve()
    finally:
        os._exit(status)


def _serve(name: str, config: CardConfig, keep_trying: bool, told: int) -> int:
    """The daemon's life; the first result goes into the pipe `told`, once."""
    pipe = [told]

    def report(error: UkihashiError | None) -> None:
        if pipe:
            fd = pipe.pop()
            with contextlib.suppress(OSError):  # whoever started us went away
                os.write(fd, msgspec.json.encode(None if error is None else Trouble.of(error)))
            os.close(fd)

    try:
        asyncio.run(Card(name, config, keep_trying=keep_trying, report=report).run())
    except UkihashiError as error:
        report(error)
        print(say(error), file=sys.stderr)  # noqa: T201 - the log file
        return error.exit_status
    return 0


def log_to(stream: TextIO) -> None:
    """Log text in the user's language."""
    configure("text", LOG_TEXTS, stream)
