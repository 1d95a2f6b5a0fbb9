"""After `hub upgrade`: the new program, with the old one's children, puts its own in their place.

    control    the old one ends, a new one starts; members go on talking
    heirs      new workers, as many as are wanted now, get ready beside the old ones
    handover   each old worker lets go of the links and saves the sessions
    restore    the heirs restore them and open the door, before which the cards already stand

So members wait for the last two steps only. Whatever fails, the hub serves: at worst cards log in afresh.
"""

import enum
import os
import time
from collections.abc import Sequence
from typing import Final, Protocol

from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.children import Child
from ukihashi.hub.crew import CONTROL, Crew
from ukihashi.hub.messages import STOP_DEADLINE, HandedOver, HandOver, Message, Ready, Stop, TakeOver, Upgraded
from ukihashi.hub.upgrade import Inherited

HANDOVER_S: Final = 15.0  # for the old workers to save what they have


class House(Protocol):
    """What a succession may do in the supervisor."""

    @property
    def crew(self) -> Crew:
        """The children."""

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""

    def start_heirs(self) -> None:
        """Start the workers that wait for `TakeOver`; of those that are there, no other."""

    def has_all_heirs(self) -> bool:
        """As many as are wanted are there."""

    def promote_heirs(self) -> None:
        """The heirs are the workers from now on; the old ones only say their goodbyes."""

    def kill(self, child: Child) -> None:
        """End it now."""

    def succeeded(self) -> None:
        """Everything of the old program has been replaced."""

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""


class _Step(enum.Enum):
    CONTROL = enum.auto()  # the old control stops, a new one starts
    HEIRS = enum.auto()  # the heirs get ready
    HANDOVER = enum.auto()  # the old workers save
    RESTORE = enum.auto()  # the heirs take over


class Succession:
    """The children of the old program are replaced, one after the other. `look` after whatever happened."""

    def __init__(self, house: House, left: Inherited) -> None:
        self._house = house
        self._left = left
        self._step = _Step.CONTROL
        self._due: float | None = None
        self._handed: set[str] = set()  # old workers that have said what they had to say
        self._states: list[int] = []  # what they have saved
        self._restoring: set[str] = set()  # heirs that don't serve yet
        self._sessions: int | None = None
        self._pause_s = 0.0

    def begin(self) -> None:
        """Control first: it is quickly replaced, and members don't need it."""
        self._house.send(CONTROL, Stop(worker_stays=True))
        self._due = time.monotonic() + STOP_DEADLINE

    def look(self) -> None:
        """Take the next step if its time has come."""
        control, now = self._house.crew.get(CONTROL), time.monotonic()
        if self._step is _Step.CONTROL:
            if control is not None and control.is_old and self._due is not None and now > self._due:
                self._house.kill(control)
                self._due = None
            elif control is not None and not control.is_old and control.is_ready:
                self._step, self._due = _Step.HEIRS, None
        if self._step in {_Step.HEIRS, _Step.HANDOVER} and not self._house.has_all_heirs():
            self._house.start_heirs()
        if self._step is _Step.HEIRS and self._are_ready():
            self._step, self._due = _Step.HANDOVER, now + HANDOVER_S
            for worker in self._house.crew.old_workers:
                self._house.send(worker.name, HandOver())
        elif self._step is _Step.HANDOVER and self._due is not None and now > self._due:
            self._due = None
            for worker in self._house.crew.old_workers:
                if worker.name not in self._handed:
                    self._house.kill(worker)  # its end is told to `worker_ended`
        if self._step is _Step.HANDOVER and self._are_ready():
            self._promote()

    def _are_ready(self) -> bool:
        return self._house.has_all_heirs() and all(heir.is_ready for heir in self._house.crew.heirs)

    @property
    def patience_s(self) -> float | None:
        """When to look again, if nothing happens."""
        return None if self._due is None else max(0.0, self._due - time.monotonic()) + 0.01

    def handed_over(self, worker: str, message: HandedOver, fds: Sequence[int]) -> None:
        """An old worker's state has come; the descriptors stay the caller's."""
        if self._step is not _Step.HANDOVER or worker in self._handed:  # nobody asked
            return
        if message.problem:
            self._house.tell(UkihashiError(N_("the old worker could not hand over: {reason}"), reason=message.problem))
        self._handed.add(worker)
        self._states += [os.dup(fd) for fd in fds]
        self._promote()

    def worker_ended(self, worker: str) -> None:
        """An old worker is gone, unasked; an heir takes its place, with what the others save."""
        if worker not in self._handed:
            self._house.tell(UkihashiError(N_("the old worker ended without handing over; cards log in afresh")))
        self._promote()

    def _promote(self) -> None:
        """If nothing more is to be waited for. Without any old worker unready heirs are better than nobody."""
        olds = self._house.crew.old_workers
        if self._step not in {_Step.HEIRS, _Step.HANDOVER} or not self._house.has_all_heirs():
            return
        if any(worker.name not in self._handed for worker in olds) or (self._states and not self._are_ready()):
            return
        heirs = self._house.crew.heirs
        self._step, self._due = _Step.RESTORE, None
        for number, state in enumerate(self._states):
            self._house.send(heirs[number % len(heirs)].name, TakeOver(more=True), [state])
        for heir in heirs:
            self._house.send(heir.name, TakeOver())
        self.stop()
        self._house.promote_heirs()
        self._restoring = {heir.name for heir in heirs}

    def serves(self, worker: str, ready: Ready) -> None:
        """A new worker lets callers in."""
        if self._step is not _Step.RESTORE or worker not in self._restoring:
            return
        self._restoring.remove(worker)
        if "sessions" in ready.notes:
            self._sessions = (self._sessions or 0) + int(ready.notes["sessions"])
            self._pause_s = max(self._pause_s, ready.notes.get("pause_s", 0.0))
        if not self._restoring:
            self._finish()

    def stop(self) -> None:
        """Let go of the states."""
        for state in self._states:
            os.close(state)
        self._states = []

    def _finish(self) -> None:
        told = Upgraded(self._left.number, self._left.version, self._sessions, round(self._pause_s, 3))
        self._house.send(CONTROL, told)
        self._house.succeeded()
