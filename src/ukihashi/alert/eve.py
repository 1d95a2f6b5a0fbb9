"""Findings for programs: objects in the shape of Suricata's EVE, one JSON object a line (docs/alert-outputs.md).

What EVE has a field for is in that field; what is ours is in the object `ukihashi`. Names and values are fixed English.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from ukihashi.detect.features import Outer
from ukihashi.detect.record import Attached, Connection, Ended, Endpoint, Family, Finding, Found, Verdict, moment

Event = dict[str, Any]

# Signature ids are promised: never give one a second meaning. 1904000 + family * 100 + transport * 10 + verdict
SIGNATURES: Final = 1_904_000
FAMILIES: Final = {"SOFTETHER": 1, "UKIHASHI": 2}
TRANSPORTS: Final = {"TCP": 1, "HTTP": 2, "SOCKS": 3, "SSH": 4}
VERDICTS: Final = {"CONFIRMED": 1, "PROBABLE": 3}  # also the severity: 1 is EVE's highest
OTHER: Final = 9  # a family or transport without a number yet
REVISION: Final = 1
CATEGORY: Final = "Potential Corporate Privacy Violation"  # of class policy-violation, as rule files name it
MAX_STEPS: Final = 200  # of a timeline, for a page
LOGGED_STEPS: Final = 64  # of a timeline, in a line of a log
_FLOW_ID_BITS: Final = 53  # every JSON reader keeps such an integer exactly


@dataclass(frozen=True, slots=True)
class Stats:
    """The sensor's counters since it began; `coverage` 0..1 is the share of bytes that were really seen."""

    time: float  # seconds since 1970 UTC
    uptime: float  # seconds
    packets: int = 0  # read
    drops: int = 0  # packets that the kernel threw away for lack of time
    gaps: int = 0  # bytes that never reached us, by the sequence numbers
    coverage: float = 1.0
    flows: int = 0  # known now
    flows_total: int = 0
    flows_forgotten: int = 0  # because the table was full
    skipped: int = 0  # packets that could not be read
    findings: dict[str, int] = field(default_factory=dict)  # "softether TCP CONFIRMED": number
    period: float = 0.0  # seconds of the period that ends here; 0 = none ends


class Eve:
    """Makes the objects of one sensor."""

    def __init__(self, interface: str = "", *, seed: int = 0) -> None:
        """`interface`: the card, several with commas between; "" = capture files. `seed`: of the Community ID."""
        self._interface = interface
        self._seed = seed

    def event(self, found: Found) -> Event:
        """`alert`, `vpn_connection`, `flow` or `vpn_end`."""
        if isinstance(found, Finding):
            return self._alert(found)
        if isinstance(found, Attached):
            return self._shared("vpn_connection", found.connection.begin, found.finding, found.connection) | (
                self._session(found.finding)
            )
        if found.session:
            seconds = max(found.time - found.finding.begin, 0.0)
            return (
                self._shared("vpn_end", found.time, found.finding, found.connection)
                | self._session(found.finding)
                | {"reason": found.reason, "seconds": round(seconds, 3)}
            )
        return self._flow(found)

    def stats(self, stats: Stats) -> Event:
        """The object `stats`: EVE's own names (`capture`, `decoder`, `flow`), and ours flat beside them."""
        ours: Event = {
            "packets": stats.packets,
            "drops": stats.drops,
            "gaps": stats.gaps,
            "coverage": round(stats.coverage, 6),
            "flows": stats.flows,
            "flows_total": stats.flows_total,
            "flows_forgotten": stats.flows_forgotten,
            "skipped": stats.skipped,
            "findings": stats.findings,
            "period": round(stats.period, 3),
        }
        return {
            "timestamp": utc(stats.time),
            "event_type": "stats",
            **self._card(),
            "stats": {
                "uptime": int(stats.uptime),
                "capture": {"kernel_packets": stats.packets + stats.drops, "kernel_drops": stats.drops},
                "decoder": {"pkts": stats.packets, "invalid": stats.skipped},
                "flow": {"active": stats.flows, "total": stats.flows_total},
                **ours,
            },
        }

    def _card(self) -> Event:
        return {"in_iface": self._interface} if self._interface else {}

    def _shared(self, kind: str, time: float, finding: Finding, connection: Connection) -> Event:
        identity = community_id(connection.client, finding.server, seed=self._seed)
        return {
            "timestamp": utc(time),
            "flow_id": flow_id(connection, finding.server),
            **self._card(),
            "event_type": kind,
            "src_ip": connection.client.host,
            "src_port": connection.client.port,
            "dest_ip": finding.server.host,
            "dest_port": finding.server.port,
            "proto": "TCP",
            "community_id": identity,
        }

    def _session(self, finding: Finding) -> Event:
        """Which finding an event belongs to."""
        return {
            "session": community_id(finding.client, finding.server, seed=self._seed),
            "session_begin": utc(finding.begin),
            "allowed": finding.allowed is not None,
        }

    def _alert(self, finding: Finding) -> Event:
        allowed = finding.allowed
        event = self._shared("alert", finding.begin, finding, Connection(finding.client, finding.begin)) | {
            "alert": {
                "action": "allowed",  # the sensor only listens
                "gid": 1,
                "signature_id": signature_id(finding.family, finding.outer, finding.verdict),
                "rev": REVISION,
                "signature": signature(finding.family, finding.outer, finding.verdict),
                "category": CATEGORY,
                "severity": VERDICTS[finding.verdict.name],
            },
            "ukihashi": {
                "family": finding.family.name.lower(),
                "transport": finding.outer.value,
                "target": finding.target or None,
                "verdict": finding.verdict.value,
                "decided": utc(finding.decided),
                "rule": finding.rule,
                "score": round(finding.score, 2),
                "reasons": [{"name": reason.name, "score": round(reason.score, 2)} for reason in finding.reasons],
                "evidence": _evidence(finding),
                "again": finding.again,
                "allowed": None
                if allowed is None
                else {
                    "id": allowed.id,
                    "owner": allowed.owner,
                    "reason": allowed.reason,
                    "expires": allowed.expires,
                },
                "evidence_file": finding.evidence_file or None,
            },
        }
        return explained(event, finding, LOGGED_STEPS)

    def _flow(self, found: Ended) -> Event:
        begin = found.connection.begin
        about: Event = {
            "start": utc(begin),
            "end": utc(found.time),
            "age": int(max(found.time - begin, 0.0)),
            "state": "closed" if found.reason == "closed" else "established",
            "reason": {"closed": "unknown", "silent": "timeout"}.get(found.reason, "shutdown"),
            "alerted": True,
        }
        if found.to_server >= 0:
            about |= {"bytes_toserver": found.to_server, "bytes_toclient": found.to_client}
        return (
            self._shared("flow", found.time, found.finding, found.connection)
            | {"flow": about}
            | self._session(found.finding)
        )


