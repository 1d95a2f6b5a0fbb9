"""The live part of `ukihashi alert` and `sealert`: options of a capture, and the run from opening to the last line."""

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ukihashi.alert import rights
from ukihashi.alert.workers import Make, Workers
from ukihashi.capture import ring
from ukihashi.capture.devices import Device, devices, find
from ukihashi.capture.live import LARGEST_SNAP, LEAST_SNAP, LiveCapture, Options, Statistics
from ukihashi.cli.alert_outputs import note
from ukihashi.detect import compiled
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.locale import _

if TYPE_CHECKING:
    from ukihashi.alert.service import Alert

MAX_WORKERS = 64

Command = TypeVar("Command", bound=Callable[..., Any])


def capture_options(command: Command) -> Command:
    """Adds --filter, --snaplen, --ring and --workers; None where not given."""
    for option in (
        click.option(
            "--workers",
            type=click.IntRange(1, MAX_WORKERS),
            metavar="NUMBER",
            help=_("Processes that share the packets of the cards [1]; more for lines too fast for one."),
        ),
        click.option(
            "--ring",
            "ring_mib",
            type=click.IntRange(1, ring.MAX_BLOCKS),
            metavar="MIB",
            help=_("Memory for packets that wait, for each process [64]."),
        ),
        click.option(
            "--snaplen",
            "--snap",
            "snap",
            type=click.IntRange(LEAST_SNAP, LARGEST_SNAP),
            metavar="BYTES",
            help=_("Bytes kept of each packet of a card [256]."),
        ),
        click.option(
            "--filter",
            "expression",
            metavar="EXPRESSION",
            help=_("Look only at packets that match, as in tcpdump: 'not port 22'."),
        ),
    ):
        command = option(command)
    return command


def cards_named(names: Sequence[str]) -> list[Device]:
    """The cards, each once. Raises: UsageError: one isn't there or isn't up."""
    found = []
    for name in dict.fromkeys(names):
        device = find(name)
        if device is None:
            known = ", ".join(device.interface for device in devices())
            raise UsageError(
                N_("no card {interface} that is up; there are: {known}"), interface=name, known=known or "-"
            )
        found.append(device)
    return found


def starting(cards: Sequence[Device]) -> list[str]:
    """A line for each card (B14)."""
    return [f"Starting Capture Packets at [{card.name}]." for card in cards]


class _Stop:
    """SIGINT and SIGTERM end a capture in good order; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.asked = True
        signal.signal(number, signal.SIG_DFL)


def run_live(
    alert: "Alert",
    cards: Sequence[Device],
    options: Options,
    started: Callable[[], None],
    *,
    workers: int = 1,
    make: Make | None = None,
) -> Statistics:
    """Capture until a signal; then the kernel's counters. All rights are given up once `started` has returned.

    Args:
        started: called when the cards are open; opens what else needs a right.
        make: the detector of one of several workers.
    Raises:
        EnvironmentLacks: a card went away.
    """
    stop = _Stop()
    with contextlib.ExitStack() as stack:
        if workers > 1 and make is not None:
            options = options._replace(group=os.getpid() & 0xFFFF or 1)
            captures = [stack.enter_context(LiveCapture(cards, options)) for _worker in range(workers)]
            _hurry(alert, captures)
            team = Workers(captures, make, rights.give_up)
            started()
            rights.give_up()
            return team.listen(alert, lambda: stop.asked)
        capture = stack.enter_context(LiveCapture(cards, options))
        _hurry(alert, [capture])
        started()
        rights.give_up()
        return alert.listen(capture, lambda: stop.asked)


def listen(
    alert: "Alert",
    cards: Sequence[Device],
    options: Options,
    started: Callable[[], None],
    *,
    workers: int = 1,
    make: Make | None = None,
) -> None:
    """`run_live`; then statistics on standard error."""
    try:
        statistics = run_live(alert, cards, options, started, workers=workers, make=make)
    except UkihashiError:
        if alert.packets:
            alert.finish()
            summary(alert, None)
        raise
    alert.finish()
    summary(alert, statistics)


def summary(alert: "Alert", statistics: Statistics | None) -> None:
    """What was read, lost and found."""
    if statistics is not None:
        note(
            _("{packets} packets seen, {dropped} dropped by the kernel for lack of time").format(
                packets=alert.packets, dropped=statistics.dropped
            )
        )
    else:
        note(_("{packets} packets read").format(packets=alert.packets))
    note(
        _("{flows} TCP connections, {missed} bytes of them missing in the capture, {detections} detections").format(
            flows=alert.flows, missed=alert.missed, detections=alert.detections
        )
    )


def _hurry(alert: "Alert", captures: Sequence[LiveCapture]) -> None:
    """Load compiled code now: it can't be read any more when the first packets ask for it. They wait in the ring."""
    alert.hurry()
    if compiled.is_ready():
        for capture in captures:
            capture.hurry()
