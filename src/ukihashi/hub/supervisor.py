"""The root part of the hub: opens what needs rights, starts the two unprivileged processes, ends them in good order.

    supervisor --- fork ---> control (asyncio: logins, database, pages)      listens: admin socket, page socket
               --- fork ---> worker  (epoll: TLS, sessions, frames)          listens: the TCP ports

It reads nothing from the network and keeps no secret. A child that ends is started anew: a control process while
sessions go on, a worker while control and the host ports stay. More than RESTARTS a minute end the hub with a sentence.
"""

import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Self

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.children import Child, fork
from ukihashi.hub.hostports import HostPorts
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import (
    STOP_DEADLINE,
    Failed,
    HostPortGone,
    HostPortWanted,
    Message,
    PeerLink,
    Ready,
    Stop,
)
from ukihashi.hub.pipes import PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.worker import WorkerStart, run_worker
from ukihashi.locale import say
from ukihashi.net.listen import listen_tcp, listen_unix
from ukihashi.net.privileges import Identity, die_with, drop, identity, is_root, raise_descriptor_limit
from ukihashi.net.suites import NO_PICK, Pick
from ukihashi.net.tls import server_context

ADMIN_SOCKET: Final = "hub.sock"
WEB_SOCKET: Final = "web.sock"
RESTARTS: Final = 5  # of one child within RESTARTS_S seconds
RESTARTS_S: Final = 60.0
KILL_AFTER_S: Final = STOP_DEADLINE + 1.0  # a child that has not ended by then is killed
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STATUS_LACKS: Final = EnvironmentLacks.exit_status


@dataclass(frozen=True, slots=True)
class ControlStart:
    """What the control process is given, already open. Its working folder is the state folder."""

    supervisor: socket.socket  # SEQPACKET
    worker: socket.socket  # stream; a new one comes as `PeerLink` when the worker was started anew
    web: socket.socket  # listening, Unix: page requests from the worker
    admin: socket.socket  # listening, Unix: commands
    state_dir: Path
    endpoints: tuple[tuple[str, int], ...]  # what the hub really listens on
    host_ports: bool  # may ask for host ports (we are root)


