"""The card's first process: dials, keeps the session alive across links, owns interface, addresses and routes.

It keeps CAP_NET_ADMIN, because what it set on this machine must be taken back later; so it parses nothing that a
stranger sent. Connections go to the data process as soon as they are up (`child.py`).

    connecting -> online -> suspect, reconnecting -> online ...      a new TCP connection each time, the same session
         \\-> refused: the hub said no; tried again slowly, an admin may change that

With a hub of ours a session goes on from the very record (`holder.py`); with a standard one by its key (A25). The
interface stays up with its addresses and routes through all of it, so applications notice a pause at most.
"""

import asyncio
import contextlib
import platform
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ukihashi.auth.password import hash_password
from ukihashi.card import account, lan, status
from ukihashi.card.child import SPARE_S, DataChild
from ukihashi.card.clock import clock
from ukihashi.card.control import listener
from ukihashi.card.holder import Holder, again, watch_way
from ukihashi.card.lan import Lan
from ukihashi.card.messages import FORGOTTEN, Connect, Counters, Failed, Lost, Opened, Settings, Trouble
from ukihashi.card.redial import Redial
from ukihashi.card.reload import Reloaded, reload
from ukihashi.card.status import Loss, Standing, State
from ukihashi.config import options, places
from ukihashi.config.card import CardConfig
from ukihashi.errors import (
    N_,
    DialError,
    EnvironmentLacks,
    NotTrusted,
    Refused,
    UkihashiError,
    UsageError,
    VersionMismatch,
)
from ukihashi.locale import say
from ukihashi.net import control_socket
from ukihashi.net.dial import direct
from ukihashi.net.dial.names import KnownAddresses
from ukihashi.net.route_watch import RouteWatch
from ukihashi.session.timers import Backoff, retry_rule
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap
from ukihashi.tap.frame_pipe import Cable

STABLE_S: Final = 10.0  # a session that lived that long is followed by an immediate new try
STANDARD_PAUSE_S: Final = 5.0  # before a fresh login to a standard hub that forgot us (protocol section 20.1)
RESTARTS: Final = 5  # of the data process within a minute, then something is really wrong

_log = structlog.get_logger()

LOG_TEXTS: Final = {
    "card_online": N_("online"),
    "card_left": N_("left the hub"),
    "link_lost": N_("the connection was lost"),
    "link_silent": N_("the hub is silent; another connection is tried"),
    "link_recovered": N_("the hub speaks again over the same connection"),
    "way_not_watched": N_("changes of the network can't be watched"),
    "not_online": N_("not online"),
    "session_forgotten": N_("the hub no longer knows the session; logging in afresh"),
    "session_lost": N_("a session ended with frames under way: of those sent (lost) each may or may not have arrived"),
    "reloaded": N_("the account was read again"),
    "hub_says": N_("a word from the hub"),
    "not_undone": N_("something could not be undone"),
    "account_not_written": N_("the account could not be written"),
    **lan.LOG_TEXTS,
}


