"""What the blocker asks of the kernel: one table of nftables that is ours alone and ends with this process.

The table has an owner (`net.nftables`): nobody else can change it, and it goes with this process, however that ends.
Every entry has a time-out of the kernel's own besides.
"""

import itertools
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.net.nftables import Nftables

TABLE: Final = "ukihashi_block"
PRIORITY: Final = -10  # just before the filters of others
_DIRECT, _EXACT = "direct", "exact"
_SETS: Final = tuple(f"{name}{version}" for name in (_DIRECT, _EXACT) for version in (4, 6))


class Match(NamedTuple):
    """The TCP packets of both directions between these."""

    client: str  # address
    client_port: int  # 0: any
    server: str  # address
    port: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.client).version


class Wall(Protocol):
    """Where matches are put, and taken away."""

    @property
    def versions(self) -> frozenset[int]:
        """Versions of IP that this machine forwards."""

    def put(self, match: Match, seconds: float) -> None:
        """Block it for so long, counted anew if it was blocked. Raises: EnvironmentLacks."""

    def remove(self, matches: Iterable[Match]) -> None:
        """Let them through; unknown ones are ignored."""

    def counts(self) -> dict[Match, int]:
        """Packets that were stopped since `put`, of each match that is blocked now."""


def forwarded(proc: Path = Path("/proc"), classes: Path = Path("/sys/class/net")) -> tuple[frozenset[int], bool]:
    """The versions of IP that this machine forwards as a router; does it forward frames between cards as a bridge?"""
    switches = {4: proc / "sys/net/ipv4/ip_forward", 6: proc / "sys/net/ipv6/conf/all/forwarding"}
    routed = frozenset(version for version, switch in switches.items() if _text(switch) not in ("", "0"))
    return routed, any(len(list(ports.iterdir())) > 1 for ports in classes.glob("*/brif"))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class KernelWall:
    """The kernel's packet filter as a `Wall`. Use it with `with`."""

    def __init__(self, *, reset: bool = False) -> None:
        """`reset`: answer what is blocked with a TCP reset; otherwise it is dropped in silence.

        Raises: EnvironmentLacks: this machine forwards nothing, no right, or the kernel or the library is too old.
        """
        routed, bridged = forwarded()
        if not routed and not bridged:
            raise EnvironmentLacks(
                N_(
                    "this machine forwards no traffic of others (net.ipv4.ip_forward and its IPv6 counterpart are 0,"
                    " and it is no bridge), so nothing could be blocked here; run it where the traffic passes through"
                )
            )
        self.versions = frozenset((4, 6)) if bridged else routed
        self._families = (["inet"] if routed else []) + (["bridge"] if bridged else [])
        self._filter = Nftables()
        try:
            for family in self._families:
                self._filter.run(_rules(family, "reject with tcp reset" if reset else "drop"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is blocked any more. A second call does nothing."""
        self._filter.close()

    def put(self, match: Match, seconds: float) -> None:
        """See `Wall`. An entry's time can't be set anew by every kernel: it goes and comes back in one step."""
        for family in self._families:
            place, value = f"{family} {TABLE} {_set_of(match)}", _element(match)
            self._filter.run(
                f"add element {place} {{ {value} }}\ndelete element {place} {{ {value} }}\n"
                f"add element {place} {{ {value} timeout {max(1, round(seconds))}s }}\n"
            )

    def remove(self, matches: Iterable[Match]) -> None:
        """See `Wall`."""
        for match in matches:
            for family in self._families:
                place, value = f"{family} {TABLE} {_set_of(match)}", _element(match)
                self._filter.run(f"add element {place} {{ {value} }}\ndelete element {place} {{ {value} }}\n")

    def counts(self) -> dict[Match, int]:
        """See `Wall`."""
        counted: dict[Match, int] = {}
        for family, name in itertools.product(self._families, _SETS):  # not the table: nft 1.0.6 misprints its owner
            for item in self._filter.ask(f"list set {family} {TABLE} {name}"):
                for element in item.get("set", {}).get("elem", ()):
                    match, packets = _read(element["elem"])
                    counted[match] = counted.get(match, 0) + packets
        return counted


def _rules(family: str, verdict: str) -> str:
    """The empty table: four sets, and a chain that looks packets of both directions up in them."""
    lines = [f"table {family} {TABLE} {{", "flags owner"]
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        for name, types in ((_DIRECT, f"{kind} . {kind} . inet_service"), (_EXACT, f"{kind} . inet_service . " * 2)):
            lines += [f"set {name}{version} {{", f"type {types.rstrip(' .')}", "flags timeout", "counter", "}"]
    lines += ["chain forward {", f"type filter hook forward priority {PRIORITY}"]
    for version, ip in ((4, "ip"), (6, "ip6")):
        lines += [
            f"{ip} saddr . {ip} daddr . tcp dport @{_DIRECT}{version} {verdict}",
            f"{ip} daddr . {ip} saddr . tcp sport @{_DIRECT}{version} {verdict}",
            f"{ip} saddr . tcp sport . {ip} daddr . tcp dport @{_EXACT}{version} {verdict}",
            f"{ip} daddr . tcp dport . {ip} saddr . tcp sport @{_EXACT}{version} {verdict}",
        ]
    return "\n".join([*lines, "}", "}"])


def _set_of(match: Match) -> str:
    return f"{_EXACT if match.client_port else _DIRECT}{match.version}"


def _element(match: Match) -> str:
    client, server = ip_address(match.client), ip_address(match.server)  # what goes to the kernel is an address
    if match.client_port:
        return f"{client} . {match.client_port} . {server} . {match.port}"
    return f"{client} . {server} . {match.port}"


def _read(element: dict[str, Any]) -> tuple[Match, int]:
    """An element as nftables prints it."""
    parts = element["val"]["concat"]
    match = Match(parts[0], parts[1], parts[2], parts[3]) if len(parts) == 4 else Match(parts[0], 0, parts[1], parts[2])
    return match, int(element.get("counter", {}).get("packets", 0))
