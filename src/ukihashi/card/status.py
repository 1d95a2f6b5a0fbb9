"""How a card stands, and the row that `card status` shows of it."""

import contextlib
import enum
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ukihashi.card import kill_switch
from ukihashi.card.clock import clock
from ukihashi.card.messages import Counters, Opened, Terms, Trouble
from ukihashi.config.card import CardConfig
from ukihashi.errors import EnvironmentLacks, UkihashiError
from ukihashi.ether.offload import names
from ukihashi.net.congestion import check_congestion
from ukihashi.net.dial import direct
from ukihashi.tap import netlink
from ukihashi.wire.constants import Direction

DIRECTIONS: Final[Mapping[int, str]] = {Direction.BOTH: "both", Direction.TO_CLIENT: "in", Direction.TO_SERVER: "out"}


class State(enum.StrEnum):
    """What `card status` shows."""

    CONNECTING = "connecting"
    ONLINE = "online"
    SUSPECT = "suspect"  # the link is silent, others are tried beside it
    RECONNECTING = "reconnecting"
    REFUSED = "refused"
    LEAVING = "leaving"


@dataclass(slots=True)
class Loss:
    """What a session that could not be resumed took with it."""

    lost: int | None  # frames sent in it that may or may not have arrived; None: nobody counted them
    carried: int  # frames kept, that the next session sent
    reason: UkihashiError | None
    at: float = field(default_factory=time.time)


class Blocked(NamedTuple):
    """The hub lets no frame pass, because of a loop."""

    by: str  # the port by which they would come back
    since: float  # seconds since 1970


@dataclass(slots=True)
class Standing:
    """How the card stands now."""

    state: State = State.CONNECTING
    since: float = field(default_factory=time.time)
    reason: UkihashiError | None = None  # why not online
    session: Opened | None = None  # what a resume needs
    peer: str = ""
    via: str = ""  # the path of the link that carries the session, or did
    banner: str = ""  # of the hub, the last one that was shown
    opened_in_s: float = 0.0  # from dialling to the welcome, the last time
    takes: int = 0  # kinds of super-frames that the interface can handle
    attempts: int = 0
    logins: int = 0
    reconnects: int = 0  # new links for a session or after one
    resumes: int = 0  # of them, those that went on from the very record
    cut_at: float | None = None  # by `clock`; None: a link carries the session
    gap_s: float = 0.0  # how long the last cut was
    last_cut: UkihashiError | None = None  # why the last link ended
    loss: Loss | None = None  # the last one
    blocked: Blocked | None = None

    def become(self, state: State, reason: UkihashiError | None = None) -> None:
        """Another state; the reason replaces the one before."""
        self.reason = reason
        if state is not self.state:
            self.state, self.since = state, time.time()

    def cut(self, reason: UkihashiError) -> None:
        """The link ended."""
        self.last_cut = reason
        self.cut_at = clock()
        self.become(State.RECONNECTING, reason)

    def online(self) -> None:
        """A link carries the session, for the first time or again."""
        if self.cut_at is not None:
            self.gap_s = clock() - self.cut_at
        self.cut_at = None
        self.become(State.ONLINE)


