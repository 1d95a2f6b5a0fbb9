"""`sealert`: the detector, operated as that of 2004 was (requirements B11 to B21).

Its words are fixed English, byte for byte: banner, list, prompt, confirmation, log lines. The hint about consent, and
all that is no part of that operation, is on standard error and in the user's language. Times are local; see
docs/alert-outputs.md.
"""

import sys
from collections.abc import Sequence
from typing import Final

import click

from ukihashi import __version__
from ukihashi.alert.service import Alert
from ukihashi.capture.devices import Device, devices
from ukihashi.cli.alert import SINK_FAILED
from ukihashi.cli.alert_live import listen, starting
from ukihashi.cli.alert_options import OFF, Settings, label_option, settings
from ukihashi.cli.alert_outputs import Outputs, consent
from ukihashi.config.alert import load_alert
from ukihashi.config.places import config_dir
from ukihashi.errors import N_, EnvironmentLacks, UsageError
from ukihashi.locale import _

BANNER: Final = (
    f"ukihashi Alert Version {__version__}\nCopyright (C) 2026 The ukihashi founders.\nAll Rights Reserved.\n"
)
SEALERT_LOG: Final = "sealert.log"  # in the folder where it was started


def _choose(cards: Sequence[Device]) -> Device:
    """Ask for the number of a card until one is given (B13)."""
    while True:
        click.echo("Device ID>", nl=False)
        line = sys.stdin.readline()
        if not line:
            click.echo()
            raise UsageError(N_("no card was chosen: the input ended"))
        answer = line.strip()
        if answer.isascii() and answer.isdecimal() and 1 <= int(answer[:9]) <= len(cards):
            return cards[int(answer) - 1]


def _operate(number: int | None, wanted: Settings) -> Alert:
    """Banner, list, prompt, capture: the whole run of `sealert`."""
    cards = devices()
    click.echo(BANNER)
    consent()
    if not cards:
        raise EnvironmentLacks(N_("no network card to capture on; live capture needs Linux and a card that is up"))
    if number is None:
        click.echo("Network Devices:")
        for place, card in enumerate(cards, 1):
            click.echo(f"  {place}: {card.name}")
        click.echo()
        device = _choose(cards)
        click.echo()
    elif 1 <= number <= len(cards):
        device = cards[number - 1]
    else:
        raise UsageError(N_("there is no card {number}; the list has 1 to {last}"), number=number, last=len(cards))
    outputs = Outputs(wanted, [device.interface])
    detector = outputs.detector()

    def started() -> None:
        outputs.open(detector, give=False)
        click.echo(starting([device])[0])

    try:
        listen(detector, [device], wanted.capture, started)
    finally:
        detector.close()
        outputs.close()
    return detector


def command() -> click.Command:
    """The command, made when the language is known."""

    @click.command(
        "sealert",
        help=_(
            "Watch a network card, operated as the detector of 2004 was. NUMBER is a card of the list; without it, you"
            " are asked. Log lines go to the console and to sealert.log."
        ),
    )
    @click.argument("number", type=int, required=False)
    @label_option
    @click.version_option(__version__, prog_name="sealert", message="%(prog)s (ukihashi) %(version)s")
    def sealert(number: int | None, label: str | None) -> None:
        given = {"label": label, "log": SEALERT_LOG, "eve": "", "bus": OFF}
        wanted = settings(given, load_alert(config_dir() / "alert.toml"), live=True)
        if _operate(number, wanted).sink_failed:
            raise click.exceptions.Exit(SINK_FAILED)

    return sealert
