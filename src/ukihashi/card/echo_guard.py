"""The echo guard: small ICMP Echos on the virtual LAN at fixed times (A30 to A32).

A system that hears nothing from a gateway may hold routes through it to be dead; a neighbour that answers keeps them
alive. The packets are empty, 28 bytes of IPv4 or 48 of IPv6, and leave by the card's interface whatever the routes say.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import structlog

from ukihashi.config.card import EchoGuard as Settings
from ukihashi.errors import N_
from ukihashi.ether.icmp import REPLY, echo_reply, echo_request
from ukihashi.net.dial.names import look_up

AUTO: Final = "auto"
NAME_AGE_S: Final = 600.0  # then a name is looked up again
UNANSWERED: Final = 3  # in a row, then a name is looked up again
LOOK_UP_S: Final = 5.0  # seconds a look-up may take, at most half a period
OPEN: Final = 256  # questions remembered that have no answer yet

ICMP_FILTER: Final = 1  # linux/icmp.h; at level SOL_RAW
SOL_RAW: Final = 255
ICMP6_FILTER: Final = 1  # linux/icmpv6.h

LOG_TEXTS: Final = {"echo_guard_failed": N_("the echo guard can't send")}
_log = structlog.get_logger()


def auto_targets(addresses: Iterable[str], gateways: Iterable[str]) -> list[str]:
    """Whom to ask when nobody was named.

    Args:
        addresses: the interface's own, with prefix length.
        gateways: of the default routes through the interface.
    Returns: for each IP version its gateways; where there are none, the first host address of each subnet but our own.
    """
    found = dict.fromkeys(gateways)
    versions = {ipaddress.ip_address(one).version for one in found}
    own = [ipaddress.ip_interface(one) for one in addresses]
    for interface in own:
        network = interface.network
        if interface.version in versions or network.prefixlen >= network.max_prefixlen - 1:
            continue
        first = network.network_address + 1
        if all(first != one.ip for one in own):
            found[str(first)] = None
    return list(found)


class Schedule:
    """When to ask. Time is an argument."""

    def __init__(self, now: float, period: float) -> None:
        self._period = period
        self.due_at = now

    def asked(self, now: float) -> None:
        """The questions of this time went out; what a pause of the machine missed is not made up for."""
        self.due_at += self._period
        if self.due_at <= now:
            self.due_at = now + self._period

    def change(self, now: float, period: float) -> None:
        """Another period, counted from the last question."""
        self.due_at = max(now, self.due_at - self._period + period)
        self._period = period


class Tally:
    """Questions and answers. Sequence numbers tell them apart."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.unanswered = 0  # rounds in a row without any answer, the running one left out
        self.last_answer = float("-inf")
        self._sequence = 0
        self._silent = False  # the running round has no answer yet
        self._open: dict[tuple[int, int], None] = {}  # (IP version, sequence)

    def begin(self) -> int:
        """A new round; its sequence number."""
        self.unanswered += self._silent
        self._silent = True
        self._sequence = (self._sequence + 1) & 0xFFFF
        return self._sequence

    def forgive(self) -> None:
        """Count silence from here on."""
        self.unanswered, self._silent = 0, False

    def asked(self, version: int, sequence: int) -> None:
        """One question went out."""
        self.sent += 1
        self._open[version, sequence] = None
        if len(self._open) > OPEN:
            self._open.pop(next(iter(self._open)))

    def heard(self, version: int, sequence: int, now: float) -> None:
        """An answer came; one to no question, or a second one, is not counted."""
        if (version, sequence) in self._open:
            del self._open[version, sequence]
            self.answered += 1
            self.last_answer = now
            self.forgive()


