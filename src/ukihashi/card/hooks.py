"""Programs of the administrator's that run when a card has come up, when its addresses change, and before it goes.

No shell is involved: the command line is split as a shell would (`shlex`) and run; who wants a shell writes
`sh -c '...'`. What it prints goes into the card's log. A failure is logged and changes nothing.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

import structlog

from ukihashi.card.offers import Offer, domains
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hooks
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.locale import say

DEADLINE_S: Final = 30.0
MOST_LINES: Final = 100  # of its output that go into the log
MOST_BYTES: Final = 65536
PREFIX: Final = "UKIHASHI_"

LOG_TEXTS: Final = {
    "hook_said": N_("a hook says"),
    "hook_done": N_("a hook has run"),
    "hook_failed": N_("a hook failed"),
}

Event = Literal["up", "change", "down"]

_log = structlog.get_logger()


def distrust(path: Path) -> UkihashiError | None:
    """Why a program named in this file must not run as root; None if it may, or if we are not root.

    The file, and each folder above it, must be writable by root alone (a folder like /tmp by its sticky bit).
    """
    if os.geteuid() != 0:
        return None
    real = path.resolve()
    for one in (real, *real.parents):
        try:
            found = one.stat()
        except OSError as error:
            return EnvironmentLacks(N_("{path} can't be read: {reason}"), path=one, reason=error.strerror)
        others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if found.st_uid != 0 or (others and not (one != real and found.st_mode & stat.S_ISVTX)):
            return EnvironmentLacks(
                N_("hooks don't run: {path} can be written by others than root; do chown root and chmod go-w"), path=one
            )
    return None


def told(config: CardConfig, addresses: Iterable[str], offer: Offer) -> dict[str, str]:
    """What a hook is told of the card, by name."""
    return {
        "INTERFACE": config.interface.name,
        "ADDRESSES": " ".join(addresses),
        "ROUTER": offer.router,
        "DNS": " ".join(offer.name_servers),
        "DOMAIN": " ".join(domains(offer, config.interface.dns_domains)[1]),
    }


class CardHooks:
    """One card's. `values`: what the next one is told."""

    def __init__(self, account: str, settings: Callable[[], Hooks], values: Callable[[], dict[str, str]]) -> None:
        self._account: Final = account
        self._settings: Final = settings
        self._values: Final = values
        self.problem: UkihashiError | None = None  # of the last one

    async def follow(self, changed: asyncio.Event) -> None:
        """The card has come up, and now and then something changes. Ends by being cancelled."""
        event: Event = "up"
        told: dict[str, str] | None = None
        while True:
            changed.clear()
            values = self._values()
            if values != told:
                told = values
                await self._run(event, self._settings().up)
                event = "change"
            await changed.wait()

    async def down(self) -> None:
        """The card is about to go."""
        await self._run("down", self._settings().down)

    async def _run(self, event: Event, command: str) -> None:
        if command:
            file = places.card_config(self._account)
            self.problem = await run(self._account, event, command, self._values(), file)


async def run(
    account: str,
    event: Event,
    command: str,
    values: Mapping[str, str],
    file: Path,
    *,
    deadline: float = DEADLINE_S,
) -> UkihashiError | None:
    """Run a hook to its end, or its deadline; why it failed. Nothing is raised. No command: nothing happens.

    Args:
        values: NAME -> value; it finds them as UKIHASHI_NAME.
        file: where the command stands.
    """
    words = shlex.split(command)
    if not words:
        return None
    problem = await asyncio.to_thread(distrust, file) or await _run(account, event, words, values, deadline)
    if problem is None:
        _log.info("hook_done", account=account, hook_event=event, command=command)
    else:
        _log.warning("hook_failed", account=account, hook_event=event, command=command, reason=say(problem))
    return problem


async def _run(
    account: str, event: Event, words: list[str], values: Mapping[str, str], deadline: float
) -> UkihashiError | None:
    named = {"ACCOUNT": account, "EVENT": event, **values}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with tempfile.TemporaryFile() as output:  # no pipe: a daemon that it leaves behind may hold its output open
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment | {PREFIX + name: value for name, value in named.items()},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return EnvironmentLacks(N_("{command} can't be run: {reason}"), command=words[0], reason=reason)
        late = False
        try:
            async with asyncio.timeout(deadline):
                await process.wait()
        except TimeoutError:
            late = True
        finally:
            if process.returncode is None:  # too late, or we are being cancelled
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        output.seek(0)
        said = output.read(MOST_BYTES).decode("utf-8", "replace")
    for line in said.splitlines()[:MOST_LINES]:
        _log.info("hook_said", account=account, hook_event=event, line=line)
    if late:
        return EnvironmentLacks(
            N_("{command} was still running after {seconds:g} s and was ended"), command=words[0], seconds=deadline
        )
    if process.returncode:
        return EnvironmentLacks(N_("{command} ended with status {status}"), command=words[0], status=process.returncode)
    return None
