"""A card whose interface is a port of a virtual hub: how a hub joins another one (a cascade).

Two processes as of every card, but none has a right, a file or an interface: the hub's supervisor forks the first,
which forks the second (`data.py`) before all else. What to join comes from the hub's control process, and how it
stands goes there (`config.cascade`). If one of the two ends, so does the other; the supervisor starts both anew.
"""

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from ukihashi import __version__
from ukihashi.card import data_main, path_sources, status
from ukihashi.card.child import DataChild
from ukihashi.card.dialler import Card
from ukihashi.card.messages import Connect, Opened
from ukihashi.card.path_finder import PathMemory
from ukihashi.card.path_sources import Candidate
from ukihashi.card.paths import Paths
from ukihashi.card.status import Standing, State
from ukihashi.config import options
from ukihashi.config.card import AUTO, CardConfig
from ukihashi.config.cascade import MAX_MESSAGE, Begin, decode_begin, encode
from ukihashi.config.cascade import Standing as Told
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.net.dial.via import DIRECT
from ukihashi.tap.frame_pipe import Cable, FramePipe

PRODUCT: Final = f"ukihashi hub {__version__} (bridge)"  # "bridge" alone makes the other hub take us for one (T18)
LATE_MODULES: Final = (
    "pyroute2", "pyroute2.iproute.linux", "ukihashi.card.credentials", "ukihashi.net.dial.http_proxy",
    "ukihashi.net.dial.over_tls", "ukihashi.net.dial.relay", "ukihashi.net.dial.socks", "ukihashi.net.dial.ssh",
)  # fmt: skip
LOOK_S: Final = 1.0  # between two looks at what changes without a word, as the number of connections

# Of a card's status, what a cascade tells.
TOLD: Final = (
    "state", "since", "reason", "hub", "user", "address", "peer", "session", "extension", "product", "tls", "cipher",
    "pin", "connections", "max_connections", "half_duplex", "compression", "encrypted", "udp", "attempts", "logins",
    "reconnects", "resumes", "gap_s", "last_cut", "last_loss", "blocked", "pid", "data_pid",
)  # fmt: skip


class Start(Protocol):
    """What the supervisor hands over."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def cable(self) -> socket.socket:
        """Frames from and to the switch."""

    @property
    def control(self) -> socket.socket:
        """SEQPACKET to the hub's control process."""

    @property
    def give_up(self) -> Callable[[], None]:
        """Give up all rights."""


def live(start: Start) -> int:
    """The life of both processes; the exit status. Raises: UkihashiError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    cable = FramePipe(start.cable.detach(), start.name)
    process = _forked(start, ours, theirs, cable)
    theirs.close()
    ours.setblocking(False)
    for name in LATE_MODULES:  # their files may be unreadable afterwards
        importlib.import_module(name)
    start.give_up()
    return asyncio.run(_join(start, cable, process, ours))


def _forked(start: Start, ours: socket.socket, theirs: socket.socket, cable: Cable) -> "_Forked":
    pid = os.fork()
    if pid:
        return _Forked(pid)
    status = 1
    try:
        ours.close()
        start.control.close()
        status = data_main.live(theirs, cable)
    except BaseException:  # noqa: BLE001 - the end of a process: there is nobody above to take it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


async def _join(start: Start, cable: Cable, process: "_Forked", link: socket.socket) -> int:
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    child = await DataChild.adopt(process, link)
    try:
        control = _Control(start.control, leave.set)
        begin = await control.begin(leave)
        if begin is not None:
            await Cascade(begin, child, control, leave).stay(cable)
    finally:
        await child.stop()
    return 0


class _Forked:
    """A forked process, as `DataChild` wants one."""

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None

    def kill(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        if self._status is None:
            loop.add_reader(self._pidfd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._pidfd)
            self._status = self._reap()
        return self._status

    def _reap(self) -> int:
        os.close(self._pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class _Control:
    """The link to the hub's control process. That one may be started anew and ask again."""

    def __init__(self, sock: socket.socket, gone: Callable[[], None]) -> None:
        self._sock = sock
        self._gone = gone  # called when the hub itself is
        self._begin: asyncio.Queue[Begin] = asyncio.Queue(1)
        self.asked = asyncio.Event()  # how it stands is to be told, changed or not
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    async def begin(self, leave: asyncio.Event) -> Begin | None:
        """What to join; None: nothing any more."""
        waits = [asyncio.ensure_future(self._begin.get()), asyncio.ensure_future(leave.wait())]
        done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        return waits[0].result() if waits[0] in done else None  # type: ignore[return-value]  # the first gives no bool

    def tell(self, told: Told) -> bool:
        """Say how it stands; False: control does not listen now."""
        try:
            self._sock.send(encode(told))
        except OSError:
            return False
        return True

    def _readable(self) -> None:
        try:
            received = self._sock.recv(MAX_MESSAGE)
            begin = decode_begin(received)
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):  # also the end of the stream
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._gone()
            return
        self.asked.set()
        with contextlib.suppress(asyncio.QueueFull):
            self._begin.put_nowait(begin)


