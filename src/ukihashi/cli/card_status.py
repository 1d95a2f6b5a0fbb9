"""What `ukihashi card status` says of one card, in words (A29)."""

from collections.abc import Mapping
from typing import Any, Final

from ukihashi.cli.output import cell, write
from ukihashi.errors import N_, UkihashiError
from ukihashi.locale import _, say
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
DROPS: Final = {  # reasons in a ledger
    "kernel": N_("by the interface's queue"),
    "refused": N_("by the kernel, inward"),
    "oversized": N_("too long"),
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


def _lines(row: Mapping[str, Any]) -> dict[str, object]:
    lines: dict[str, object] = {
        _("Reason"): _reason(row.get("reason")),
        _("Virtual hub"): row.get("hub"),
        _("User"): row.get("user"),
        _("Server"): row.get("peer") or row.get("address"),
        _("Session"): row.get("session"),
        _("Encryption"): " ".join(filter(None, (row.get("tls"), row.get("cipher")))),
        _("Interface"): row.get("interface"),
        _("MAC address"): row.get("mac"),
        _("Addresses"): row.get("addresses"),
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
