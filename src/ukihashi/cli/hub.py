"""`ukihashi hub`: serve virtual HUBs, look into them, invite people. Thin: the hub itself does the work.

Exit status: 0 done, 2 wrong name or value, 3 this machine lacks something, 4 no hub runs, 5 refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ukihashi.cli import filters, hub_sessions
from ukihashi.cli.cascade import cascade
from ukihashi.cli.ciphers import hub_ciphers
from ukihashi.cli.group import group
from ukihashi.cli.hub_addresses import addresses, leases
from ukihashi.cli.hub_bridge import bridge, bridge_lines
from ukihashi.cli.hub_set import set_hub, show_hub
from ukihashi.cli.hub_uplink import uplink, uplink_lines
from ukihashi.cli.import_config import import_config
from ukihashi.cli.loops import in_words
from ukihashi.cli.options import HUB_COMMANDS
from ukihashi.cli.output import Column, cell, moment, print_json, say_aside, show, write, yes_no
from ukihashi.cli.path_options import path_of
from ukihashi.cli.tools import admin
from ukihashi.cli.upgrade import upgrade
from ukihashi.cli.user import client, json_option, user
from ukihashi.cli.values import policies
from ukihashi.config import places
from ukihashi.config.hub import LOG_FORMATS, MAX_WORKERS
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _
from ukihashi.web.status import span

_folder = click.Path(path_type=Path, file_okay=False)


@click.group(help=_("The virtual HUB: an Ethernet switch that members reach by HTTPS."))
@click.option("--state-dir", type=_folder, metavar="DIR", help=_("Where the hub keeps its keys and database."))
@click.option("--runtime-dir", type=_folder, metavar="DIR", help=_("Where the control socket is."))
@click.option("--config-dir", type=_folder, metavar="DIR", help=_("Where hub.toml is."))
def hub(state_dir: Path | None, runtime_dir: Path | None, config_dir: Path | None) -> None:
    """Options win over UKIHASHI_STATE_DIR, UKIHASHI_RUNTIME_DIR and UKIHASHI_CONFIG_DIR."""
    places.override(state=state_dir, runtime=runtime_dir, config=config_dir)


for _command in (
    admin,
    show_hub,
    set_hub,
    user,
    group,
    policies,
    cascade,
    filters.access,
    filters.source,
    filters.authority,
    filters.revoke,
    hub_ciphers,
    import_config,
    addresses,
    leases,
    upgrade,
    bridge,
    uplink,
    *HUB_COMMANDS,
):
    hub.add_command(_command)


@hub.command(help=_("Start the hub; it stays in the foreground until Ctrl-C or SIGTERM."))
@click.option(
    "--listen",
    multiple=True,
    metavar="[ADDRESS:]PORT",
    help=_("Where to listen: 443, 192.0.2.1:443 or [2001:db8::1]:443; may be given several times [443]."),
)
@click.option(
    "--first",
    is_flag=True,
    help=_("Make the virtual hub LAN with a port on this machine if there is no hub yet, and print a join link."),
)
@click.option("--state-dir", type=_folder, metavar="DIR", help=_("Where the hub keeps its keys and database."))
@click.option("--runtime-dir", type=_folder, metavar="DIR", help=_("Where the control socket is."))
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="NUMBER",
    help=_("How many processes carry frames [workers of hub.toml]."),
)
@click.option("--log-format", type=click.Choice(LOG_FORMATS), help=_("Form of the log on standard error [text]."))
@click.option("--check", is_flag=True, help=_("Only read configuration, key and certificate, and say what is wrong."))
@json_option
def serve(
    listen: tuple[str, ...],
    first: bool,
    state_dir: Path | None,
    runtime_dir: Path | None,
    workers: int | None,
    log_format: str | None,
    check: bool,
    as_json: bool,
) -> int:
    """Exit status: 0 ended in order, 2 wrong configuration, 3 no right, port taken, no room."""
    places.override(state=state_dir, runtime=runtime_dir)
    from ukihashi.cli.serving import check_hub, serve_hub

    if check:
        row = check_hub(listen=listen, log_format=log_format or "")
        if as_json:
            print_json(row)
        else:
            found = _("version {version} could serve on {listen}")
            write(found.format(version=row["version"], listen=", ".join(row["listen"])))
        return 0
    return serve_hub(listen=listen, first=first, log_format=log_format or "", workers=workers or 0)


# -- looking ------------------------------------------------------------------------------------------------------


@hub.command(help=_("Show how the hub is."))
@json_option
def status(as_json: bool) -> None:
    """Exit status: 0 it runs, 4 it doesn't."""
    row = client().ask("status")[0]
    if as_json:
        print_json(row)
        return
    worker = row["worker"]
    lines = {
        _("Version"): row["version"],
        _("Running for"): span(row["uptime_s"], _),
        _("Listening on"): ", ".join(row["listen"]),
        _("Key pin"): row["pin"],
        _("Virtual hubs"): row["hubs"],
        _("Sessions"): "?" if row["sessions"] is None else row["sessions"],
        _("Connections"): worker.get("connections", "?"),
    }
    for name, value in lines.items():
        write(f"{name}: {value}")
    for line in bridge_lines(row.get("bridges", [])):
        write(line)
    for line in uplink_lines(row.get("uplinks", [])):
        write(line)
    several = worker.get("workers") or []
    for one in several if len(several) > 1 else []:
        told = _("Worker {number}: process {pid}, {sessions} sessions")
        write(told.format(number=one["worker"], pid=one["pid"], sessions=one["sessions"]))
    for one in worker.get("loops", []):
        said = in_words(one["with"], one["port"], one["seconds"])
        write(_("Loop: {hub}, {port}: {said}").format(hub=cell(one["hub"]), port=cell(one["port"]), said=said))
    for one in row.get("caught", []):
        write(hub_sessions.caught(one))
    if done := row.get("upgrade"):
        write(_("Upgraded: {number} times, last from version {old}").format(number=done["number"], old=done["from"]))
    if problem := worker.get("error"):
        say_aside(problem)