def row(
    name: str, config: CardConfig, standing: Standing, counted: Counters, *, data_pid: int, lan: dict[str, Any]
) -> dict[str, Any]:
    """Everything at one moment, but what the kernel knows, which `add_kernel` fills in."""
    session, writes = standing.session, counted.tls_writes
    return {
        "account": name,
        "state": str(standing.state),
        "since": standing.since,
        "reason": told(standing.reason),
        "hub": config.hub.hub,
        "user": config.hub.user,
        "address": direct.location(config.hub.host, config.hub.port),
        "peer": standing.peer,
        "via": standing.via,
        "paths": [],
        "opened_in_s": round(standing.opened_in_s, 3),
        "session": session.session if session else "",
        "extension": session.extension if session else 0,
        "grace_s": session.grace_s if session else 0,
        "product": session.product if session else "",
        "banner": standing.banner,
        "tls": session.tls if session else "",
        "cipher": session.cipher if session else "",
        "congestion": session.congestion if session else "",
        "congestion_wanted": config.connection.congestion,
        "congestion_lacks": None,
        "pin": session.pin.hex() if session else "",
        **_transport(standing, counted),
        "interface": config.interface.name,
        "mac": config.interface.mac,
        "addresses": list(config.interface.addresses),
        "mtu": config.interface.mtu,
        "offload": offload(config, standing),
        "frames_in": counted.frames_in,
        "bytes_in": counted.bytes_in,
        "frames_out": counted.frames_out,
        "bytes_out": counted.bytes_out,
        "super_frames_in": counted.super_frames_in,
        "super_frames_out": counted.super_frames_out,
        "tls_writes": writes,
        "frames_written": counted.frames_written,
        "frames_per_tls_write": round(counted.frames_written / writes, 2) if writes else 0.0,
        "keepalives_in": counted.keepalives_in,
        "keepalives_out": counted.keepalives_out,
        "dropped_by_kernel": 0,
        "dropped_toward_kernel": counted.refused,
        "dropped_oversized": counted.oversized,
        "dropped_garbled": counted.garbled,
        "dropped_crowded": counted.crowded,
        "dropped_offload_header": counted.offload_header,
        "backlog": counted.backlog,
        "waiting_bytes": counted.waiting_bytes,
        "ledger": counted.ledger,
        "attempts": standing.attempts,
        "logins": standing.logins,
        "reconnects": standing.reconnects,
        "resumes": standing.resumes,
        "cut_s": 0.0 if standing.cut_at is None else round(clock() - standing.cut_at, 3),
        "gap_s": round(standing.gap_s, 3),
        "last_cut": told(standing.last_cut),
        "last_loss": _loss(standing.loss),
        "blocked": {"with": standing.blocked.by, "since": standing.blocked.since} if standing.blocked else None,
        "pid": os.getpid(),
        "data_pid": data_pid,
        "lan": lan,
    }


def _transport(standing: Standing, counted: Counters) -> dict[str, Any]:
    """Over what the frames go now."""
    session = standing.session
    terms = session.terms if session else Terms()
    directions = counted.directions
    if session and session.grace_s and standing.state in {State.ONLINE, State.SUSPECT}:
        directions = [Direction.BOTH]  # one link carries it
    return {
        "connections": len(directions),
        "max_connections": terms.connections if session else 0,
        "directions": [DIRECTIONS[direction] for direction in directions],
        "half_duplex": terms.half_duplex,
        "compression": terms.compressed,
        "encrypted": terms.encrypted,
        "udp": counted.udp,
        "udp_frames_in": counted.udp_frames_in,
        "udp_frames_out": counted.udp_frames_out,
        "udp_dropped": counted.udp_dropped,
    }


def offload(config: CardConfig, standing: Standing) -> str:
    """What this machine's kernel leaves undone now, or who doesn't want it: `checksum, TSO4`, `off: hub`."""
    session = standing.session
    if session and session.super_frames:
        return names(session.super_frames)
    if not config.interface.offload:
        return "off: option"
    if not standing.takes:
        return "off: kernel"
    return "off: hub" if session else ""


def add_kernel(row: dict[str, Any]) -> None:
    """Ask the kernel how many frames the interface's queue dropped, and whether it has what the account names.

    All drops go into the ledger, by reason.
    """
    try:
        check_congestion(row["congestion_wanted"])
    except EnvironmentLacks as error:
        row["congestion_lacks"] = told(error)
    with contextlib.suppress(EnvironmentLacks):  # no interface now
        row["dropped_by_kernel"] = netlink.counters(row["interface"]).tx_dropped
    if switch := row["lan"].get("kill_switch"):
        switch["blocked"] = kill_switch.blocked(switch["table"])
    if row["ledger"]:
        reasons = {
            "kernel": row["dropped_by_kernel"],
            "refused": row["dropped_toward_kernel"],
            "oversized": row["dropped_oversized"],
            "crowded": row["dropped_crowded"],
            "offload_header": row["dropped_offload_header"],
        }
        row["ledger"] = {**row["ledger"], "dropped": {**row["ledger"]["dropped"], **reasons}}


def told(error: UkihashiError | None) -> dict[str, Any] | None:
    """An error as a value of a row."""
    if error is None:
        return None
    trouble = Trouble.of(error)
    return {
        "text": str(error),
        "template": trouble.template,
        "values": trouble.values,
        "exit_status": error.exit_status,
        "code": trouble.code,
    }


def _loss(loss: Loss | None) -> dict[str, Any] | None:
    if loss is None:
        return None
    return {"at": loss.at, "lost": loss.lost, "carried": loss.carried, "reason": told(loss.reason)}
