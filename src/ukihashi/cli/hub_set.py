"""`ukihashi hub show` and `ukihashi hub set`: the settings of one virtual hub, or options of the hub machine."""

from collections.abc import Mapping
from typing import Any

import click

from ukihashi.cli import values
from ukihashi.cli.options import set_hub_options
from ukihashi.cli.output import cell, print_json, write, yes_no
from ukihashi.cli.user import client, json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _


@click.command("show", help=_("Show one virtual hub and how it is set."))
@click.argument("name", metavar="[HUB]", default="")
@json_option
def show_hub(name: str, as_json: bool) -> None:
    """Exit status: 0 shown, 2 no such hub, 4 no hub runs."""
    _show_one(client().ask("hub_show", name=name)[0], as_json)


@click.command("set", help=_("Change a virtual hub (NAME --online), or options of the hub machine (KEY VALUE ...)."))
@click.argument("words", metavar="NAME|KEY VALUE ...", nargs=-1, required=True)
@click.option("--online/--offline", default=None, help=_("Let members in, or not."))
@click.option("--max-sessions", type=int, metavar="NUMBER", help=_("Sessions at the same time; 0 for no limit."))
@click.option("--listed/--unlisted", default=None, help=_("Tell its name to official clients that ask for names."))
@click.option("--banner", metavar="TEXT", help=_("What official clients show when they have joined."))
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="NAME=VALUE",
    help=_("A rule of its switch, as `hub show` names them; may be given several times."),
)
@json_option
def set_hub(words: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Exit status: 0 changed, 2 no such hub or option, a wrong value, or nothing to change, 4 no hub runs."""
    fields = {name: value for name, value in given.items() if name != "rules" and value is not None}
    if given["rules"]:
        fields["rules"] = values.assignments(given["rules"])
    if not fields and len(words) > 1:
        set_hub_options(words, as_json=as_json)
        return
    if not fields or len(words) > 1:
        raise UsageError(N_("nothing to change; give NAME with --online or another option, or KEY and VALUE"))
    _show_one(client().ask("hub_set", name=words[0], **fields)[0], as_json)


def _show_one(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    lines = {
        _("Hub"): row["name"],
        _("Online"): yes_no(row["online"]),
        _("Networks"): [row["subnet4"], row["subnet6"]],
        _("Host port"): [row["host_port"] or "", *row["host_port_addresses"]] if row["host_port"] else "",
        _("Sessions at most"): row["max_sessions"] or _("no limit"),
        _("Listed"): yes_no(row["listed"]),
        _("Banner"): row["banner"],
        _("Logins"): row["logins"],
        _("Last login"): values.until(row["last_login_at"]),
    }
    for name, value in lines.items():
        write(f"{name}: {cell(value)}")
    for name, value in row["rules"].items():
        write(f"  {name} = {values.plain(value)}")
