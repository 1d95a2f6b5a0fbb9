"""The card's first process: dials, keeps the session alive across links, owns interface, addresses and routes.

It keeps CAP_NET_ADMIN, because what it set on this machine must be taken back later; so it parses nothing that a
stranger sent, but for answers of DHCP and ARP (`addressing.py`). Connections go to the data process as soon as they are
up (`child.py`).

    connecting -> online -> suspect, reconnecting -> online ...      a new TCP connection each time, the same session
         \\-> refused: the hub said no; tried again slowly, an admin may change that

With a hub of ours a session goes on from the very record (`holder.py`); with a standard one by its key (A25), over as
many connections as the hub grants (`bundle.py`). The interface stays up with its addresses and routes through all of
it, so applications notice a pause at most.
"""

import asyncio
import contextlib
import ipaddress
import random
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog

from ukihashi.card import account, hooks, lan, orders, path_sources, status
from ukihashi.card.bridging import CardBridge, effective
from ukihashi.card.bundle import Bundle
from ukihashi.card.child import SPARE_S, DataChild
from ukihashi.card.clock import clock
from ukihashi.card.connecting import Connecting
from ukihashi.card.control import listener
from ukihashi.card.holder import Holder, again
from ukihashi.card.hooks import CardHooks
from ukihashi.card.lan import Lan
from ukihashi.card.messages import FORGOTTEN, Connect, Counters, Failed, Lost, Opened, SentOn, Sign, Trouble
from ukihashi.card.path_finder import PathMemory
from ukihashi.card.paths import Paths
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
from ukihashi.ether.offload import ALL
from ukihashi.locale import say
from ukihashi.net import control_socket
from ukihashi.net.route_watch import RouteWatch
from ukihashi.session.timers import Backoff, retry_rule
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap
from ukihashi.tap.frame_pipe import Cable
from ukihashi.wire.constants import Code, sentence

STABLE_S: Final = 10.0  # a session that lived that long is followed by an immediate new try
STANDARD_PAUSE_S: Final = 5.0  # between two logins at a standard hub (protocol sections 14, 20.1)
FOR_A_PERSON: Final = float("inf")  # until somebody does something
NAP_S: Final = 30.0  # a sleep of asyncio stands still while the machine sleeps
RESTARTS: Final = 5  # of the data process within a minute, then something is really wrong

