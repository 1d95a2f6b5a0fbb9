"""The card's first process: dials, keeps the session alive across links, owns interface, addresses and routes.

It keeps CAP_NET_ADMIN, because what it set on this machine must be taken back later; so it parses nothing that a
stranger sent. Connections go to the data process as soon as they are up (`child.py`).

    connecting -> online -> reconnecting -> online ...      a new TCP connection each time, the same session (A25)
         \\-> refused: the hub said no; tried again slowly, an admin may change that

The interface stays up with its addresses and routes through all of it, so applications notice a pause at most.
"""

import asyncio
import enum
import os
import platform
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ukihashi.auth.password import hash_password
from ukihashi.card import account
from ukihashi.card.child import SPARE_S, DataChild
from ukihashi.card.control import listener
from ukihashi.card.messages import Connect, Counters, Failed, Lost, Opened, Trouble
from ukihashi.config import places
from ukihashi.config.card import CardConfig
from ukihashi.errors import (
    N_,
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
from ukihashi.session.timers import Backoff, retry_rule
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap
from ukihashi.wire.constants import Code

STABLE_S: Final = 10.0  # a session that lived that long is followed by an immediate new try
STANDARD_PAUSE_S: Final = 5.0  # before a fresh login to a standard hub that forgot us (protocol section 20.1)
RESTARTS: Final = 5  # of the data process within a minute, then something is really wrong

_FORGOTTEN: Final = frozenset({Code.SESSION_TIMEOUT, Code.INVALID_PROTOCOL})
_log = structlog.get_logger()

LOG_TEXTS: Final = {
    "card_online": N_("online"),
    "card_left": N_("left the hub"),
    "link_lost": N_("the connection was lost"),
    "not_online": N_("not online"),
    "session_forgotten": N_("the hub no longer knows the session; logging in afresh"),
    "hub_says": N_("a word from the hub"),
    "address_not_set": N_("an address could not be set"),
    "not_undone": N_("something could not be undone"),
    "account_not_written": N_("the account could not be written"),
}


class State(enum.StrEnum):
    """What `card status` shows."""

    CONNECTING = "connecting"
    ONLINE = "online"
    RECONNECTING = "reconnecting"
    REFUSED = "refused"
    LEAVING = "leaving"


class Card:
    """One account, joined."""

    def __init__(
        self,
        name: str,
        config: CardConfig,
        *,
        keep_trying: bool = False,
        report: Callable[[UkihashiError | None], None] = lambda _error: None,
    ) -> None:
        """
        Args:
            keep_trying: go on even if the very first try comes to nothing (for a start at boot).
            report: called once, with None when first online, or with what the first try failed with.
        """
        self.name: Final = name
        self._config = config
        self._keep_trying = keep_trying
        self._report: Callable[[UkihashiError | None], None] | None = report
        self._state = State.CONNECTING
        self._since = time.time()
        self._reason: UkihashiError | None = None  # why not online, or why the last link ended
        self._session: Opened | None = None  # what a resume needs
        self._session_until = 0.0  # when the hub will have forgotten it
        self._peer = ""
        self._opened_in_s = 0.0  # from dialling to the welcome, the last time
        self._attempt = 0
        self._reconnects = 0  # new links for a session or after one
        self._logins = 0
        self._child: DataChild | None = None
        self._restarts: list[float] = []
        self._changes = netlink.Changes()
        self._set_up = False
        self._leave = asyncio.Event()
        self._ids = account.installation_id()

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
                await asyncio.to_thread(netlink.set_mac, tap.name, self._config.mac)
                await self._stay(tap, sock)
            finally:
                await self._take_down(tap)

    async def _stay(self, tap: Tap, sock: socket.socket) -> None:
        verbs = control_socket.Verbs({"status": self.status, "leave": self.leave})
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(control_socket.serve(sock, verbs)),
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
        self._become(State.LEAVING)
        if self._child is not None:
            await self._child.stop()
        for error in await asyncio.to_thread(self._changes.undo):
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
        kernel = await asyncio.to_thread(_kernel_counters, self._config.interface.name)
        config, session = self._config, self._session  # of one moment: nothing is awaited from here on
        writes = counted.tls_writes
        row: dict[str, Any] = {
            "account": self.name,
            "state": str(self._state),
            "since": self._since,
            "reason": None if self._reason is None else _told(self._reason),
            "hub": config.hub.hub,
            "user": config.hub.user,
            "address": direct.location(config.hub.host, config.hub.port),
            "peer": self._peer,
            "opened_in_s": round(self._opened_in_s, 3),
            "session": session.session if session else "",
            "extension": session.extension if session else 0,
            "product": session.product if session else "",
            "tls": session.tls if session else "",
            "cipher": session.cipher if session else "",
            "pin": session.pin.hex() if session else "",
            "interface": config.interface.name,
            "mac": config.interface.mac,
            "addresses": list(config.interface.addresses),
            "mtu": config.interface.mtu,
            "frames_in": counted.frames_in,
            "bytes_in": counted.bytes_in,
            "frames_out": counted.frames_out,
            "bytes_out": counted.bytes_out,
            "tls_writes": writes,
            "frames_written": counted.frames_written,
            "frames_per_tls_write": round(counted.frames_written / writes, 2) if writes else 0.0,
            "keepalives_in": counted.keepalives_in,
            "keepalives_out": counted.keepalives_out,
            "dropped_by_kernel": kernel.tx_dropped if kernel else 0,
            "dropped_toward_kernel": counted.refused,
            "dropped_oversized": counted.oversized,
            "backlog": counted.backlog,
            "attempts": self._attempt,
            "logins": self._logins,
            "reconnects": self._reconnects,
            "pid": os.getpid(),
            "data_pid": child.pid if child is not None else 0,
        }
        return [row]

    # -- staying joined -------------------------------------------------------------------------------------------

    async def _keep(self, tap: Tap) -> None:
        backoff = Backoff(longest=self._config.times.retry_most)
        least = 0.0
        while True:
            await asyncio.sleep(max(least, backoff.next(random.random())))  # noqa: S311 - spreads cards, no secret
            try:
                opened = await self._open(tap)
            except UkihashiError as error:
                least = self._think_about(error, backoff)
                continue
            await self._online(opened, tap.name)
            began = time.monotonic()
            self._reason = await self._wait_for_loss()
            ended = time.monotonic()
            self._session_until = ended + opened.timeout_ms / 1000
            if ended - began >= STABLE_S:
                backoff.reset()
            elif opened.resumed:
                self._session = None  # standard hubs may take a resume and then close it at once (trap T1)
            least = 0.0
            self._become(State.RECONNECTING)
            _log.warning("link_lost", account=self.name, reason=say(self._reason))

    async def _open(self, tap: Tap) -> Opened:
        """One try: dial, then let the data process open or resume the session. Raises: UkihashiError."""
        config = self._config
        child = await self._data_process(tap)
        self._attempt += 1
        if self._session is not None and time.monotonic() >= self._session_until:
            self._session = None
        order = self._order()
        begun = time.monotonic()
        sock = await direct.dial(config.hub.host, config.hub.port, deadline=config.times.dial)
        self._peer = _peer_text(sock)
        child.connect(order, sock)
        deadline = time.monotonic() + config.times.dial + SPARE_S
        while True:
            event = await child.next_event(max(0.0, deadline - time.monotonic()))
            match event:
                case Opened(attempt=self._attempt):
                    self._opened_in_s = time.monotonic() - begun
                    return event
                case Failed(attempt=self._attempt, trouble=trouble):
                    raise trouble.error()
                case Lost(attempt=0, trouble=trouble):  # the TAP is gone
                    raise trouble.error()
                case None:
                    await self._end_child()
                    raise EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))

    def _order(self) -> Connect:
        config, session = self._config, self._session
        hub, login, trust = config.hub, config.login, config.trust
        hashed = login.method == "password"
        return Connect(
            attempt=self._attempt,
            location=direct.location(hub.host, hub.port),
            server_name=hub.host,
            hub=hub.hub,
            user=hub.user,
            trust=trust.mode,
            pin=config.pin,
            authorities=_read_authorities(trust.ca_file) if trust.mode == "ca" and trust.ca_file else "",
            method=login.method,
            password_hash=hash_password(hub.user, login.password) if hashed else b"",
            password=login.password if login.method == "plain" else "",
            invite=login.invite,
            session_key=session.session_key if session else b"",
            timeout_ms=session.timeout_ms if session else 20_000,
            extension=session.extension if session else 0,
            unique_id=self._ids[:20],
            node_id=self._ids[20:],
            host_name=socket.gethostname(),
            system=platform.system(),
            deadline=config.times.dial,
            keepalive=config.times.keepalive,
            dead=config.times.dead,
            ciphers=config.tls.ciphers,
        )

    async def _online(self, opened: Opened, interface: str) -> None:
        old = self._session
        if opened.resumed and old is not None:
            opened = _resumed(old, opened)
        else:
            self._logins += 1
        self._session = opened
        if self._set_up:
            self._reconnects += 1
        else:
            await asyncio.to_thread(self._configure, interface)
            self._set_up = True
        await asyncio.to_thread(self._remember, opened)
        self._reason = None
        self._become(State.ONLINE)
        _log.info(
            "card_online",
            account=self.name,
            session=opened.session,
            peer=self._peer,
            resumed=opened.resumed,
            tls=opened.tls,
            cipher=opened.cipher,
        )
        if opened.banner:
            _log.info("hub_says", text=opened.banner)
        self._say_first(None)

    async def _wait_for_loss(self) -> UkihashiError:
        child = self._child
        assert child is not None
        while True:
            event = await child.next_event()
            match event:
                case Lost(attempt=self._attempt, trouble=trouble):
                    return trouble.error()
                case Lost(attempt=0, trouble=trouble):  # somebody removed the interface
                    raise trouble.error()
                case None:
                    await self._end_child()
                    return EnvironmentLacks(N_("the card's data process ended or got stuck; the log says more"))

    def _think_about(self, error: UkihashiError, backoff: Backoff) -> float:
        """After a failed try: what to note, and how long to wait at least. Raises it if the card is to end."""
        resuming = self._session is not None
        standard = self._session is not None and not self._session.extension
        if isinstance(error, Refused) and error.code in _FORGOTTEN and resuming:
            _log.info("session_forgotten", account=self.name)
            self._session = None
            backoff.reset()  # the hub is well: log in at once
            return STANDARD_PAUSE_S if standard else 0.0
        self._reason = error
        self._say_first(error)
        _log.warning("not_online", account=self.name, reason=say(error))
        lasting = isinstance(error, NotTrusted | VersionMismatch | UsageError)
        if isinstance(error, Refused):
            rule = retry_rule(error.code)
            lasting = not rule.again or rule.at_least > 0.0 or not error.code
        if lasting:
            self._session = None
            self._become(State.REFUSED)
            return self._config.times.refused
        self._become(State.RECONNECTING if self._set_up else State.CONNECTING)
        return 0.0

    def _say_first(self, error: UkihashiError | None) -> None:
        """Tell whoever started us how the first try went; a failed one ends the card unless it shall keep trying."""
        report, self._report = self._report, None
        if report is None:
            return
        report(error)
        if error is not None and not self._keep_trying:
            raise error

    def _become(self, state: State) -> None:
        if state is not self._state:
            self._state, self._since = state, time.time()

    # -- this machine ---------------------------------------------------------------------------------------------

    def _configure(self, interface: str) -> None:
        """Bring the interface up with its addresses and routes."""
        settings = self._config.interface
        netlink.set_up(interface, settings.mtu, settings.queue)
        for address in settings.addresses:
            try:
                self._changes.add_address(interface, address)
            except EnvironmentLacks as error:
                if ":" not in address:
                    raise
                _log.warning("address_not_set", address=address, reason=say(error))  # a machine without IPv6
        for route in settings.routes:
            self._changes.add_route(netlink.Route(route.to, interface, route.via, route.metric))

    def _remember(self, opened: Opened) -> None:
        """Write down what the first login settled: the key that was trusted on first use, the spent invitation."""
        config, changes = self._config, dict[tuple[str, str], Any]()
        if config.trust.mode == "first-use" and not config.trust.pin:
            changes["trust", "pin"] = opened.pin.hex()
        if config.login.invite:
            changes["login", "invite"] = None
        if not changes:
            return
        try:
            self._config = account.edit(self.name, changes)
        except UkihashiError as error:
            _log.error("account_not_written", account=self.name, reason=say(error))

    async def _data_process(self, tap: Tap) -> DataChild:
        if self._child is not None and self._child.alive:
            return self._child
        now = time.monotonic()
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


def _resumed(old: Opened, new: Opened) -> Opened:
    """A resume's answer says little: what the login said still holds."""
    return Opened(
        attempt=new.attempt,
        resumed=True,
        session=old.session,
        session_key=old.session_key,
        timeout_ms=old.timeout_ms,
        extension=old.extension,
        tls=new.tls,
        cipher=new.cipher,
        pin=new.pin,
        product=new.product,
    )


def _told(error: UkihashiError) -> dict[str, Any]:
    trouble = Trouble.of(error)
    return {
        "text": str(error),
        "template": trouble.template,
        "values": trouble.values,
        "exit_status": error.exit_status,
        "code": trouble.code,
    }


def _peer_text(sock: socket.socket) -> str:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return ""
    return direct.location(host, port)


def _kernel_counters(interface: str) -> netlink.LinkCounters | None:
    try:
        return netlink.counters(interface)
    except EnvironmentLacks:
        return None


def _read_authorities(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentLacks(N_("{path} can't be read: {reason}"), path=path, reason=reason) from error