@dataclass(frozen=True, slots=True)
class Supervisor:
    """How a hub is to run."""

    listen: Sequence[tuple[str, int]]  # literal address and port; port 0 takes a free one
    state_dir: Path  # of the control process
    runtime_dir: Path  # for the sockets
    certificate: Path
    key: Path
    control_user: str = "ukihashi"
    worker_user: str = "ukihashi-worker"
    limits: Limits = field(default_factory=Limits)
    pick: Pick = NO_PICK  # cipher suites
    tell: Callable[[str], object] = lambda sentence: print(sentence, file=sys.stderr, flush=True)  # noqa: T201
    ready: Callable[[Sequence[tuple[str, int]]], object] = lambda _endpoints: None  # both serve; the real addresses


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
        self._listeners: list[socket.socket] = []
        self._fronts: list[socket.socket] = []  # page socket, admin socket
        self._paths: list[Path] = []  # of the two
        self._children: dict[str, Child] = {}
        self._starts: dict[str, deque[float]] = {"control": deque(), "worker": deque()}
        self._status = 0
        self._stopping_since: float | None = None
        self._announced = False
        self._poll = select.poll()
        self._host_ports = HostPorts()
        self._control_identity = identity(settings.control_user)
        self._worker_identity = identity(settings.worker_user)
        self._wake, self._waker = socket.socketpair()
        self._own(self._wake, self._waker)
        self._waker.setblocking(False)
        self._wake.setblocking(False)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    # -- opening and closing --------------------------------------------------------------------------------------

    def _open(self) -> None:
        settings = self._settings
        _make_folder(settings.runtime_dir, 0o755, None)
        _make_folder(settings.state_dir, 0o700, self._control_identity)
        for host, port in settings.listen:
            self._listeners.append(listen_tcp(host, port))
            self._own(self._listeners[-1])
        for name, mode, owner in (
            (WEB_SOCKET, 0o600, {"uid": self._worker_identity.uid}),  # only the worker may connect
            (ADMIN_SOCKET, 0o660, {"gid": self._control_identity.gid}),
        ):
            path = settings.runtime_dir / name
            self._fronts.append(listen_unix(path, mode=mode, **(owner if is_root() else {})))
            self._own(self._fronts[-1])
            self._paths.append(path)
        if not is_root():
            self._tell(
                EnvironmentLacks(
                    N_("not root: the hub runs with this account's rights, and virtual hubs get no host port")
                )
            )

    def _own(self, *socks: socket.socket) -> None:
        self._owned.update(socks)

    def _close(self) -> None:
        for child in list(self._children.values()):  # only after an error of ours: `run` waits for them
            os.kill(child.pid, signal.SIGKILL)
            self._reap(child)
        self._host_ports.close()
        for sock in self._owned:
            sock.close()
        self._owned.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)

    # -- children -------------------------------------------------------------------------------------------------

    def _start(self, name: str, peer: socket.socket) -> None:
        """Fork `name`; `peer` is its end of the stream to the other child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._own(ours, theirs, peer)
        life = self._live_as_worker if name == "worker" else self._live_as_control
        child = fork(name, ours, theirs, partial(life, os.getpid(), theirs, peer))
        self._disown(theirs)
        self._disown(peer)
        self._children[name] = child
        self._starts[name].append(time.monotonic())
        self._poll.register(ours.fileno(), select.POLLIN)
        self._poll.register(child.pidfd, select.POLLIN)

    def _live_as_worker(self, parent: int, link: socket.socket, peer: socket.socket) -> int:
        settings = self._settings
        self._keep_only(link, peer, *self._listeners)
        descriptors = raise_descriptor_limit()
        context = server_context(settings.certificate, settings.key, pick=settings.pick)
        # A relative path needs no right to the folders above; and there is nothing else to find in there.
        os.chdir(settings.runtime_dir)
        drop(self._worker_identity)
        die_with(parent, signal.SIGTERM)
        limits = replace(settings.limits, half_open=min(settings.limits.half_open, descriptors // 3))
        return run_worker(WorkerStart(link, peer, self._listeners, context, Path(WEB_SOCKET), limits))

    def _live_as_control(self, parent: int, link: socket.socket, peer: socket.socket) -> int:
        settings = self._settings
        endpoints, may_make_ports = self._endpoints(), is_root()
        self._keep_only(link, peer, *self._fronts)
        os.chdir(settings.state_dir)
        drop(self._control_identity)
        die_with(parent, signal.SIGKILL)
        web, admin = self._fronts
        return self._control(ControlStart(link, peer, web, admin, settings.state_dir, endpoints, may_make_ports))

    def _keep_only(self, *kept: socket.socket) -> None:
        """Close, in a child, what belongs to the supervisor and the other child."""
        self._host_ports.forget()
        for child in self._children.values():
            os.close(child.pidfd)
        for sock in self._owned - set(kept):
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
        del self._children[child.name]
        return child.reap()

    def _endpoints(self) -> tuple[tuple[str, int], ...]:
        return tuple((host, port) for host, port, *_ in (sock.getsockname() for sock in self._listeners))

    # -- the supervisor's life ------------------------------------------------------------------------------------

    def run(self) -> int:
        control_end, worker_end = socket.socketpair()
        self._poll.register(self._wake.fileno(), select.POLLIN)
        with self._signals():
            self._own(worker_end)
            self._start("control", control_end)
            self._start("worker", worker_end)
            while self._children:
                self._turn()
        return self._status

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The signals that end us become a byte to read; everything happens in the loop."""
        old_fd = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, lambda *_: None) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)

    def _turn(self) -> None:
        ready = {fd for fd, _ in self._poll.poll(self._patience_ms())}
        if self._wake.fileno() in ready:
            with suppress(BlockingIOError):
                self._wake.recv(4096)
            self._stop(0)
        for child in list(self._children.values()):
            if child.link.fileno() in ready:
                self._listen_to(child)
        for child in list(self._children.values()):
            if child.pidfd in ready:
                self._ended(child)
        if self._stopping_since is not None and time.monotonic() - self._stopping_since > KILL_AFTER_S:
            for child in self._children.values():
                os.kill(child.pid, signal.SIGKILL)

    def _patience_ms(self) -> int | None:
        return None if self._stopping_since is None else 250

    def _stop(self, status: int) -> None:
        """Begin the end; the first status given wins."""
        if self._stopping_since is not None:
            return
        self._stopping_since = time.monotonic()
        self._status = status
        for listener in self._listeners:
            self._disown(listener)
        for name in list(self._children):
            self._send(name, Stop())

    def _send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
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
            for fd in fds:
                os.close(fd)
            if isinstance(message, Ready):
                child.is_ready = True
                self._announce()
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
                made = self._host_ports.want(message)
                if made is not None:
                    self._send("worker", *made)
            elif isinstance(message, HostPortGone):
                if self._host_ports.remove(message.hub):
                    self._send("worker", message)
            elif isinstance(message, Stop):
                self._stop(0)
        except UkihashiError as error:
            self._tell(error)

    def _announce(self) -> None:
        if not self._announced and len(self._children) == 2 and all(c.is_ready for c in self._children.values()):
            self._announced = True
            self._settings.ready(self._endpoints())

    def _ended(self, child: Child) -> None:
        self._listen_to(child)  # its last words may have come in the same turn
        status = self._reap(child)
        if self._stopping_since is not None:
            return
        if status in {0, -signal.SIGTERM}:  # in good order, unasked: the signal went to our whole group
            self._stop(0)
            return
        killed = status < 0
        how = UkihashiError(
            N_("killed by signal {number}") if killed else N_("exit status {number}"), number=abs(status)
        )
        starts = self._starts[child.name]
        while starts and time.monotonic() - starts[0] > RESTARTS_S:
            starts.popleft()
        if child.last_words or len(starts) > RESTARTS:
            self._tell(
                EnvironmentLacks(
                    N_("the hub's {name} process keeps ending ({how}), so the hub stops; the log says why"),
                    name=child.name,
                    how=how,
                )
            )
            self._stop(1)
            return
        self._tell(
            EnvironmentLacks(
                N_("the hub's {name} process ended ({how}); it is started again"), name=child.name, how=how
            )
        )
        self._restart(child.name)

    def _restart(self, name: str) -> None:
        """A new `name`, linked to the other child; a new worker gets the host ports again."""
        other = "control" if name == "worker" else "worker"
        its_end, others_end = socket.socketpair()
        self._own(others_end)
        self._start(name, its_end)
        self._send(other, PeerLink(name), [others_end.fileno()])
        self._disown(others_end)
        if name == "worker":
            for host_port in self._host_ports.all():
                self._send("worker", *host_port)

    def _tell(self, error: UkihashiError) -> None:
        self._settings.tell(say(error))


def _make_folder(path: Path, mode: int, owner: Identity | None) -> None:
    try:
        if not path.is_dir():
            path.mkdir(mode=mode, parents=True)
        if owner is not None and is_root():
            os.chown(path, owner.uid, owner.gid)
            path.chmod(mode)
    except OSError as error:
        raise EnvironmentLacks(
            N_("the folder {path} can't be used: {reason}"), path=path, reason=error.strerror or error
        ) from error
