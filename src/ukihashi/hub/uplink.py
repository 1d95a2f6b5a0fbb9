"""The way out: members of a virtual hub reach other networks through this machine, hidden behind its addresses.

    member == virtual LAN == host port .1 --> forward, masquerade --> eth0 ...      replies come back, nothing else does

What the kernel is asked for stands in one table of nftables that has this process as its owner, so it goes with it
however it ends. The switches of forwarding would stay: each is written down before it is touched (`uplink.undo`), and
put back at the end or at the next start. `hub upgrade` keeps both: the old table's socket stays open until the new
program's table stands beside it.

IPv4 and IPv6 alike are masqueraded, for the virtual LAN's IPv6 addresses are local ones (RFC 4193) that nobody outside
could answer.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.net.nftables import Nftables, quoted
from ukihashi.net.route_watch import GROUPS, NETLINK_ROUTE, QUIET_S
from ukihashi.tap import forwarding, netlink
from ukihashi.tap.forwarding import Setting

JOURNAL: Final = "uplink.undo"
TABLES: Final = ("ukihashi_uplink_{pid}", "ukihashi_uplink_{pid}b")  # in turn, over upgrades
FORWARD: Final = -5  # before the filters of others
POSTROUTING: Final = 100  # where source addresses are changed
_SIZE: Final = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"


class Place(NamedTuple):
    """A host port: this machine's place in a virtual hub."""

    hub: str  # by `name_key`
    interface: str
    addresses: tuple[str, ...]  # with prefix length

    def networks(self, version: int) -> list[str]:
        """Those of the virtual LAN."""
        own = (ip_interface(address) for address in self.addresses)
        return [str(one.network) for one in own if one.version == version and not one.is_link_local]


class Line(NamedTuple):
    """What is set, or to be set, for one virtual hub."""

    place: Place
    ways: tuple[tuple[str, ...], tuple[str, ...]]  # interfaces for IPv4, for IPv6


class InheritedUplink(msgspec.Struct, frozen=True):
    """What is left to the program that takes our place."""

    table: str
    fd: int  # its owner's socket


