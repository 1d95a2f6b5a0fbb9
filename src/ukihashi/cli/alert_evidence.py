"""`ukihashi alert verify` and `ukihashi alert replay`: is a bundle of evidence whole, and does its verdict stand?"""

from pathlib import Path
from typing import Any

import click

from ukihashi.alert import bundle_check
from ukihashi.alert.sensor_key import fingerprint, load_or_make
from ukihashi.config.places import state_dir
from ukihashi.errors import N_, InputUnreadable, NotTrusted, UsageError
from ukihashi.locale import _, say


@click.command("verify", help=_("Check that an evidence bundle is whole and whose it is. Exit status: 0 good, 6 not."))
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--key", "show_key", is_flag=True, help=_("Print this sensor's public key and its fingerprint."))
@click.option(
    "--signer",
    metavar="KEY",
    default="",
    help=_("Whose signature it must be: a fingerprint (SHA256:...) or a file with the public key."),
)
def verify(bundle: Path | None, show_key: bool, signer: str) -> None:
    """Say all that is wrong with a bundle."""
    if show_key:
        key = load_or_make(state_dir())
        click.echo(key.public.decode(), nl=False)
        click.echo(key.fingerprint)
    if bundle is None:
        if not show_key:
            raise UsageError(N_("give an evidence bundle, or --key"))
        return
    found = bundle_check.check(bundle, expected=_signer(signer))
    for problem in found.problems:
        click.echo(say(problem))
    if found.problems:
        raise click.exceptions.Exit(NotTrusted.exit_status)
    about = found.manifest.get("finding")
    about = about if isinstance(about, dict) else {}
    click.echo(
        _("Good: {count} files are as they were when {key} signed them.").format(
            count=len(found.manifest["files"]), key=found.fingerprint
        )
    )
    click.echo(
        _("{verdict}: client {client}, server {server}, {begin}").format(
            **{name: _printable(about.get(name, "-")) for name in ("verdict", "client", "server", "begin")}
        )
    )
    if not signer:
        click.echo(_("Ask the sensor's owner whether that is its key, or give it with --signer."))


@click.command(
    "replay",
    help=_("Judge the packets of an evidence bundle once more. Exit status: 0 the same verdict, 1 another one."),
)
@click.argument("bundle", type=click.Path(path_type=Path))
def replay(bundle: Path) -> None:
    """Compare the verdict of today's rules with the one in the bundle."""
    found = bundle_check.check(bundle)
    for problem in found.problems:
        click.echo(say(problem), err=True)
    again = bundle_check.replay(found)
    for name, then, now in again.points:
        same = then == now
        click.echo(f"{'=' if same else '!'} {_(name)}: {then}" + ("" if same else f" -> {now}"))
    if not again.same:
        click.echo(
            _("The detector comes to another verdict. The bundle was made by version {version}.").format(
                version=_printable(_version(found.manifest))
            )
        )
        raise click.exceptions.Exit(1)
    if found.problems:
        raise click.exceptions.Exit(NotTrusted.exit_status)
    click.echo(_("The same verdict."))


def _signer(text: str) -> str:
    """A fingerprint from what was given.

    Raises:
        InputUnreadable: neither a fingerprint nor a file with a public key.
    """
    if not text or text.startswith("SHA256:"):
        return text
    try:
        found = fingerprint(Path(text).read_bytes())
    except OSError as error:
        raise InputUnreadable(N_("{file} can't be read: {reason}"), file=text, reason=error.strerror) from error
    if not found:
        raise InputUnreadable(N_("{name} is not a public key (Ed25519, PEM)"), name=text)
    return found


def _version(manifest: dict[str, Any]) -> object:
    product = manifest.get("product")
    return product.get("version") if isinstance(product, dict) else None


def _printable(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() else repr(text)
