"""Options in one place: what there is, what is set, and changing it, for card and hub (A11, A32, A36).

Exit status: 0 done, 2 no such account or option, or a value that can't be, 3 a file can't be written, 4 not up.
"""

import ipaddress
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import click

from ukihashi.card import account
from ukihashi.card.control import client as card_client
from ukihashi.cli import user
from ukihashi.cli.output import DASH, WIDE, cell, say_aside, show, write
from ukihashi.cli.user import json_option
from ukihashi.config import places
from ukihashi.config.card import Route
from ukihashi.config.edit import edit
from ukihashi.config.hub import HubConfig, load_hub
from ukihashi.config.option_texts import ROUTE, SECTIONS, Effect
from ukihashi.config.options import (
    Kind,
    change_rows,
    changed,
    effect_words,
    option,
    parse,
    rows,
    said_in,
    shown,
    value_text,
)
from ukihashi.errors import N_, DaemonUnreachable, InputUnreadable, UkihashiError, UsageError
from ukihashi.locale import _, current_language, say
from ukihashi.tap.netlink import check_route

ROUTES: Final = "interface.routes"
INDENT: Final = "    "

_pairs = click.argument("words", metavar="KEY VALUE [KEY VALUE ...]", nargs=-1, required=True)


# -- showing ------------------------------------------------------------------------------------------------------


def show_options(kind: Kind, found: Sequence[Mapping[str, Any]], *, as_json: bool, with_values: bool = True) -> None:
    """Section by section: each option with its value (or default), and below it what it means, takes and when it holds.

    Not a table: its last column would be a strip on a terminal of 80 columns.
    """
    if as_json:
        show(found, [], as_json=True, empty="")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE)
    room = console.width - len(INDENT)
    section = None
    for row in found:
        key = str(row["option"])
        if (this := key.rpartition(".")[0]) != section:
            if section is not None:
                write("")
            section = this
            write(" ".join(filter(None, (f"[{section}]" if section else "", _(SECTIONS[kind].get(section, ""))))))
        write(f"{key} = {cell(shown(row, 'value', _))}" if with_values or not row.get("required") else key)
        default = _("default {value}").format(value=cell(shown(row, "default", _)))
        remarks = [default] if with_values and row.get("is_set") and not row.get("required") else []
        remarks += filter(None, (str(row.get("allowed", "")), effect_words(str(row.get("effect", "")), _)))
        for line in Text(f"{row.get('meaning', '')} [{'; '.join(remarks)}]").wrap(console, room):
            write(f"{INDENT}{line.plain.rstrip()}")


