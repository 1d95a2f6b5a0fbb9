"""`ukihashi hub cascade`: other hubs that a virtual hub joins as a bridge, so that both are one network."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from ukihashi.cli import values
from ukihashi.cli.arguments import hide_argument
from ukihashi.cli.card_status import STATES as CARD_STATES
from ukihashi.cli.hub_sessions import DROPS as SESSION_DROPS
from ukihashi.cli.loops import blocked, in_words
from ukihashi.cli.output import Column, cell, moment, print_json, say_aside, show, write
from ukihashi.cli.path_options import check_one_stdin, path_changes, via_options
from ukihashi.cli.user import client, hub_option, json_option
from ukihashi.config.options import value_text
from ukihashi.errors import N_, InputUnreadable, UkihashiError, UsageError
from ukihashi.locale import _, say
from ukihashi.switch import reasons
from ukihashi.web.status import size

STATES: Final = {
    **CARD_STATES,
    "offline": N_("offline"),
    "hub_offline": N_("offline, as its virtual hub"),
    "starting": N_("starting"),
}
DROPS: Final = {
    **reasons.WORDS,
    **SESSION_DROPS,
    "cascade_down": N_("not joined at the time"),
    "loop": N_("blocked for a loop"),
}


@click.group(help=_("Other hubs that a virtual hub joins as a bridge, so that both are one network."))
def cascade() -> None:
    """The group."""


@cascade.command(
    help=_(
        "Make a cascade: join another hub, by a join link (--to, made there with `ukihashi hub invite`) or by hand,"
        " as a SoftEther VPN server needs. It is joined at once, and again whenever the connection is lost."
    )
)
@click.argument("name", metavar="NAME")
@hub_option
@click.option("--to", "link", default="", metavar="LINK|-", help=_("A join link of the other hub; - reads it."))
@click.option("--server", default="", metavar="HOST[:PORT]", help=_("Where the other hub is; port 443 if not given."))
@click.option("--remote-hub", default="", metavar="HUB", help=_("Name of the virtual hub there."))
@click.option("--user", default="", help=_("User name there."))
@click.option("--password-file", type=click.File("r"), help=_("File with the password in its first line; - is stdin."))
@click.option("--anonymous", is_flag=True, help=_("The user needs no password."))
@click.option("--plain", is_flag=True, help=_("Send the password itself inside TLS (for chosen passwords, RADIUS)."))
@click.option("--certificate", type=click.Path(path_type=Path), help=_("Log in by this certificate (PEM)."))
@click.option("--key", type=click.Path(path_type=Path), help=_("The certificate's key (PEM, no passphrase)."))
@click.option("--pin", default="", metavar="SHA256", help=_("Trust only the key with this fingerprint."))
@click.option("--max-connections", type=click.IntRange(1, 32), help=_("TCP connections, at a hub that takes several."))
@via_options
@click.option("--offline", is_flag=True, help=_("Don't join yet."))
@values.policy_option
@json_option
def create(
    *,
    name: str,
    hub_name: str,
    link: str,
    server: str,
    remote_hub: str,
    user: str,
    password_file: Any,
    anonymous: bool,
    plain: bool,
    certificate: Path | None,
    key: Path | None,
    pin: str,
    max_connections: int | None,
    via: str,
    via_password_file: Any,
    offline: bool,
    policy: tuple[str, ...],
    as_json: bool,
) -> None:
    """Exit status: 0 made, 2 a wrong or missing value, 4 no hub runs. Without --pin the key is trusted on first use."""
    given: dict[str, Any] = {"offline": offline}
    check_one_stdin(password_file, sys.stdin if link == "-" else None, via_password_file)
    path = path_changes(via, via_password_file, look_up=False)
    if link:
        given["link"] = _link(link)
    if server or remote_hub or user or not link:
        given |= {"server": server, "remote_hub": remote_hub, "user": user, "pin": pin}
        given |= _proof(password_file, anonymous, plain, certificate, key)
    options: dict[str, Any] = {**given.pop("options", {}), **path}
    if max_connections is not None:
        options["standard.max_connections"] = max_connections
    if policy:
        given["policy"] = values.assignments(policy)
    row = client().ask("cascade_create", name=name, hub=hub_name, options=options, **given)[0]
    if as_json:
        print_json(row)
        return
    told = _("cascade {name} of hub {hub} is made; `ukihashi hub cascade list` shows how it stands")
    say_aside(told.format(name=row["name"], hub=row["hub"]))


@cascade.command("set", help=_("Change options of a cascade, as those of a card's account; it joins anew with them."))
@click.argument("name", metavar="NAME")
@click.argument("words", metavar="[KEY VALUE]...", nargs=-1)
@hub_option
@click.option("--password-file", type=click.File("r"), help=_("File with the password in its first line; - is stdin."))
@via_options
@values.policy_option
@json_option
def change(
    *,
    name: str,
    words: tuple[str, ...],
    hub_name: str,
    password_file: Any,
    via: str,
    via_password_file: Any,
    policy: tuple[str, ...],
    as_json: bool,
) -> None:
    """Exit status: 0 changed, 2 no such cascade or hub, or a wrong value, 4 no hub runs."""
    if len(words) % 2:
        raise UsageError(N_("give KEY and VALUE in pairs, as in standard.max_connections 8"))
    options: dict[str, Any] = dict(zip(words[::2], words[1::2], strict=True))
    if secret := {"login.password", "login.invite"} & options.keys():
        raise UsageError(N_("{key} is a secret and not for a command line; use --password-file"), key=secret.pop())
    if (key := "path.password") in options:
        raise UsageError(
            N_("{key} is a secret and not for a command line; use --via with --via-password-file"), key=key
        )
    check_one_stdin(password_file, via_password_file)
    options |= path_changes(via, via_password_file, look_up=False)
    for key in ("login.certificate", "login.key", "trust.ca_file"):
        if options.get(key):
            options[key] = _text(Path(options[key]))
    if password_file is not None:
        options["login.password"] = _password(password_file)
    if not options and not policy:
        raise UsageError(N_("nothing to change; give KEY and VALUE, --policy or --password-file"))
    fields = {"policy": values.assignments(policy)} if policy else {}
    _show_one(client().ask("cascade_set", name=name, hub=hub_name, options=options, **fields)[0], as_json)


def _put(name: str, hub_name: str, as_json: bool, *, online: bool) -> None:
    _show_one(client().ask("cascade_set", name=name, hub=hub_name, online=online)[0], as_json)


@cascade.command(help=_("Join the other hub."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def online(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such cascade or hub, 4 no hub runs."""
    _put(name, hub_name, as_json, online=True)


