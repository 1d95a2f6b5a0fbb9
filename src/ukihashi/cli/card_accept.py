"""Consent to what a hub offers a card: name servers, routes, the default route."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from ukihashi.card.control import client
from ukihashi.cli.options import change
from ukihashi.cli.output import cell, say_aside
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.locale import _

ALL: Final = ("dns", "routes", "default")
NONE: Final = "none"
WAIT_S: Final = 3.0  # that `join` waits for an offer before it asks nothing
TRIES: Final = 3


def accepted(text: str) -> list[str]:
    """`--accept`'s value as that of `interface.accept`; "" and `none` give []. Raises: UsageError."""
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if words == ["all"]:
        return list(ALL)
    if words == [NONE]:
        return []
    for word in words:
        if word not in ALL:
            raise UsageError(
                N_("what to accept is {choices}, all or none, not “{given}”"), choices=", ".join(ALL), given=word
            )
    return [word for word in ALL if word in words]


def ask_what_to_accept(name: str) -> None:
    """On a terminal: show what the hub offers, ask what of it to apply, and apply it. No offer: no question."""
    offers = _offers_of(name)
    kinds = [kind for kind in ALL if any(one.get("kind") == kind for one in offers)]
    if not kinds:
        return
    say_aside(_("The hub offers:"))
    for line in offer_lines(offers):
        say_aside(f"  {line}")
    choices = ", ".join([*kinds, "all", NONE])
    for _again in range(TRIES):
        answer = click.prompt(
            _("Apply which of it ({choices})").format(choices=choices), default=NONE, show_default=True, err=True
        )
        try:
            wanted = accepted(str(answer))
        except UkihashiError as error:
            say_aside(error.render(_))
            continue
        if wanted:
            change(name, {"interface.accept": wanted}, as_json=False)
        return


def offer_lines(offers: Sequence[Mapping[str, Any]], reason: Any = None) -> list[str]:
    """Each offer in words. `reason`: turns a row's reason into words, and lets each line say what became of it."""
    lines = []
    for one in offers:
        to, via = str(one.get("to", "")), str(one.get("via", ""))
        match one.get("kind"):
            case "dns":
                line = _("dns: name servers {servers}").format(servers=cell(one.get("servers", [])))
                if one.get("domains"):
                    line = _("dns: name servers {servers} for {domains}").format(
                        servers=cell(one.get("servers", [])), domains=cell(one["domains"])
                    )
            case "default":
                line = _("default: everything ({to}) by {via}").format(to=to, via=via)
            case "routes":
                line = _("routes: {to} by {via}").format(to=to, via=via) if via else _("routes: {to}").format(to=to)
            case "address":
                line = _("address: {to}").format(to=to)
            case _:
                continue
        if reason is not None:
            line += f" ({_state(one, reason)})"
        lines.append(line)
    return lines


STATES: Final = {
    "offered": N_("offered, not applied"),
    "applied": N_("applied"),
    "refused": N_("refused: {reason}"),
    "gone": N_("gone: {reason}"),
    "not set": N_("not set"),
    "own": N_("the account has a route of its own"),
}


def _state(one: Mapping[str, Any], reason: Any) -> str:
    state = str(one.get("state"))
    return _(STATES.get(state, state)).format(reason=reason(one.get("reason")) or "")


def _offers_of(name: str) -> list[Mapping[str, Any]]:
    deadline = time.monotonic() + WAIT_S
    while True:
        lan = client(name).ask("status")[0].get("lan", {})
        waits = lan.get("dhcp", {}).get("state") in {"informing", "selecting", "requesting", "rebooting", "checking"}
        if not waits or time.monotonic() > deadline:
            return list(lan.get("offers", []))
        time.sleep(0.1)
