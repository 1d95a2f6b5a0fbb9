"""The kill switch: what leaves this machine goes by a card, or not at all.

Let through are packets that a card takes (all cards are in one group of interfaces), those which carry a tunnel (the
firewall mark of `routes`), loopback, networks that the account names, and what an interface needs to be on its network
at all: DHCP, neighbour discovery, router solicitations. It stands in a plain table of nftables, which nobody has to be
alive for: after a card was killed it holds on, until the account's next `card leave`, or `card clean`.

Names can't be looked up while it holds and the tunnel is cut; the card dials the addresses that worked last.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog

from ukihashi.card.routes import MARK
from ukihashi.config import places
from ukihashi.config.card import Interface
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.locale import say
from ukihashi.net.dial.names import Row
from ukihashi.net.nftables import Nftables, is_word

LOG_TEXTS: Final = {
    "kill_switch_on": N_("the kill switch is on: nothing leaves this machine but by its cards"),
    "kill_switch_off": N_("the kill switch is off"),
    "kill_switch_restored": N_("somebody had removed the kill switch, and it was put back"),
    "kill_switch_gone": N_("somebody removed the kill switch, and it can't be put back"),
}

GROUP: Final = 75  # of interfaces, which every card's is in (ip-link(8))
PREFIX: Final = "ukihashi_kill_"
PRIORITY: Final = 5  # just after the filters of others, which may change what is sent, and by which way
COUNTER: Final = "blocked"
QUIET_S: Final = 0.2  # a change comes as several announcements

NETLINK_NETFILTER: Final = 12
NFNLGRP_NFTABLES: Final = 7  # linux/netfilter/nfnetlink.h

# A machine without these loses its place on the network, and with it the tunnel.
_NEEDED: Final = (
    "udp sport 68 udp dport 67 accept",
    "udp sport 546 udp dport 547 accept",
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
    "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept",
)

_log = structlog.get_logger()


def table_of(interface: str) -> str:
    """The table of the card with that interface."""
    return PREFIX + (interface if is_word(interface) else f"x{interface.encode().hex()}")


def table_text(table: str, allow: Iterable[str]) -> str:
    """The whole table."""
    networks = [ipaddress.ip_network(text) for text in allow]
    beside = []
    for version, ip in ((4, "ip"), (6, "ip6")):
        own = ", ".join(str(one) for one in networks if one.version == version)
        if own:
            beside.append(f"{ip} daddr {{ {own} }} accept")
    end = f"counter name {COUNTER} drop"
    chains = [
        ("output", ['oifname "lo" accept', f"oifgroup {GROUP} accept", f"meta mark {MARK:#x} accept", *_NEEDED]),
        ("forward", [f"oifgroup {GROUP} accept", f"iifgroup {GROUP} accept"]),
    ]
    text = [f"table inet {table} {{", f"counter {COUNTER} {{ }}"]
    for name, rules in chains:
        text += [f"chain {name} {{", f"type filter hook {name} priority {PRIORITY}", *rules, *beside, end, "}"]
    return "\n".join([*text, "}"])


def clean(interface: str) -> list[str]:
    """Remove what a killed card with that interface left standing; what was removed. Raises: EnvironmentLacks."""
    table = table_of(interface)
    return [str(table)] if table in tables() and _remove(table) else []


def clean_orphans() -> list[str]:
    """Remove those whose card's interface is gone; what was removed. Raises: EnvironmentLacks."""
    there = {table_of(name) for _number, name in socket.if_nameindex()}
    return [table for table in sorted(tables() - there) if _remove(table)]


def tables() -> set[str]:
    """All kill switches that are set here, whoever set them; none without the library. Raises: EnvironmentLacks."""
    try:
        packets = Nftables()
    except EnvironmentLacks:
        return set()
    with packets:
        return {name for name in packets.tables("inet") if name.startswith(PREFIX)}


def _remove(table: str) -> bool:
    with Nftables() as packets:
        packets.run(f"delete table inet {table}")
    return True


def blocked(table: str) -> int | None:
    """Packets that were stopped; None if it is not there, or can't be asked."""
    with contextlib.suppress(UkihashiError, KeyError), Nftables() as packets:
        for item in packets.ask(f"list counter inet {table} {COUNTER}"):
            if "counter" in item:
                return int(item["counter"]["packets"])
    return None


