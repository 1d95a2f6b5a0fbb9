"""The control process: decides logins, keeps the database, answers the administrator. Unprivileged; asyncio.

It touches no frame: while it is busy or down, members go on talking. What it puts together: `logins` (who is let in),
`desk`, `people`, `administrator` (the verbs), `live` (links to worker and supervisor), and the web page, which is
handed in as a callable because pages stand above the hub.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.accounting import Accounting
from ukihashi.hub.administrator import Administrator
from ukihashi.hub.backstage import Facts
from ukihashi.hub.cascades import Cascades
from ukihashi.hub.desk import Desk, upgrade_row
from ukihashi.hub.filters import Filters
from ukihashi.hub.groups import Groups
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.importing import Importer
from ukihashi.hub.leases import Leases
from ukihashi.hub.live import Links
from ukihashi.hub.logins import Logins
from ukihashi.hub.messages import (
    STOP_DEADLINE,
    AdminAsked,
    AnyMessage,
    Caught,
    Failed,
    LeaseAsked,
    LoginAnswered,
    LoginAsked,
    LoginRefused,
    Names,
    OptionsPut,
    PasswordAsked,
    Ready,
    RpcAnswered,
    RpcAsked,
    SessionClosed,
    SessionCut,
    SessionOpened,
    SessionResumed,
    SessionsHere,
    Traffic,
    Upgraded,
)
from ukihashi.hub.people import People
from ukihashi.hub.pipes import PipeBroken, send_with_fd
from ukihashi.hub.registry import Registry
from ukihashi.hub.rpc.access import Access
from ukihashi.hub.rpc.calls import Calls
from ukihashi.hub.rpc.method import Backing
from ukihashi.hub.storage import Storage
from ukihashi.locale import say
from ukihashi.net import control_socket
from ukihashi.net.control_socket import Row, Verbs, asker
from ukihashi.store import hubs
from ukihashi.store.db import Database
from ukihashi.wire.constants import Code

MAX_LOGINS: Final = 1024  # undecided logins; more are told at once that the hub is busy
MAX_CALLS: Final = 64  # of tools, under way at once; a connection with one more is ended
LAST_WORDS_S: Final = STOP_DEADLINE - 1.5  # how long a stopping hub listens for the worker's end
FIRST_HUB: Final = "LAN"
FIRST_USER: Final = "guest"

_log = structlog.get_logger()


class Start(Protocol):
    """What the supervisor hands over (`start.ControlStart`)."""

    @property
    def supervisor(self) -> socket.socket:
        """SEQPACKET to the supervisor."""

    @property
    def workers(self) -> Mapping[int, socket.socket]:
        """A stream to each worker, by its number."""

    @property
    def web(self) -> socket.socket:
        """Listening Unix socket for page requests."""

    @property
    def admin(self) -> socket.socket:
        """Listening Unix socket for commands."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What is said once when the hub begins to serve."""

    secret: str  # one-time secret of the administrator, at the first start only; else ""
    invites: list[Row]  # with `first`: one join link
    host_port: str  # with `first`: interface, "" if none


class WebApi:
    """The verbs in the form the pages want: an answer, never an exception for a plain no."""

    def __init__(self, verbs: Verbs, calls: Calls) -> None:
        self._verbs = verbs
        self.calls = calls  # of administration tools, for those that speak JSON

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        """`{"ok": True, "rows": [...]}`, with the fields of an `admin_*` verb's row beside; `{"ok": False}` for no.

        Raises UkihashiError when the question could not be answered at all.
        """
        mark = asker.set("web")
        try:
            rows = await self._verbs.ask(do, **args)
        except EnvironmentLacks:
            raise
        except UkihashiError as error:
            return {"ok": False, "error": str(error), "refusal": error}
        finally:
            asker.reset(mark)
        return {**(rows[0] if do.startswith("admin_") and rows else {}), "ok": True, "rows": rows}


Web = Callable[[socket.socket, WebApi], Awaitable[None]]
Announce = Callable[[Birth], None]


def run(
    start: Start,
    facts: Facts,
    database: Path,
    *,
    web: Web | None = None,
    announce: Announce | None = None,
    first: bool = False,
    hasher: Hasher | None = None,
) -> int:
    """The control process's life; its exit status.

    Args:
        database: path of the SQLite file; its folder exists and is ours to write.
        web: serves pages on the listening socket until cancelled.
        announce: told once when everything is up.
        first: make virtual hub `LAN` with a host port if there is no hub, and a join link to announce.
    """
    try:
        return asyncio.run(_Control(start, facts, database, hasher or Hasher()).run(web, announce, first=first))
    except UkihashiError as error:
        _fail(start, say(error))
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - said to the supervisor, which ends the hub
        _log.exception("internal_error")
        _fail(start, say(EnvironmentLacks(N_("the hub's control process failed inside: {error!r}"), error=error)))
        return 1


