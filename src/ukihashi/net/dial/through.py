"""Dial a hub over any path. Whatever the path, what comes back is one connected descriptor.

    line = await dial(parse("socks5h://proxy.example"), "hub.example", 443, secret=None)
    line.sock                                    # non-blocking; TLS with the hub is next

To what is above all kinds are alike. A plain proxy's descriptor is the TCP connection itself; behind an https:// proxy
and behind ssh stands one end of a `socketpair`, and a thread (and ssh itself) that lives as long as it does.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.errors import N_
from ukihashi.net.dial import direct, first
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.names import KnownAddresses, look_up
from ukihashi.net.dial.stream import AnswerTooLong, SocketStream, Stream, StreamEnded
from ukihashi.net.dial.via import Kind, Via

ADDRESSES_MAX: Final = 4  # of a name looked up here that a SOCKS server is asked for, one after another

_NEXT_ADDRESS: Final = frozenset({Failure.TARGET_UNREACHABLE, Failure.TARGET_REFUSED, Failure.TARGET_UNSUPPORTED})


class Outer(NamedTuple):
    """The TCP connection that leaves this machine: what routes and firewalls see."""

    local: str  # address
    peer: str
    port: int


class Line(NamedTuple):
    """A connection to the hub, whatever is between."""

    sock: socket.socket
    outer: Outer | None  # None: ssh made it by its own configuration


async def dial(
    via: Via,
    host: str,
    port: int,
    *,
    deadline: float = direct.DEADLINE,
    mark: int = 0,
    known: KnownAddresses | None = None,
    congestion: str = "",
    secret: str | None = None,
    authorities: Path | None = None,
    ssh_config: Path | None = None,
    reached: Callable[[], object] = lambda: None,
) -> Line:
    """A connection to `host` and `port` over `via`; the caller closes its socket, and with it all that is behind.

    Args:
        deadline: seconds for all of it. mark, known, congestion: as `direct.dial` has them, for the connection that
            leaves this machine.
        secret: password for `via.user`; None: there is none.
        authorities: PEM file of who may certify an https:// proxy; None: the system's.
        ssh_config: instead of ssh's own configuration of this user and machine.
        reached: called when the first machine on the way has taken the connection; of ssh's own ones when it begins.
    Raises: DialError; PathRefused, which is one, says by its `kind` what failed. EnvironmentLacks: `authorities` can't
        be read.
    """
    known = known or KnownAddresses()
    if via.kind is Kind.DIRECT:
        sock = await direct.dial(host, port, deadline=deadline, mark=mark, known=known, congestion=congestion)
        return Line(sock, _outer(sock))
    try:
        async with asyncio.timeout(deadline):
            return await _Path(
                via, host, port, mark, known, congestion, secret, authorities, ssh_config, reached
            ).dial()
    except TimeoutError as error:
        raise PathRefused(
            Failure.PROXY_SILENT,
            N_("no connection to {target} over {via} within {seconds:g} s; is the proxy on, is the hub?"),
            target=direct.location(host, port),
            via=via,
            seconds=deadline,
        ) from error


class _Path(NamedTuple):
    """One dial through a proxy."""

    via: Via
    host: str
    port: int
    mark: int
    known: KnownAddresses
    congestion: str
    secret: str | None
    authorities: Path | None
    ssh_config: Path | None
    reached: Callable[[], object]

    async def dial(self) -> Line:
        """Raises: DialError, EnvironmentLacks."""
        try:
            match self.via.kind:
                case Kind.HTTP | Kind.HTTPS:
                    return await self._http()
                case Kind.SOCKS4 | Kind.SOCKS5:
                    return await self._socks_here()
                case Kind.SSH:
                    return await self._ssh()
                case _:
                    return await self._socks(self.host)
        except StreamEnded as error:
            raise PathRefused(
                Failure.PROXY_CLOSED,
                N_("{via} hung up without an answer; does it let this machine in, is its kind right?"),
                via=self.via,
            ) from error
        except AnswerTooLong as error:
            raise PathRefused(
                Failure.NOT_A_PROXY,
                N_("{via} answers with more than any proxy would; are kind and port of the path right?"),
                via=self.via,
            ) from error
        except OSError as error:
            raise PathRefused(
                Failure.PROXY_CLOSED,
                N_("the connection to {via} broke in the middle of the talk: {reason}"),
                via=self.via,
                reason=error.strerror or error,
            ) from error

    async def _http(self) -> Line:
        from ukihashi.net.dial import http_proxy, over_tls, relay  # here and below: a direct path does without

        talk = http_proxy.Talk(self.via, self.host, self.port, self.secret)
        while True:
            with contextlib.ExitStack() as at_failure:
                sock = at_failure.enter_context(await self._proxy())
                stream: Stream = SocketStream(sock)
                if self.via.kind is Kind.HTTPS:
                    stream = await over_tls.begin(sock, self.via, self.authorities)
                if not await talk.connect(stream):
                    continue
                outer = _outer(sock)
                at_failure.pop_all()
                if isinstance(stream, over_tls.TlsStream):
                    sock = relay.over_tls(sock, stream.channel, stream.early)
                return Line(sock, outer)

    async def _socks_here(self) -> Line:
        """The name looked up on this machine."""
        try:
            places = await look_up(self.host, self.port)
        except (OSError, UnicodeError) as error:
            if not (places := list(self.known.of(self.host, self.port))):
                raise PathRefused(
                    Failure.TARGET_UNREACHABLE,
                    N_("the name {host} can't be looked up on this machine; let the proxy do that: {better}"),
                    host=self.host,
                    better="socks4a:// / socks5h://",
                ) from error
        if self.via.kind is Kind.SOCKS4:
            places = [place for place in places if place[0] == socket.AF_INET] or places
        places = direct.in_turn(places)[:ADDRESSES_MAX]
        for number, place in enumerate(places, start=1):
            try:
                line = await self._socks(place[1][0])
            except PathRefused as error:
                if number == len(places) or error.kind not in _NEXT_ADDRESS:
                    raise
            else:
                self.known.worked(self.host, self.port, place)
                return line
        raise AssertionError

    async def _socks(self, host: str) -> Line:
        from ukihashi.net.dial import socks

        via = self.via
        with contextlib.ExitStack() as at_failure:
            sock = at_failure.enter_context(await self._proxy())
            stream = SocketStream(sock)
            if via.kind in {Kind.SOCKS4, Kind.SOCKS4A}:
                await socks.connect4(stream, via, host, self.port, remote_names=via.kind is Kind.SOCKS4A)
            else:
                await socks.connect5(stream, via, host, self.port, self.secret)
            at_failure.pop_all()
            return Line(sock, _outer(sock))

    async def _ssh(self) -> Line:
        from ukihashi.net.dial import ssh

        sock, outer = await ssh.dial(
            self.via,
            self.host,
            self.port,
            mark=self.mark,
            known=self.known,
            congestion=self.congestion,
            secret=self.secret,
            config=self.ssh_config,
            reached=self.reached,
        )
        if outer is None:
            return Line(sock, None)
        with outer:
            return Line(sock, _outer(outer))

    async def _proxy(self) -> socket.socket:
        """A TCP connection to the proxy. Raises: PathRefused."""
        via = self.via
        sock = await first.connect(via, via.host, via.port, self.mark, self.known, self.congestion)
        self.reached()
        return sock


def _outer(sock: socket.socket) -> Outer | None:
    try:
        return Outer(sock.getsockname()[0], *sock.getpeername()[:2])
    except OSError:  # broken already: whoever uses it will see
        return None
