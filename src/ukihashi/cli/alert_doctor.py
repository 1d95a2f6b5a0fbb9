"""`ukihashi alert doctor`: is this machine, this card and this place fit to see the traffic?"""

import signal
from types import FrameType
from typing import Any

import click

from ukihashi.alert import doctor as questions
from ukihashi.alert import rights
from ukihashi.alert.doctor import Level
from ukihashi.capture import ring
from ukihashi.capture.card_facts import busy_meter, facts_of, own_addresses
from ukihashi.capture.live import LiveCapture, Options
from ukihashi.cli.alert_live import capture_options, cards_named
from ukihashi.cli.output import print_json, say_aside, write
from ukihashi.cli.user import json_option
from ukihashi.locale import _


@click.command(
    "doctor",
    help=_(
        "Listen on a card for a while and say whether this machine, this card and this place can see the traffic, and"
        " what to do where they can't. Exit status: 0 nothing fails, 1 something does."
    ),
)
@click.option("-i", "--interface", required=True, metavar="CARD", help=_("The card."))
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86400.0),
    default=10.0,
    metavar="SECONDS",
    help=_("How long to listen [10]."),
)
@capture_options
@json_option
def doctor(
    interface: str,
    seconds: float,
    expression: str | None,
    snap: int | None,
    ring_mib: int | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Exit status: 0 nothing fails, 1 something does, 2 no such card, 3 no right to capture."""
    del workers  # one process is enough to count
    (card,) = cards_named([interface])
    stopped = False

    def stop(*_signal: int | FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with LiveCapture(card, Options(snap or ring.SNAP, ring_mib or ring.BLOCKS, expression or "")) as capture:
        facts, own = facts_of(card), own_addresses()
        rights.give_up()
        if not as_json:
            say_aside(_("listening on {card} for {seconds:g} s ...").format(card=card.name, seconds=seconds))
        seen = questions.watch(capture, seconds, own, busy_meter(), lambda: stopped)
    findings = questions.examine(facts, seen)
    for finding in findings:
        if as_json:
            print_json(_row(finding))
        else:
            told = _(finding.template).format(**finding.values)
            write(f"{finding.level.value:<4}  {finding.name:<12}  {told}")
    return 1 if questions.worst(findings) is Level.FAIL else 0


def _row(finding: questions.Finding) -> dict[str, Any]:
    """For programs: English, and the numbers apart."""
    numbers = {name: value if isinstance(value, int | float) else str(value) for name, value in finding.values.items()}
    return {
        "name": finding.name,
        "level": finding.level.value,
        "text": finding.template.format(**finding.values),
        **({"values": numbers} if numbers else {}),
    }
