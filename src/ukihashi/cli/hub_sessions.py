"""What `ukihashi hub sessions` says: a table, and below it a line for each session with more to say."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ukihashi.cli import output
from ukihashi.cli.loops import blocked
from ukihashi.cli.output import Column, cell, moment, write
from ukihashi.errors import N_
from ukihashi.locale import _
from ukihashi.session import udp_drops
from ukihashi.switch import reasons
from ukihashi.web.status import size, span

MODES: Final = {"bridge": N_("bridge mode"), "monitor": N_("monitor mode")}
VARIANTS: Final = {
    "half_duplex": N_("half duplex"),
    "compression": N_("compression"),
    "udp": N_("over UDP"),
    "offload": N_("super-frames"),
}
STATES: Final = {"online": N_("online"), "cut": N_("cut")}
DROPS: Final = {  # reasons, as `switch.reasons`, `switch.queue`, `hub.ports` and `hub.resumable` name them
    **reasons.WORDS,
    "loop": N_("blocked for a loop"),
    "inflate": N_("could not be decompressed"),
    "offload_header": N_("unfit offload header"),
    "queue_full": N_("queue full"),
    "resume_buffer": N_("buffer for the cut card full"),
    "resume_memory": N_("memory for all cut cards full"),
    "session_ended": N_("waiting when the session ended"),
    **udp_drops.WORDS,
}


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """The sessions."""
    columns = [
        Column("session", _("SESSION")),
        Column("hub", _("HUB")),
        Column("user", _("USER")),
        Column("state", _("STATE"), lambda state: _(STATES.get(state, state))),
        Column("peer", _("FROM")),
        Column("client", _("CLIENT")),
        Column("connections", _("TCP"), right=True),
        Column("bytes_in", _("RECEIVED"), size, right=True),
        Column("bytes_out", _("SENT"), size, right=True),
        Column("drops", _("DROPPED"), lambda drops: str(sum(drops.values())), right=True),
        Column("since", _("SINCE"), moment),
    ]
    output.show(rows, columns, as_json=as_json, empty=_("no sessions"))
    if not as_json:
        for row in rows:
            if said := "; ".join(filter(None, (nature(row), remark(row)))):
                write(f"{cell(row['session'])}: {said}")


def nature(row: Mapping[str, Any]) -> str:
    """What kind of session it is and on which machine, in words; "" for one that says nothing of the kind."""
    node, parts = row.get("node") or {}, []
    if node.get("host"):
        system = f" ({cell(node['system'])})" if node.get("system") else ""
        parts.append(_("on {machine}").format(machine=f"{cell(node['host'])}{system}"))
    if row.get("group"):
        parts.append(_("group {group}").format(group=row["group"]))
    if row.get("vlan"):
        parts.append(_("VLAN {vlan}").format(vlan=row["vlan"]))
    if row.get("mode"):
        parts.append(_(MODES.get(row["mode"], row["mode"])))
    parts += [_(words) for key, words in VARIANTS.items() if row.get(key)]
    if row.get("congestion"):
        parts.append(_("TCP {congestion}").format(congestion=cell(row["congestion"])))
    if not row.get("encrypted", True):
        parts.append(_("NOT ENCRYPTED"))
    return ", ".join(parts)


def remark(row: Mapping[str, Any]) -> str:
    """Cuts, what was sent again, and what was lost or dropped and why; "" if there is nothing of the kind."""
    ledger = row.get("ledger") or {}
    parts = []
    if row.get("state") == "cut":
        parts.append(
            _("cut for {time}, {left} left to come back, {size} waiting").format(
                time=span(row["cut_s"], _), left=span(row["grace_left_s"], _), size=size(row["waiting_bytes"])
            )
        )
    if loop := blocked(row, str(row.get("session", ""))):
        parts.append(loop)
    if row.get("resumes"):
        parts.append(_("{count} times back after a cut").format(count=row["resumes"]))
    if ledger.get("replayed"):
        parts.append(_("{count} frames sent again").format(count=ledger["replayed"]))
    if ledger.get("lost"):
        parts.append(_("{count} frames lost").format(count=ledger["lost"]))
    drops = ", ".join(f"{_(DROPS.get(why, why))} {count}" for why, count in row.get("drops", {}).items() if count)
    if drops:
        parts.append(_("dropped: {reasons}").format(reasons=drops))
    return "; ".join(parts)


def caught(row: Mapping[str, Any]) -> str:
    """What the guards of a hub have dropped of one port."""
    drops = ", ".join(f"{_(DROPS.get(why, why))} {count}" for why, count in row["dropped"].items())
    if row["detail"]:
        drops = f"{drops} ({cell(row['detail'])})"
    told = _("Guards of {hub}: {session} since {since}: {drops}")
    return told.format(hub=cell(row["hub"]), session=cell(row["session"]), since=moment(row["since"]), drops=drops)
