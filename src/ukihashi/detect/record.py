"""What is found, and the log line of 2004 about it. The JSON twin is `alert/eve.py`."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from ukihashi.detect.features import Outer


class Family(Enum):
    """Whose tunnel it is; the value is the label of the log line."""

    SOFTETHER = "SoftEther VPN"
    UKIHASHI = "ukihashi"


CLASSIC_LABEL: Final = "SoftEther 1.0"
_LAST_MOMENT: Final = 253_402_000_000.0  # late in the year 9999


class Verdict(Enum):
    """How sure: CONFIRMED is a log line; PROBABLE is shown only when asked for."""

    CONFIRMED = "CONFIRMED"
    PROBABLE = "PROBABLE"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address (4 or 16 bytes) and a TCP port."""

    address: bytes
    port: int

    @property
    def host(self) -> str:
        """The address as text."""
        return str(IPv4Address(self.address) if len(self.address) == 4 else IPv6Address(self.address))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if len(self.address) == 4 else f"[{self.host}]:{self.port}"


class Piece(NamedTuple):
    """One measured number of a reason: what it was, what the tunnel has, how usual that is elsewhere."""

    name: str  # fixed English, for programs
    measured: float
    unit: str  # "bytes", "seconds", "share", "count", or "share of seconds": a share within a range of seconds
    low: float  # the tunnel's range
    high: float
    elsewhere: float  # share of other traffic within that range by the model, 0..1; nan = not modelled
    score: float  # natural log; 0.0 for a condition that only lets the rest count


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence. `name` is fixed English, for programs; `score` a natural-log likelihood ratio."""

    name: str
    score: float
    pieces: tuple[Piece, ...] = ()


class Step(NamedTuple):
    """One entry of a finding's timeline."""

    time: float  # seconds since 1970 UTC
    kind: str  # "connection" (it began), "turn" (of an opening dialogue), "message" (after a silence)
    connection: int  # index in `Finding.connections`
    toward_server: bool
    size: int  # bytes
    seconds: float  # a turn: since the turn before it ended; a message: the silence of its direction before it
    name: str = ""  # of a turn that counted: "C1", "S1", "C2", "S2"; "hello" for the client's TLS hello


Packet = tuple[float, int, int, bytes]
"""A packet kept for evidence: time in seconds, link type, bytes on the wire, its first bytes."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection of the session."""

    client: Endpoint
    begin: float  # seconds since 1970 UTC


@dataclass(frozen=True, slots=True)
class Allowed:
    """The entry of the allow list that a finding matches."""

    id: str
    owner: str
    reason: str
    expires: str  # the last day, YYYY-MM-DD


@dataclass(frozen=True, slots=True)
class Finding:
    """One VPN session found: one log line."""

    family: Family
    verdict: Verdict
    outer: Outer
    client: Endpoint  # of its first connection
    server: Endpoint  # whom the client talks to: the hub, or a proxy
    target: str  # host:port asked of the proxy, or ""
    begin: float  # seconds since 1970 UTC; of the first connection
    decided: float  # when the verdict was reached
    rule: str
    score: float  # sum of the reasons
    reasons: tuple[Reason, ...]
    turns: tuple[int, ...]  # bytes of the opening dialogue: client, server, client, server
    gaps: tuple[float, ...]  # seconds of silence before keep-alives
    sizes: tuple[int, ...]  # bytes of those
    connections: tuple[Connection, ...]  # attached so far, the first one included
    lost: int  # bytes of the first connection that the capture missed
    again: bool = False  # it was given before, as PROBABLE or because an SSH client named itself
    lined: bool = False  # then it has its line already
    allowed: Allowed | None = None  # it is known: no log line
    evidence_file: str = ""  # where its evidence bundle lies
    timeline: tuple[Step, ...] = ()
    packets: tuple[Packet, ...] = field(default=(), repr=False, compare=False)  # headers, up to the verdict


def bare(finding: Finding) -> Finding:
    """Without packets and timeline: what to remember of a finding that was handed on."""
    return replace(finding, timeline=(), packets=())


@dataclass(frozen=True, slots=True)
class Attached:
    """A further connection, or a resume, of a session that has its line already."""

    finding: Finding
    connection: Connection


@dataclass(frozen=True, slots=True)
class Ended:
    """One connection of a session that has its line ended, or, with `session`, the session itself."""

    finding: Finding
    connection: Connection
    time: float  # when its last packet was seen
    reason: str  # closed (FIN, RST), silent, or capture_end: it was open when the capture ended
    session: bool = False
    to_server: int = -1  # bytes of payload, -1 = not counted
    to_client: int = -1


Found = Finding | Attached | Ended


def log_line(finding: Finding, *, zone: tzinfo | None, classic: bool = False) -> str:
    """The line of manual B (requirement B19), without a line end; what is not CONFIRMED says so behind it.

    Args:
        zone: of the time printed; None = this machine's local time.
        classic: print the product of 2004 for every family.
    """
    began = moment(finding.begin).astimezone(zone)
    label = CLASSIC_LABEL if classic else finding.family.value
    line = (
        f"[{began:%Y/%m/%d %H:%M:%S}] {label} {finding.outer.value} Connection Detected"
        f" (client {finding.client}, server {finding.server})"
    )
    return line if finding.verdict is Verdict.CONFIRMED else f"{line} verdict={finding.verdict.value}"


def moment(time: float) -> datetime:
    """UTC of seconds since 1970. A capture may claim any time; beyond the calendar it is shown as its end."""
    return datetime.fromtimestamp(min(max(time, 86_400.0), _LAST_MOMENT), UTC)
