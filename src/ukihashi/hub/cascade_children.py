"""Cascades, the supervisor's side: one process for each, started at control's wish, started again when it ends.

The process is a card's (`card/cascade.py`) without any right once it has read its modules. What it needs comes and goes
by two descriptors: a cable, whose other end is the worker's, and a link, whose other end is control's. Nothing of what
it says is read here but the sentence with which it ends. Our copies of those other ends go to a worker or a control
that was started anew.
"""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.children import Child, fork
from ukihashi.hub.messages import CascadeGone, CascadeLink, CascadeWanted, Failed, Message
from ukihashi.hub.pipes import PipeBroken, receive_with_fds
from ukihashi.hub.start import CascadeStart
from ukihashi.net.privileges import die_with, drop, identity
from ukihashi.tap.frame_pipe import frame_pipe

MAX_CASCADES: Final = 256
FIRST_PAUSE_S: Final = 1.0  # before a process that ended is started again; twice as long each time, up to
LONGEST_PAUSE_S: Final = 60.0
STEADY_S: Final = 60.0  # one that lived so long is waited for as at first
GOODBYE_S: Final = 4.0  # to end the session at the other hub


class House(Protocol):
    """What cascades may do in the supervisor."""

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""

    def keep_only(self, *kept: socket.socket) -> None:
        """Close, in a child, what belongs to the supervisor and the other children."""


@dataclass(eq=False)
class _Entry:
    wanted: CascadeWanted
    pause: float  # before the next start
    child: Child | None = None
    cable: socket.socket | None = None  # the worker's end
    link: socket.socket | None = None  # control's end
    started: float = 0.0
    due: float = 0.0  # when to start it, while there is no child

    def close(self) -> None:
        for sock in (self.cable, self.link):
            if sock is not None:
                sock.close()
        self.cable = self.link = None


