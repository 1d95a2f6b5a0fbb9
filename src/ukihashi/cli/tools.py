"""`ukihashi hub admin`: who else may administrate, namely with the tools of others."""

import click

from ukihashi.cli.output import Column, say_aside, show, write, yes_no
from ukihashi.cli.user import client, json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _


@click.group(help=_("Who may administrate, apart from who may use this command."))
def admin() -> None:
    """The group."""


@admin.command(help=_("Let tools of others in (vpncmd, server managers, JSON-RPC), or no more; without either, show."))
@click.option(
    "--on", "on", is_flag=True, help=_("Make a password for them and show it once; an older one is forgotten.")
)
@click.option("--off", "off", is_flag=True, help=_("Forget the password; nobody gets in with such a tool."))
@click.option(
    "--hub",
    "hub_name",
    default="",
    metavar="HUB",
    help=_("Only for that virtual hub; the password also lets in as its user administrator [the whole]."),
)
@json_option
def tools(on: bool, off: bool, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such hub, or both options, 4 no hub runs."""
    if on and off:
        raise UsageError(N_("give one of --on and --off"))
    if not on and not off:
        rows = client().ask("tools")
        if hub_name:
            rows = [row for row in rows if row["hub"].casefold() == hub_name.casefold()]
            if not rows:
                raise UsageError(N_("there is no virtual hub “{name}”"), name=hub_name)
        shown = rows if as_json else [row | {"hub": row["hub"] or _("(all)")} for row in rows]
        show(shown, _columns(), as_json=as_json, empty="")
        return
    rows = client().ask("tools_on" if on else "tools_off", hub=hub_name)
    if as_json:
        show(rows, [], as_json=True, empty="")
    elif off:
        say_aside(_("no tool of others is let in any more"))
    else:
        say_aside(_("the password for tools of others, shown only this once; user name: administrator"))
        write(rows[0]["password"])


def _columns() -> list[Column]:
    return [
        Column("hub", _("HUB")),
        Column("on", _("TOOLS"), yes_no),
    ]