def show_changes(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """`times.dead: 15 → 20 (at once)` for each change."""
    if as_json:
        show(found, [], as_json=True, empty="")
        return
    for row in found:
        old, new = (value_text(row.get(which)) or DASH for which in ("old", "new"))
        effect = effect_words(str(row.get("effect", "")), _)
        if (row.get("old"), row.get("new")) == (None, None):  # a secret
            write(_("{key}: changed ({effect})").format(key=row["option"], effect=effect))
        else:
            write(f"{row['option']}: {old} → {new} ({effect})")
    if not found:
        say_aside(_("nothing has changed"))


# -- the card's ---------------------------------------------------------------------------------------------------


@click.command("options", help=_("List every option with its meaning; with ACCOUNT, what it is set to there."))
@click.argument("name", metavar="[ACCOUNT]", default="")
@json_option
def card_options(name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such account."""
    config = account.read(name) if name else None
    show_options("card", rows("card", config, current_language()), as_json=as_json, with_values=bool(name))


@click.command(
    "set",
    help=_(
        "Change options of an account; a card that is up heeds them, and says when. Lists are separated by commas."
        " A secret is asked for, or read from --file: give its KEY alone."
    ),
)
@click.argument("name", metavar="ACCOUNT")
@_pairs
@click.option(
    "--file", type=click.File("r"), metavar="FILE", help=_("Take KEY's value from the first line; - is stdin.")
)
@json_option
def card_set(name: str, words: Sequence[str], file: TextIO | None, as_json: bool) -> None:
    """Exit status: 0 written, 2 no such account or option or a wrong value, 3 the file can't be written."""
    account.read(name)
    if len(words) == 1 and (file is not None or option("card", words[0]).secret):
        texts = {words[0]: _from_file(file) if file is not None else click.prompt(words[0], hide_input=True, err=True)}
    else:
        texts = _paired("card", words, file)
    change(name, {key: parse("card", key, text) for key, text in texts.items()}, as_json=as_json)


@click.command("unset", help=_("Put options of an account back to their defaults."))
@click.argument("name", metavar="ACCOUNT")
@click.argument("keys", metavar="KEY ...", nargs=-1, required=True)
@json_option
def card_unset(name: str, keys: Sequence[str], as_json: bool) -> None:
    """Exit status: as `card set`."""
    change(name, dict.fromkeys(keys), as_json=as_json)


@click.command("reload", help=_("Let a card that is up read its account's file again."))
@click.argument("name", metavar="ACCOUNT")
@json_option
def card_reload(name: str, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such account, or its file is wrong: the card goes on as it was; 4 not up."""
    account.read(name)
    show_changes(card_client(name).ask("reload"), as_json=as_json)


@click.group("route", help=_("Networks that are reached through the card."))
def card_route() -> None:
    """The group."""


@card_route.command("add", help=_("Reach network TO (10.8.0.0/16, fd00:8::/48) through the card."))
@click.argument("name", metavar="ACCOUNT")
@click.argument("to", metavar="TO")
@click.option("--via", default="", metavar="ADDRESS", help=_(ROUTE["via"]))
@click.option("--metric", type=click.IntRange(0, 2**31), default=0, metavar="NUMBER", help=_(ROUTE["metric"]))
@json_option
def route_add(name: str, to: str, via: str, metric: int, as_json: bool) -> None:
    """Exit status: as `card set`."""
    check_route(to, via)
    known = account.read(name).interface.routes
    if any(_network(one.to) == _network(to) for one in known):
        raise UsageError(
            N_("there is a route to {to} already; take it out first with `ukihashi card route remove`"), to=to
        )
    change(name, {ROUTES: [*known, Route(to=to, via=via, metric=metric)]}, as_json=as_json)


@card_route.command("remove", help=_("No longer reach network TO through the card."))
@click.argument("name", metavar="ACCOUNT")
@click.argument("to", metavar="TO")
@json_option
def route_remove(name: str, to: str, as_json: bool) -> None:
    """Exit status: as `card set`."""
    known = account.read(name).interface.routes
    left = [one for one in known if _network(one.to) != _network(to)]
    if left == known:
        raise UsageError(N_("there is no route to {to}; there are: {routes}"), to=to, routes=value_text(known) or DASH)
    change(name, {ROUTES: left or None}, as_json=as_json)


def change(name: str, changes: Mapping[str, Any], *, as_json: bool) -> None:
    """Write an account's options, let its card know if it is up, and show what changed and when it is heeded."""
    found, problem = written(name, changes)
    show_changes(found, as_json=as_json)
    if isinstance(problem, DaemonUnreachable):
        if found:
            say_aside(_("the card is not up: all of it holds from its next start"))
    elif problem is not None:
        say_aside(say(not_taken(problem)))


def written(name: str, changes: Mapping[str, Any]) -> tuple[list[dict[str, Any]], UkihashiError | None]:
    """Rows of what changed, and why the card did not take it over (DaemonUnreachable: it is not up).

    Raises: UsageError, EnvironmentLacks: nothing is written.
    """
    old = account.read(name)
    new = account.edit(name, {_split(key): value for key, value in changes.items()})
    try:
        return card_client(name).ask("reload"), None
    except UkihashiError as error:
        return change_rows("card", changed(old, new)), error


def not_taken(problem: UkihashiError) -> UsageError:
    """The file is changed, the running card is not."""
    return UsageError(N_("the account is changed, but its card could not take it: {reason}"), reason=problem)


def _split(key: str) -> tuple[str, str]:
    section, _point, field = key.rpartition(".")
    return section, field


def _network(text: str) -> object:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return text  # "default"


# -- the hub's ----------------------------------------------------------------------------------------------------


@click.command("options", help=_("List every option of the hub machine: what it is set to, and what it means."))
@json_option
def hub_options(as_json: bool) -> None:
    """Those of the running hub; of hub.toml if none runs. Exit status: 0 listed, 2 hub.toml is wrong."""
    try:
        found = said_in("hub", user.client().ask("options"), current_language())
    except DaemonUnreachable:
        found = rows("hub", load_hub(places.hub_config()), current_language())
        say_aside(_("no hub is running; these are the values of {path}").format(path=places.hub_config()))
    show_options("hub", found, as_json=as_json)


def set_hub_options(words: Sequence[str], *, as_json: bool) -> None:
    """`hub set KEY VALUE ...`: what is heeded at once the running hub changes itself; else hub.toml is changed here."""
    values = {key: parse("hub", key, text) for key, text in _paired("hub", words, None).items()}
    found: list[dict[str, Any]] = []
    try:
        if all(option("hub", key).effect is Effect.NOW for key in values):
            for key, value in values.items():
                found += user.client().ask("set_option", key=key, value=value_text(value))
        else:
            user.client().ask("options")  # is there a hub?
            edit(places.hub_config(), HubConfig, values)
            found = user.client().ask("reload")
    except DaemonUnreachable:
        old = load_hub(places.hub_config())
        found = change_rows("hub", changed(old, edit(places.hub_config(), HubConfig, values)))
        say_aside(_("no hub is running: all of it holds from its next start"))
    show_changes(found, as_json=as_json)


@click.command("reload", help=_("Let the running hub read hub.toml again."))
@json_option
def hub_reload(as_json: bool) -> None:
    """Exit status: 0 done, 2 hub.toml is wrong: the hub goes on as it was; 4 no hub runs."""
    show_changes(user.client().ask("reload"), as_json=as_json)


# -- small help ---------------------------------------------------------------------------------------------------


def _paired(kind: Kind, words: Sequence[str], file: TextIO | None) -> dict[str, str]:
    if len(words) % 2 or file is not None:
        raise UsageError(N_("give pairs of KEY and VALUE; `ukihashi {kind} options` lists the keys"), kind=kind)
    texts = dict(zip(words[::2], words[1::2], strict=True))
    for key in texts:
        if option(kind, key).secret:
            raise UsageError(
                N_("{key} is a secret, and others can see a command line: give {key} alone, or with --file"), key=key
            )
    return texts


def _from_file(file: TextIO) -> str:
    try:
        return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=file.name, reason=error) from error


CARD_COMMANDS: Final = (card_options, card_set, card_unset, card_reload, card_route)
HUB_COMMANDS: Final = (hub_options, hub_reload)
