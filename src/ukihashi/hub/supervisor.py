"""The root part of the hub: opens what needs rights, starts the two unprivileged processes, ends them in good order.

    supervisor --- fork ---> control (asyncio: logins, database, pages)      listens: admin socket, page socket
               --- fork ---> workers (epoll: TLS, sessions, frames)          listen: the TCP ports
               --- fork ---> one for each cascade                            (`cascade_children`)

It reads nothing from the network and keeps no secret. A child that ends is started anew: a control process while
sessions go on, a worker while control and the host ports stay. More than RESTARTS a minute end the hub with a sentence.
SIGHUP reads hub.toml again. `hub upgrade` makes this process another program without closing anything (`upgrade`).
"""

import os
import select
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Self

from ukihashi import __version__
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.cascade_children import CascadeChildren
from ukihashi.hub.children import Child, Starts, fork, how_it_ended
from ukihashi.hub.crew import (
    CONTROL,
    HEIR,
    WORKER,
    Crew,
    Ends,
    HeirsLinks,
    control_start,
    is_heir,
    is_worker,
    live_as_worker,
    name_of,
    number_of,
    role,
)
from ukihashi.hub.doors import Doors, make_folder
from ukihashi.hub.machine import Machine
from ukihashi.hub.mesh import mesh_pair
from ukihashi.hub.messages import (
    STOP_DEADLINE,
    CascadeGone,
    CascadeWanted,
    Failed,
    HandedOver,
    HostPortGone,
    HostPortWanted,
    MeshLink,
    Message,
    PeerLink,
    Pong,
    Ready,
    Stop,
    Wish,
)
from ukihashi.hub.pipes import PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.pulse import Pulse
from ukihashi.hub.signals import Signals
from ukihashi.hub.start import ControlStart, Supervisor
from ukihashi.hub.succession import Succession
from ukihashi.hub.upgrade import HEEDED, Inherited, InheritedChild, become, inherited
from ukihashi.hub.wishes import Wishes
from ukihashi.locale import say
from ukihashi.net.privileges import identity, is_root
from ukihashi.net.terminal import Terminal

KILL_AFTER_S: Final = STOP_DEADLINE + 1.0  # a child that has not ended by then is killed
STATUS_LACKS: Final = EnvironmentLacks.exit_status
NOT_ROOT: Final = N_("not root: the hub runs with this account's rights, and virtual hubs get no host port")
KEEPS_ENDING: Final = N_("the hub's {name} process keeps ending ({how}), so the hub stops; the log says why")
ENDED: Final = N_("the hub's {name} process ended ({how}); it is started again")


def run(settings: Supervisor, *, control: Callable[[ControlStart], int]) -> int:
    """Run a hub until SIGTERM or SIGINT; its exit status.

    Args:
        control: the control process's life, called in it; what it returns is its exit status.
    Raises:
        EnvironmentLacks, UsageError: an address, a socket or a folder can't be had. Nothing is left behind.
    """
    with _Hub(settings, control) as hub:
        return hub.run()