@hub.command(help=_("List the sessions of HUB, or of all virtual hubs."))
@click.argument("name", metavar="[HUB]", default="")
@json_option
def sessions(name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    hub_sessions.show(client().ask("sessions", hub=name), as_json=as_json)


@hub.command("mac-table", help=_("List the stations that HUB has learned."))
@click.argument("name", metavar="HUB", default="")
@json_option
def mac_table(name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    columns = [
        Column("mac", _("MAC ADDRESS")),
        Column("vlan", _("VLAN"), lambda vlan: str(vlan) if vlan else "", right=True),
        Column("session", _("SESSION")),
        Column("age_s", _("SECONDS AGO"), lambda age: f"{age:.0f}", right=True),
    ]
    show(client().ask("mac_table", hub=name), columns, as_json=as_json, empty=_("no stations learned"))


@hub.command(help=_("End a session."))
@click.argument("session", metavar="SESSION")
@json_option
def disconnect(session: str, as_json: bool) -> None:
    """Exit status: 0 ended, 2 no such session, 4 no hub runs."""
    rows = client().ask("disconnect", session=session)
    if as_json:
        show(rows, [], as_json=True, empty="")
    else:
        say_aside(_("session {session} was ended").format(session=session))


# -- virtual hubs -------------------------------------------------------------------------------------------------


@hub.command("list", help=_("List virtual hubs."))
@json_option
def list_hubs(as_json: bool) -> None:
    """Exit status: 0 listed, 4 no hub runs."""
    show(client().ask("list"), _hub_columns(), as_json=as_json, empty=_("no virtual hubs yet"))


@hub.command(help=_("Make a virtual hub, with subnets that are free on this machine."))
@click.argument("name", metavar="NAME")
@click.option("--host-port", is_flag=True, help=_("Give this machine a place in it, with address .1 (needs root)."))
@click.option("--offline", is_flag=True, help=_("Let nobody in yet."))
@json_option
def create(name: str, host_port: bool, offline: bool, as_json: bool) -> None:
    """Exit status: 0 made, 2 name taken or wrong, 3 no subnet free or no root, 4 no hub runs."""
    rows = client().ask("create", name=name, host_port=host_port, offline=offline)
    show(rows, _hub_columns()[:-2], as_json=as_json, empty="")


@hub.command(help=_("Delete a virtual hub with its users and join links; its sessions end."))
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help=_("Don't ask."))
@json_option
def delete(name: str, yes: bool, as_json: bool) -> None:
    """Exit status: 0 deleted, 2 no such hub, 4 no hub runs, 130 not confirmed."""
    asking = client()
    if not yes:
        known = [row for row in asking.ask("list") if row["name"].casefold() == name.casefold()]
        count = known[0]["users"] if known else 0
        question = _("Delete virtual hub {name} with its {count} users?").format(name=name, count=count)
        click.confirm(question, abort=True, err=True)
    rows = asking.ask("delete", name=name)
    if as_json:
        show(rows, [], as_json=True, empty="")
    else:
        say_aside(_("virtual hub {name} was deleted").format(name=rows[0]["name"]))


def _hub_columns() -> list[Column]:
    return [
        Column("name", _("HUB")),
        Column("online", _("ONLINE"), yes_no),
        Column("subnet4", "IPv4"),
        Column("subnet6", "IPv6"),
        Column("host_port", _("HOST PORT")),
        Column("users", _("USERS"), right=True),
        Column("sessions", _("SESSIONS"), right=True),
    ]


# -- join links ---------------------------------------------------------------------------------------------------


@hub.command(help=_("Make a join link for a user of HUB; the user is made if new. Or list or revoke links."))
@click.argument("name", metavar="[HUB]", default="")
@click.option("--user", "user_name", metavar="NAME", default="", help=_("Whom the link is for."))
@click.option(
    "--host",
    "host_name",
    metavar="ADDRESS[:PORT]",
    default="",
    help=_("How the card reaches this machine [public_address of hub.toml, else found out]."),
)
@click.option("--days", type=float, default=7.0, metavar="DAYS", help=_("How long the link can be used [7]."))
@click.option(
    "--via",
    "urls",
    multiple=True,
    metavar="URL",
    help=_("A path that the card tries besides the direct one, such as http://proxy.example:3128; may be repeated."),
)
@click.option("--list", "listing", is_flag=True, help=_("List links."))
@click.option("--revoke", type=int, metavar="NUMBER", help=_("Make a link useless; numbers are in --list."))
@json_option
def invite(
    *,
    name: str,
    user_name: str,
    host_name: str,
    days: float,
    urls: Sequence[str],
    listing: bool,
    revoke: int | None,
    as_json: bool,
) -> None:
    """Exit status: 0 done, 2 no such hub, wrong name or number, 4 no hub runs."""
    if bool(user_name) + listing + (revoke is not None) != 1:
        raise UsageError(N_("give one of --user NAME, --list and --revoke NUMBER"))
    paths = {"via": [str(path_of(url)) for url in urls]} if urls else {}
    if listing:
        show(client().ask("invites", hub=name), _invite_columns(), as_json=as_json, empty=_("no join links"))
        return
    if revoke is not None:
        rows = client().ask("invite_revoke", invite=revoke)
        if as_json:
            show(rows, [], as_json=True, empty="")
        else:
            say_aside(_("join link {number} is useless now").format(number=revoke))
        return
    row = client().ask("invite", user=user_name, hub=name, host_name=host_name, days=days, **paths)[0]
    if as_json:
        print_json(row)
        return
    tell_invite(row)


def tell_invite(row: dict[str, Any]) -> None:
    """A new link for people: the link alone on standard output, what to do with it beside."""
    told = _("Join link for {user} of hub {hub}, addresses {addresses}; it works once, until {until}:")
    addresses, until = ", ".join(row["addresses"]), moment(row["expires_at"])
    say_aside(told.format(user=row["user"], hub=row["hub"], addresses=addresses, until=until))
    write(row["link"])
    say_aside(_("On the machine that shall join: {command}").format(command=row["command"]))


def _invite_columns() -> list[Column]:
    words = {"open": _("open"), "used": _("used"), "revoked": _("revoked"), "expired": _("expired")}
    return [
        Column("id", _("NUMBER"), right=True),
        Column("hub", _("HUB")),
        Column("user", _("USER")),
        Column("state", _("STATE"), lambda state: words.get(state, state)),
        Column("created_at", _("MADE"), moment),
        Column("expires_at", _("EXPIRES"), moment),
    ]


# -- the administrator --------------------------------------------------------------------------------------------


@hub.command("admin-secret", help=_("Replace a forgotten administrator's password by a new one-time secret."))
@click.option("--reset", is_flag=True, help=_("Really do it."))
@json_option
def admin_secret(reset: bool, as_json: bool) -> None:
    """Exit status: 0 done, 2 without --reset, 4 no hub runs."""
    if not reset:
        raise UsageError(N_("the secret itself is not kept anywhere; --reset makes a new one and forgets the old"))
    row = client().ask("admin_reset")[0]
    if as_json:
        print_json(row)
        return
    say_aside(_("the administrator's new one-time secret, shown only this once:"))
    write(row["secret"])
