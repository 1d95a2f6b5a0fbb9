"""Who was tried with whom, and how: the names of the matrix, and its page `docs/interop.md` (written by the full run).

Roles are columns, variants and troubles are rows. A cell that makes no sense has its reason here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple


class Role(NamedTuple):
    """A column."""

    name: str
    title: str


class Variant(NamedTuple):
    """A row: how the session is carried."""

    name: str
    title: str
    connections: int = 1
    half: bool = False
    compress: bool = False
    udp: bool = False
    certificate: bool = False
    ipv6: bool = False
    tls: str = ""  # the only version that the answering end speaks


class Trouble(NamedTuple):
    """A row: what goes wrong."""

    name: str
    title: str
    code: int = 0  # the refusal that the joining end must report (protocol section 11); 0 = none, it comes back


ROLES: Final = (
    Role("client", "vpnclient → our hub"),
    Role("card", "our card → vpnserver"),
    Role("cascade-in", "vpnserver cascade → our hub"),
    Role("cascade-out", "our hub cascade → vpnserver"),
    Role("both", "card and vpnclient on our hub"),
)
VARIANTS: Final = (
    Variant("one", "1 connection"),
    Variant("eight", "8 connections", connections=8),
    Variant("half", "half duplex, 4 connections", connections=4, half=True),
    Variant("compressed", "compression", compress=True),
    Variant("udp", "UDP acceleration", udp=True),
    Variant("certificate", "certificate login", certificate=True),
    Variant("ipv6", "over IPv6", ipv6=True),
    Variant("tls12", "TLS 1.2", tls="TLSv1.2"),
    Variant("tls13", "TLS 1.3", tls="TLSv1.3"),
)
TROUBLES: Final = (
    Trouble("password", "wrong password: refused, then the right one", 9),
    Trouble("unknown", "unknown hub: refused, then the right one", 8),
    Trouble("full", "hub full: refused, then there is room", 16),
    Trouble("policy", "policy denies access: refused, then allowed", 12),
    Trouble("killed", "TCP killed: comes back"),
    Trouble("restart", "server restarted: comes back"),
)
CORE: Final = (
    ("client", "half"),
    ("card", "eight"),
    ("cascade-in", "one"),
    ("cascade-out", "one"),
    ("both", "compressed"),
    ("client", "certificate"),
)  # what `./run test` tries

_SEEN_ELSEWHERE: Final = "the joining ends are those of columns 1 and 2, which are refused there"
SENSELESS: Final[Mapping[tuple[str, str], str]] = {
    ("both", trouble.name): _SEEN_ELSEWHERE for trouble in TROUBLES if trouble.code
}  # (role, row) -> why

Mark = Literal["passed", "failed", "not run", "—"]


@dataclass
class Cell:
    """What became of one."""

    mark: Mark
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)  # of a failed one: why


def rows() -> list[tuple[str, str]]:
    """Name and title of every row, in order."""
    return [(row.name, row.title) for row in (*VARIANTS, *TROUBLES)]


def cells() -> list[tuple[str, str]]:
    """Every cell that makes sense: role, row."""
    return [(role.name, name) for name, _ in rows() for role in ROLES if (role.name, name) not in SENSELESS]


HEAD: Final = """# Who works with whom

Made by the full run of `tests/netns/test_interop.py` (`./run soak`), which writes this page. Each cell of the first
table is a session between Debian's real programs and ours: the ends say that the session is carried as the row names
it, ping both ways, {megabytes} MiB of TCP each way checked by SHA-256, and an end that the other side notices. Each
cell of the second is a refusal with its code, after which the right login works; or a loss, after which frames pass
again.

"""


def page(found: Mapping[tuple[str, str], Cell], *, megabytes: int, facts: Mapping[str, str]) -> str:
    """The whole page; a cell that is not in `found` was not run, and is called so."""
    lines = [HEAD.format(megabytes=megabytes)]
    lines += [f"- {name}: {value}\n" for name, value in facts.items()]
    notes: list[str] = []
    for title, part in (("Sessions", VARIANTS), ("Troubles", TROUBLES)):
        lines.append(f"\n## {title}\n\n| | {' | '.join(role.title for role in ROLES)} |\n")
        lines.append(f"| --- |{' --- |' * len(ROLES)}\n")
        for row in part:
            marks = [_mark(found, role.name, row.name, notes) for role in ROLES]
            lines.append(f"| {row.title} | {' | '.join(marks)} |\n")
    lines.append("\n## Notes\n\n")
    lines += [f"{number}. {note}\n" for number, note in enumerate(notes, start=1)]
    return "".join(lines)


def _mark(found: Mapping[tuple[str, str], Cell], role: str, row: str, notes: list[str]) -> str:
    """A cell's text; what it has to say goes to the notes, each said once."""
    reason = SENSELESS.get((role, row))
    cell = found.get((role, row), Cell("not run")) if reason is None else Cell("—", notes=[reason])
    numbers = []
    for note in cell.notes:
        if note not in notes:
            notes.append(note)
        numbers.append(str(notes.index(note) + 1))
    text = f"{cell.mark}, {cell.seconds:.0f} s" if cell.mark == "passed" else cell.mark
    return f"{text} [{', '.join(numbers)}]" if numbers else text
