"""`ukihashi hub group`: policies that several users share."""

from collections.abc import Mapping
from typing import Any

import click

from ukihashi.cli import values
from ukihashi.cli.output import Column, cell, print_json, say_aside, show, write
from ukihashi.cli.user import client, hub_option, json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _

_real_name = click.option("--real-name", metavar="TEXT", help=_("What the group is called."))
_note = click.option("--note", metavar="TEXT", help=_("A remark for listings."))


@click.group(help=_("Groups of users, who share a policy."))
def group() -> None:
    """The group."""


@group.command("list", help=_("List groups."))
@hub_option
@json_option
def list_groups(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    columns = [
        Column("hub", _("HUB")),
        Column("name", _("GROUP")),
        Column("users", _("USERS"), right=True),
        Column("real_name", _("NAME")),
        Column("note", _("NOTE")),
    ]
    show(client().ask("groups", hub=hub_name), columns, as_json=as_json, empty=_("no groups yet"))


@group.command("show", help=_("Show one group."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def show_group(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 shown, 2 no such group or hub, 4 no hub runs."""
    _show_one(client().ask("group_show", name=name, hub=hub_name)[0], as_json)


@group.command(help=_("Make a group."))
@click.argument("name", metavar="NAME")
@hub_option
@_real_name
@_note
@values.policy_option
@json_option
def create(name: str, hub_name: str, as_json: bool, **given: Any) -> None:
    """Exit status: 0 made, 2 name taken or wrong, or a wrong value, 4 no hub runs."""
    _show_one(client().ask("group_create", name=name, hub=hub_name, **_fields(given))[0], as_json)


@group.command("set", help=_("Change a group. Sessions that run keep the policy they began with."))
@click.argument("name", metavar="NAME")
@hub_option
@_real_name
@_note
@values.policy_option
@values.no_policy_option
@json_option
def change(name: str, hub_name: str, as_json: bool, **given: Any) -> None:
    """Exit status: 0 changed, 2 no such group or hub, or a wrong value, 4 no hub runs."""
    fields = _fields(given)
    if not fields:
        raise UsageError(N_("nothing to change; `ukihashi hub group set --help` lists what can be set"))
    _show_one(client().ask("group_set", name=name, hub=hub_name, **fields)[0], as_json)


@group.command(help=_("Delete a group; its users stay, in none."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def delete(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 deleted, 2 no such group or hub, 4 no hub runs."""
    row = client().ask("group_delete", name=name, hub=hub_name)[0]
    if as_json:
        print_json(row)
    else:
        say_aside(_("group {name} of hub {hub} was deleted").format(name=row["name"], hub=row["hub"]))


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    fields = {name: given[name] for name in ("real_name", "note") if given[name] is not None}
    return fields | values.policy_fields(given["policy"], no_policy=given.get("no_policy", False))


def _show_one(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    lines = {
        _("Group"): row["name"],
        _("Hub"): row["hub"],
        _("Called"): row["real_name"],
        _("Note"): row["note"],
        _("Users"): row["users"],
        _("Policy"): _("the group's") if row["policy_of"] == "group" else _("a new user's"),
    }
    for name, value in lines.items():
        write(f"{name}: {cell(value)}")
    for line in values.policy_lines(row["policy"]):
        write(f"  {line}")
