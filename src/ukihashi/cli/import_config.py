"""`ukihashi hub import`: take over virtual hubs, users and rules from a standard server's `vpn_server.config`."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from ukihashi.cli.output import Column, print_json, say_aside, show, write
from ukihashi.cli.user import client, json_option
from ukihashi.config.vpn_server import HubPlan, Left, ServerPlan, parse, plan
from ukihashi.errors import N_, EnvironmentLacks, InputUnreadable, UsageError
from ukihashi.locale import _

AT_ONCE: Final = 300  # users in one request to the hub

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


@click.command("import", help=_("Take over virtual hubs and users from a SoftEther VPN server's vpn_server.config."))
@click.argument("file", type=_file, metavar="FILE")
@click.option(
    "--hub", "only", multiple=True, metavar="HUB", help=_("Only this virtual hub; may be given several times.")
)
@click.option("--dry-run", is_flag=True, help=_("Only say what would be taken over and what not."))
@click.option(
    "--certificate-to",
    type=_folder,
    metavar="DIR",
    help=_("Write the server's certificate and key there, so that clients that know it still find it."),
)
@json_option
def import_config(file: Path, only: tuple[str, ...], dry_run: bool, certificate_to: Path | None, as_json: bool) -> None:
    """Exit status: 0 taken over, 2 a hub of that name exists or none is named so, 3 unreadable, 4 no hub runs."""
    found = _read(file)
    wanted = _chosen(found, only)
    names = {"", *(name.casefold() for name in only)}
    rows, left = [], [one for one in found.left if not only or one.values.get("hub", "").casefold() in names]
    for hub in wanted:
        row = _row(hub) if dry_run else _send(hub)
        left += msgspec.convert(row.pop("left"), list[Left])
        rows.append(row)
    keys = _write_certificate(found, certificate_to) if certificate_to and not dry_run else []
    if as_json:
        for row in rows:
            print_json(row)
        for one in left:
            print_json({"left": one.template.format(**one.values)})
        return
    show(rows, _columns(), as_json=False, empty=_("the file holds no virtual hub"))
    if left:
        write(_("not taken over:"))
        for one in left:
            write("  " + _(one.template).format(**one.values))
    if found.listen:
        listen = ", ".join(f'"{port}"' for port in found.listen)
        say_aside(_("it listened on these ports; in hub.toml: listen = [{ports}]").format(ports=listen))
    if keys:
        text = _("its certificate and key are there now; in hub.toml: [tls] certificate = “{first}”, key = “{second}”")
        say_aside(text.format(first=keys[0], second=keys[1]))


def _read(file: Path) -> ServerPlan:
    try:
        return plan(parse(file.read_bytes()))
    except OSError as error:
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=file, reason=error.strerror) from error
    except InputUnreadable as error:
        raise InputUnreadable(N_("{path}: {problem}"), path=file, problem=error) from error


def _chosen(found: ServerPlan, only: Sequence[str]) -> list[HubPlan]:
    names = {hub.name.casefold(): hub for hub in found.hubs}
    for name in only:
        if name.casefold() not in names:
            known = ", ".join(hub.name for hub in found.hubs) or "-"
            raise UsageError(N_("the file has no virtual hub “{name}”; it has: {names}"), name=name, names=known)
    return [names[name.casefold()] for name in only] if only else list(found.hubs)


def _row(hub: HubPlan) -> dict[str, Any]:
    return {
        "hub": hub.name,
        "users": len(hub.users),
        "groups": len(hub.groups),
        "access": len(hub.access),
        "sources": len(hub.sources),
        "authorities": len(hub.authorities),
        "left": [],
    }


def _send(hub: HubPlan) -> dict[str, Any]:
    """Give a hub to the running one, many users in several requests; what became of it."""
    users = iter(hub.users)
    first = msgspec.structs.replace(hub, users=tuple(islice(users, AT_ONCE)))
    (row,) = client().ask("import_hub", plan=msgspec.to_builtins(first))
    while part := list(islice(users, AT_ONCE)):
        (more,) = client().ask("import_users", hub=hub.name, plans=msgspec.to_builtins(part))
        row["users"] += more["users"]
        row["left"] += more["left"]
    return row


def _columns() -> list[Column]:
    return [
        Column("hub", _("HUB")),
        Column("users", _("USERS"), right=True),
        Column("groups", _("GROUPS"), right=True),
        Column("access", _("ACCESS RULES"), right=True),
        Column("sources", _("SOURCE RULES"), right=True),
        Column("authorities", _("CAs"), right=True),
    ]


def _write_certificate(found: ServerPlan, folder: Path) -> list[Path]:
    """Both as PEM, never over a file that is there. The key is the owner's alone."""
    if not (found.certificate and found.key):
        raise UsageError(N_("the file holds no certificate with its key"))
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    pem = serialization.Encoding.PEM
    try:
        certificate = x509.load_der_x509_certificate(found.certificate).public_bytes(pem)
        key = serialization.load_der_private_key(found.key, None).private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except ValueError as error:
        raise InputUnreadable(N_("the file's certificate or key is damaged")) from error
    paths = [folder / "server.crt", folder / "server.key"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _create(paths, (certificate, key), (0o644, 0o600))
    except OSError as error:
        raise EnvironmentLacks(
            N_("{path} can't be written: {reason}"), path=error.filename or folder, reason=error.strerror
        ) from error
    return paths


def _create(paths: Iterable[Path], contents: Iterable[bytes], modes: Iterable[int]) -> None:
    for path, content, mode in zip(paths, contents, modes, strict=True):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
