"""The hub's workers by name and number, and what a child of the supervisor does first in its life."""

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ukihashi.hub.children import Child
from ukihashi.hub.doors import WEB_SOCKET
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import Message, PeerLink
from ukihashi.hub.start import ControlStart, Supervisor
from ukihashi.hub.worker import WorkerStart, run_worker
from ukihashi.net.privileges import Identity, die_with, drop, is_root, raise_descriptor_limit
from ukihashi.net.tls import server_context

CONTROL: Final = "control"
WORKER: Final = "worker"
HEIR: Final = "heir"  # a worker of the new program, before it takes over


def name_of(kind: str, number: int) -> str:
    """Of a worker or heir; the first one needs no number."""
    return f"{kind}-{number}" if number else kind


def number_of(name: str) -> int:
    """Of the worker or heir with that name."""
    return int(name.partition("-")[2] or 0)


def is_worker(name: str) -> bool:
    """Not control, and no heir."""
    return name.partition("-")[0] == WORKER


def is_heir(name: str) -> bool:
    """A worker of the new program, before it takes over."""
    return name.partition("-")[0] == HEIR


def role(name: str) -> str:
    """The name that an heir will have, any other's own."""
    return name_of(WORKER, number_of(name)) if is_heir(name) else name


class Crew(dict[str, Child]):
    """The supervisor's children, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.retired: list[Child] = []  # old workers that only say goodbye

    @property
    def all(self) -> list[Child]:
        """Every one, the retired too."""
        return [*self.values(), *self.retired]

    @property
    def workers(self) -> list[str]:
        """The names of all, heirs included."""
        return [name for name in self if name != CONTROL]

    @property
    def serving(self) -> list[Child]:
        """Those of this program that are ready."""
        return [child for child in self.values() if child.is_ready and not child.is_old]

    @property
    def old_workers(self) -> list[Child]:
        """Of the program before, those that live."""
        return [child for child in self.values() if is_worker(child.name) and child.is_old]

    @property
    def heirs(self) -> list[Child]:
        """By number."""
        return sorted((one for one in self.values() if is_heir(one.name)), key=lambda heir: number_of(heir.name))

    def adopt(self, child: Child) -> None:
        """A child of the program before."""
        if child.name == CONTROL or is_worker(child.name):
            self[child.name] = child
        else:
            self.retired.append(child)

    def promote_heirs(self) -> list[Child]:
        """They are the workers from now on, and the old ones are retired; the new ones, by number."""
        for old in self.old_workers:
            self.retired.append(self.pop(old.name))
        heirs = self.heirs
        for heir in heirs:
            del self[heir.name]
            heir.name = role(heir.name)
            self[heir.name] = heir
        return heirs

    def forget(self, child: Child) -> None:
        """It has ended."""
        if child in self.retired:
            self.retired.remove(child)
        else:
            del self[child.name]


class HeirsLinks:
    """Control's ends of the streams to the heirs, until they serve; by number."""

    def __init__(self, own: Callable[[socket.socket], None], disown: Callable[[socket.socket], None]) -> None:
        self._own, self._disown = own, disown
        self._links: dict[int, socket.socket] = {}

    def new(self, number: int) -> socket.socket:
        """A new heir's own end; what there was of one before is closed."""
        self._forget(number)
        self._links[number], its_end = socket.socketpair()
        self._own(self._links[number])
        return its_end

    def give(self, number: int, send: Callable[[str, Message, Sequence[int]], None]) -> None:
        """To control: the heir is a worker now."""
        send(CONTROL, PeerLink(WORKER, number), [self._links[number].fileno()])
        self._forget(number)

    def _forget(self, number: int) -> None:
        link = self._links.pop(number, None)
        if link is not None:
            self._disown(link)


@dataclass(frozen=True, slots=True)
class Ends:
    """What a child of the supervisor is given of sockets."""

    supervisor: socket.socket
    peers: Mapping[int, socket.socket]  # of control: to each worker; of a worker: to control, as 0
    mesh: Sequence[tuple[int, socket.socket]] = ()  # of a worker: to the others

    @property
    def all(self) -> list[socket.socket]:
        """Every one."""
        return [self.supervisor, *self.peers.values(), *(sock for _number, sock in self.mesh)]


def live_as_worker(
    name: str,
    settings: Supervisor,
    limits: Limits,
    listeners: Sequence[socket.socket],
    identity: Identity,
    parent: int,
    ends: Ends,
) -> int:
    """A worker's life, once nothing of the supervisor's is left in the process."""
    raise_descriptor_limit()
    context = server_context(settings.certificate, settings.key, pick=settings.pick)
    # A relative path needs no right to the folders above; and there is nothing else to find in there.
    os.chdir(settings.runtime_dir)
    drop(identity)
    die_with(parent, signal.SIGTERM)
    return run_worker(
        WorkerStart(
            ends.supervisor,
            ends.peers[0],
            listeners,
            context,
            Path(WEB_SOCKET),
            limits,
            pick=settings.pick,
            waits=is_heir(name),
            number=number_of(name),
            workers=settings.workers,
            mesh=ends.mesh,
        )
    )


def control_start(
    settings: Supervisor,
    fronts: Sequence[socket.socket],
    endpoints: tuple[tuple[str, int], ...],
    identity: Identity,
    parent: int,
    ends: Ends,
) -> ControlStart:
    """What control begins with, once nothing of the supervisor's is left in the process."""
    may_make_ports = is_root()
    os.chdir(settings.state_dir)
    drop(identity)
    die_with(parent, signal.SIGKILL)
    web, admin = fronts
    return ControlStart(ends.supervisor, ends.peers, web, admin, settings.state_dir, endpoints, may_make_ports)