class _Hub:
    def __init__(self, settings: Supervisor, control: Callable[[ControlStart], int]) -> None:
        self._settings = settings
        self._control = control
        self._owned: set[socket.socket] = set()  # what a child must not inherit unless it is handed to it
        self._doors = Doors()
        self.crew = Crew()
        self._starts: defaultdict[str, Starts] = defaultdict(Starts)
        self._status = 0
        self._stopping_since: float | None = None
        self._announced = False
        self._poll = select.poll()
        self.limits = settings.limits
        self._machine = Machine(self, settings, self._poll, lambda: self._doors.endpoints)
        self._control_identity = identity(settings.control_user)
        self._worker_identity = identity(settings.worker_user)
        self._terminal = Terminal()
        self._heirs_links = HeirsLinks(self._own, self._disown)
        self._succession: Succession | None = None
        self._wishes = Wishes(self, settings.options, settings.program, self._poll, self._machine)
        self._cascades = CascadeChildren(self, settings.cascade, self._poll, settings.cascade_user)
        self.number = 0
        self._pulse = Pulse(settings.manager, self.send, self.tell)
        self._signals = Signals()
        self._own(*self._signals.sockets)

    def __enter__(self) -> Self:
        left = inherited()
        try:
            if left is None:
                self._open()
            else:
                self._adopt(left)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    # -- opening and closing --------------------------------------------------------------------------------------

    def _open(self) -> None:
        settings = self._settings
        make_folder(settings.runtime_dir, 0o755, None)
        make_folder(settings.state_dir, 0o700, self._control_identity)
        control, worker = self._control_identity, self._worker_identity
        self._doors.open(
            settings.listen, settings.runtime_dir, control=control, worker=worker, handed=settings.handed_over
        )
        self.set_congestion(settings.congestion)
        self._machine.open()
        if not is_root():
            self.tell(EnvironmentLacks(NOT_ROOT))

    def _adopt(self, left: Inherited) -> None:
        """Go on with what the program before us had: nothing is opened that is open, and nobody is sent away."""
        self.number = left.number
        self._doors.adopt(left, self._settings.listen, self._settings.runtime_dir, self.tell)
        self.set_congestion(self._settings.congestion)
        self._machine.adopt(left)
        for one in left.children:
            link = socket.socket(fileno=one.fd)
            link.setblocking(False)
            self._own(link)
            child = Child(one.name, one.pid, os.pidfd_open(one.pid), link, is_ready=True, is_old=True)
            self.crew.adopt(child)
            self._watch(child)
        self._succession = Succession(self, left)
        self._announced = True
        self._settings.ready(self._doors.endpoints)

    def become_new(self) -> None:
        """For `Wishes`: only a failure returns."""
        listeners, fronts = self._doors.leave()
        self._cascades.pause()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
        for number in self._signals.came():  # and were not read yet: they are the new program's to hear
            os.kill(os.getpid(), number)
        left = Inherited(
            version=__version__,
            number=self.number + 1,
            listeners=listeners,
            fronts=fronts,
            host_ports=self._machine.host_ports.leave(),
            uplink=self._machine.uplinks.leave(),
            bridges=self._machine.bridges.leave(),
            children=[InheritedChild(one.name, one.pid, one.link.fileno()) for one in self.crew.all],
            handed=self._doors.handed,
        )
        self._pulse.changes()
        try:
            become(self._settings.program, left)
        finally:
            self._pulse.serves(__version__, self._doors.endpoints)

    def set_congestion(self, name: str) -> None:
        """For `Wishes`."""
        self._doors.set_congestion(name, self.tell)

    def is_upgrading(self) -> bool:
        """For `Wishes`."""
        return self._succession is not None

    def _own(self, *socks: socket.socket) -> None:
        self._owned.update(socks)

    def _close(self) -> None:
        for child in self.crew.all:  # only after an error of ours: `run` waits for them
            self.kill(child)
            self._reap(child)
        self._wishes.stop()
        self._cascades.pause()
        self._machine.close()
        self._doors.close()
        for sock in self._owned:
            sock.close()
        self._owned.clear()

    # -- children -------------------------------------------------------------------------------------------------

    def _start(self, name: str, peers: Mapping[int, socket.socket]) -> None:
        """Fork `name`; `peers` are its ends of the streams to control, or of control to the workers."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ends = Ends(theirs, peers, self._meet(name))
        self._own(ours, *ends.all)
        child = fork(name, ours, theirs, partial(self._live, name, os.getpid(), ends))
        for sock in ends.all:
            self._disown(sock)
        self.crew[name] = child
        self._starts[role(name)].note(time.monotonic())
        self._watch(child)

    def _meet(self, name: str) -> list[tuple[int, socket.socket]]:
        """For a new worker: a stream to each other one of its kind, which is told of it."""
        met = []
        for other in list(self.crew.values()) if name != CONTROL else []:
            if other.name not in (CONTROL, name) and not other.is_old and is_heir(other.name) == is_heir(name):
                its, others = mesh_pair()
                self.send(other.name, MeshLink(number_of(name)), [others.fileno()])
                others.close()
                met.append((number_of(other.name), its))
        return met

    def _live(self, name: str, parent: int, ends: Ends) -> int:
        """In the child."""
        doors, settings = self._doors, self._settings
        if name == CONTROL:
            endpoints = doors.endpoints
            self.keep_only(*ends.all, *doors.fronts)
            start = control_start(settings, doors.fronts, endpoints, self._control_identity, parent, ends)
            return self._control(start)
        self.keep_only(*ends.all, *doors.listeners)
        return live_as_worker(name, settings, self.limits, doors.listeners, self._worker_identity, parent, ends)

    def _watch(self, child: Child) -> None:
        self._poll.register(child.link.fileno(), select.POLLIN)
        self._poll.register(child.pidfd, select.POLLIN)

    def keep_only(self, *kept: socket.socket) -> None:
        """Close, in a child, what belongs to the supervisor and the other children."""
        self._machine.forget()
        self._cascades.forget()
        for child in self.crew.all:
            os.close(child.pidfd)
        for sock in {*self._owned, *self._doors.sockets} - set(kept):
            sock.close()

    def _disown(self, sock: socket.socket) -> None:
        self._owned.discard(sock)
        sock.close()

    def _reap(self, child: Child) -> int:
        """Take the ended child's status: its exit status, or minus the signal that killed it."""
        self._poll.unregister(child.pidfd)
        with suppress(KeyError):
            self._poll.unregister(child.link.fileno())
        self._disown(child.link)
        self.crew.forget(child)
        return child.reap()

    # -- the supervisor's life ------------------------------------------------------------------------------------

    def run(self) -> int:
        self._poll.register(self._signals.fileno(), select.POLLIN)
        with self._signals.heard():
            if self._succession is not None:
                self._succession.begin()
            else:
                pairs = {number: socket.socketpair() for number in range(self._settings.workers)}
                self._own(*(worker_end for _control, worker_end in pairs.values()))
                self._start(CONTROL, {number: control_end for number, (control_end, _worker) in pairs.items()})
                for number, (_control, worker_end) in pairs.items():
                    self._start(name_of(WORKER, number), {0: worker_end})
                self._give_ports()
            while self.crew.all or self._cascades:
                self._turn()
        return self._status

    def _turn(self) -> None:
        ready = {fd for fd, _ in self._poll.poll(self._patience_ms())}
        if self._signals.fileno() in ready:
            self._signalled()
        for child in self.crew.all:
            if child.link.fileno() in ready:
                self._listen_to(child)
        for child in self.crew.all:
            if child.pidfd in ready:
                self._ended(child)
        self._cascades.look(ready)
        if self._stopping_since is None:
            self._pulse.look(self.crew.serving)
            self._wishes.look(ready)
            if self._succession is not None:
                self._succession.look()
        elif time.monotonic() - self._stopping_since > KILL_AFTER_S:
            for child in self.crew.all:
                self.kill(child)

    def _signalled(self) -> None:
        numbers = self._signals.came()
        if numbers == {signal.SIGHUP} and not self._terminal.is_gone():
            self._pulse.reads()
            self._wishes.reload()
            self._pulse.serves(__version__, self._doors.endpoints)
        elif numbers:
            self._stop(0)

    def _patience_ms(self) -> int | None:
        if self._stopping_since is not None:
            return 250
        dues = [self._wishes.patience_s, self._cascades.patience_s, self._pulse.patience_s]
        dues += [self._succession.patience_s] if self._succession is not None else []
        return min((int(due * 1000) + 1 for due in dues if due is not None), default=None)

    def _stop(self, status: int) -> None:
        """Begin the end; the first status given wins."""
        if self._stopping_since is not None:
            return
        self._stopping_since = time.monotonic()
        self._status = status
        self._pulse.stops()
        self._wishes.stop()
        if self._succession is not None:
            self._succession.stop()
            self._succession = None
        self._doors.close_ports()
        self._cascades.stop()
        for name in list(self.crew):
            self.send(name, Stop())

    # -- for `Wishes` and `Succession` ----------------------------------------------------------------------------

    def kill(self, child: Child) -> None:
        """End it now; its end is noticed as any other."""
        os.kill(child.pid, signal.SIGKILL)

    @property
    def workers(self) -> list[str]:
        """For `Wishes`."""
        return self.crew.workers

    def has_all_heirs(self) -> bool:
        """As many as workers are wanted."""
        return len(self.crew.heirs) == self._settings.workers

    def start_heirs(self) -> None:
        """Start the workers that wait for `TakeOver`, those that are not there."""
        for number in range(self._settings.workers):
            name = name_of(HEIR, number)
            if name not in self.crew:
                self._start(name, {0: self._heirs_links.new(number)})

    def promote_heirs(self) -> None:
        """The heirs are the workers from now on."""
        for heir in self.crew.promote_heirs():
            self._heirs_links.give(number_of(heir.name), self.send)
        self._give_ports()

    def succeeded(self) -> None:
        """The upgrade is finished."""
        self._succession = None
        self._pulse.serves(__version__, self._doors.endpoints)

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""
        child = self.crew.get(name)
        if child is not None:
            with suppress(PipeBroken):  # it has ended; we learn that by its pidfd
                send_with_fd(child.link, message, fds)

    def _listen_to(self, child: Child) -> None:
        """Everything that `child` has said so far."""
        while True:
            try:
                received = receive_with_fds(child.link)
            except BlockingIOError:
                return
            except PipeBroken:  # a child that sends nonsense is out of its mind
                os.kill(child.pid, signal.SIGKILL)
                received = None
            if received is None:
                with suppress(KeyError):
                    self._poll.unregister(child.link.fileno())
                return
            message, fds = received
            if isinstance(message, HandedOver) and child.is_old and self._succession is not None:
                self._succession.handed_over(child.name, message, fds)
            for fd in fds:
                os.close(fd)
            if isinstance(message, Ready):
                child.is_ready = True
                self._announce()
                if self._succession is not None and is_worker(child.name):
                    self._succession.serves(child.name, message)
            elif isinstance(message, Pong):
                self._pulse.heard(child)
            elif isinstance(message, Failed):
                child.last_words = True
                self._settings.tell(message.sentence)
                self._stop(STATUS_LACKS)
            elif child.name == "control":
                self._obey(message)

    def _obey(self, message: Message) -> None:
        """What control, and only control, may ask for."""
        try:
            if isinstance(message, HostPortWanted):
                made = self._machine.host_ports.want(message, super_frames=self.limits.super_frames)
                if made is not None:
                    self.send("worker", *made)
            elif isinstance(message, HostPortGone):
                if self._machine.host_ports.remove(message.hub):
                    self.send("worker", message)
            elif isinstance(message, CascadeWanted):
                self._cascades.want(message)
            elif isinstance(message, CascadeGone):
                self._cascades.remove(message.cascade)
            elif isinstance(message, Stop):
                self._stop(0)
            elif isinstance(message, Wish):
                self._wishes.hear(message)
        except UkihashiError as error:
            self.tell(error)

    def _announce(self) -> None:
        children = self.crew.values()
        if not self._announced and len(children) == 1 + self._settings.workers and all(c.is_ready for c in children):
            self._announced = True
            self._settings.ready(self._doors.endpoints)
            self._pulse.serves(__version__, self._doors.endpoints)

    def _ended(self, child: Child) -> None:
        self._listen_to(child)  # its last words may have come in the same turn
        goodbye = child in self.crew.retired
        status = self._reap(child)
        if self._stopping_since is not None or goodbye or self._was_expected(child):
            return
        if status in {0, -signal.SIGTERM}:  # in good order, unasked: the signal went to our whole group
            self._stop(0)
            return
        how = how_it_ended(status)
        if child.last_words or self._starts[role(child.name)].too_many(time.monotonic()):
            self.tell(EnvironmentLacks(KEEPS_ENDING, name=child.name, how=how))
            self._stop(1)
            return
        self.tell(EnvironmentLacks(ENDED, name=child.name, how=how))
        if not is_heir(child.name):
            self._restart(child.name)  # a missing heir is started by the succession

    def _was_expected(self, child: Child) -> bool:
        """In an upgrade the old control makes room, and in the place of old workers come the heirs."""
        if self._succession is None or not child.is_old:
            return False
        if child.name == CONTROL:
            self._restart(CONTROL)
        else:
            self._succession.worker_ended(child.name)
        return True

    def _restart(self, name: str) -> None:
        """A new `name`, linked to the others; a new first worker gets host ports and cascades again."""
        others = [CONTROL] if name != CONTROL else [one for one in self.crew.workers if is_worker(one)]
        pairs = {other: socket.socketpair() for other in others}
        self._own(*(others_end for _its, others_end in pairs.values()))
        self._start(name, {number_of(other): its_end for other, (its_end, _others) in pairs.items()})
        told = PeerLink(CONTROL) if name == CONTROL else PeerLink(WORKER, number_of(name))
        for other, (_its, others_end) in pairs.items():
            self.send(other, told, [others_end.fileno()])
            self._disown(others_end)
        if name == WORKER:
            self._give_ports()

    def _give_ports(self) -> None:
        self._machine.give_ports()
        self._cascades.give_cables()

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""
        self._settings.tell(say(error))
