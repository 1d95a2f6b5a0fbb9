"""After `hub upgrade`: the new program, with the old one's children, puts its own in their place.

    control    the old one ends, a new one starts; members go on talking
    heir       a new worker gets ready beside the old one
    handover   the old worker lets go of the links and saves the sessions
    restore    the heir restores them and opens the door, before which the cards already stand

So members wait for the last two steps only. Whatever fails, the hub serves: at worst cards log in afresh.
"""

import enum
import time
from collections.abc import Sequence
from typing import Final, Protocol

from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.children import Child
from ukihashi.hub.messages import STOP_DEADLINE, HandedOver, HandOver, Message, Ready, Stop, TakeOver, Upgraded
from ukihashi.hub.upgrade import Inherited

HANDOVER_S: Final = 15.0  # for the old worker to save what it has


class House(Protocol):
    """What a succession may do in the supervisor."""

    def child(self, name: str) -> Child | None:
        """The process of that name."""

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""

    def start_heir(self) -> None:
        """Start a worker that waits for `TakeOver`, as "heir"."""

    def promote_heir(self) -> None:
        """The heir is the worker from now on; the old worker, if there is one, only says its goodbyes."""

    def kill(self, child: Child) -> None:
        """End it now."""

    def succeeded(self) -> None:
        """Everything of the old program has been replaced."""

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""


class _Step(enum.Enum):
    CONTROL = enum.auto()  # the old control stops, a new one starts
    HEIR = enum.auto()  # the heir gets ready
    HANDOVER = enum.auto()  # the old worker saves
    RESTORE = enum.auto()  # the heir takes over


class Succession:
    """The children of the old program are replaced, one after the other. `look` after whatever happened."""

    def __init__(self, house: House, left: Inherited) -> None:
        self._house = house
        self._left = left
        self._step = _Step.CONTROL
        self._due: float | None = None

    def begin(self) -> None:
        """Control first: it is quickly replaced, and members don't need it."""
        self._house.send("control", Stop(worker_stays=True))
        self._due = time.monotonic() + STOP_DEADLINE

    def look(self) -> None:
        """Take the next step if its time has come."""
        control, worker, heir = (self._house.child(name) for name in ("control", "worker", "heir"))
        now = time.monotonic()
        if self._step is _Step.CONTROL:
            if control is not None and control.is_old and self._due is not None and now > self._due:
                self._house.kill(control)
                self._due = None
            elif control is not None and not control.is_old and control.is_ready:
                self._step, self._due = _Step.HEIR, None
        if self._step is _Step.HEIR and heir is None:
            if worker is not None and worker.is_old:
                self._house.start_heir()
            else:  # the old one ended on its own, and its place was taken as at any other time
                self._finish(None, 0.0)
        elif self._step is _Step.HEIR and heir is not None and heir.is_ready:
            self._step, self._due = _Step.HANDOVER, now + HANDOVER_S
            self._house.send("worker", HandOver())
        elif self._step is _Step.HANDOVER and self._due is not None and now > self._due and worker is not None:
            self._due = None
            self._house.kill(worker)  # its end is told to `worker_ended`

    @property
    def patience_s(self) -> float | None:
        """When to look again, if nothing happens."""
        return None if self._due is None else max(0.0, self._due - time.monotonic()) + 0.01

    def handed_over(self, message: HandedOver, fds: Sequence[int]) -> None:
        """The old worker's state has come."""
        if self._step is not _Step.HANDOVER:  # nobody asked
            return
        if message.problem:
            self._house.tell(UkihashiError(N_("the old worker could not hand over: {reason}"), reason=message.problem))
        self._promote(fds)

    def heir_ended(self) -> None:
        """It died before its time. The old worker goes on until another is ready; if it can't any more, it ends too."""
        worker = self._house.child("worker")
        if self._step is _Step.HANDOVER and worker is not None:
            self._house.kill(worker)
        self._step, self._due = _Step.HEIR, None

    def worker_ended(self) -> bool:
        """The old worker is gone. True: the heir takes its place."""
        if self._house.child("heir") is None:
            return False
        self._house.tell(UkihashiError(N_("the old worker ended without handing over; cards log in afresh")))
        self._promote(())
        return True

    def _promote(self, fds: Sequence[int]) -> None:
        self._step, self._due = _Step.RESTORE, None
        self._house.send("heir", TakeOver(), fds)
        self._house.promote_heir()

    def serves(self, ready: Ready) -> None:
        """The new worker lets callers in."""
        if self._step is _Step.RESTORE:
            sessions = ready.notes.get("sessions")
            self._finish(None if sessions is None else int(sessions), ready.notes.get("pause_s", 0.0))

    def _finish(self, sessions: int | None, pause_s: float) -> None:
        self._house.send("control", Upgraded(self._left.number, self._left.version, sessions, round(pause_s, 3)))
        self._house.succeeded()
