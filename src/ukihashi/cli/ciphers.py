"""`ukihashi hub ciphers`, `ukihashi card ciphers`: every cipher suite, which are used, and why others can't be."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from ukihashi.cli.output import Column, print_json, say_aside, show
from ukihashi.cli.user import json_option
from ukihashi.config import places
from ukihashi.config.hub import load_hub
from ukihashi.errors import N_, UkihashiError
from ukihashi.locale import _, say

if TYPE_CHECKING:
    from ukihashi.net.suites import Suite

STATES: Final = {
    "picked": N_("picked"),
    "offered": N_("offered"),
    "possible": N_("can be picked"),
    "refused": N_("not offered"),
}


@click.command(
    "ciphers", help=_("List all cipher suites: which the hub uses, which can be picked, which can't and why.")
)
@json_option
def hub_ciphers(as_json: bool) -> int:
    """Exit status: 0 listed; 2 listed, but hub.toml can't be used."""
    path = places.hub_config()
    return _list(lambda: load_hub(path).tls.ciphers, str(path), as_json=as_json)


@click.command(
    "ciphers", help=_("List all cipher suites: which a card uses, which can be picked, which can't and why.")
)
@click.argument("name", metavar="[ACCOUNT]", default="")
@json_option
def card_ciphers(name: str, as_json: bool) -> int:
    """Exit status: 0 listed; 2 listed, but the account's file can't be used."""
    from ukihashi.card import account

    if name and not account.exists(name):
        account.read(name)  # says that there is none
    file = str(account.path_of(name)) if name else "card.d/ACCOUNT.toml"
    return _list(lambda: account.read(name).tls.ciphers if name else (), file, as_json=as_json)


def _list(read: Callable[[], Sequence[str]], file: str, *, as_json: bool) -> int:
    from ukihashi.net.suites import available

    picked: Sequence[str] = ()
    status = 0
    try:
        picked = read()
    except UkihashiError as error:  # perhaps about a suite, and here one looks for the right name
        say_aside(f"ukihashi: {say(error)}")
        status = error.exit_status
    order = {name: place for place, name in enumerate(picked)}
    rows = [_row(suite, order) for suite in sorted(available(), key=lambda one: order.get(one.name, len(order)))]
    if as_json:
        for row in rows:
            print_json(row)
        return status
    columns = [
        Column("suite", _("CIPHER SUITE")),
        Column("protocol", _("VERSION")),
        Column("key_exchange", _("KEY EXCHANGE"), _any),
        Column("authentication", _("KEY OF THE HUB"), _any),
        Column("encryption", _("ENCRYPTION"), _any),
        Column("mac", _("MAC")),
        Column("bits", _("BITS"), right=True),
        Column("state", _("STATE"), lambda state: _(STATES[state])),
        Column("told", _("REMARK")),
    ]
    told = [{**row, "told": "; ".join(map(_, [row["reason"]] if row["reason"] else row["remarks"]))} for row in rows]
    show(told, columns, as_json=False, empty="")
    say_aside(
        _("With tls.ciphers = [“NAME”, ...] in {file} only those are used, the first liked best.").format(file=file)
    )
    return status


def _row(suite: "Suite", order: dict[str, int]) -> dict[str, Any]:
    if suite.name in order:
        state = "picked"
    elif not suite.usable:
        state = "refused"
    else:
        state = "offered" if suite.offered and not order else "possible"
    return {
        "suite": suite.name,
        "protocol": suite.protocol,
        "key_exchange": suite.key_exchange,
        "authentication": suite.authentication,
        "encryption": suite.encryption,
        "mac": suite.mac,
        "bits": suite.bits,
        "state": state,
        "reason": suite.reason,
        "remarks": list(suite.remarks),
    }


def _any(word: str) -> str:
    return {"any": _("any"), "none": _("none")}.get(word, word)
