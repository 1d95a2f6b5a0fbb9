"""What `ukihashi card status` says of one card, in words (A29)."""

import time
from collections.abc import Mapping
from typing import Any, Final

from ukihashi.cli.card_accept import offer_lines
from ukihashi.cli.card_bridge import bridge_lines
from ukihashi.cli.loops import in_words
from ukihashi.cli.output import cell, write
from ukihashi.errors import N_, UkihashiError
from ukihashi.locale import _, say
from ukihashi.session import udp_drops
from ukihashi.web.status import size

STATES: Final = {
    "connecting": N_("connecting"),
    "online": N_("online"),
    "suspect": N_("online, but the hub is silent"),
    "reconnecting": N_("reconnecting"),
    "refused": N_("refused"),
    "leaving": N_("leaving"),
    "down": N_("down"),
}
BANNER_LINES: Final = 20  # of a hub's word, at most
DROPS: Final = {  # reasons in a ledger
    "kernel": N_("by the interface's queue"),
    "refused": N_("by the kernel, inward"),
    "oversized": N_("too long"),
    "garbled": N_("not to be decompressed"),
    "crowded": N_("for want of a free connection"),
    "offload_header": N_("with an unfit offload header"),
    **udp_drops.WORDS,
}
NO_OFFLOAD: Final = {
    "off: option": N_("off, as the account says (interface.offload)"),
    "off: kernel": N_("off: this kernel's TAP driver can't"),
    "off: hub": N_("off: the hub takes none"),
}
DIRECTIONS: Final = {  # of one connection
    "both": N_("both ways"),
    "in": N_("inward"),
    "out": N_("outward"),
}


def state_word(state: object) -> str:
    """A card's state, for people."""
    return _(STATES.get(str(state), str(state)))


def show(row: Mapping[str, Any]) -> None:
    """One card's row."""
    write(f"{row['account']}: {state_word(row['state'])}")
    for name, value in _lines(row).items():
        if value not in ("", None, []):
            write(f"  {name}: {cell(value)}")
    for line in _warnings(row):
        write(f"  {line}")


def remarks(row: Mapping[str, Any]) -> list[str]:
    """What whoever brings a card up should read: the hub's word for its users, and warnings."""
    banner = [_("the hub says: {text}").format(text=cell(line)) for line in str(row.get("banner", "")).splitlines()]
    return banner[:BANNER_LINES] + _warnings(row)


def _warnings(row: Mapping[str, Any]) -> list[str]:
    warnings = []
    if row.get("state") in {"online", "suspect"} and not row.get("encrypted", True):
        warnings.append(_("warning: frames are NOT ENCRYPTED; everybody on the way can read and alter them"))
    if loop := row.get("blocked"):
        said = in_words(str(loop["with"]), str(row.get("session")), max(0.0, time.time() - loop["since"]))
        warnings.append(_("warning: no frame passes; the hub has this card {said}").format(said=said))
    if lacks := _reason(row.get("congestion_lacks")):
        warnings.append(_("warning: {problem}").format(problem=lacks))
    told = (row.get("bridge") or {}).get("warnings", [])
    warnings += [_("warning: {problem}").format(problem=_reason(warning)) for warning in told]
    return warnings


def _lines(row: Mapping[str, Any]) -> dict[str, object]:
    lan: Mapping[str, Any] = row.get("lan") or {}
    lines: dict[str, object] = {
        _("Reason"): _reason(row.get("reason")),
        _("Virtual hub"): row.get("hub"),
        _("User"): row.get("user"),
        _("Server"): row.get("peer") or row.get("address"),
        **_paths(row),
        _("Hub's program"): row.get("product"),
        _("Session"): row.get("session"),
        _("Encryption"): _encryption(row),
        _("Connections"): _connections(row),
        _("TCP congestion control"): row.get("congestion"),
        _("Interface"): row.get("interface"),
        **bridge_lines(row.get("bridge")),
        _("Super-frames"): _offload(row.get("offload")),
        _("MAC address"): row.get("mac"),
        _("Addresses"): row.get("addresses"),
        _("Kill switch"): _kill_switch((row.get("lan") or {}).get("kill_switch")),
        _("DHCP"): _dhcp(lan.get("dhcp") or {}),
        _("Offered"): "; ".join(offer_lines(lan.get("offers") or [], _reason)),
        _("Hook"): _reason(row.get("hook")),
    }
    if "frames_in" in row:
        amount = _("{frames} frames, {size}")
        lines[_("Received")] = amount.format(frames=row["frames_in"], size=size(row["bytes_in"]))
        lines[_("Sent")] = amount.format(frames=row["frames_out"], size=size(row["bytes_out"]))
        lines[_("Dropped")] = _dropped(row)
        lines[_("Reconnections")] = _cuts(row)
        lines[_("Ledger")] = _ledger(row)
        lines[_("Lost")] = _loss(row.get("last_loss"))
    return lines


