"""The worker: accepts, speaks TLS, lets in, switches frames. One process, one epoll loop, no privileges, no files.

It parses hostile bytes; whatever needs a file, a secret store or a slow computation is asked of control (`messages`).
Parts: `connection` (socket and TLS), `front` (openings), `relay` (pages), `rpc_caller` (tools), `sessions` and `tunnel`
(members), `ports` (switch and queues), `orders` (what control asks). Here they are put together, and here control's and
the supervisor's messages arrive.
At `hub upgrade` the sessions go from one worker to the next (`handover`). Several workers serve one hub (`neighbours`).
"""

import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from ukihashi.errors import UkihashiError
from ukihashi.hub.bridge_ports import BridgePorts
from ukihashi.hub.cascade_port import CascadePorts
from ukihashi.hub.connection import Wiring
from ukihashi.hub.front import FrontDoor
from ukihashi.hub.handover import StateUnusable, restore, save
from ukihashi.hub.lan_service import Services
from ukihashi.hub.limits import Limits
from ukihashi.hub.listening import Listening
from ukihashi.hub.loop import READ, WRITE, Loop
from ukihashi.hub.messages import (
    STOP_DEADLINE,
    AdminAsked,
    Answered,
    AnyMessage,
    Asked,
    BridgeGone,
    BridgePut,
    CascadeGone,
    CascadeUp,
    CascadeWanted,
    CertificatePut,
    HandedOver,
    HandOver,
    HostPort,
    HostPortGone,
    HubPut,
    HubRemoved,
    LeaseAnswered,
    LeaseAsked,
    LeasesPut,
    LimitsPut,
    LoginAnswered,
    LoginAsked,
    LoginRefused,
    MeshLink,
    Message,
    Names,
    PasswordAsked,
    PeerLink,
    Ping,
    Pong,
    Ready,
    RpcAnswered,
    RpcAsked,
    Stop,
    TakeOver,
)
from ukihashi.hub.neighbours import Neighbours
from ukihashi.hub.orders import TOO_MUCH, Orders
from ukihashi.hub.pipes import Pipe, PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.ports import HostPort as HostPlug
from ukihashi.hub.ports import Outbox
from ukihashi.hub.relay import Relay
from ukihashi.hub.sessions import Sessions
from ukihashi.net.memory import keep_freed
from ukihashi.net.suites import NO_PICK, Pick
from ukihashi.net.tls import server_context
from ukihashi.tap.device import adopt_tap
from ukihashi.wire.extension import Reason