class CascadeChildren:
    """See the module."""

    def __init__(self, house: House, life: Callable[[CascadeStart], int] | None, poll: select.poll, user: str) -> None:
        """`life`: a cascade's, called in its process; None: this hub has none."""
        self._house = house
        self._life = life
        self._poll = poll
        self._user = user
        self._entries: dict[int, _Entry] = {}
        self._leaving: dict[Child, float] = {}  # told to end, until when
        self._stopped = False

    def __bool__(self) -> bool:
        return bool(self._entries or self._leaving)

    # -- control's wishes -----------------------------------------------------------------------------------------

    def want(self, wanted: CascadeWanted) -> None:
        """Start it; one that runs as wanted gets its link back, for a control that was started anew."""
        if self._stopped:
            return
        entry = self._entries.get(wanted.cascade)
        if entry is not None and entry.wanted == wanted:
            self._give_link(entry)
            return
        if entry is not None:
            self.remove(wanted.cascade)
        if self._life is None or len(self._entries) >= MAX_CASCADES:
            raise EnvironmentLacks(
                N_("cascade “{name}” of virtual hub {hub} is not joined: this hub takes no more of them"),
                name=wanted.name,
                hub=wanted.hub,
            )
        self._entries[wanted.cascade] = entry = _Entry(wanted, FIRST_PAUSE_S)
        self._start(entry)

    def remove(self, cascade: int) -> None:
        """End it in good order."""
        entry = self._entries.pop(cascade, None)
        if entry is not None:
            self._end(entry)
            self._house.send("worker", CascadeGone(cascade))

    def give_cables(self) -> None:
        """To a new worker."""
        for entry in self._entries.values():
            if entry.cable is not None:
                self._house.send("worker", entry.wanted, [entry.cable.fileno()])

    def _give_link(self, entry: _Entry) -> None:
        if entry.link is not None:
            self._house.send("control", CascadeLink(entry.wanted.cascade), [entry.link.fileno()])

    # -- processes ------------------------------------------------------------------------------------------------

    def _start(self, entry: _Entry) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        entry.cable, its_cable = frame_pipe()
        entry.link, its_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        give_up = partial(self._give_up, os.getpid())
        start = CascadeStart(f"{entry.wanted.hub}/{entry.wanted.name}", its_cable, its_link, give_up)
        entry.child = fork("cascade", ours, theirs, partial(self._live, (ours, theirs), start))
        for sock in (theirs, its_cable, its_link):
            sock.close()
        entry.started = time.monotonic()
        self._poll.register(entry.child.pidfd, select.POLLIN)
        self._house.send("worker", entry.wanted, [entry.cable.fileno()])
        self._give_link(entry)

    def _live(self, link: tuple[socket.socket, socket.socket], start: CascadeStart) -> int:
        assert self._life is not None
        link[0].close()
        self._house.keep_only(link[1], start.cable, start.control)
        return self._life(start)

    def _give_up(self, parent: int) -> None:
        drop(identity(self._user))
        die_with(parent, signal.SIGTERM)

    def _end(self, entry: _Entry) -> None:
        child, entry.child = entry.child, None
        entry.close()
        if child is not None:
            os.kill(child.pid, signal.SIGTERM)
            self._leaving[child] = time.monotonic() + GOODBYE_S

    @property
    def patience_s(self) -> float | None:
        """When to `look` again, if nothing happens."""
        dues = [one.due for one in self._entries.values() if one.child is None]
        dues += self._leaving.values()
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def look(self, ready: set[int]) -> None:
        """Who has ended? Who is to be started again, who is late in ending?"""
        now = time.monotonic()
        for child, until in list(self._leaving.items()):
            if child.pidfd in ready:
                self._reap(child)
                del self._leaving[child]
            elif now >= until:
                os.kill(child.pid, signal.SIGKILL)
                self._leaving[child] = now + GOODBYE_S
        for entry in list(self._entries.values()):
            if entry.child is not None and entry.child.pidfd in ready:
                self._ended(entry, now)
            elif entry.child is None and now >= entry.due:
                self._start(entry)

    def _ended(self, entry: _Entry, now: float) -> None:
        assert entry.child is not None
        words = _last_words(entry.child)
        self._reap(entry.child)
        entry.child = None
        entry.close()
        if now - entry.started >= STEADY_S:
            entry.pause = FIRST_PAUSE_S
        entry.due = now + entry.pause
        self._house.tell(
            EnvironmentLacks(
                N_(
                    "cascade “{name}” of virtual hub {hub}: its process ended ({reason}); another is started in"
                    " {seconds:g} s"
                ),
                name=entry.wanted.name,
                hub=entry.wanted.hub,
                reason=words or UkihashiError(N_("the log says more")),
                seconds=entry.pause,
            )
        )
        entry.pause = min(2 * entry.pause, LONGEST_PAUSE_S)

    def _reap(self, child: Child) -> None:
        self._poll.unregister(child.pidfd)
        child.link.close()
        child.reap()

    # -- the end --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let all end, and start none any more; `look` until there is none."""
        self._stopped = True
        for entry in self._entries.values():
            self._end(entry)
        self._entries = {}

    def pause(self) -> None:
        """End all and wait for it: this process becomes another program, to which control tells them anew.

        If nothing comes of that, `look` starts them again.
        """
        for entry in self._entries.values():
            self._end(entry)
            entry.due = 0.0
        for child, until in self._leaving.items():
            ended = select.poll()
            ended.register(child.pidfd, select.POLLIN)
            if not ended.poll(max(0.0, until - time.monotonic()) * 1000):
                os.kill(child.pid, signal.SIGKILL)
            self._reap(child)
        self._leaving = {}

    def forget(self) -> None:
        """In a child: these descriptors are the parent's business."""
        for entry in self._entries.values():
            entry.close()
        for child in [*self._leaving, *(one.child for one in self._entries.values() if one.child is not None)]:
            os.close(child.pidfd)
            child.link.close()
        self._entries, self._leaving = {}, {}


def _last_words(child: Child) -> str:
    """The sentence with which it ended, if it said one."""
    with contextlib.suppress(BlockingIOError, PipeBroken):
        received = receive_with_fds(child.link)
        if received is not None:
            for fd in received[1]:
                os.close(fd)
            if isinstance(received[0], Failed):
                return received[0].sentence
    return ""