class Uplinks:
    """All ways out of this hub."""

    def __init__(
        self,
        folder: Path,
        poll: select.poll,
        endpoints: Callable[[], Iterable[tuple[str, int]]],
        tell: Callable[[UkihashiError], object],
    ) -> None:
        """
        Args:
            folder: where changed switches are written down.
            endpoints: where the hub listens; members may reach its ports at every address of this machine.
        """
        self._journal = folder / JOURNAL
        self._poll = poll
        self._endpoints = endpoints
        self._tell = tell
        self._wanted: Mapping[str, frozenset[str]] = {}
        self._places: Sequence[Place] = ()
        self._lines: list[Line] = []  # as they are set
        self._settings: list[Setting] = []  # changed, in this order
        self._filter: Nftables | None = None
        self._table = TABLES[0].format(pid=os.getpid())
        self._old_fd = -1  # of the program before us
        self._is_heir = False  # nothing is set by us yet, but by it
        self._notices: socket.socket | None = None
        self._due: float | None = None
        self._problem: UkihashiError | None = None
        self._told = ""  # whom else drops what is forwarded

    # -- from start to end ----------------------------------------------------------------------------------------

    def open(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """Take back what a hub left behind that was killed, and begin."""
        self._settings = self._written()
        self._put_back()
        self.want(wanted)

    def adopt(self, left: InheritedUplink | None, wanted: Mapping[str, frozenset[str]]) -> None:
        """Go on as the program that was here before; `put_places` is called next."""
        self._settings = self._written()
        if left is not None:
            self._old_fd = left.fd
            self._table = next(name for name in (one.format(pid=os.getpid()) for one in TABLES) if name != left.table)
        self._wanted = wanted
        self._is_heir = True
        self._watch(bool(wanted))

    def leave(self) -> InheritedUplink | None:
        """For the program that takes our place; None if there is nothing to keep."""
        if self._filter is None or self._filter.fileno() < 0:
            return None
        return InheritedUplink(self._table, self._filter.fileno())

    def want(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """From now on these virtual hubs have a way out (`HubConfig.uplinks`)."""
        self._wanted = wanted
        self._watch(bool(wanted))
        self.settle()

    def put_places(self, places: Sequence[Place]) -> None:
        """The host ports that there are now."""
        self._places = places
        self.settle()

    def close(self) -> None:
        """Undo everything."""
        self._wanted = {}
        self._watch(False)
        self.settle()
        self._let_go_of_old()

    def forget(self) -> None:
        """In a child: the descriptors are the parent's business."""
        for fd in (self._filter.fileno() if self._filter is not None else -1, self._old_fd):
            if fd >= 0:
                os.close(fd)
        if self._notices is not None:
            self._notices.close()
        self._filter, self._old_fd, self._notices = None, -1, None

    # -- routes come and go ---------------------------------------------------------------------------------------

    def _watch(self, wanted: bool) -> None:
        if wanted and self._notices is None:
            self._notices = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
            self._notices.bind((0, GROUPS))
            self._poll.register(self._notices.fileno(), select.POLLIN)
        elif not wanted and self._notices is not None:
            self._poll.unregister(self._notices.fileno())
            self._notices.close()
            self._notices = None

    @property
    def patience_s(self) -> float | None:
        """When to `look` again, if nothing happens."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def look(self, ready: set[int]) -> None:
        """Has the network of this machine changed?"""
        if self._notices is not None and self._notices.fileno() in ready:
            _drain(self._notices)
            self._due = self._due or time.monotonic() + QUIET_S
        if self._due is not None and time.monotonic() >= self._due:
            self._due = None
            self.settle()

    # -- making it so ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Bring the kernel to what is wanted and possible now; what it refuses is told once, and in `rows`."""
        try:
            lines = self._possible()
            if lines != self._lines or self._problem is not None or self._is_heir:
                self._set(lines)
                self._is_heir = False
            self._problem = None
        except (UkihashiError, OSError) as error:
            problem = (
                error
                if isinstance(error, UkihashiError)
                else EnvironmentLacks(
                    N_("forwarding can't be switched on: {reason}"), reason=error.strerror or str(error)
                )
            )
            if str(problem) != str(self._problem):
                self._tell(problem)
            self._problem = problem

    def _possible(self) -> list[Line]:
        if not self._wanted:
            return []
        usual = {version: netlink.default_interfaces(version) for version in (4, 6)}
        found = []
        for place in self._places:
            named = self._wanted.get(place.hub)
            if named is None:
                continue
            there = {name for name in named if netlink.exists(name)}
            ways = (sorted((there if named else usual[version]) - {place.interface}) for version in (4, 6))
            four, six = map(tuple, ways)
            found.append(Line(place, (four, six)))
        return found

    def _set(self, lines: list[Line]) -> None:
        """First the rules, then the switches; backwards when it ends: nothing passes that no rule has seen."""
        interfaces = {line.place.interface for line in lines}.union(*(ways for line in lines for ways in line.ways))
        gone = [one for one in self._settings if not lines or one.interface not in {"", *interfaces}]
        self._put_back(gone)
        if not lines:
            if self._filter is not None:
                self._filter.close()
                self._filter = None
            self._let_go_of_old()
            self._lines = []
            return
        new = forwarding.needed(interfaces, {line.place.interface for line in lines})
        if self._filter is None:
            self._filter = Nftables()
        rules = table_text(self._table, lines, [*self._settings, *new], (port for _host, port in self._endpoints()))
        self._filter.run(f"add table inet {self._table} {{ flags owner; }}\ndelete table inet {self._table}\n{rules}")
        self._let_go_of_old()
        for setting in new:
            self._settings.append(setting)
            self._write_down()
            forwarding.switch(setting)
        self._lines = lines
        self._warn()

    def _warn(self) -> None:
        """Who else has a word, told once."""
        found = ", ".join(droppers())
        if found and found != self._told:
            self._tell(
                EnvironmentLacks(
                    N_(
                        "other tables of the packet filter drop what is forwarded ({chains}); unless they let through"
                        " what comes from virtual hubs with a way out, it ends there"
                    ),
                    chains=found,
                )
            )
        self._told = found

    def _let_go_of_old(self) -> None:
        if self._old_fd >= 0:
            os.close(self._old_fd)
            self._old_fd = -1

    def _put_back(self, some: Sequence[Setting] | None = None) -> None:
        for setting in reversed(list(self._settings if some is None else some)):
            with contextlib.suppress(OSError):
                forwarding.put_back(setting)
            self._settings.remove(setting)
        self._write_down()

    def _written(self) -> list[Setting]:
        try:
            return msgspec.json.decode(self._journal.read_bytes(), type=list[Setting])
        except (OSError, msgspec.MsgspecError):
            return []

    def _write_down(self) -> None:
        if not self._settings:
            self._journal.unlink(missing_ok=True)
            return
        new = self._journal.with_name(f"{self._journal.name}-new")
        new.write_bytes(msgspec.json.encode(self._settings))
        new.replace(self._journal)

    # -- telling --------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """How each stands: for `hub uplink` and `hub status`."""
        set_now = {line.place.hub: line for line in self._lines}
        counted = self._counted()
        dropping = droppers() if self._lines else []
        found = []
        for hub, named in sorted(self._wanted.items()):
            line = set_now.get(hub)
            ways = line.ways if line is not None else ((), ())
            state = "failed" if self._problem is not None else "no host port" if line is None else "on"
            found.append(
                {
                    "hub": hub,
                    "to": sorted(named),
                    "interface": line.place.interface if line is not None else "",
                    "addresses": list(line.place.addresses) if line is not None else [],
                    "ipv4": list(ways[0]),
                    "ipv6": list(ways[1]),
                    "state": "no way out" if state == "on" and not any(ways) else state,
                    "connections": counted.get(line.place.interface, 0) if line is not None else 0,
                    "droppers": dropping,
                    "problem": _told(self._problem),
                }
            )
        return found

    def _counted(self) -> dict[str, int]:
        """Connections that went out, by host port."""
        found: dict[str, int] = {}
        if self._filter is not None:
            with contextlib.suppress(UkihashiError):
                for item in self._filter.ask(
                    f"list counters table inet {self._table}"
                ):  # nft 1.0.6 misprints whole tables
                    if counter := item.get("counter"):
                        found[str(counter["comment"])] = int(counter["packets"])
        return found


def droppers() -> list[str]:
    """Chains of other tables that drop what is forwarded, unless a rule of theirs lets it through."""
    with contextlib.suppress(UkihashiError), Nftables() as every:
        return [str(one) for one in every.droppers("forward")]
    return []


def table_text(table: str, lines: Sequence[Line], opened: Iterable[Setting], ports: Iterable[int]) -> str:
    """The whole table.

    Args:
        opened: switches that are ours: where nothing was passed on before, only replies are now.
        ports: of this machine, that members may reach at each of its addresses.
    """
    forward, arriving, leaving, counters = [], [], [], []
    listened = _set_of(str(port) for port in sorted(set(ports)))
    for number, (place, ways) in enumerate(lines):
        own = quoted(place.interface)
        forward += [f"iifname {own} {_SIZE}", f"oifname {own} {_SIZE}"]
        counters.append(f"counter c{number} {{ comment {own}; }}")
        for version, ip in ((4, "ip"), (6, "ip6")):
            networks, outside = _set_of(place.networks(version)), _set_of(map(quoted, ways[version == 6]))
            if not networks or not outside:
                continue
            there = f"{ip} saddr {networks} oifname {outside}"
            forward.append(f"iifname {own} {there} accept")
            forward.append(f"oifname {own} iifname {outside} {ip} daddr {networks} ct state established,related accept")
            leaving.append(f"{there} counter name c{number} masquerade")
        forward += [f"iifname {own} drop", f"oifname {own} drop"]
        elsewhere = f"iifname {own} fib daddr type local fib daddr . iif type != local"
        if listened:
            arriving.append(f"{elsewhere} tcp dport {listened} accept")
        # ICMP by number: the names stand in /etc/protocols, which small machines lack
        arriving += [f"{elsewhere} meta l4proto {{ 1, 58 }} accept", f"{elsewhere} drop"]
    inner = {one.place.interface for one in lines}
    for version in (4, 6):
        switched = [one for one in opened if one.is_forwarding and one.version == version]
        outer = _set_of(quoted(one.interface) for one in switched if one.interface not in {"", *inner})
        everywhere = any(not one.interface for one in switched)
        foreign = f"iifname != {_set_of(map(quoted, sorted(inner)))}" if everywhere else f"iifname {outer}"
        if outer or everywhere:
            forward.append(f"{foreign} meta nfproto ipv{version} ct state new ct status & dnat == 0 drop")
    chains = [
        ("forward", f"type filter hook forward priority {FORWARD}", forward),
        ("input", f"type filter hook input priority {FORWARD}", arriving),
        ("postrouting", f"type nat hook postrouting priority {POSTROUTING}", leaving),
    ]
    text = [f"table inet {table} {{", "flags owner", *counters]
    for name, kind, rules in chains:
        text += [f"chain {name} {{", kind, *rules, "}"]
    return "\n".join([*text, "}"])


def _drain(notices: socket.socket) -> None:
    while True:
        try:
            notices.recv(65536)
        except BlockingIOError:
            return
        except OSError:  # more came than fits: a change as well
            continue


def _told(error: UkihashiError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    values = {name: value if isinstance(value, int | float) else str(value) for name, value in error.values.items()}
    return {"text": str(error), "template": error.template, "values": values}


def _set_of(values: Iterable[str]) -> str:
    listed = ", ".join(values)
    return f"{{ {listed} }}" if listed else ""