@cascade.command(help=_("Leave the other hub; the account stays."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def offline(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such cascade or hub, 4 no hub runs."""
    _put(name, hub_name, as_json, online=False)


@cascade.command(help=_("Leave the other hub and forget the account."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def delete(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 deleted, 2 no such cascade or hub, 4 no hub runs."""
    row = client().ask("cascade_delete", name=name, hub=hub_name)[0]
    if as_json:
        print_json(row)
    else:
        say_aside(_("cascade {name} of hub {hub} was deleted").format(name=row["name"], hub=row["hub"]))


@cascade.command("list", help=_("List cascades and how they stand."))
@hub_option
@json_option
def list_cascades(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    rows = client().ask("cascades", hub=hub_name)
    columns = [
        Column("hub", _("HUB")),
        Column("name", _("CASCADE")),
        Column("state", _("STATE"), _state),
        Column("server", _("SERVER")),
        Column("remote_hub", _("HUB THERE")),
        Column("session", _("SESSION")),
        Column("connections", _("TCP"), right=True),
        Column("bytes_in", _("RECEIVED"), size, right=True),
        Column("bytes_out", _("SENT"), size, right=True),
        Column("drops", _("DROPPED"), lambda drops: str(sum(drops.values())), right=True),
        Column("since", _("SINCE"), moment),
    ]
    show(rows, columns, as_json=as_json, empty=_("no cascades yet"))
    if not as_json:
        for row in rows:
            if said := remark(row):
                write(f"{cell(row['name'])}: {said}")


@cascade.command("show", help=_("Show one cascade with its options."))
@click.argument("name", metavar="NAME")
@hub_option
@json_option
def show_cascade(name: str, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 shown, 2 no such cascade or hub, 4 no hub runs."""
    _show_one(client().ask("cascade_show", name=name, hub=hub_name)[0], as_json)


def remark(row: Mapping[str, Any]) -> str:
    """A loop, why it is not online, and what was dropped and why; "" if there is nothing of the kind."""
    parts = []
    if loop := blocked(row, str(row["name"])):
        parts.append(loop)
    if there := row.get("blocked"):
        said = in_words(str(there["with"]), str(row.get("session")), max(0.0, time.time() - there["since"]))
        parts.append(_("the hub there: {said}").format(said=said))
    if row.get("reason"):
        parts.append(_reason(row["reason"]))
    if row.get("resumes"):
        parts.append(_("{count} times back after a cut").format(count=row["resumes"]))
    drops = ", ".join(f"{_(DROPS.get(why, why))} {count}" for why, count in row.get("drops", {}).items() if count)
    if drops:
        parts.append(_("dropped: {reasons}").format(reasons=drops))
    return "; ".join(parts)


def _state(state: object) -> str:
    return _(STATES.get(str(state), str(state)))


def _reason(reason: Mapping[str, Any]) -> str:
    try:
        return say(UkihashiError(str(reason["template"]), **reason["values"]))
    except (KeyError, ValueError, IndexError, TypeError):  # of another version
        return str(reason.get("text"))


def _show_one(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    lines = {
        _("Cascade"): row["name"],
        _("Hub"): row["hub"],
        _("State"): _state(row["state"]),
        _("Reason"): _reason(row["reason"]) if row.get("reason") else "",
        _("Loop"): blocked(row, str(row["name"])),
        _("Server"): row.get("peer") or row["server"],
        _("Hub there"): row["remote_hub"],
        _("User"): row["user"],
        _("Hub's program"): row.get("product"),
        _("Session"): row.get("session"),
        _("Encryption"): " ".join(filter(None, (row.get("tls"), row.get("cipher")))),
        _("Connections"): row.get("connections"),
    }
    for name, value in lines.items():
        if value not in ("", None):
            write(f"{name}: {cell(value)}")
    for key, value in row.get("options", {}).items():
        write(f"  {key} = {cell(value_text(value))}")
    for line in values.policy_lines(row.get("policy", {})):
        write(f"  {line}")


def _link(link: str) -> str:
    if link == "-":
        return sys.stdin.readline().strip()
    hide_argument(link)
    return link


def _proof(
    password_file: Any, anonymous: bool, plain: bool, certificate: Path | None, key: Path | None
) -> dict[str, Any]:
    """How to log in there."""
    if certificate is not None or key is not None:
        if certificate is None or key is None:
            raise UsageError(N_("a login by certificate needs --certificate and --key"))
        from ukihashi.card import credentials

        credentials.load(str(certificate), str(key))  # what is wrong is said here
        files = {"login.certificate": _text(certificate), "login.key": _text(key)}
        return {"method": "certificate", "options": files}
    if anonymous:
        return {"method": "anonymous"}
    return {"method": "plain" if plain else "password", "password": _password(password_file)}


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=path, reason=reason) from error


def _password(file: Any) -> str:
    if file is None:
        text = click.prompt(_("Password"), hide_input=True, err=True)
    else:
        try:
            text = file.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise InputUnreadable(N_("{path} can't be read: {reason}"), path=file.name, reason=error) from error
    password = str(text).rstrip("\r\n")
    if not password:
        raise UsageError(N_("the password is empty; a user without one joins with --anonymous"))
    return password
