"""`ukihashi hub user`: who may join a virtual hub, and with what (D10)."""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from ukihashi.cli import values
from ukihashi.cli.output import Column, cell, moment, print_json, say_aside, show, write
from ukihashi.config import places
from ukihashi.errors import N_, InputUnreadable, UsageError
from ukihashi.locale import _
from ukihashi.net.control_socket import Client
from ukihashi.web.status import size

NO_HUB_RUNS = N_("no hub is running here (nothing answers on {path}); start it with: ukihashi hub serve")
ASK_S = 15.0  # a password's hash may wait in a line

json_option = click.option("--json", "as_json", is_flag=True, help=_("One JSON object a line."))
hub_option = click.option("--hub", "hub_name", default="", metavar="HUB", help=_("The virtual hub [the only one]."))


def client() -> Client:
    """The way to the running hub."""
    return Client(places.hub_socket(), ASK_S, absent=NO_HUB_RUNS)


def _login_words() -> dict[str, str]:
    return {
        "standard": _("password, standard hash kept"),
        "chosen": _("chosen password"),
        "chosen+standard": _("chosen password, standard hash kept"),
        "anonymous": _("anonymous"),
        "certificate": _("its own certificate"),
        "issued": _("certificate of a trusted authority"),
        "none": _("by join link only"),
    }


def _barred_words() -> dict[str, str]:
    return {
        "policy": _("no: the policy forbids it"),
        "expired": _("no: expired"),
        "quota": _("no: quota used up"),
    }


def _columns() -> list[Column]:
    words = _login_words()
    return [
        Column("hub", _("HUB")),
        Column("name", _("USER")),
        Column("login", _("LOGIN"), lambda kind: words.get(kind, kind)),
        Column("group", _("GROUP")),
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
    _show_one(client().ask("user_show", name=name, hub=hub_name)[0], as_json)


def _show_one(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    lines: dict[str, Any] = {
        _("User"): row["name"],
        _("Hub"): row["hub"],
        _("Login"): _login_words().get(row["login"], row["login"]),
        _("Group"): row["group"],
        _("Name of the person"): row["real_name"],
        _("Note"): row["note"],
        _("Addresses"): row["addresses"],
        _("May join"): _barred_words().get(row["barred"] or "", _("yes")),
        _("Until"): values.until(row["expires_at"]),
        _("Last login"): values.until(row["last_login_at"]),
        _("Logins"): row["logins"],
        _("Received"): size(row["bytes_in"]),
        _("Sent"): size(row["bytes_out"]),
    }
    if row["quota_bytes"]:
        told = _("{used} of {most} used, until {until}")
        lines[_("Quota")] = told.format(
            used=size(row["quota_used"]), most=size(row["quota_bytes"]), until=moment(row["quota_until"])
        )
    if shown := row.get("certificate"):
        told = _("{subject}, SHA-256 {print}, until {until}")
        lines[_("Certificate")] = told.format(
            subject=shown["subject"], print=shown["sha256"], until=moment(shown["not_after"])
        )
    if row["login"] == "issued":
        lines[_("Common name")] = row.get("common_name") or _("any")
        lines[_("Serial number")] = row.get("serial") or _("any")
    origin = {"user": _("its own"), "group": _("the group's"), "new user": _("a new user's")}
    lines[_("Policy")] = origin.get(row["policy_of"], row["policy_of"])
    for name, value in lines.items():
        write(f"{name}: {cell(value)}")
    for line in values.policy_lines(row["policy"]):
        write(f"  {line}")


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


_path = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_FIELDS: Final = (
    click.option("--anonymous", is_flag=True, help=_("Let this user in without a password.")),
    click.option(
        "--certificate", type=_path, metavar="FILE", help=_("Let this user in with this certificate (RSA, PEM or DER).")
    ),
    click.option(
        "--issued", is_flag=True, help=_("Let this user in with a certificate of an authority that the hub trusts.")
    ),
    click.option("--common-name", metavar="TEXT", help=_("With --issued: the name that must stand in it [any].")),
    click.option("--serial", metavar="HEX", help=_("With --issued: the serial number that it must have [any].")),
    click.option("--group", metavar="GROUP", help=_("The group, whose policy holds unless the user has one.")),
    click.option("--real-name", metavar="TEXT", help=_("Name of the person.")),
    click.option("--note", metavar="TEXT", help=_("A remark for listings.")),
    click.option(
        "--expires", metavar="WHEN", help=_("No login from then on: 2027-03-31, 2027-03-31T18:00, 30d, or never.")
    ),
    click.option(
        "--quota",
        metavar="SIZE[/DAYS]",
        help=_("Data of both directions in a period, as in 10G/30d; none for no limit [30 days]."),
    ),
    values.policy_option,
)


def _with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `create` and `set` have in common."""
    for option in reversed(_FIELDS):
        command = option(command)
    return command


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """What those options say, as fields of a verb."""
    fields = {name: given[name] for name in ("group", "real_name", "note") if given[name] is not None}
    proofs = [given["anonymous"], given["certificate"] is not None, given["issued"]]
    if sum(proofs) > 1:
        raise UsageError(N_("give one of --anonymous, --certificate and --issued"))
    if given["anonymous"]:
        fields["kind"] = "anonymous"
    if given["certificate"] is not None:
        fields["certificate"] = values.read_certificate(given["certificate"])
    if given["issued"]:
        fields["kind"] = "issued"
    fields |= {name: given[name] for name in ("common_name", "serial") if given[name] is not None}
    if given["expires"] is not None:
        fields["expires_at"] = values.when(given["expires"], dt.datetime.now(dt.UTC))
    if given["quota"] is not None:
        fields |= values.quota(given["quota"])
    return fields | values.policy_fields(given["policy"], no_policy=given.get("no_policy", False))


@user.command("set", help=_("Change a user. Sessions that run keep the policy they began with."))
@click.argument("name", metavar="NAME")
@hub_option
@_with_fields
@values.no_policy_option
@json_option
def change(name: str, hub_name: str, as_json: bool, **given: Any) -> None:
    """Exit status: 0 changed, 2 no such user, hub or group, or a wrong value, 4 no hub runs."""
    fields = _fields(given)
    if not fields:
        raise UsageError(N_("nothing to change; `ukihashi hub user set --help` lists what can be set"))
    _show_one(client().ask("user_set", name=name, hub=hub_name, **fields)[0], as_json)


@user.command(help=_("Make a user. Without a way to log in, a password is generated and shown once."))
@click.argument("name", metavar="NAME")
@hub_option
@_prompt
@_file
@_standard
@_with_fields
@json_option
def create(
    name: str,
    hub_name: str,
    password_prompt: bool,
    password_file: Path | None,
    standard_hash: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Exit status: 0 made, 2 name taken or wrong, or a wrong value, 4 no hub runs."""
    password = _password(prompt=password_prompt, file=password_file)
    if standard_hash and not password:
        raise UsageError(N_("--standard-hash goes with --password-prompt or --password-file"))
    fields = _fields(given)
    rows = client().ask(
        "user_create", name=name, hub=hub_name, password=password, standard_hash=standard_hash, **fields
    )
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
