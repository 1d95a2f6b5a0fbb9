"""What the blocker asks of the kernel: one table of nftables that is ours alone and ends with this process.

The table has an owner (nftables, `flags owner`; Linux 5.12): nobody else can change it, and the kernel removes it with
the socket that made it, however this process ends. Every entry has a time-out of the kernel's own besides. The library
is the one `nft` stands on; a program started for each command could own nothing.
"""

import ctypes
import itertools
import json
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from ukihashi.errors import N_, EnvironmentLacks

TABLE: Final = "ukihashi_block"
PRIORITY: Final = -10  # just before the filters of others
LIBRARY: Final = "libnftables.so.1"
_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON
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


class Nftables:
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
        self._library = _library()
        self._context: int | None = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _JSON)
        try:
            for family in self._families:
                self._run(_rules(family, "reject with tcp reset" if reset else "drop"))
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
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def put(self, match: Match, seconds: float) -> None:
        """See `Wall`. An entry's time can't be set anew by every kernel: it goes and comes back in one step."""
        for family in self._families:
            place, value = f"{family} {TABLE} {_set_of(match)}", _element(match)
            self._run(
                f"add element {place} {{ {value} }}\ndelete element {place} {{ {value} }}\n"
                f"add element {place} {{ {value} timeout {max(1, round(seconds))}s }}\n"
            )

    def remove(self, matches: Iterable[Match]) -> None:
        """See `Wall`."""
        for match in matches:
            for family in self._families:
                place, value = f"{family} {TABLE} {_set_of(match)}", _element(match)
                self._run(f"add element {place} {{ {value} }}\ndelete element {place} {{ {value} }}\n")

    def counts(self) -> dict[Match, int]:
        """See `Wall`."""
        counted: dict[Match, int] = {}
        for family, name in itertools.product(self._families, _SETS):  # not the table: nft 1.0.6 misprints its owner
            for item in json.loads(self._run(f"list set {family} {TABLE} {name}"))["nftables"]:
                for element in item.get("set", {}).get("elem", ()):
                    match, packets = _read(element["elem"])
                    counted[match] = counted.get(match, 0) + packets
        return counted

    def _run(self, commands: str) -> str:
        library = self._library
        failed = library.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
        complaint = library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        if failed:
            words = next((line for line in complaint.splitlines() if line.startswith("Error:")), complaint)
            raise EnvironmentLacks(
                N_("nftables refused: {reason}; blocking needs root and Linux 5.12 or newer"),
                reason=words.removeprefix("Error:").strip() or "-",
            )
        return str(said)


def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise EnvironmentLacks(
            N_("nftables is not installed ({library} is missing); on Debian: apt install nftables"), library=LIBRARY
        ) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


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
