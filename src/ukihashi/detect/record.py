"""What is said about a finding: the log line of 2004 and its JSON twin."""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence. `name` is fixed English, for programs; `score` a natural-log likelihood ratio."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection of the session."""

    client: Endpoint
    begin: float  # seconds since 1970 UTC


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
    again: bool = False  # it was given as PROBABLE before


@dataclass(frozen=True, slots=True)
class Attached:
    """A further connection, or a resume, of a session that has its line already."""

    finding: Finding
    connection: Connection


def log_line(finding: Finding, *, zone: tzinfo | None, classic: bool = False) -> str:
    """The line of manual B (requirement B19), without a line end; what is not CONFIRMED says so behind it.

    Args:
        zone: of the time printed; None = this machine's local time.
        classic: print the product of 2004 for every family.
    """
    moment = _moment(finding.begin).astimezone(zone)
    label = CLASSIC_LABEL if classic else finding.family.value
    line = (
        f"[{moment:%Y/%m/%d %H:%M:%S}] {label} {finding.outer.value} Connection Detected"
        f" (client {finding.client}, server {finding.server})"
    )
    return line if finding.verdict is Verdict.CONFIRMED else f"{line} verdict={finding.verdict.value}"


def event(found: Finding | Attached) -> dict[str, object]:
    """The JSON twin, with the field names of Suricata's EVE where it has them."""
    finding = found if isinstance(found, Finding) else found.finding
    client = finding.client if isinstance(found, Finding) else found.connection.client
    begin = finding.begin if isinstance(found, Finding) else found.connection.begin
    shared: dict[str, object] = {
        "timestamp": _utc(begin),
        "event_type": "vpn" if isinstance(found, Finding) else "vpn_connection",
        "src_ip": client.host,
        "src_port": client.port,
        "dest_ip": finding.server.host,
        "dest_port": finding.server.port,
        "proto": "TCP",
        "community_id": community_id(client, finding.server),
    }
    if isinstance(found, Attached):
        return shared | {"session": community_id(finding.client, finding.server), "session_begin": _utc(finding.begin)}
    return shared | {
        "vpn": {
            "family": finding.family.name.lower(),
            "transport": finding.outer.value,
            "target": finding.target or None,
            "verdict": finding.verdict.value,
            "decided": _utc(finding.decided),
            "rule": finding.rule,
            "score": round(finding.score, 2),
            "reasons": [{"name": reason.name, "score": round(reason.score, 2)} for reason in finding.reasons],
            "evidence": {
                "turn_bytes": list(finding.turns),
                "keepalive_gaps_s": [round(gap, 3) for gap in finding.gaps],
                "keepalive_bytes": list(finding.sizes),
                "connections": [
                    {"src_port": connection.client.port, "begin": _utc(connection.begin)}
                    for connection in finding.connections
                ],
                "capture_lost_bytes": finding.lost,
            },
        }
    }


def community_id(one: Endpoint, other: Endpoint, *, seed: int = 0) -> str:
    """Community ID v1 of a TCP connection, the same for both directions (Corelight's specification)."""
    low, high = sorted((one, other), key=lambda end: (end.address, end.port))
    data = seed.to_bytes(2) + low.address + high.address + b"\x06\x00" + low.port.to_bytes(2) + high.port.to_bytes(2)
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()


def _utc(time: float) -> str:
    """ISO 8601 with the zone, as EVE writes it."""
    return _moment(time).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")


def _moment(time: float) -> datetime:
    """A capture may claim any time; beyond the calendar it is shown as the calendar's end."""
    return datetime.fromtimestamp(min(max(time, 86_400.0), _LAST_MOMENT), UTC)
