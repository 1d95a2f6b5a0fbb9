"""Try every path to a hub at once and say of each what it comes to. The hub's key is checked; nobody logs in.

A path works when the hub behind it has shown the right key and said hello. Whatever is secret stays here, except for a
proxy's or SSH server's password, which is for them.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ukihashi.card import account, orders, routes
from ukihashi.card.clock import clock
from ukihashi.card.link import Link
from ukihashi.card.messages import Connect
from ukihashi.card.path_sources import Candidate
from ukihashi.config.card import CardConfig
from ukihashi.config.card import Login as OwnLogin
from ukihashi.errors import N_, DialError, EnvironmentLacks, NotTrusted, Refused, UkihashiError
from ukihashi.net.dial import direct
from ukihashi.net.dial.failures import PathRefused
from ukihashi.net.dial.through import dial
from ukihashi.net.dial.via import DIRECT, Via

DEADLINE_S: Final = 10.0  # for each path
LEAST_S: Final = 1.0  # for the hub's part, however long the way there took

# Words for programs, besides those of `net.dial.failures.Failure`.
WORKS: Final = "works"
NO_CONNECTION: Final = "no-connection"  # directly: no connection to the hub's machine
TUNNEL_CLOSED: Final = "tunnel-closed"  # through a proxy: closed before the hub said a word
NO_HUB: Final = "no-hub"  # what answers is no hub, or the connection broke
OTHER_KEY: Final = "other-key"  # somebody else answers, or listens in
REFUSED: Final = "refused"  # by the hub
LACKING: Final = "lacking"  # this machine lacks something


class Finding(NamedTuple):
    """What one path comes to."""

    candidate: Candidate
    kind: str
    seconds: float
    error: UkihashiError | None = None
    peer: str = ""  # the first machine on the way, "" = ssh found it by itself, or there was no connection
    pin: bytes = b""  # of the key that the hub showed

    @property
    def works(self) -> bool:
        """It leads to the hub."""
        return self.error is None


async def examine(config: CardConfig, found: Sequence[Candidate], *, deadline: float = DEADLINE_S) -> list[Finding]:
    """Try all of them; takes at most about `deadline` seconds. Raises: UsageError: the account can't be used at all."""
    order, mark = _order(config), _mark(config)
    tries = [_Try(config, order, candidate, deadline, mark) for candidate in found]
    findings = await asyncio.gather(*(one.outcome() for one in tries))
    works = next((finding.candidate for finding in findings if finding.works), None)
    return [_compared(finding, works) for finding in findings]


def exit_status(findings: Sequence[Finding]) -> int:
    """0: one works. Else that of their errors, if they are of one kind; a wrong key anywhere outweighs the others."""
    errors = [finding.error for finding in findings if finding.error is not None]
    if len(errors) < len(findings):
        return 0
    if any(isinstance(error, NotTrusted) for error in errors):
        return NotTrusted.exit_status
    kinds = {error.exit_status for error in errors}
    return kinds.pop() if len(kinds) == 1 else DialError.exit_status


class _Try:
    """One path."""

    def __init__(self, config: CardConfig, order: Connect, candidate: Candidate, deadline: float, mark: int) -> None:
        self._config = config
        self._order = order
        self._candidate = candidate
        self._deadline = deadline
        self._mark = mark
        self._peer = ""
        self._reached = False  # there is a connection, and the hub's turn to speak

    async def outcome(self) -> Finding:
        """What it comes to; no error leaves."""
        began = clock()
        try:
            pin = await self._greet(began)
        except UkihashiError as error:
            return Finding(self._candidate, self._kind(error), clock() - began, error, self._peer)
        return Finding(self._candidate, WORKS, clock() - began, None, self._peer, pin)

    def _kind(self, error: UkihashiError) -> str:
        match error:
            case PathRefused():
                return str(error.kind)
            case _TunnelClosed():
                return TUNNEL_CLOSED
            case NotTrusted():
                return OTHER_KEY
            case Refused():
                return REFUSED
            case EnvironmentLacks():
                return LACKING
        return NO_HUB if self._reached else NO_CONNECTION

    async def _greet(self, began: float) -> bytes:
        """The pin of the hub's key. Raises: UkihashiError."""
        config, via = self._config, self._candidate.via
        line = await dial(
            via,
            config.hub.host,
            config.hub.port,
            deadline=self._deadline,
            mark=self._mark,
            congestion=config.connection.congestion,
            secret=self._candidate.secret,
            authorities=_path(config.path.authorities),
            ssh_config=_path(config.path.ssh_config),
        )
        with line.sock:
            self._reached = True
            if line.outer is not None:
                self._peer = direct.location(line.outer.peer, line.outer.port)
            left = max(LEAST_S, self._deadline - (clock() - began))
            at = clock()
            link = Link(msgspec.structs.replace(self._order, deadline=left), line.sock, at)
            try:
                await _until_greeted(link)
            except DialError as error:
                if via == DIRECT or link.heard_at > at or clock() >= link.late_at:
                    raise
                raise _TunnelClosed(via, self._order.location) from error
            finally:
                link.finish()
            return link.pin


async def _until_greeted(link: Link) -> None:
    """Raises: UkihashiError."""
    loop, sock, moved = asyncio.get_running_loop(), link.sock, asyncio.Event()
    loop.add_reader(sock, moved.set)
    try:
        while not link.greeted:
            if link.flush():
                loop.remove_writer(sock)
            else:
                loop.add_writer(sock, moved.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(link.late_at - clock()):
                    await moved.wait()
            moved.clear()
            link.check_opening(clock())
            link.read(clock())
    finally:
        loop.remove_writer(sock)
        loop.remove_reader(sock)


class _TunnelClosed(DialError):
    """The proxy said yes, and the tunnel ended before a byte of the hub came."""

    def __init__(self, via: Via, target: str) -> None:
        super().__init__(
            N_(
                "{via} opened a tunnel to {target}, which ended before the hub said a word; ask its administrator to"
                " let TLS through to that port, and the hub's whether anything listens there"
            ),
            via=via,
            target=target,
        )


def _compared(finding: Finding, works: Candidate | None) -> Finding:
    """Who closed a tunnel can be told once another path has led to the hub."""
    if works is None or not isinstance(finding.error, _TunnelClosed):
        return finding
    told = DialError(
        N_(
            "{via} opens a tunnel to {target} and closes it at once, though the hub answers over {other}; ask its"
            " administrator to let TLS through to that port"
        ),
        **finding.error.values,
        other=works.via,
    )
    return finding._replace(error=told)


def _order(config: CardConfig) -> Connect:
    """Stop after the hub's hello, with nothing on board to log in with. Raises: UsageError, EnvironmentLacks."""
    nobody = msgspec.structs.replace(config, login=OwnLogin(method="anonymous"))
    return msgspec.structs.replace(orders.login(nobody, 1, bytes(account.ID_BYTES)), exact=True)


def _mark(config: CardConfig) -> int:
    """The mark of the card's own packets, so that a card that is up does not carry them; 0: none, or no right to it."""
    mark = routes.mark_of(config.interface)
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, direct.SO_MARK, mark)
        return mark
    return 0


def _path(text: str) -> Path | None:
    return Path(text) if text else None