class _Watched(Standing):
    """Says when it changes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def become(self, state: State, reason: UkihashiError | None = None) -> None:
        super().become(state, reason)
        self._changed()


class Cascade(Card):
    """One cascade, joined."""

    def __init__(self, begin: Begin, child: DataChild, control: _Control, leave: asyncio.Event) -> None:
        standing = _Watched(control.asked.set)
        super().__init__(begin.name, _with_files(begin), keep_trying=True, ids=begin.ids, standing=standing)
        self._child = child
        self._control = control
        self._leave = leave
        self._password_hash = begin.password_hash

    async def stay(self, cable: Cable) -> None:
        """Join and stay joined until told to leave. Raises: EnvironmentLacks: the other process has ended."""
        tasks = {asyncio.create_task(self._keep(cable)), asyncio.create_task(self._keep_told())}
        leave = asyncio.create_task(self._leave.wait())
        done, _ = await asyncio.wait({leave, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in (leave, *tasks):
            task.cancel()
        await asyncio.gather(leave, *tasks, return_exceptions=True)
        for task in done & tasks:
            task.result()
        if self._child is None or not self._child.alive:
            raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))

    async def _keep_told(self) -> None:
        last: Told | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._control.asked.wait()
                    last = None
            self._control.asked.clear()
            told = await self._told()
            if told != last:
                last = told if self._control.tell(told) else None

    async def _told(self) -> Told:
        child, standing = self._child, self._standing
        assert child is not None
        row = status.row(self.name, self._config, standing, await child.counters(), data_pid=child.pid, lan={})
        carried = standing.state in {State.ONLINE, State.SUSPECT}
        up = standing.session is not None and (carried or standing.session.grace_s > 0)
        return Told(up, {key: row[key] for key in TOLD})

    # -- what a card does otherwise -------------------------------------------------------------------------------

    def _paths(self) -> Paths:
        """Nothing but what the account says: a hub does not look around for ways out."""
        return Paths(_told_path, PathMemory(None))

    def _amend(self, order: Connect) -> Connect:
        as_bridge = msgspec.structs.replace(order.standard, bridge=True)
        order = msgspec.structs.replace(order, product=PRODUCT, standard=as_bridge)
        if order.password_hash and self._password_hash:
            order = msgspec.structs.replace(order, password_hash=self._password_hash)
        return order

    def _remember(self, opened: Opened) -> None:
        """For as long as we live; control does so for ever."""
        changes: dict[str, Any] = {"login.invite": None}
        if self._config.trust.mode == "first-use" and not self._config.trust.pin:
            changes["trust.pin"] = (self._connecting.vouched_pin or opened.pin).hex()
        self._config = self._connecting.config = options.applied(self._config, changes)

    async def _first_online(self, interface: str) -> None:
        """There is no interface."""

    async def _data_process(self, tap: Cable) -> DataChild:  # noqa: ARG002 - it has the cable
        if self._child is None or not self._child.alive:
            self._leave.set()
            raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))
        return self._child

    async def _end_child(self) -> None:
        """It is gone or stuck: both begin anew."""
        if self._child is not None:
            await self._child.stop()
        self._leave.set()


def _told_path(config: CardConfig) -> list[Candidate]:
    if config.path.via == AUTO:
        return [Candidate(DIRECT, None, "direct")]
    return path_sources.candidates(config)


def _with_files(begin: Begin) -> CardConfig:
    """The account, with files that nobody else can open in place of those on the hub's disk."""
    names = {}
    for option, content in begin.files.items():
        fd = os.memfd_create(option)
        os.write(fd, content.encode())
        names[option] = f"/proc/self/fd/{fd}"
    return options.applied(begin.account, names)
