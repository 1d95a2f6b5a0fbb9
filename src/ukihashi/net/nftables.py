"""The kernel's packet filter, by the library that `nft` stands on.

Two kinds of tables are made through it. One with an owner (`flags owner`; Linux 5.12) can be changed by nobody else,
and the kernel removes it with the socket that made it, however this process ends: a program started for each command
could own nothing. A plain one stays until somebody removes it.
"""

import contextlib
import ctypes
import json
import os
import re
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ukihashi.errors import N_, EnvironmentLacks

LIBRARY: Final = "libnftables.so.1"
_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")  # what the language of nft takes as a name
_FDS: Final = "/proc/self/fd"


class Dropper(NamedTuple):
    """Somebody's chain that drops what no rule of it lets through."""

    family: str
    table: str
    chain: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.chain}"


class Nftables:
    """One socket to the packet filter. Use it with `with`, or keep it for as long as its tables are to be."""

    def __init__(self) -> None:
        """Raises: EnvironmentLacks: the library is missing."""
        self._library = _library()
        before = _descriptors()
        self._context: int | None = self._library.nft_ctx_new(0)
        opened = _descriptors() - before
        self._fd = opened.pop() if len(opened) == 1 else -1
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _JSON)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket: as long as any process holds it open, its tables stay. -1 if it can't be told which one it is.

        Only sure where no other thread opened a file at the time.
        """
        return self._fd

    def close(self) -> None:
        """The socket is closed, and tables that it owns go with it. A second call does nothing."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def run(self, commands: str) -> str:
        """Do all of it or nothing; what it printed, as JSON. Raises: EnvironmentLacks, in nftables' words."""
        library = self._library
        failed = library.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
        complaint = library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        if failed:
            words = next((line for line in complaint.splitlines() if line.startswith("Error:")), complaint)
            raise EnvironmentLacks(
                N_("nftables refused: {reason}; this needs root and Linux 5.12 or newer"),
                reason=words.removeprefix("Error:").strip() or "-",
            )
        return str(said)

    def ask(self, commands: str) -> list[dict[str, Any]]:
        """What `list` commands print, an object each. Raises: EnvironmentLacks."""
        said = self.run(commands)
        return [item for item in json.loads(said)["nftables"] if "metainfo" not in item] if said.strip() else []

    def tables(self, family: str) -> set[str]:
        """Names of all tables of a family. Raises: EnvironmentLacks."""
        found = (item["table"] for item in self.ask(f"list tables {family}") if "table" in item)
        return {str(table["name"]) for table in found if table["family"] == family}

    def droppers(self, hook: str) -> list[Dropper]:
        """The chains at a hook of IP packets whose policy is to drop: what they let through is for their rules to say.

        A drop in any table is the last word, whatever others accept. Raises: EnvironmentLacks.
        """
        chains = (item["chain"] for item in self.ask("list chains") if "chain" in item)
        return [
            Dropper(chain["family"], chain["table"], chain["name"])
            for chain in chains
            if chain.get("hook") == hook and chain.get("policy") == "drop" and chain["family"] in {"ip", "ip6", "inet"}
        ]


def is_word(name: str) -> bool:
    """May it be a table's name as it is?"""
    return bool(_WORD.fullmatch(name))


def quoted(interface: str) -> str:
    """An interface's name as a rule takes it; the kernel allows what would end the quotation."""
    if not interface or set(interface) & set('"\\*') or not interface.isprintable():
        raise EnvironmentLacks(N_("nftables can't name the interface {interface}"), interface=interface)
    return f'"{interface}"'


def _descriptors() -> set[int]:
    """The sockets that are open."""
    found = set[int]()
    for name in os.listdir(_FDS):  # noqa: PTH208 - numbers, not paths
        with contextlib.suppress(OSError):  # the folder's own, closed by now
            if os.readlink(f"{_FDS}/{name}").startswith("socket:"):  # noqa: PTH115 - not a path
                found.add(int(name))
    return found


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