_log = structlog.get_logger()


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
        standing: Standing | None = None,
    ) -> None:
        """
        Args:
            keep_trying: go on even if the very first try comes to nothing (for a start at boot).
            report: called once, with None when first online, or with what the first try failed with.
            ids: 36 bytes that other hubs know us by; unless given, this machine's.
            standing: to be kept up to date; unless given, one of our own.
        """
        self.name: Final = name
        self._config = config
        self._keep_trying = keep_trying
        self._report: Callable[[UkihashiError | None], None] | None = report
        self._standing: Final = standing or Standing()
        self._session_until = 0.0  # by `clock`: when a standard hub will have forgotten the session
        self._child: DataChild | None = None
        self._restarts: list[float] = []
        self._lan = Lan(name, effective(config), clock=clock, outer=self._outer)
        self._bridge = CardBridge(name, config)
        self._hooks = CardHooks(
            name, lambda: self._config.hooks, lambda: hooks.told(self._config, self.addresses, self._lan.offer)
        )
        self._came_online = asyncio.Event()  # for the first time
        self._redial = Redial(pace=config.times.redial)
        self._holder: Holder | None = None
        self._bundle: Bundle | None = None
        self._ends_at: float | None = None  # by `clock`: when the hub wants the session to end
        self._fresh_login = False  # the account has changed: the next connection is not to go on with the session
        self._is_standard = False  # what we were at last
        self._set_up = False
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()  # don't wait for the next try
        ids = ids or account.installation_id()
        self._connecting = Connecting(
            name, config, self._standing, self._paths(), ids, mark=lambda: self._lan.mark, amend=self._amend
        )

    def _paths(self) -> Paths:
        memory = PathMemory(places.state_dir() / "paths" / f"{self.name}.json")
        return Paths(path_sources.candidates, memory)

    def _amend(self, order: Connect) -> Connect:
        return order

    async def run(self) -> None:
        """Join and stay joined until told to leave (control socket, SIGTERM, SIGINT); then leave nothing behind.

        Raises: UkihashiError: this machine can't, or the first try failed (unless `keep_trying`).
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._leave.set)
        with listener(places.card_socket(self.name), self.name) as sock:
            tap = open_tap(self._config.interface.name, offload=True)
            self._standing.takes = tap.set_offload(ALL).value
            try:
                await asyncio.to_thread(self._lan.clean)
                await asyncio.to_thread(self._bridge.clean)
                self._connecting.paths.known.take(self._lan.kill_switch.remembered())
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
                    group.create_task(self._bridge.keep()),
                    group.create_task(self._keep(tap)),
                    group.create_task(self._follow()),
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
        if self._set_up:
            await self._hooks.down()
        if self._child is not None:
            await self._child.stop()
        for error in await asyncio.to_thread(self._lan.undo, holds=not self._leave.is_set()):
            _log.warning("not_undone", reason=say(error))
        for error in await asyncio.to_thread(self._bridge.undo):
            _log.warning("not_undone", reason=say(error))
        tap.close()
        _log.info("card_left", account=self.name)

    @property
    def addresses(self) -> list[str]:
        """The interface's, wherever they come from."""
        return self._lan.addresses

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
        row["paths"] = self._connecting.paths.finder.rows()
        row["bridge"] = await self._bridge.row()
        row["addresses"] = self._lan.addresses
        row["hook"] = status.told(self._hooks.problem)
        await asyncio.to_thread(status.add_kernel, row)
        return [row]

    async def turns(self) -> bool:
        """Whether the data process answers; that we do shows by itself."""
        child = self._child
        return child is None or await child.answers()

    async def reload(self) -> list[control_socket.Row]:
        """Verb `reload`: read the account's file again and heed it; a row for each setting that differs.

        Raises: ConfigError, UsageError: nothing has changed. EnvironmentLacks: the kernel refused a part.
        """
        new = reload(self.name, self._config)
        refused: EnvironmentLacks | None = None
        applied, bridges = lan.Applied([], redial=False), await self._bridge.let_go(new.config)
        try:
            applied = await self._lan.apply(effective(new.config))
            await self._bridge.settle()
        except EnvironmentLacks as error:
            refused = error  # the rest holds all the same
        _log.info("reloaded", account=self.name, changed=[row["option"] for row in new.rows])
        self._heed(new, applied._replace(redial=applied.redial or bridges))
        if refused is not None:
            raise refused
        return new.rows

    def _heed(self, new: Reloaded, applied: lan.Applied) -> None:
        self._fresh_login |= new.fresh_login or new.config.standard != self._config.standard
        self._fresh_login |= applied.redial and new.config.standard.udp_acceleration  # its socket has the old mark
        self._config = self._connecting.config = config = new.config
        self._redial.pace = config.times.redial
        if self._child is not None:
            self._child.apply(orders.settings(config))
        reason = DialError(N_("routes through the card, or what it bridges, were changed"))
        if self._holder is not None and new.fresh_login:
            self._holder.end_with_link()
            if applied.redial and self._child is not None:
                self._child.end(Trouble.of(reason))  # nobody will come back for this session
        elif applied.redial and (keeper := self._holder or self._bundle) is not None:
            keeper.renew(reason)
        self._hurry.set()

    # -- staying joined -------------------------------------------------------------------------------------------

    async def _keep(self, tap: Cable) -> None:
        backoff = Backoff(longest=self._config.times.retry_most)
        least = 0.0
        while True:
            if self._is_standard and self._standing.session is None:
                least = max(least, STANDARD_PAUSE_S)
            await self._pause(max(least, backoff.next(random.random())))  # noqa: S311 - spreads cards, no secret
            try:
                opened, way = await self._open(tap)
            except UkihashiError as error:
                least = self._think_about(error, backoff)
                continue
            await self._online(opened, tap.name)
            began = clock()
            timer = asyncio.create_task(self._end_in_time())
            try:
                ended = await self._hold(opened, way) if opened.grace_s else await self._gather(way)
            finally:
                timer.cancel()
            if ended.attempt == 0:  # somebody removed the interface
                raise ended.trouble.error()
            least = self._after(ended, opened, backoff)
            if clock() - began >= STABLE_S:
                backoff = Backoff(longest=self._config.times.retry_most)
            elif opened.resumed:
                self._standing.session = None  # standard hubs may take a resume and then close it at once (trap T1)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless a reloaded account gives hope before."""
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _open(self, tap: Cable) -> tuple[Opened, RouteWatch | None]:
        """One try: dial, then let the data process open the session, or resume it by its key. Raises: UkihashiError."""
        standing, connecting, dial_s = self._standing, self._connecting, self._config.times.dial
        child = await self._data_process(tap)
        if standing.session is not None and clock() >= self._session_until:
            standing.session = None
        if standing.session is None:
            self._fresh_login = False
        begun = clock()
        attempt = await connecting.open(child)
        deadline = clock() + dial_s + SPARE_S
        while True:
            event = await child.next_event(max(0.0, deadline - clock()))
            match event:
                case Sign(attempt=number, challenge=challenge) if number == attempt:
                    child.signed(number, await connecting.sign(challenge))
                case SentOn(attempt=number) if number == attempt:
                    attempt = await connecting.go_to_member(event) or attempt
                    deadline = clock() + dial_s + SPARE_S
                case Opened(attempt=number) if number == attempt:
                    standing.opened_in_s = clock() - begun
                    return event, connecting.paths.way(number)
                case Failed(attempt=number, trouble=trouble) if number == attempt:
                    raise trouble.error()
                case Lost(attempt=0, trouble=trouble):  # the TAP is gone
                    raise trouble.error()
                case None:
                    await self._end_child()
                    raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))

    async def _online(self, opened: Opened, interface: str) -> None:
        standing = self._standing
        self._connecting.carried(opened.attempt)
        if opened.resumed and standing.session is not None:
            opened = again(standing.session, opened)
        else:
            standing.logins += 1
            self._ends_at = clock() + opened.auto_disconnect_s if opened.auto_disconnect_s else None
        standing.session = opened
        self._bridge.granted(no_bridge=opened.no_bridge)
        self._is_standard = not opened.extension
        if self._set_up:
            standing.reconnects += 1
            if not opened.resumed:
                self._lan.addressing.rejoined()
        else:
            await self._first_online(interface)
            self._set_up = True
        await asyncio.to_thread(self._remember, opened)
        self._lan.kill_switch.remember(self._connecting.paths.known.rows())
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
        if opened.banner and opened.banner != standing.banner:
            standing.banner = opened.banner
            _log.info("hub_says", text=opened.banner)
        self._came_online.set()

    async def _hold(self, opened: Opened, way: RouteWatch | None) -> Lost:
        """An exactly resumable session, until it is over."""
        assert self._child is not None
        self._redial.opened(clock())
        self._redial.paths = len(self._connecting.paths)
        self._holder = Holder(
            self.name, self._child, self._redial, self._standing, self._connecting.again, self._connecting.carried
        )
        try:
            return await self._holder.hold(opened, way)
        finally:
            self._holder = None
            if not self._child.alive:
                self._standing.loss = Loss(None, 0, None)
                await self._end_child()

    async def _gather(self, way: RouteWatch | None) -> Lost:
        """Any other session, until it has no connection left."""
        assert self._child is not None
        assert self._standing.session is not None
        self._bundle = Bundle(self.name, self._child, self._standing, self._connecting.further)
        try:
            return await self._bundle.hold(self._standing.session, way)
        finally:
            self._bundle = None
            if not self._child.alive:
                await self._end_child()

    async def _end_in_time(self) -> None:
        """End a session that the hub grants for a while only; it leaves that to its clients (policy AutoDisconnect)."""
        if self._ends_at is None:
            return
        while (left := self._ends_at - clock()) > 0:  # noqa: ASYNC110 - only time passes
            await asyncio.sleep(min(left, NAP_S))
        if self._child is not None:
            over = Refused(sentence(Code.AUTO_DISCONNECTED), code=Code.AUTO_DISCONNECTED)
            self._child.end(Trouble.of(over))

    def _after(self, ended: Lost, opened: Opened, backoff: Backoff) -> float:
        """After a link of a session, or a session: what to note, and how long to wait at least."""
        standing, error = self._standing, ended.trouble.error()
        if not opened.grace_s:
            self._session_until = clock() + opened.timeout_ms / 1000
            standing.cut(error)
            _log.warning("link_lost", account=self.name, reason=say(error))
            if ended.over:
                return self._think_about(error, backoff)
            if self._fresh_login:
                standing.session = None
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
        if isinstance(error, NotTrusted) and session is not None and not session.grace_s:
            standing.session = None  # the certificate may have been renewed: a login judges by the account
            standing.become(State.RECONNECTING, error)
            return STANDARD_PAUSE_S
        self._say_first(None if self._set_up else error)
        _log.warning("not_online", account=self.name, reason=say(error))
        lasting = isinstance(error, NotTrusted | VersionMismatch | UsageError)
        pause = self._config.times.refused
        if isinstance(error, Refused):
            rule = retry_rule(error.code)
            lasting = not rule.again or rule.at_least > 0.0 or not error.code
            pause = pause if rule.again else FOR_A_PERSON
        if lasting:
            standing.session = None
            standing.become(State.REFUSED, error)
            return pause
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

    def _outer(self) -> list[str]:
        """Where the way to the hub begins."""
        found = []
        for text in (self._standing.peer.rpartition(":")[0], self._config.hub.host):
            with contextlib.suppress(ValueError):
                found.append(str(ipaddress.ip_address(text.strip("[]").partition("%")[0])))
        return found

    async def _follow(self) -> None:
        """Once online: when the addresses have come, or it takes too long, say so; then the hooks, as things change."""
        await self._came_online.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lan.patience):
                await self._lan.addressing.settled.wait()
        self._say_first(None)
        await self._hooks.follow(self._lan.changed)

    def _remember(self, opened: Opened) -> None:
        """Write down what the first login settled: the key that was trusted on first use, the spent invitation."""
        config, changes = self._config, dict[tuple[str, str], Any]()
        if config.trust.mode == "first-use" and not config.trust.pin:
            changes["trust", "pin"] = (self._connecting.vouched_pin or opened.pin).hex()
        if config.login.invite:
            changes["login", "invite"] = None
        if not changes:
            return
        # what else may have changed in the file waits for a reload
        self._config = self._connecting.config = options.applied(
            config, {".".join(key): value for key, value in changes.items()}
        )
        try:
            account.edit(self.name, changes)
        except UkihashiError as error:
            _log.error("account_not_written", account=self.name, reason=say(error))

    async def _first_online(self, interface: str) -> None:
        """Bring this machine's side up."""
        await asyncio.to_thread(self._bridge.set_up, interface)
        await self._lan.come_up(interface)

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