class KillSwitch:
    """One card's. The kernel is spoken to in threads; a lock keeps them apart."""

    def __init__(self, account: str) -> None:
        self._account: Final = account
        self._lock = threading.Lock()
        self._text = ""  # of the table that is to be there
        self._allow: list[str] = []
        self._restored = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = asyncio.Event()  # it is set now
        self.table = ""  # "": none is set

    # -- in threads -----------------------------------------------------------------------------------------------

    def put(self, settings: Interface) -> None:
        """As the account says: set it, change it at one stroke so that nothing slips through, or remove it.

        What a card of this account left standing that was killed is taken over. Raises: EnvironmentLacks.
        """
        with self._lock:
            table = table_of(settings.name)
            if not settings.kill_switch:
                self._take_away(table)
                return
            text = table_text(table, settings.kill_switch_allow)
            if text == self._text:
                return
            with Nftables() as packets:
                packets.run(f"add table inet {table}\ndelete table inet {table}\n{text}")
            if not self.table:
                _log.info("kill_switch_on", account=self._account, allowed=list(settings.kill_switch_allow))
            self.table, self._text, self._allow = table, text, list(settings.kill_switch_allow)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._came.set)

    def end(self, settings: Interface, *, holds: bool) -> None:
        """The card ends. `holds`: not because somebody wants it to, so nothing may leave. Raises: EnvironmentLacks."""
        with self._lock:
            if holds:
                self.table, self._text = "", ""
            else:
                self._take_away(table_of(settings.name))

    def _take_away(self, table: str) -> None:
        was_set, self.table, self._text = bool(self.table), "", ""  # first, or `look` would put it back
        try:
            if table in tables() and _remove(table):
                _log.info("kill_switch_off", account=self._account)
        except EnvironmentLacks:  # a machine without a packet filter has no kill switch either
            if was_set:
                raise
        _known_path(self._account).unlink(missing_ok=True)

    def look(self) -> None:
        """Is it still there? Whoever flushes the packet filter hardly means to lay this machine open."""
        with self._lock:
            if not self.table:
                return
            try:
                if self.table in tables():
                    return
                with Nftables() as packets:
                    packets.run(self._text)
                self._restored += 1
                _log.warning("kill_switch_restored", account=self._account, times=self._restored)
            except UkihashiError as error:
                _log.error("kill_switch_gone", account=self._account, reason=say(error))

    def remember(self, known: list[Row]) -> None:
        """Keep the addresses that names had, for a card that must do without name servers, even the next one."""
        if self.table:
            with contextlib.suppress(OSError):  # then it is as without a kill switch: names must be looked up
                path = _known_path(self._account)
                new = path.with_name(f"{path.name}-new")
                new.write_bytes(msgspec.json.encode(known))
                new.replace(path)

    def remembered(self) -> list[Row]:
        """What a card of this account kept that was killed."""
        try:
            return msgspec.json.decode(_known_path(self._account).read_bytes(), type=list[Row])
        except (OSError, msgspec.MsgspecError):
            return []

    # -- in the event loop ----------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Watch it whenever it is set. Ends by being cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._came.wait()
            self._came.clear()
            with contextlib.suppress(OSError), _Notices() as notices:  # no right to hear of changes: then without
                while self.table:
                    await asyncio.to_thread(self.look)
                    await notices.changed()

    def row(self) -> dict[str, Any] | None:
        """For `card status`; None: it is off. What was blocked is the kernel's to say (`blocked`)."""
        if not self.table:
            return None
        return {"table": self.table, "allowed": self._allow, "restored": self._restored, "blocked": None}


def _known_path(account: str) -> Path:
    return places.runtime_dir() / f"card-{account}.known"


class _Notices:
    """The kernel's announcements of changed tables, taken as what they are: a reason to look."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
        try:
            self._sock.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    async def changed(self) -> None:
        """Return a moment after something has changed."""
        with contextlib.suppress(OSError):  # more came than fits: a change as well
            await asyncio.get_running_loop().sock_recv(self._sock, 4096)
        await asyncio.sleep(QUIET_S)
        while True:
            try:
                self._sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                continue