class EchoGuard:
    """All of it. Made, changed and asked in the thread of the event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._settings = Settings(enabled=False)
        self._interface = ""
        self._auto: Sequence[str] = ()
        self._changed = asyncio.Event()
        self._schedule = Schedule(clock(), self._settings.period)
        self._tally = Tally()
        self._identifier = secrets.randbits(16)
        self._sockets: dict[int, socket.socket] = {}
        self._targets: list[str] = []
        self._looked_up = float("-inf")
        self._errors = 0
        self._told = False  # the first of several errors

    def change(self, interface: str, settings: Settings, auto: Sequence[str]) -> None:
        """What holds from now on; `interface` "" while there is none. Nothing happens if it is what held before."""
        if (interface, settings, list(auto)) == (self._interface, self._settings, list(self._auto)):
            return
        now, old = self._clock(), self._settings
        if interface != self._interface or not settings.enabled:
            self._close()
        if settings.enabled and (not old.enabled or interface != self._interface):
            self._schedule = Schedule(now, settings.period)
        elif settings.period != old.period:
            self._schedule.change(now, settings.period)
        self._interface, self._settings, self._auto = interface, settings, list(auto)
        self._looked_up, self._told = float("-inf"), False
        self._changed.set()

    def status(self) -> dict[str, Any]:
        """For `card status`."""
        tally, settings = self._tally, self._settings
        heard = tally.answered > 0
        return {
            "enabled": settings.enabled,
            "target": settings.target,
            "period": settings.period,
            "addresses": list(self._targets),
            "sent": tally.sent,
            "answered": tally.answered,
            "errors": self._errors,
            "last_answer_s": round(self._clock() - tally.last_answer, 1) if heard else None,
        }

    async def run(self) -> None:
        """Ask until cancelled. No error ends it."""
        try:
            while True:
                self._changed.clear()
                wait = None
                if self._interface and self._settings.enabled:
                    wait = self._schedule.due_at - self._clock()
                    if wait <= 0:
                        await self._ask()
                        continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
        finally:
            self._close()

    async def _ask(self) -> None:
        now = self._clock()
        self._schedule.asked(now)
        await self._find_targets(now)
        if not self._interface or not self._settings.enabled:  # changed meanwhile
            return
        sequence = self._tally.begin()
        for target in self._targets:
            version = 6 if ":" in target else 4
            try:
                self._socket(version).sendto(echo_request(version, self._identifier, sequence), (target, 0))
            except OSError as error:
                self._failed(target, error.strerror or error)
            else:
                self._tally.asked(version, sequence)

    async def _find_targets(self, now: float) -> None:
        settings = self._settings
        if settings.target == AUTO:
            self._targets = list(self._auto)
            return
        old = now - self._looked_up >= NAME_AGE_S
        if not old and (self._tally.unanswered < UNANSWERED or self._targets == [settings.target]):
            return
        self._looked_up = now
        self._tally.forgive()
        try:
            async with asyncio.timeout(min(LOOK_UP_S, settings.period / 2)):
                places = await look_up(settings.target, 0, socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            if old:
                self._looked_up = float("-inf")  # again with the next round
            self._failed(settings.target, getattr(error, "strerror", None) or type(error).__name__)
            return
        if settings is self._settings:
            first: dict[int, str] = {}
            for family, address in places:
                first.setdefault(family, str(address[0]))
            self._targets = list(first.values())

    def _socket(self, version: int) -> socket.socket:
        if version not in self._sockets:
            self._sockets[version] = sock = _raw_socket(version, self._interface)
            asyncio.get_running_loop().add_reader(sock, self._hear, version, sock)
        return self._sockets[version]

    def _hear(self, version: int, sock: socket.socket) -> None:
        for packet in _waiting(sock):
            reply = echo_reply(version, packet)
            if reply is not None and reply[0] == self._identifier:
                self._tally.heard(version, reply[1], self._clock())

    def _failed(self, target: str, reason: object) -> None:
        self._errors += 1
        if not self._told:
            self._told = True
            _log.warning("echo_guard_failed", target=target, reason=str(reason))

    def _close(self) -> None:
        for sock in self._sockets.values():
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()


def _waiting(sock: socket.socket) -> Iterator[bytes]:
    try:
        while True:
            yield sock.recv(2048)
    except OSError:  # nothing more, or the interface is gone
        return


def _raw_socket(version: int, interface: str) -> socket.socket:
    """Hears Echo Replies only. Raises: OSError."""
    if version == 6:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8
        blocked[REPLY[6] >> 5] &= ~(1 << (REPLY[6] & 31))
        chosen = (socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *blocked))
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        chosen = (SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << REPLY[4])))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.setsockopt(*chosen)
    except OSError:
        sock.close()
        raise
    return sock