REFUSALS_WAITING: Final = 1 << 20  # bytes; beyond it refused logins are no longer told, so a flood can't fill the pipe
ASKS_WAITING: Final = 4 << 20  # bytes; beyond it control is asked nothing more until it has read
ORDERS_A_TURN: Final = 2  # messages of control: a login let in costs about as much as a handshake
LEAVING_S: Final = STOP_DEADLINE - 2.0  # for the peers; the rest is the supervisor's

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What the supervisor hands to a worker, already open."""

    supervisor: socket.socket  # SEQPACKET
    control: socket.socket  # stream
    listeners: Sequence[socket.socket]
    context: ssl.SSLContext
    web: Path | None  # the page server's Unix socket
    limits: Limits = field(default_factory=Limits)
    pick: Pick = NO_PICK  # cipher suites of `context`
    waits: bool = False  # as an heir: lets nobody in before `TakeOver`
    number: int = 0  # which of the workers it is
    workers: int = 1
    mesh: Sequence[tuple[int, socket.socket]] = ()  # streams to those that are there


class Worker:
    """See the module. `run` returns after an orderly end."""

    def __init__(self, start: WorkerStart) -> None:
        self.loop = Loop()
        limits = _capped(start.limits, start.workers)
        self._supervisor = start.supervisor
        self._control: Pipe | None = None
        self._said = self.loop.lane(ORDERS_A_TURN)
        self._outbox = Outbox()
        self._wiring = Wiring(self.loop, start.context, limits)
        self._sessions = Sessions(self.loop, limits, self._outbox, self._tell)
        self._services = self._sessions.services = Services(self.loop, self._ask_lan)
        self._door = FrontDoor(self._wiring, self._sessions, Relay(self.loop, start.web, limits), control=self)
        self._listening = Listening(self.loop, start.listeners, self._door.accept, shared=start.workers > 1)
        self._limits = start.limits  # of all workers together
        self._workers = start.workers
        self._neighbours: Neighbours | None = None
        self._pick = start.pick
        self._waits = start.waits
        self._hands_over = False
        self._let_go_at: float | None = None  # when the first of the old workers let go whose sessions came
        self._leaving_until: float | None = None
        self._cascades = CascadePorts(self.loop, self._sessions)
        self._bridges = BridgePorts(self.loop, self._sessions)
        self._orders = Orders(self._sessions, self._door, self._cascades, self._bridges)
        self._sessions.worker, self._sessions.workers = start.number, start.workers
        if start.workers > 1:
            self._meet(start)
        self._set_control(start.control)
        self._supervisor.setblocking(False)
        self.loop.watch(self._supervisor.fileno(), READ, self._on_supervisor)
        self.loop.at_turn_end(self._outbox.flush)
        if not self._waits:
            self._listening.begin()

    def _meet(self, start: WorkerStart) -> None:
        """There are other workers."""
        neighbours = self._neighbours = Neighbours(start.number, self._sessions, self._tell, waits=start.waits)
        for number, sock in start.mesh:
            neighbours.add(number, sock)
        self._door.seek = neighbours.seek
        self._orders.neighbours = neighbours
        self.loop.at_turn_end(self._spread)

    def _spread(self) -> bool:
        assert self._neighbours is not None
        self._neighbours.load_is(len(self._sessions) + self._door.half_open)
        self._listening.want(self._neighbours.balance.is_my_turn)
        return False

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        send_with_fd(self._supervisor, Ready(who="heir" if self._waits else "worker"))
        while self._leaving_until is None or self._is_leaving():
            self.loop.turn(0.05 if self._leaving_until is not None else 60.0)
        for connection in self._wiring.lingering.items():
            connection.abort("the hub stops")
        for hub in self._sessions.hubs.values():
            if hub.host is not None:
                hub.host.close()
        self._cascades.close()
        self._bridges.close()
        if self._neighbours is not None:
            self._neighbours.close()
        if self._control is not None:
            self._flush_control()
        self._lose_control()
        self._supervisor.close()
        self.loop.close()
        return 0

    def stop(self) -> None:
        """Begin the orderly end: nobody else gets in, every peer is told by close_notify (trap T1)."""
        if self._leaving_until is not None:
            return
        self._leaving_until = self.loop.now + LEAVING_S
        self._close_door()
        for session in self._sessions:
            session.close("the hub stops", Reason.STOPPING)

    def _close_door(self) -> None:
        """Nobody else gets in, and who is at the door is sent away."""
        self._listening.end()
        self._door.close()

    def _is_leaving(self) -> bool:
        assert self._leaving_until is not None
        return bool(self._wiring.lingering) and self.loop.now < self._leaving_until

    # -- supervisor -----------------------------------------------------------------------------------------------

    def _on_supervisor(self, _events: int) -> None:
        received = receive_with_fds(self._supervisor)
        if received is None:  # the supervisor is dead: so are we, but politely
            self.loop.forget(self._supervisor.fileno())
            self.stop()
            return
        message, fds = received
        if isinstance(message, HostPort) and fds:
            self._plug_host(message, fds.pop())
        elif isinstance(message, HostPortGone):
            hub = self._sessions.hubs.get(message.hub.casefold())
            if hub is not None and hub.host is not None:
                hub.host.close()
        elif isinstance(message, BridgePut) and fds:
            self._bridges.plug(message, fds.pop())
        elif isinstance(message, BridgeGone):
            self._bridges.unplug(message.interface)
        elif isinstance(message, CascadeWanted) and fds:
            self._cascades.plug(message, fds.pop())
        elif isinstance(message, CascadeGone):
            self._cascades.unplug(message.cascade)
        elif isinstance(message, PeerLink) and fds:
            self._set_control(socket.socket(fileno=fds.pop()))
        elif isinstance(message, MeshLink) and fds and self._neighbours is not None:
            self._neighbours.add(message.worker, socket.socket(fileno=fds.pop()), is_new=True)
        elif isinstance(message, LimitsPut):
            self._set_limits(message.values)
        elif isinstance(message, CertificatePut) and len(fds) == 2:
            self._set_certificate(*fds)
        elif isinstance(message, HandOver):
            self._hand_over()
        elif isinstance(message, TakeOver):
            self._take_over(fds, more=message.more)
        elif isinstance(message, Stop):
            self.stop()
        elif isinstance(message, Ping):
            send_with_fd(self._supervisor, Pong())
        for fd in fds:
            os.close(fd)

    def _plug_host(self, message: HostPort, fd: int) -> None:
        hub = self._sessions.hubs.get(message.hub.casefold())
        if hub is None:  # the supervisor's message overtook control's; settings follow
            hub = self._sessions.put_hub(HubPut(message.hub))
        if hub.host is not None:
            hub.host.close()
        hub.host = HostPlug(hub, adopt_tap(fd, message.interface), self.loop, self._sessions.limits)

    def _set_limits(self, values: dict[str, Any]) -> None:
        self._limits = replace(self._limits, **values)
        limits = _capped(self._limits, self._workers)
        self._door.set_limits(limits)
        self._sessions.set_limits(limits)

    def _set_certificate(self, certificate: int, key: int) -> None:
        """For connections from now on; those that are open keep what they began with."""
        paths = (Path(f"/proc/self/fd/{fd}") for fd in (certificate, key))
        try:
            self._wiring.context = server_context(*paths, pick=self._pick)
        except UkihashiError as error:
            _log.error("internal_error", reason=str(error))

    # -- hub upgrade ----------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Let go of every link and save the sessions for the next worker; then only goodbyes are left."""
        if self._leaving_until is not None or self._hands_over:
            return
        self._hands_over = True
        self._close_door()
        if self._neighbours is None:
            self._let_go()
            return
        for hub in self._sessions.hubs.values():
            if hub.host is not None:
                hub.host.pause()
        self._bridges.pause()
        for session in self._sessions:
            for tunnel in session.tunnels:
                tunnel.connection.pause()
        self._outbox.flush()
        self._neighbours.part(self._let_go)

    def _let_go(self) -> None:
        if self._leaving_until is not None:  # told to stop meanwhile
            return
        self._leaving_until = self.loop.now + LEAVING_S
        self._outbox.flush()  # what this turn brought for a host port is acknowledged to its card and nowhere else
        for hub in self._sessions.hubs.values():
            if hub.host is not None:
                hub.host.close()  # what comes from now on waits in the kernel
        self._bridges.close()
        self._cascades.close()
        if self._neighbours is not None:
            self._neighbours.close()
        try:
            state = save(self._sessions)
        except StateUnusable as error:
            send_with_fd(self._supervisor, HandedOver(str(error)))
        else:
            send_with_fd(self._supervisor, HandedOver(), [state])
            os.close(state)
        self._flush_control()
        self._lose_control()

    def _take_over(self, fds: Sequence[int], *, more: bool) -> None:
        """Go on with what an old worker saved; without it, with nothing: the cards log in afresh."""
        if not self._waits:
            return
        try:
            if fds:
                let_go_at = restore(self._sessions, fds[0])
                self._let_go_at = min(let_go_at, self._let_go_at or let_go_at)
        except StateUnusable as error:
            _log.error("state_lost", reason=str(error))
        finally:  # whatever fault of ours there may be, the hub serves
            if not more:
                self._serve()

    def _serve(self) -> None:
        self._waits = False
        notes: dict[str, float] = {}
        if self._let_go_at is not None:
            notes = {"sessions": len(self._sessions), "pause_s": time.monotonic() - self._let_go_at}
        if self._neighbours is not None:
            self._neighbours.begin()
            self._neighbours.tell_control()
        self._listening.begin()
        send_with_fd(self._supervisor, Ready(who="worker", notes=notes))

    # -- control --------------------------------------------------------------------------------------------------

    @property
    def is_crowded(self) -> bool:
        """For the front door."""
        return self._control is not None and self._control.waiting > ASKS_WAITING

    def ask(self, asked: LoginAsked | PasswordAsked | AdminAsked | RpcAsked) -> bool:
        """For the front door."""
        return self._tell(asked)

    def _ask_lan(self, asked: LeaseAsked | Names) -> bool:
        """For the address services."""
        return not self.is_crowded and self._tell(asked)

    def refused(self, message: LoginRefused) -> None:
        """For the front door."""
        if self._control is not None and self._control.waiting < REFUSALS_WAITING:
            self._tell(message)

    def _tell(self, message: Message) -> bool:
        """Send to control, if there is one."""
        if self._control is None:
            return False
        try:
            self._control.send(message)
        except PipeBroken:
            self._lose_control()
            return False
        self._arm_control()
        return True

    def _set_control(self, sock: socket.socket) -> None:
        self._lose_control()
        self._control = Pipe(sock)
        self.loop.watch(self._control.fileno(), READ, self._on_control)
        if self._neighbours is not None and not self._waits:
            self._neighbours.tell_control()

    def _lose_control(self) -> None:
        if self._control is not None:
            self.loop.forget(self._control.fileno())
            self._control.close()
            self._control = None
            self._door.control_lost()

    def _arm_control(self) -> None:
        if self._control is not None:
            self.loop.change(self._control.fileno(), READ | WRITE if self._control.wants_write else READ)

    def _flush_control(self) -> None:
        try:
            if self._control is not None:
                self._control.flush()
        except PipeBroken:
            self._lose_control()

    def _on_control(self, events: int) -> None:
        if events & WRITE:
            self._flush_control()
            self._arm_control()
        if events & ~WRITE and self._control is not None:
            try:
                messages = self._control.receive()
            except PipeBroken:
                self._lose_control()
                return
            for message in messages:
                self._said.put(partial(self._hear, self._control, message))

    def _hear(self, control: Pipe, message: AnyMessage) -> None:
        if control is self._control:  # else nobody waits for it any more
            self._handle(message)

    def _handle(self, message: AnyMessage) -> None:
        if isinstance(message, LoginAnswered):
            self._door.answered(message)
        elif isinstance(message, RpcAnswered):
            self._door.tool_answered(message)
        elif isinstance(message, HubPut):
            self._sessions.put_hub(message)
            self._bridges.hub_came(message.hub)
        elif isinstance(message, HubRemoved):
            self._bridges.hub_goes(message.hub)
            self._sessions.remove_hub(message.hub)
        elif isinstance(message, LeaseAnswered | Names):
            self._services.answered(message)
        elif isinstance(message, LeasesPut):
            self._sessions.put_leases(message)
        elif isinstance(message, CascadeUp):
            self._cascades.set_up(message)
        elif isinstance(message, Asked):
            # many long answers at once must not fill the pipe, which would end it
            self._tell(Answered(message.ask, error=TOO_MUCH) if self.is_crowded else self._orders.answer(message))


def _capped(limits: Limits, workers: int) -> Limits:
    """The part of one of so many workers; strangers get a third of the descriptors that there are."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3
    if workers == 1:
        return replace(limits, half_open=min(limits.half_open, descriptors))
    return replace(
        limits,
        half_open=min(max(1, limits.half_open // workers), descriptors),
        resume_memory=limits.resume_memory // workers,
        max_connections=1,  # the next one of a session could come to another worker
        half_duplex=False,
    )


def run_worker(start: WorkerStart) -> int:
    """The worker process's life, after its privileges are gone. SIGTERM ends it in good order, as `Stop` does."""
    keep_freed()
    worker = Worker(start)
    with stop_on_signal(worker):
        return worker.run()


@contextmanager
def stop_on_signal(worker: Worker) -> Iterator[None]:
    """Turn SIGTERM into an event of the loop: a handler runs between any two instructions, where nothing may end."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    worker.loop.watch(reader.fileno(), READ, lambda _events: worker.stop())
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()
