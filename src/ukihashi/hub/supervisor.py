"""The root part of the hub: opens what needs rights, starts the two unprivileged processes, ends them in good order.

    supervisor --- fork ---> control (asyncio: logins, database, pages)      listens: admin socket, page socket
               --- fork ---> worker  (epoll: TLS, sessions, frames)          listens: the TCP ports
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

from ukihashi import __version__
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.cascade_children import CascadeChildren
from ukihashi.hub.children import Child, Starts, fork
from ukihashi.hub.doors import WEB_SOCKET, Doors, make_folder
from ukihashi.hub.hostports import HostPorts
from ukihashi.hub.messages import (
    STOP_DEADLINE,
    CascadeGone,
    CascadeWanted,
    Failed,
    HandedOver,
    HostPortGone,
    HostPortWanted,
    Message,
    PeerLink,
    Ready,
    Stop,
    Wish,
)
from ukihashi.hub.pipes import PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.signals import Signals
from ukihashi.hub.start import ControlStart, Supervisor
from ukihashi.hub.succession import Succession
from ukihashi.hub.upgrade import HEEDED, Inherited, InheritedChild, become, inherited
from ukihashi.hub.wishes import Wishes
from ukihashi.hub.worker import WorkerStart, run_worker
from ukihashi.locale import say
from ukihashi.net.privileges import die_with, drop, identity, is_root, raise_descriptor_limit
from ukihashi.net.terminal import Terminal
from ukihashi.net.tls import server_context

KILL_AFTER_S: Final = STOP_DEADLINE + 1.0  # a child that has not ended by then is killed
STATUS_LACKS: Final = EnvironmentLacks.exit_status


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
        self._children: dict[str, Child] = {}
        self._retired: list[Child] = []  # old workers that only say goodbye
        self._starts = {"control": Starts(), "worker": Starts()}
        self._status = 0
        self._stopping_since: float | None = None
        self._announced = False
        self._poll = select.poll()
        self._host_ports = HostPorts()
        self._control_identity = identity(settings.control_user)
        self._worker_identity = identity(settings.worker_user)
        self._terminal = Terminal()
        self._heirs_link: socket.socket | None = None  # control's end of the stream to the heir
        self._succession: Succession | None = None
        self._wishes = Wishes(self, settings.options, settings.program, self._poll)
        self._cascades = CascadeChildren(self, settings.cascade, self._poll, settings.cascade_user)
        self.limits = settings.limits
        self.number = 0
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
        self._doors.open(settings.listen, settings.runtime_dir, control=control, worker=worker)
        self.set_congestion(settings.congestion)
        if not is_root():
            self.tell(
                EnvironmentLacks(
                    N_("not root: the hub runs with this account's rights, and virtual hubs get no host port")
                )
            )

    def _adopt(self, left: Inherited) -> None:
        """Go on with what the program before us had: nothing is opened that is open, and nobody is sent away."""
        self.number = left.number
        self._doors.adopt(left, self._settings.listen, self._settings.runtime_dir, self.tell)
        self.set_congestion(self._settings.congestion)
        self._host_ports.adopt(left.host_ports)
        for one in left.children:
            link = socket.socket(fileno=one.fd)
            link.setblocking(False)
            self._own(link)
            child = Child(one.name, one.pid, os.pidfd_open(one.pid), link, is_ready=True, is_old=True)
            if one.name in self._starts:
                self._children[one.name] = child
            else:
                self._retired.append(child)
            self._watch(child)
        self._succession = Succession(self, left)
        self._announced = True
        self._settings.ready(self._doors.endpoints)

    def become_new(self) -> None:
        """For `Wishes`: only a failure returns."""
        listeners, fronts = self._doors.leave()
        children = [*self._children.values(), *self._retired]
        self._cascades.pause()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
        for number in self._signals.came():  # and were not read yet: they are the new program's to hear
            os.kill(os.getpid(), number)
        become(
            self._settings.program,
            Inherited(
                version=__version__,
                number=self.number + 1,
                listeners=listeners,
                fronts=fronts,
                host_ports=self._host_ports.leave(),
                children=[InheritedChild(one.name, one.pid, one.link.fileno()) for one in children],
            ),
        )

    def set_congestion(self, name: str) -> None:
        """For `Wishes`."""
        self._doors.set_congestion(name, self.tell)

    def is_upgrading(self) -> bool:
        """For `Wishes`."""
        return self._succession is not None

    def _own(self, *socks: socket.socket) -> None:
        self._owned.update(socks)

    def _close(self) -> None:
        for child in [*self._children.values(), *self._retired]:  # only after an error of ours: `run` waits for them
            self.kill(child)
            self._reap(child)
        self._wishes.stop()
        self._cascades.pause()
        self._host_ports.close()
        self._doors.close()
        for sock in self._owned:
            sock.close()
        self._owned.clear()

    # -- children -------------------------------------------------------------------------------------------------

    def _start(self, name: str, peer: socket.socket) -> None:
        """Fork `name`; `peer` is its end of the stream to the other child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._own(ours, theirs, peer)
        life = self._live_as_control if name == "control" else partial(self._live_as_worker, name)
        child = fork(name, ours, theirs, partial(life, os.getpid(), theirs, peer))
        self._disown(theirs)
        self._disown(peer)
        self._children[name] = child
        self._starts[_role(name)].note(time.monotonic())
        self._watch(child)

    def _watch(self, child: Child) -> None:
        self._poll.register(child.link.fileno(), select.POLLIN)
        self._poll.register(child.pidfd, select.POLLIN)

    def _live_as_worker(self, name: str, parent: int, link: socket.socket, peer: socket.socket) -> int:
        settings = self._settings
        self.keep_only(link, peer, *self._doors.listeners)
        raise_descriptor_limit()
        context = server_context(settings.certificate, settings.key, pick=settings.pick)
        # A relative path needs no right to the folders above; and there is nothing else to find in there.
        os.chdir(settings.runtime_dir)
        drop(self._worker_identity)
        die_with(parent, signal.SIGTERM)
        return run_worker(
            WorkerStart(
                link,
                peer,
                self._doors.listeners,
                context,
                Path(WEB_SOCKET),
                self.limits,
                pick=settings.pick,
                waits=name == "heir",
            )
        )

    def _live_as_control(self, parent: int, link: socket.socket, peer: socket.socket) -> int:
        settings = self._settings
        endpoints, may_make_ports = self._doors.endpoints, is_root()
        self.keep_only(link, peer, *self._doors.fronts)
        os.chdir(settings.state_dir)
        drop(self._control_identity)
        die_with(parent, signal.SIGKILL)
        web, admin = self._doors.fronts
        return self._control(ControlStart(link, peer, web, admin, settings.state_dir, endpoints, may_make_ports))

    def keep_only(self, *kept: socket.socket) -> None:
        """Close, in a child, what belongs to the supervisor and the other children."""
        self._host_ports.forget()
        self._cascades.forget()
        for child in [*self._children.values(), *self._retired]:
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
        if child in self._retired:
            self._retired.remove(child)
        else:
            del self._children[child.name]
        return child.reap()

    # -- the supervisor's life ------------------------------------------------------------------------------------

    def run(self) -> int:
        self._poll.register(self._signals.fileno(), select.POLLIN)
        with self._signals.heard():
            if self._succession is not None:
                self._succession.begin()
            else:
                control_end, worker_end = socket.socketpair()
                self._own(worker_end)
                self._start("control", control_end)
                self._start("worker", worker_end)
            while self._children or self._retired or self._cascades:
                self._turn()
        return self._status

    def _turn(self) -> None:
        ready = {fd for fd, _ in self._poll.poll(self._patience_ms())}
        if self._signals.fileno() in ready:
            self._signalled()
        for child in [*self._children.values(), *self._retired]:
            if child.link.fileno() in ready:
                self._listen_to(child)
        for child in [*self._children.values(), *self._retired]:
            if child.pidfd in ready:
                self._ended(child)
        self._cascades.look(ready)
        if self._stopping_since is None:
            self._wishes.look(ready)
            if self._succession is not None:
                self._succession.look()
        elif time.monotonic() - self._stopping_since > KILL_AFTER_S:
            for child in [*self._children.values(), *self._retired]:
                self.kill(child)

    def _signalled(self) -> None:
        numbers = self._signals.came()
        if numbers == {signal.SIGHUP} and not self._terminal.is_gone():
            self._wishes.reload()
        elif numbers:
            self._stop(0)

    def _patience_ms(self) -> int | None:
        if self._stopping_since is not None:
            return 250
        dues = [self._wishes.patience_s, self._cascades.patience_s]
        dues += [self._succession.patience_s] if self._succession is not None else []
        return min((int(due * 1000) + 1 for due in dues if due is not None), default=None)

    def _stop(self, status: int) -> None:
        """Begin the end; the first status given wins."""
        if self._stopping_since is not None:
            return
        self._stopping_since = time.monotonic()
        self._status = status
        self._wishes.stop()
        self._succession = None
        self._doors.close_ports()
        self._cascades.stop()
        for name in list(self._children):
            self.send(name, Stop())

    # -- for `Wishes` and `Succession` ----------------------------------------------------------------------------

    def child(self, name: str) -> Child | None:
        """The process of that name."""
        return self._children.get(name)

    def kill(self, child: Child) -> None:
        """End it now; its end is noticed as any other."""
        os.kill(child.pid, signal.SIGKILL)

    def start_heir(self) -> None:
        """Start a worker that waits for `TakeOver`."""
        self._heirs_link, its_end = socket.socketpair()
        self._own(self._heirs_link)
        self._start("heir", its_end)

    def promote_heir(self) -> None:
        """The heir is the worker from now on."""
        old = self._children.pop("worker", None)
        if old is not None:
            self._retired.append(old)
        heir = self._children["worker"] = self._children.pop("heir")
        heir.name = "worker"
        assert self._heirs_link is not None
        self.send("control", PeerLink("worker"), [self._heirs_link.fileno()])
        self._disown(self._heirs_link)
        self._give_ports()

    def succeeded(self) -> None:
        """The upgrade is finished."""
        self._succession = None

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""
        child = self._children.get(name)
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
            if isinstance(message, HandedOver) and child is self._children.get("worker") and self._succession:
                self._succession.handed_over(message, fds)
            for fd in fds:
                os.close(fd)
            if isinstance(message, Ready):
                child.is_ready = True
                self._announce()
                if self._succession is not None and child is self._children.get("worker"):
                    self._succession.serves(message)
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
                made = self._host_ports.want(message, super_frames=self.limits.super_frames)
                if made is not None:
                    self.send("worker", *made)
            elif isinstance(message, HostPortGone):
                if self._host_ports.remove(message.hub):
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
        if not self._announced and len(self._children) == 2 and all(c.is_ready for c in self._children.values()):
            self._announced = True
            self._settings.ready(self._doors.endpoints)

    def _ended(self, child: Child) -> None:
        self._listen_to(child)  # its last words may have come in the same turn
        goodbye = child in self._retired
        status = self._reap(child)
        if self._stopping_since is not None or goodbye or self._was_expected(child):
            return
        if status in {0, -signal.SIGTERM}:  # in good order, unasked: the signal went to our whole group
            self._stop(0)
            return
        killed = status < 0
        how = UkihashiError(
            N_("killed by signal {number}") if killed else N_("exit status {number}"), number=abs(status)
        )
        if child.last_words or self._starts[_role(child.name)].too_many(time.monotonic()):
            self.tell(
                EnvironmentLacks(
                    N_("the hub's {name} process keeps ending ({how}), so the hub stops; the log says why"),
                    name=child.name,
                    how=how,
                )
            )
            self._stop(1)
            return
        self.tell(
            EnvironmentLacks(
                N_("the hub's {name} process ended ({how}); it is started again"), name=child.name, how=how
            )
        )
        if child.name != "heir":
            self._restart(child.name)
        elif self._succession is not None:
            self._succession.heir_ended()

    def _was_expected(self, child: Child) -> bool:
        """In an upgrade the old control makes room, and for an old worker that dies the heir stands ready."""
        if self._succession is None or not child.is_old:
            return False
        if child.name == "control":
            self._restart("control")
            return True
        return self._succession.worker_ended()

    def _restart(self, name: str) -> None:
        """A new `name`, linked to the other child; a new worker gets host ports and cascades again."""
        other = "control" if name == "worker" else "worker"
        its_end, others_end = socket.socketpair()
        self._own(others_end)
        self._start(name, its_end)
        self.send(other, PeerLink(name), [others_end.fileno()])
        self._disown(others_end)
        if name == "worker":
            self._give_ports()

    def _give_ports(self) -> None:
        for host_port in self._host_ports.all():
            self.send("worker", *host_port)
        self._cascades.give_cables()

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""
        self._settings.tell(say(error))


def _role(name: str) -> str:
    return "control" if name == "control" else "worker"
