"""`ukihashi alert`, and `sealert`, which is operated as the detector of 2004 was (requirements B11 to B21).

Log lines go to standard output, everything else to standard error. Exit status: 0 whether something was found or
not, 1 with --fail-on-detect and a detection, 2 for a file that can't be read or a wrong option, 3 for what the machine
lacks.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ukihashi.alert.service import Alert
from ukihashi.alert.workers import Forward
from ukihashi.capture.batch import Batch
from ukihashi.capture.bpf import Sieve
from ukihashi.capture.devices import Device
from ukihashi.capture.pcap import CaptureFile
from ukihashi.cli.alert_live import capture_options, cards_named, listen, starting, summary
from ukihashi.cli.alert_options import Settings, output_options, settings
from ukihashi.cli.alert_outputs import Outputs, consent, note, tell
from ukihashi.cli.alert_service import Watched
from ukihashi.cli.main import run
from ukihashi.config.alert import load_alert
from ukihashi.config.places import config_dir
from ukihashi.errors import N_, InputUnreadable, UkihashiError, UsageError
from ukihashi.locale import _, language_of, set_language
from ukihashi.ops.notify import Notifier

SINK_FAILED: Final = 3  # exit status when a log could not be written to the end

# name -> module (the command has its name there), summary; imported only when it is called
SUBCOMMANDS: Final = {
    "top": ("ukihashi.cli.alert_top", N_("Watch the findings of a running sensor in the terminal.")),
    "web": ("ukihashi.cli.alert_web", N_("Show the findings of a running sensor as a page.")),
    "allow": ("ukihashi.cli.alert_allow", N_("The list of tunnels that are known and allowed.")),
    "doctor": ("ukihashi.cli.alert_doctor", N_("Say whether this machine and this place can see the traffic.")),
    "explain": ("ukihashi.cli.alert_explain", N_("Say what the detector made of one connection, found or not.")),
    "verify": ("ukihashi.cli.alert_evidence", N_("Check that an evidence bundle is whole and whose it is.")),
    "replay": ("ukihashi.cli.alert_evidence", N_("Judge the packets of an evidence bundle once more.")),
    "block": ("ukihashi.cli.alert_block", N_("Block what is found, where this machine forwards the traffic.")),
}


class Subcommands(click.Group):
    """The detector itself, and beside it commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of use."""
        del ctx
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        del ctx
        if cmd_name not in SUBCOMMANDS:
            return None
        command = getattr(importlib.import_module(SUBCOMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section(_("Commands")):
            formatter.write_dl([(name, _(SUBCOMMANDS[name][1])) for name in self.list_commands(ctx)])


def _read(alert: Alert, names: Sequence[str], expression: str) -> bool:
    """All files; False if one could not be read to its end."""
    good = True
    sieve = Sieve(expression) if expression else None
    for name in names:
        try:
            with open(0, "rb", closefd=False) if name == "-" else Path(name).open("rb") as file:
                batches = CaptureFile(file, name)
                if batches.is_large:
                    alert.hurry()
                alert.read(batches if sieve is None else filter(_has_packets, map(sieve, batches)))
        except InputUnreadable as error:
            tell(error)
            good = False
        except OSError as error:
            tell(InputUnreadable(N_("{file} can't be read: {reason}"), file=name, reason=error.strerror))
            good = False
    alert.finish()
    return good


def _has_packets(batch: Batch) -> bool:
    return bool(batch.packets)


@click.group(
    "alert",
    cls=Subcommands,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    help=_("Find SoftEther and ukihashi tunnels on a network, or in capture files."),
)
@click.option(
    "-r",
    "--read",
    "files",
    multiple=True,
    metavar="FILE",
    help=_("Read a pcap or pcapng file; - is standard input. Several files are read in order."),
)
@click.option(
    "-i",
    "--interface",
    "interfaces",
    multiple=True,
    metavar="CARD",
    help=_("Listen on a network card (needs root or CAP_NET_RAW). Several are listened to at once."),
)
@click.option(
    "--web",
    "page",
    is_flag=False,
    flag_value="127.0.0.1",
    metavar="[ADDR:PORT]",
    help=_("Show the findings as a page, too, in a process of its own; see `ukihashi alert web`."),
)
@capture_options
@output_options
@click.pass_context
def alert(
    context: click.Context,
    /,
    files: tuple[str, ...],
    interfaces: tuple[str, ...],
    page: str | None,
    **given: Any,
) -> None:
    """Find SoftEther and ukihashi tunnels on a network, or in capture files."""
    if context.invoked_subcommand is not None:
        return
    if bool(files) == bool(interfaces):
        raise UsageError(N_("give either capture files (-r FILE) or a card to listen on (-i CARD)"))
    wanted = settings(given, load_alert(config_dir() / "alert.toml"), live=bool(interfaces))
    cards = cards_named(interfaces)
    outputs = Outputs(wanted, [card.interface for card in cards])
    detector = outputs.detector(explains=given["explain"])
    consent()
    good = True
    try:
        if cards:
            _watch(detector, outputs, wanted, cards, page)
        else:
            outputs.open(detector)
            outputs.tell_expired()
            good = _read(detector, files, wanted.capture.expression)
            summary(detector, None)
    finally:
        detector.close()
        outputs.close()
    if not good:
        raise click.exceptions.Exit(InputUnreadable.exit_status)
    if detector.sink_failed:
        raise click.exceptions.Exit(SINK_FAILED)
    if given["fail_on_detect"] and detector.detections:
        raise click.exceptions.Exit(1)


def _watch(detector: Alert, outputs: Outputs, wanted: Settings, cards: Sequence[Device], page: str | None) -> None:
    """The live run. Where no terminal can hang up on it, SIGHUP begins new files."""

    def started() -> None:
        outputs.open(detector)
        if page is not None:
            from ukihashi.cli.alert_web import start_beside

            start_beside(page, wanted.bus)
        for line in starting(cards):
            note(line)
        notifier = Notifier()
        if notifier.is_heard:
            detector.add(Watched(detector, notifier))
            notifier.ready(" ".join(starting(cards)))

    def worker(forward: Forward, tell_first: Callable[[UkihashiError], None]) -> Alert:
        return Alert(
            [forward],
            tell=tell_first,
            probable=wanted.probable,
            max_flows=wanted.max_flows,
            ssh_clients=wanted.ssh_clients,
        )

    if not sys.stderr.isatty():
        signal.signal(signal.SIGHUP, lambda _number, _frame: detector.reopen())
    listen(detector, cards, wanted.capture, started, workers=wanted.workers, make=worker)


def sealert() -> None:
    """The console script `sealert`."""
    from ukihashi.cli.alert_classic import command

    set_language(language_of(os.environ))
    sys.exit(run(command(), sys.argv[1:], name="sealert"))