def _dhcp(said: Mapping[str, Any]) -> str | None:
    """How the lease stands; nothing where none is asked for and nothing was told."""
    if said.get("mode") == "ask" and said.get("address"):
        return _("{address} from {server}, {hours:.1f} more hours").format(
            address=said["address"], server=said.get("server"), hours=(said.get("left_s") or 0) / 3600
        )
    if said.get("mode") == "ask" and said.get("declined") and said.get("state") == "pausing":
        return _("{address} was offered, but somebody has it already").format(address=said["declined"])
    if said.get("mode") == "ask":
        return _("no answer yet")
    return _("offers of {server}").format(server=said["server"]) if said.get("server") else None


def _paths(row: Mapping[str, Any]) -> dict[str, object]:
    """The path in use, unless it is the direct one and all there is; while there is none, what was wrong with each."""
    paths = row.get("paths") or []
    if row.get("state") in {"online", "suspect"}:
        via = row.get("via")
        return {_("Path"): via} if len(paths) > 1 or via != "direct:" else {}
    tried = [f"{one['via']}: {reason}" for one in paths if (reason := _reason(one.get("reason")))]
    return {_("Paths tried"): tried} if len(tried) > 1 else {}


def _encryption(row: Mapping[str, Any]) -> str:
    if row.get("session") and not row.get("encrypted", True):
        return _("none")
    return " ".join(filter(None, (row.get("tls"), row.get("cipher"))))


def _connections(row: Mapping[str, Any]) -> str | None:
    """Only where there may be more than the one that needs no word."""
    if "connections" not in row or not row.get("session"):
        return None
    parts = []
    if row["max_connections"] > 1:
        parts.append(_("{open} of {granted}").format(open=row["connections"], granted=row["max_connections"]))
    if row["half_duplex"]:
        ways = row["directions"]
        counted = [(_(DIRECTIONS.get(way, way)), ways.count(way)) for way in dict.fromkeys(ways)]
        parts += [f"{count} {word}" for word, count in counted]
    parts += [_("compressed")] if row["compression"] else []
    parts += [_("UDP acceleration")] if row["udp"] else []
    return ", ".join(parts)


def _kill_switch(switch: Mapping[str, Any] | None) -> str | None:
    if not switch:
        return None
    parts = [_("on, {count} packets stopped").format(count=switch["blocked"] if switch["blocked"] is not None else "?")]
    if switch["allowed"]:
        parts.append(_("let through: {networks}").format(networks=", ".join(switch["allowed"])))
    if switch["restored"]:
        parts.append(_("removed by somebody and put back: {count} times").format(count=switch["restored"]))
    return "; ".join(parts)


def _offload(said: str | None) -> str | None:
    return _(NO_OFFLOAD[said]) if said in NO_OFFLOAD else said


def _reason(reason: Mapping[str, Any] | None) -> str | None:
    if not reason:
        return None
    try:
        return say(UkihashiError(str(reason["template"]), **reason["values"]))
    except (KeyError, ValueError, IndexError):  # a card of another version
        return str(reason.get("text"))


def _dropped(row: Mapping[str, Any]) -> str:
    """All drops, and of what kind they are."""
    numbers = {
        "kernel": row["dropped_by_kernel"],
        "refused": row["dropped_toward_kernel"],
        "oversized": row["dropped_oversized"],
        "garbled": row.get("dropped_garbled", 0),
        "crowded": row.get("dropped_crowded", 0),
        "offload_header": row.get("dropped_offload_header", 0),
        **{reason: count for reason, count in row.get("udp_dropped", {}).items() if reason in udp_drops.WORDS},
        **(row.get("ledger") or {}).get("dropped", {}),
    }
    kinds = [f"{count} {_(DROPS[reason]) if reason in DROPS else reason}" for reason, count in numbers.items() if count]
    total = str(sum(numbers.values()))
    return f"{total} ({', '.join(kinds)})" if kinds else total


def _cuts(row: Mapping[str, Any]) -> str:
    said = str(row["reconnects"])
    if row.get("cut_s"):
        return _("{count}, cut for {seconds:.1f} s now").format(count=said, seconds=row["cut_s"])
    if row.get("gap_s"):
        return _("{count}, the last after {seconds:.2f} s").format(count=said, seconds=row["gap_s"])
    return said


def _ledger(row: Mapping[str, Any]) -> str | None:
    ledger = row.get("ledger")
    if not ledger:
        return None
    return _(
        "{sent} frames sent, {acknowledged} acknowledged, {waiting} waiting ({size}), {replayed} sent again,"
        " {received} received, {lost} lost"
    ).format(size=size(row["waiting_bytes"]), **ledger)


def _loss(loss: Mapping[str, Any] | None) -> str | None:
    if not loss:
        return None
    if loss["lost"] is None:
        return _("the card's data process ended; what was under way is lost, and nobody counted it")
    return _(
        "{lost} frames sent before a cut may or may not have arrived;"
        " {carried} frames kept were sent in the new session"
    ).format(**loss)
