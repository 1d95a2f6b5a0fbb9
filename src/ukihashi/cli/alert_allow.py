"""`ukihashi alert allow`: the list of tunnels that are known and allowed.

Exit status: 0 done, 2 a value that can't be, no such entry, or a wrong file, 3 the file can't be written.
"""

import datetime as dt
import time
from collections.abc import Mapping
from typing import Any

import click

from ukihashi.alert import allow as entries
from ukihashi.cli.output import DASH, Column, print_json, say_aside, show
from ukihashi.cli.user import json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _


@click.group(
    help=_(
        "The list of tunnels that are known and allowed. They get no log line, but an event that names the entry. A"
        " running sensor reads the list again when it changes."
    )
)
def allow() -> None:
    """The allow list."""


@allow.command(help=_("Allow the tunnels of a client, or of a whole prefix, until a day."))
@click.option("--client", required=True, metavar="ADDRESS", help=_("Address or prefix inside, such as 10.1.2.0/24."))
@click.option("--server", default="", metavar="ADDRESS", help=_("Address or prefix of the server [any]."))
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), metavar="PORT", help=_("TCP port of the server [any].")
)
@click.option("--family", default="", type=click.Choice(("", *entries.FAMILIES)), help=_("Whose tunnel it is [any]."))
@click.option("--owner", required=True, metavar="NAME", help=_("Who answers for it."))
@click.option("--reason", required=True, metavar="TEXT", help=_("Why it is allowed."))
@click.option("--until", required=True, metavar="DATE", help=_("The last day it holds, as 2027-03-31."))
@json_option
def add(client: str, server: str, port: int, family: str, owner: str, reason: str, until: str, as_json: bool) -> None:
    """Add an entry."""
    entry = entries.add(
        entries.default_path(),
        client=client,
        server=server,
        port=port,
        family=family,
        owner=owner,
        reason=reason,
        expires=_day(until),
    )
    if as_json:
        print_json(_row(entry))
    else:
        say_aside(_("entry {id}: allowed until {day}").format(id=entry.id, day=entry.expires))


@allow.command("list", help=_("Show the entries, expired ones too."))
@json_option
def list_entries(as_json: bool) -> None:
    """Show the list."""
    columns = [
        Column("id", _("ID")),
        Column("client", _("CLIENT")),
        Column("server", _("SERVER")),
        Column("port", _("PORT"), lambda port: str(port or DASH), right=True),
        Column("family", _("FAMILY")),
        Column("expires", _("UNTIL")),
        Column("state", _("STATE"), _),
        Column("owner", _("OWNER")),
        Column("reason", _("REASON")),
    ]
    rows = [_row(entry) for entry in entries.read(entries.default_path())]
    show(rows, columns, as_json=as_json, empty=_("nothing is allowed yet"))


@allow.command(help=_("Take an entry out; what it allowed is reported again."))
@click.argument("identity", metavar="ID")
@json_option
def remove(identity: str, as_json: bool) -> None:
    """Remove an entry."""
    entry = entries.remove(entries.default_path(), identity)
    if as_json:
        print_json(_row(entry))
    else:
        say_aside(_("entry {id} was removed").format(id=entry.id))


def add_entry(event: Mapping[str, Any], *, owner: str, reason: str, until: str) -> str:
    """Allow what an `alert` event found: this client to this server, port and family. The new entry's id.

    Raises: as `entries.add`; UsageError for a day that is none.
    """
    about = event.get("ukihashi")
    return entries.add(
        entries.default_path(),
        client=str(event["src_ip"]),
        server=str(event["dest_ip"]),
        port=int(event["dest_port"]),
        family=str(about.get("family", "")) if isinstance(about, dict) else "",
        owner=owner,
        reason=reason,
        expires=_day(until),
    ).id


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(N_("“{text}” is no day; write it as 2027-03-31"), text=text) from None


def _row(entry: entries.Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "client": entry.client,
        "server": entry.server,
        "port": entry.port,
        "family": entry.family,
        "expires": entry.expires.isoformat(),
        "state": N_("holds") if entry.holds(time.time()) else N_("expired"),
        "owner": entry.owner,
        "reason": entry.reason,
    }