def _evidence(finding: Finding) -> Event:
    return {
        "turn_bytes": list(finding.turns),
        "keepalive_gaps_s": [round(gap, 3) for gap in finding.gaps],
        "keepalive_bytes": list(finding.sizes),
        "connections": [
            {"src_port": connection.client.port, "begin": utc(connection.begin)} for connection in finding.connections
        ],
        "capture_lost_bytes": finding.lost,
    }


def explained(event: Event, finding: Finding, limit: int = MAX_STEPS) -> Event:
    """An `alert` with the timeline, at most `limit` steps of it, and the parts of each reason."""
    ours = event["ukihashi"]
    ours["timeline"] = [
        {
            "time": round(step.time, 6),
            "kind": step.kind,
            "connection": step.connection,
            "toward_server": step.toward_server,
            "size": step.size,
            "seconds": round(step.seconds, 3),
            "name": step.name,
        }
        for step in finding.timeline[:limit]
    ]
    for told, reason in zip(ours["reasons"], finding.reasons, strict=True):
        told["pieces"] = [
            {key: None if value != value else value for key, value in piece._asdict().items()}  # noqa: PLR0124 - nan
            for piece in reason.pieces
        ]
    return event


def signature_id(family: Family, outer: Outer, verdict: Verdict) -> int:
    """The number of a kind of finding; stable from release to release."""
    return (
        SIGNATURES
        + FAMILIES.get(family.name, OTHER) * 100
        + TRANSPORTS.get(outer.name, OTHER) * 10
        + VERDICTS[verdict.name]
    )


def signature(family: Family, outer: Outer, verdict: Verdict) -> str:
    """The words that belong to the number."""
    words = f"UKIHASHI {family.value} tunnel, {outer.value}"
    return words if verdict is Verdict.CONFIRMED else f"{words}, {verdict.value}"


def event(found: Found) -> Event:
    """The object for a finding of a capture file."""
    return Eve().event(found)


def line(found: Event) -> str:
    """An object on one line, without a line end."""
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def flow_id(connection: Connection, server: Endpoint) -> int:
    """A number for one TCP connection, the same in all its events and in every sensor that saw its begin."""
    client = connection.client
    data = b"%b%b%d,%d,%d" % (client.address, server.address, client.port, server.port, int(connection.begin * 1e6))
    return int.from_bytes(hashlib.sha256(data).digest()[:8]) >> (64 - _FLOW_ID_BITS)


def community_id(one: Endpoint, other: Endpoint, *, seed: int = 0) -> str:
    """Community ID v1 of a TCP connection, the same for both directions (Corelight's specification)."""
    low, high = sorted((one, other), key=lambda end: (end.address, end.port))
    data = seed.to_bytes(2) + low.address + high.address + b"\x06\x00" + low.port.to_bytes(2) + high.port.to_bytes(2)
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()


def utc(time: float) -> str:
    """ISO 8601 with the zone, as EVE writes it."""
    return moment(time).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