class Card:
    """One account, joined."""

    def __init__(
        self,
        name: str,
        config: CardConfig,
        *,
        keep_trying: bool = False,
        report: Callable[[UkihashiError | None], None] = lambda _error: None,
        ids: bytes = b"",
    ) -> None:
        """
        Args:
            keep_trying: go on even if the very first try comes to nothing (for a start at boot).
            report: called once, with None when first online, or with what the first try failed with.
            ids: 36 bytes that other hubs know us by; unless given, this machine's.
        """
        self.name: Final = name
        self._config = config
        self._keep_trying = keep_trying
        self._report: Callable[[UkihashiError | None], None] | None = report
        self._standing = Standing()
        self._session_until = 0.0  # by `clock`: when a standard hub will have forgotten the session
        self._child: DataChild | None = None
        self._restarts: list[float] = []
        self._lan = Lan(name, config, clock=clock)
        self._redial = Redial(pace=config.times.redial)
        self._holder: Holder | None = None
        self._known = KnownAddresses()
        self._set_up = False
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()  # don't wait for the next try
        self._ids = ids or account.installation_id()

    async def run(self) -> None:
        """Join and stay joined until told to leave (control socket, SIGTERM, SIGINT); then leave nothing behind.

        Raises: UkihashiError: this machine can't, or the first try failed (unless `keep_trying`).
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._leave.set)
        with listener(places.card_socket(self.name), self.name) as sock:
            tap = open_tap(self._config.interface.name)
            try:
                await asyncio.to_thread(self._lan.clean)
                await asyncio.to_thread(netlink.set_mac, tap.name, self._config.mac)
                await self._stay(tap, sock)
            finally:
                await self._take_down(tap)

    async def _stay(self, tap: Tap, sock: socket.socket) -> None:
        verbs = control_socket.Verbs({"status": self.status, "leave": self.leave, "reload": self.reload})
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(control_socket.serve(sock, verbs)),
                    group.create_task(self._lan.keep()),
                    group.create_task(self._keep(tap)),
                ]
                await self._leave.wait()
                for task in tasks:
                    task.cancel()
        except* UkihashiError as failures:
            failure = failures.exceptions[0]
        if failure is not None:  # raised out here: Python before 3.11.4 would put it back into the group
            raise failure from None

    async def _take_down(self, tap: Tap) -> None:
        self._standing.become(State.LEAVING)
        if self._child is not None:
            await self._child.stop()
        for error in await asyncio.to_thread(self._lan.undo):
            _log.warning("not_undone", reason=say(error))
        tap.close()
        _log.info("card_left", account=self.name)

    # -- what can be asked ----------------------------------------------------------------------------------------

    async def leave(self) -> list[control_socket.Row]:
        """Verb `leave`: end in good order; the answer comes before the end."""
        self._leave.set()
        return [{"account": self.name, "interface": self._config.interface.name}]

    async def status(self) -> list[control_socket.Row]:
        """Verb `status`: one row."""
        child = self._child
        counted = await child.counters() if child is not None else Counters()
        pid = child.pid if child is not None else 0
        row = status.row(self.name, self._config, self._standing, counted, data_pid=pid, lan=self._lan.status())
        await asyncio.to_thread(status.add_kernel, row)
        return [row]

    async def reload(self) -> list[control_socket.Row]:
        """Verb `reload`: read the account's file again and heed it; a row for each setting that differs.

        Raises: ConfigError, UsageError: nothing has changed. EnvironmentLacks: the kernel refused a part.
        """
        new = reload(self.name, self._config)
        refused: EnvironmentLacks | None = None
        applied = lan.Applied([], redial=False)
        try:
            applied = await self._lan.apply(new.config)
        except EnvironmentLacks as error:
            refused = error  # the rest holds all the same
        _log.info("reloaded", account=self.name, changed=[row["option"] for row in new.rows])
        self._heed(new, applied)
        if refused is not None:
            raise refused
        return new.rows

    def _heed(self, new: Reloaded, applied: lan.Applied) -> None:
        self._config = config = new.config
        self._redial.pace = config.times.redial
        if self._child is not None:
            self._child.apply(_settings(config))
        if self._holder is not None and new.fresh_login:
            self._holder.end_with_link()
        if self._holder is not None and applied.redial:
            self._holder.renew(DialError(N_("routes through the card were changed")))
        self._hurry.set()

    # -- staying joined -------------------------------------------------------------------------------------------

    async def _keep(self, tap: Cable) -> None:
        backoff = Backoff(longest=self._config.times.retry_most)
        least = 0.0
        while True:
            await self._pause(max(least, backoff.next(random.random())))  # noqa: S311 - spreads cards, no secret
            try:
                opened, way = await self._open(tap)
            except UkihashiError as error:
                least = self._think_about(error, backoff)
                continue
            await self._online(opened, tap.name)
            began = clock()
            ended = await self._hold(opened, way) if opened.grace_s else await self._wait_for_loss(way)
            if ended.attempt == 0:  # somebody removed the interface
                raise ended.trouble.error()
            if clock() - began >= STABLE_S:
                backoff = Backoff(longest=self._config.times.retry_most)
            elif opened.resumed:
                self._standing.session = None  # standard hubs may take a resume and then close it at once (trap T1)
            least = self._after(ended, opened, backoff)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless a reloaded account gives hope before."""
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _open(self, tap: Cable) -> tuple[Opened, RouteWatch | None]:
        """One try: dial, then let the data process open the session, or resume it by its key. Raises: UkihashiError."""
        config, standing = self._config, self._standing
        child = await self._data_process(tap)
        standing.attempts += 1
        attempt = standing.attempts
        if standing.session is not None and clock() >= self._session_until:
            standing.session = None
        begun = clock()
        way = await self._dial(attempt)
        deadline = clock() + config.times.dial + SPARE_S
        while True:
            event = await child.next_event(max(0.0, deadline - clock()))
            match event:
                case Opened(attempt=number) if number == attempt:
                    standing.opened_in_s = clock() - begun
                    return event, way
                case Failed(attempt=number, trouble=trouble) if number == attempt:
                    raise trouble.error()
                case Lost(attempt=0, trouble=trouble):  # the TAP is gone
                    raise trouble.error()
                case None:
                    await self._end_child()
                    raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))

    async def _dial(self, attempt: int) -> RouteWatch | None:
        """Connect and hand over; gives the way that the packets take. Raises: UkihashiError."""
        config, child = self._config, self._child
        assert child is not None
        order, mark = self._order(attempt), self._lan.mark
        sock = await direct.dial(
            config.hub.host, config.hub.port, deadline=config.times.dial, mark=mark, known=self._known
        )
        way = None
        with contextlib.suppress(OSError):  # broken already: the data process will say so
            way = RouteWatch.of(sock, mark)
            self._standing.peer = direct.location(*sock.getpeername()[:2])
        child.connect(order, sock)
        return way

    def _order(self, attempt: int) -> Connect:
        config, session = self._config, self._standing.session
        hub, login, trust = config.hub, config.login, config.trust
        hashed = login.method == "password"
        return Connect(
            attempt=attempt,
            location=direct.location(hub.host, hub.port),
            server_name=hub.host,
            hub=hub.hub,
            user=hub.user,
            trust=trust.mode,
            pin=session.pin if session else config.pin,
            authorities=_read_authorities(trust.ca_file) if trust.mode == "ca" and trust.ca_file else "",
            method=login.method,
            password_hash=hash_password(hub.user, login.password) if hashed else b"",
            password=login.password if login.method == "plain" else "",
            invite=login.invite,
            session_key=session.session_key if session else b"",
            timeout_ms=session.timeout_ms if session else 20_000,
            extension=session.extension if session else 0,
            exact=bool(session and session.grace_s),
            unique_id=self._ids[:20],
            node_id=self._ids[20:],
            host_name=socket.gethostname(),
            system=platform.system(),
            deadline=config.times.dial,
            ciphers=config.tls.ciphers,
            settings=_settings(config),
        )

    async def _online(self, opened: Opened, interface: str) -> None:
        standing = self._standing
        if opened.resumed and standing.session is not None:
            opened = again(standing.session, opened)
        else:
            standing.logins += 1
        standing.session = opened
        if self._set_up:
            standing.reconnects += 1
        else:
            await self._first_online(interface)
            self._set_up = True
        await asyncio.to_thread(self._remember, opened)
        if opened.lost or opened.carried:
            standing.loss = Loss(opened.lost, opened.carried, standing.last_cut)
            _log.warning("session_lost", account=self.name, lost=opened.lost, sent_now=opened.carried)
        standing.online()
        _log.info(
            "card_online",
            account=self.name,
            session=opened.session,
            peer=standing.peer,
            resumed=opened.resumed,
            tls=opened.tls,
            cipher=opened.cipher,
        )
        if opened.banner:
            _log.info("hub_says", text=opened.banner)
        self._say_first(None)

    async def _hold(self, opened: Opened, way: RouteWatch | None) -> Lost:
        """An exactly resumable session, until it is over."""
        assert self._child is not None
        self._redial.opened(clock())
        self._holder = Holder(self.name, self._child, self._redial, self._standing, self._dial)
        try:
            return await self._holder.hold(opened, way)
        finally:
            self._holder = None
            if not self._child.alive:
                self._standing.loss = Loss(None, 0, None)
                await self._end_child()

    async def _wait_for_loss(self, way: RouteWatch | None) -> Lost:
        """Any other session, until its link is gone."""
        child, attempt = self._child, self._standing.attempts
        assert child is not None
        watch = asyncio.create_task(watch_way(child, attempt, way))
        try:
            while True:
                event = await child.next_event()
                match event:
                    case Lost(attempt=number) if number in {0, attempt}:
                        return event
                    case None:
                        await self._end_child()
                        gone = EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))
                        return Lost(attempt, Trouble.of(gone))
        finally:
            watch.cancel()

    def _after(self, ended: Lost, opened: Opened, backoff: Backoff) -> float:
        """After a link of a session, or a session: what to note, and how long to wait at least."""
        standing, error = self._standing, ended.trouble.error()
        if not opened.grace_s:
            self._session_until = clock() + opened.timeout_ms / 1000
            standing.cut(error)
            _log.warning("link_lost", account=self.name, reason=say(error))
            return 0.0
        if standing.cut_at is None:
            standing.cut(error)
        forgotten = isinstance(error, Refused) and error.code in FORGOTTEN
        if not forgotten:
            standing.session = None
        return self._think_about(error, backoff)

    def _think_about(self, error: UkihashiError, backoff: Backoff) -> float:
        """After a failed try: what to note, and how long to wait at least. Raises it if the card is to end."""
        standing = self._standing
        session = standing.session
        if isinstance(error, Refused) and error.code in FORGOTTEN and session is not None:
            _log.info("session_forgotten", account=self.name, reason=say(error))
            standing.session = None
            backoff.reset()  # the hub is well: log in at once
            return 0.0 if session.extension else STANDARD_PAUSE_S
        self._say_first(error)
        _log.warning("not_online", account=self.name, reason=say(error))
        lasting = isinstance(error, NotTrusted | VersionMismatch | UsageError)
        if isinstance(error, Refused):
            rule = retry_rule(error.code)
            lasting = not rule.again or rule.at_least > 0.0 or not error.code
        if lasting:
            standing.session = None
            standing.become(State.REFUSED, error)
            return self._config.times.refused
        standing.become(State.RECONNECTING if self._set_up else State.CONNECTING, error)
        return 0.0

    def _say_first(self, error: UkihashiError | None) -> None:
        """Tell whoever started us how the first try went; a failed one ends the card unless it shall keep trying."""
        report, self._report = self._report, None
        if report is None:
            return
        report(error)
        if error is not None and not self._keep_trying:
            raise error

    # -- this machine ---------------------------------------------------------------------------------------------

    def _remember(self, opened: Opened) -> None:
        """Write down what the first login settled: the key that was trusted on first use, the spent invitation."""
        config, changes = self._config, dict[tuple[str, str], Any]()
        if config.trust.mode == "first-use" and not config.trust.pin:
            changes["trust", "pin"] = opened.pin.hex()
        if config.login.invite:
            changes["login", "invite"] = None
        if not changes:
            return
        # what else may have changed in the file waits for a reload
        self._config = options.applied(config, {".".join(key): value for key, value in changes.items()})
        try:
            account.edit(self.name, changes)
        except UkihashiError as error:
            _log.error("account_not_written", account=self.name, reason=say(error))

    async def _first_online(self, interface: str) -> None:
        """Bring this machine's side up."""
        await asyncio.to_thread(self._lan.set_up, interface)

    async def _data_process(self, tap: Cable) -> DataChild:
        if self._child is not None and self._child.alive:
            return self._child
        now = clock()
        self._restarts = [then for then in self._restarts if now - then < 60.0]
        if len(self._restarts) >= RESTARTS:
            raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))
        self._restarts.append(now)
        self._child = await DataChild.start(tap)
        return self._child

    async def _end_child(self) -> None:
        if self._child is not None:
            await self._child.stop()
            self._child = None


def _settings(config: CardConfig) -> Settings:
    times = config.times
    return Settings(
        keepalive=times.keepalive,
        suspect=min(times.suspect, times.dead),
        dead=times.dead,
        buffer=config.resume.buffer_kib * 1024,
    )


def _read_authorities(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentLacks(N_("{path} can't be read: {reason}"), path=path, reason=reason) from error
