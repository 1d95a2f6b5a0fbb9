"""Does the hub turn? Asked of control and each worker; the service manager is told only while all of them answer.

A process that stands still (a loop without an end, a stopped process) is no process that has ended, which the
supervisor notices by itself. Who watches the whole is the manager: it starts a hub again that has been silent.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.children import Child
from ukihashi.hub.messages import Message, Ping
from ukihashi.locale import _

ROUNDS: Final = 4  # of questions within the time that the manager allows


class Manager(Protocol):
    """Who started the hub and wants to know how it is (`ops.notify`)."""

    @property
    def watchdog_s(self) -> float | None:
        """Seconds within which it wants to hear `alive`, again and again; None: it doesn't."""

    def ready(self, status: str) -> None:
        """The hub serves."""

    def reloading(self, status: str) -> None:
        """Settings are read again, or it becomes another program; `ready` follows."""

    def stopping(self) -> None:
        """The end has begun."""

    def alive(self) -> None:
        """Everything turns."""


class Nobody:
    """No manager."""

    watchdog_s: float | None = None

    def ready(self, status: str) -> None:
        """See `Manager`."""

    def reloading(self, status: str) -> None:
        """See `Manager`."""

    def stopping(self) -> None:
        """See `Manager`."""

    def alive(self) -> None:
        """See `Manager`."""


class Pulse:
    """Asks, hears, and tells the manager. Call `look` whenever `patience_s` is over."""

    def __init__(
        self,
        manager: Manager,
        send: Callable[[str, Message], None],
        tell: Callable[[UkihashiError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._send = send
        self._tell = tell
        self._clock = clock
        self._period_s = manager.watchdog_s / ROUNDS if manager.watchdog_s else None
        self._due = clock()
        self._asked: dict[Child, float] = {}  # who has not answered yet, since when
        self._told: set[Child] = set()

    @property
    def patience_s(self) -> float | None:
        """When to look again, if nothing happens; None: never."""
        return None if self._period_s is None else max(0.0, self._due - self._clock())

    def look(self, children: Iterable[Child]) -> None:
        """Begin the next round, if it is time. `children`: those that can be asked, all of them ready."""
        now = self._clock()
        if self._period_s is None or now < self._due:
            return
        self._due = now + self._period_s
        asked = list(children)
        self._asked = {child: since for child, since in self._asked.items() if child in asked}
        self._told &= set(asked)
        if not self._asked:
            self._manager.alive()
        for child, since in self._asked.items():
            if child not in self._told:
                self._told.add(child)
                self._tell(
                    EnvironmentLacks(
                        N_("the hub's {name} process has not answered for {seconds:g} s"),
                        name=child.name,
                        seconds=round(now - since, 1),
                    )
                )
        for child in asked:
            if child not in self._asked:
                self._asked[child] = now
                self._send(child.name, Ping())

    def heard(self, child: Child) -> None:
        """It has answered."""
        self._asked.pop(child, None)
        self._told.discard(child)

    # -- what the manager shows -----------------------------------------------------------------------------------

    def serves(self, version: str, endpoints: Sequence[tuple[str, int]]) -> None:
        """All of it."""
        listen = " ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in endpoints)
        self._manager.ready(_("version {version} serves on {listen}").format(version=version, listen=listen))

    def changes(self) -> None:
        """The hub becomes another program."""
        self._manager.reloading(_("becomes the program that is installed now"))

    def reads(self) -> None:
        """Settings are read again."""
        self._manager.reloading(_("reads its settings again"))

    def stops(self) -> None:
        """The end has begun."""
        self._manager.stopping()