def _fail(start: Start, sentence: str) -> None:
    with contextlib.suppress(PipeBroken):
        send_with_fd(start.supervisor, Failed("control", sentence))


class _Control:
    def __init__(self, start: Start, facts: Facts, database: Path, hasher: Hasher) -> None:
        self._start = start
        self._facts = facts
        self._database = database
        self._hasher = hasher
        self._deciding = 0
        self._calling = 0
        self._registry = Registry()
        self._announced = asyncio.Event()  # every worker knows the virtual hubs: who is let in finds the one he wants

    async def run(self, web: Web | None, announce: Announce | None, *, first: bool) -> int:
        loop = asyncio.get_running_loop()
        self._storage = storage = Storage(Database(self._database))
        self._links = links = Links(self._start.supervisor, self._start.workers)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, links.stopping.set)
        self._logins = Logins(storage, self._hasher)
        self._desk = Desk(self._facts, storage, links)
        self._cascades = cascades = Cascades(storage, links)
        links.on_cascade = cascades.linked
        self._desk.on_change = cascades.refresh
        self._accounting = Accounting(storage, links)
        people = People(self._facts, storage, self._hasher, links)
        groups = Groups(storage, links)
        filters = Filters(storage, self._desk.tell_worker)
        administrator = Administrator(storage, self._hasher)
        importer = Importer(storage, self._desk)
        access = Access(storage)
        self._leases = leases = Leases(
            self._facts, storage, links, self._desk.tell_worker, answer=links.tell_worker, tell_all=links.tell_worker
        )
        verbs = Verbs(
            {
                **self._desk.verbs(),
                **people.verbs(),
                **groups.verbs(),
                **filters.verbs(),
                **administrator.verbs(),
                **importer.verbs(),
                **access.verbs(),
                **cascades.verbs(),
                **leases.verbs(),
            }
        )
        self._calls = Calls(Backing(self._facts, storage, links, verbs, access))
        tasks = [
            asyncio.create_task(links.follow_supervisor(self._heed), name="supervisor"),
            asyncio.create_task(self._follow_workers(), name="worker"),
            asyncio.create_task(self._accounting.run(), name="accounting"),
            asyncio.create_task(leases.run(), name="leases"),
        ]
        if web is not None:
            tasks.append(asyncio.create_task(self._web(web, WebApi(verbs, self._calls)), name="web"))
        try:
            await self._desk.give_host_ports()
            await self._desk.announce_all()
            self._announced.set()
            await leases.tell_all()
            await cascades.refresh()
            birth = await self._born(administrator, people, first=first)
            tasks.append(asyncio.create_task(control_socket.serve(self._start.admin, verbs), name="admin socket"))
            if announce is not None:
                announce(birth)
            await links.tell_supervisor(Ready("control"))
            facts = self._facts
            listen = [str(one) for one in facts.endpoints]
            _log.info("hub_started", version=facts.version, listen=listen, tls=facts.tls)
            await _first_end(tasks, links.stopping)
            if not links.worker_stays:
                with contextlib.suppress(TimeoutError):  # its last words: sessions that end now are logged too
                    async with asyncio.timeout(LAST_WORDS_S):
                        await links.worker_ended.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._accounting.write(last=True)
            cascades.close()
            links.close()
            self._hasher.close()
            storage.close()
            _log.info("hub_stopped")
        return 0

    async def _born(self, administrator: Administrator, people: People, *, first: bool) -> Birth:
        secret = await administrator.first_secret()
        if not first:
            return Birth(secret, [], "")
        if not await self._storage.read(hubs.all_hubs):
            await self._desk.create(FIRST_HUB, host_port=self._facts.host_ports)
        home = (await self._storage.read(hubs.all_hubs))[0]
        return Birth(secret, await people.invite(FIRST_USER, hub=home.name), home.host_port)

    async def _web(self, web: Web, api: WebApi) -> None:
        try:
            await web(self._start.web, api)
        except Exception as error:  # noqa: BLE001 - the page is a guest here: its end must not end the hub
            await _log.aexception("web_ended", reason=str(error))

    async def _follow_workers(self) -> None:
        registry = self._registry
        async with asyncio.TaskGroup() as group:

            def handle(worker: int, message: AnyMessage) -> None:
                if isinstance(message, LoginAsked | PasswordAsked | AdminAsked):
                    if self._deciding >= MAX_LOGINS:
                        busy = LoginAnswered(message.ask, error=int(Code.HUB_IS_BUSY))
                        group.create_task(self._links.tell_worker(busy, worker))
                        return
                    self._deciding += 1
                    group.create_task(self._decide(worker, message))
                elif isinstance(message, RpcAsked):
                    if self._calling >= MAX_CALLS:
                        group.create_task(self._links.tell_worker(RpcAnswered(message.ask, b""), worker))
                        return
                    self._calling += 1
                    group.create_task(self._call(worker, message))
                elif isinstance(message, LeaseAsked):
                    self._leases.put(worker, message)
                elif isinstance(message, Names):
                    group.create_task(self._leases.name(worker, message))
                elif isinstance(message, SessionOpened):
                    registry.opened(worker, message)
                    _log.info("session_opened", **_fields(message))
                    group.create_task(self._accounting.opened(message))
                elif isinstance(message, Traffic):
                    self._accounting.add(message)
                elif isinstance(message, SessionClosed):
                    registry.closed(worker, message)
                    group.create_task(self._leases.session_ended(message.hub, message.session))
                    _log.info("session_closed", **_fields(message))
                elif isinstance(message, SessionCut):
                    _log.info("session_cut", **_fields(message))
                elif isinstance(message, SessionResumed):
                    _log.info("session_resumed", **_fields(message))
                elif isinstance(message, Caught):
                    self._desk.catches.put(message)
                elif isinstance(message, SessionsHere):
                    registry.here(worker, message)
                elif isinstance(message, LoginRefused):
                    registry.refused(worker, message)
                    _log.warning("login_refused", **_fields(message))

            await self._links.follow_workers(handle, self._worker_is_new, registry.gone)

    async def _heed(self, message: OptionsPut | Upgraded) -> None:
        """The supervisor's news."""
        if isinstance(message, OptionsPut):
            self._facts.public_address = message.public_address
            self._facts.session_timeout_s = message.session_timeout_s
            self._facts.mac_ageing_s = message.mac_ageing_s
            self._facts.certificate = message.certificate or self._facts.certificate
            self._facts.uplinks = frozenset(message.uplinks)
            self._facts.bridges = message.bridges
            for row in message.changes:
                _log.info("option_changed", **row)
            try:
                await self._desk.announce_all(worker_only=True)
                await self._desk.give_host_ports()
            except UkihashiError as error:  # a damaged disk: what is known already goes on
                _log.warning("internal_error", reason=str(error))
            return
        self._desk.upgraded = message
        tell = _log.warning if message.sessions is None else _log.info
        tell("hub_upgraded", new=self._facts.version, **upgrade_row(message))

    async def _worker_is_new(self) -> None:
        self._announced.clear()
        try:
            await self._desk.announce_all(worker_only=True)
        finally:
            self._announced.set()
        await self._leases.tell_all()
        await self._cascades.tell_worker()

    async def _call(self, worker: int, asked: RpcAsked) -> None:
        try:
            answer = await self._calls.call(asked.hub, asked.request, asked.peer)
        finally:
            self._calling -= 1
        await self._links.tell_worker(RpcAnswered(asked.ask, answer), worker)

    async def _decide(self, worker: int, asked: LoginAsked | PasswordAsked | AdminAsked) -> None:
        try:
            await self._announced.wait()
            if isinstance(asked, LoginAsked):
                answer = await self._logins.answer(asked)
                if not answer.error:
                    answer = self._judge(worker, asked, answer)
            elif isinstance(asked, AdminAsked):
                answer = await self._calls.access.admin_login(asked)
            else:
                answer = await self._logins.change_password(asked)
        except Exception:  # noqa: BLE001 - a fault of ours in one login must not end the others
            await _log.aexception("internal_error", hub=asked.hub, peer=asked.peer)
            answer = LoginAnswered(asked.ask, error=int(Code.INTERNAL_ERROR))
        finally:
            self._deciding -= 1
        await self._links.tell_worker(answer, worker)

    def _judge(self, worker: int, asked: LoginAsked, answer: LoginAnswered) -> LoginAnswered:
        """Over all workers."""
        judged = self._registry.judge(worker, asked, answer)
        if judged.error:
            told = LoginRefused(asked.hub, asked.user, asked.peer, asked.client, judged.error)
            _log.warning("login_refused", **_fields(told))
        return judged


async def _first_end(tasks: list[asyncio.Task[None]], stopping: asyncio.Event) -> None:
    """Wait until told to stop. A task that ends by itself before that is a fault, and raises its own."""
    stop = asyncio.create_task(stopping.wait(), name="stop")
    try:
        watched: set[asyncio.Task[Any]] = {stop, *(task for task in tasks if task.get_name() != "web")}
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stop}:
            if not stopping.is_set():
                await task
                raise EnvironmentLacks(N_("the hub's control process lost its {part}"), part=task.get_name())
    finally:
        stop.cancel()


def _fields(message: SessionOpened | SessionClosed | SessionCut | SessionResumed | LoginRefused) -> Row:
    return {name: getattr(message, name) for name in message.__struct_fields__ if name not in ("at", "unique_id")}
