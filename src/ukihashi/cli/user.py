"""`ukihashi hub user`: who may join a virtual hub, and with what (D10)."""

from pathlib import Path
from typing import Any

import click

from ukihashi.cli.output import Column, moment, say_aside, show, write
from ukihashi.config import places
from ukihashi.errors import N_, InputUnreadable, UsageError
from ukihashi.locale import _
from ukihashi.net.control_socket import Client

NO_HUB_RUNS = N_("no hub is running here (nothing answers on {path}); start it with: ukihashi hub serve")
ASK_S = 15.0  # a password's hash may wait in a line

json_option = click.option("--json", "as_json", is_flag=True, help=_("One JSON object a line."))
hub_option = click.option("--hub", "hub_name", default="", metavar="HUB", help=_("The virtual hub [the only one]."))


def client() -> Client:
    """The way to the running hub."""
    return Client(places.hub_socket(), ASK_S, absent=NO_HUB_RUNS)


def _login_words() -> dict[str, str]:
    return {
        "generated": _("generated password"),
        "chosen": _("chosen password"),
        "chosen+standard": _("chosen password, standard hash kept"),
        "anonymous": _("anonymous"),
        "none": _("by join link only"),
    }


def _columns() -> list[Column]:
    words = _login_words()
    return [
        Column("hub", _("HUB")),
        Column("name", _("USER")),
        Column("login", _("LOGIN"), lambda kind: words.get(kind, kind)),
        Column("addresses", _("ADDRESSES")),
        Column("last_login_at", _("LAST LOGIN"), moment),
        Column("note", _("NOTE")),
    ]


@click.group(help=_("Users of a virtual hub."))
def user() -> None:
    """The group."""


@user.command("list", help=_("List users."))
@hub_option
@json_option
def list_users(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    show(client().ask("users", hub=hub_name), _columns(), as_json=as_json, empty=_("no users yet"))


@user.command("show", help=_("Show one user."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def show_user(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 shown, 2 no such user or hub, 4 no hub runs."""
    show(client().ask("user_show", name=name, hub=hub_name), _columns(), as_json=as_json, empty="")


_prompt = click.option("--password-prompt", is_flag=True, help=_("Ask for a password of your choice."))
_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help=_("Take the password from the first line of FILE; - is standard input."),
)
_standard = click.option(
    "--standard-hash",
    is_flag=True,
    help=_(
        "For a chosen password, keep also the hash that official clients' standard login needs. It is as good as the"
        " password itself to whoever reads the database."
    ),
)


@user.command(help=_("Make a user. Without a password option, one is generated and shown once."))
@click.argument("name", metavar="NAME")
@hub_option
@_prompt
@_file
@_standard
@click.option("--anonymous", is_flag=True, help=_("Let this user in without a password."))
@click.option("--note", default="", metavar="TEXT", help=_("A remark for listings."))
@json_option
def create(
    name: str,
    hub_name: str,
    password_prompt: bool,
    password_file: Path | None,
    standard_hash: bool,
    anonymous: bool,
    note: str,
    as_json: bool,
) -> None:
    """Exit status: 0 made, 2 name taken or wrong, 4 no hub runs."""
    password = _password(prompt=password_prompt, file=password_file)
    if standard_hash and not password:
        raise UsageError(N_("--standard-hash goes with --password-prompt or --password-file"))
    arguments: dict[str, Any] = {"password": password, "standard_hash": standard_hash, "anonymous": anonymous}
    rows = client().ask("user_create", name=name, hub=hub_name, note=note, **arguments)
    _tell(rows, as_json, _("user {name} of hub {hub} was made"))


@user.command(help=_("Replace a user's password. Without a password option, one is generated and shown once."))
@click.argument("name", metavar="NAME")
@hub_option
@_prompt
@_file
@_standard
@json_option
def password(
    name: str,
    hub_name: str,
    password_prompt: bool,
    password_file: Path | None,
    standard_hash: bool,
    as_json: bool,
) -> None:
    """Exit status: 0 set, 2 no such user or hub, 4 no hub runs."""
    chosen = _password(prompt=password_prompt, file=password_file)
    if standard_hash and not chosen:
        raise UsageError(N_("--standard-hash goes with --password-prompt or --password-file"))
    rows = client().ask("user_password", name=name, hub=hub_name, password=chosen, standard_hash=standard_hash)
    _tell(rows, as_json, _("the password of user {name} of hub {hub} was set"))


@user.command(help=_("Delete a user; the user's sessions end."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def delete(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 deleted, 2 no such user or hub, 4 no hub runs."""
    rows = client().ask("user_delete", name=name, hub=hub_name)
    _tell(rows, as_json, _("user {name} of hub {hub} was deleted"))


def _tell(rows: list[dict[str, Any]], as_json: bool, sentence: str) -> None:
    if as_json:
        show(rows, [], as_json=True, empty="")
        return
    row = rows[0]
    say_aside(sentence.format(name=row["name"], hub=row["hub"]))
    if secret := row.get("password"):
        say_aside(_("the password, shown only this once:"))
        write(secret)


def _password(*, prompt: bool, file: Path | None) -> str:
    """A chosen password; "" when none was asked for. Never from the command line itself: others see that."""
    if prompt and file is not None:
        raise UsageError(N_("give --password-prompt or --password-file, not both"))
    if prompt:
        return str(click.prompt(_("Password"), hide_input=True, confirmation_prompt=_("The same again"), err=True))
    if file is None:
        return ""
    try:
        with click.open_file(str(file), encoding="utf-8") as opened:
            line = str(opened.readline()).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "UTF-8"
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=file, reason=reason) from error
    if not line:
        raise UsageError(N_("the first line of {path} is empty; a password stands there"), path=file)
    return line
