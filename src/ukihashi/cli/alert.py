"""`ukihashi alert`, and `sealert`, which is operated as the detector of 2004 was (requirements B11 to B21).

Log lines go to standard output, everything else to standard error. Exit status: 0 whether something was found or
not, 1 with --fail-on-detect and a detection, 2 for a file that can't be read or a wrong option, 3 for what the machine
lacks.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from ukihashi import __version__
from ukihashi.alert.service import Alert
from ukihashi.alert.sinks import Console, JsonFile, LogFile, Sink
from ukihashi.alert.workers import Forward, Make
from ukihashi.capture.batch import Batch
from ukihashi.capture.bpf import Sieve
from ukihashi.capture.devices import Device, devices
from ukihashi.capture.live import Options, Statistics
from ukihashi.capture.pcap import CaptureFile
from ukihashi.cli.alert_live import capture_options, cards_named, run_live, starting
from ukihashi.cli.main import run
from ukihashi.config.alert import AlertConfig, load_alert
from ukihashi.config.places import config_dir
from ukihashi.detect.record import Finding
from ukihashi.errors import N_, EnvironmentLacks, InputUnreadable, UkihashiError, UsageError
from ukihashi.locale import _, language_of, say, set_language

BANNER: Final = (
    f"ukihashi Alert Version {__version__}\nCopyright (C) 2026 The ukihashi founders.\nAll Rights Reserved.\n"
)
SEALERT_LOG: Final = "sealert.log"
LABELS: Final = ("modern", "classic")
SINK_FAILED: Final = 3  # exit status when a log could not be written to the end

# name -> module (the command has its name there), summary; imported only when it is called
SUBCOMMANDS: Final = {
    "top": ("ukihashi.cli.alert_top", N_("Watch the findings of a running sensor in the terminal.")),
    "web": ("ukihashi.cli.alert_web", N_("Show the findings of a running sensor as a page.")),
    "allow": ("ukihashi.cli.alert_allow", N_("The list of tunnels that are known and allowed.")),
    "doctor": ("ukihashi.cli.alert_doctor", N_("Say whether this machine and this place can see the traffic.")),
    "verify": ("ukihashi.cli.alert_evidence", N_("Check that an evidence bundle is whole and whose it is.")),
    "replay": ("ukihashi.cli.alert_evidence", N_("Judge the packets of an evidence bundle once more.")),
    "block": ("ukihashi.cli.alert_block", N_("Block what is found, where this machine forwards the traffic.")),
}


class Subcommands(click.Group):
    """The detector itself, and beside it commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of those that are there."""
        del ctx
        return [name for name, (module, _summary) in SUBCOMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(SUBCOMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section(_("Commands")):
            formatter.write_dl([(name, _(SUBCOMMANDS[name][1])) for name in self.list_commands(ctx)])


def _note(text: str) -> None:
    click.echo(text, err=True)


def _tell(error: UkihashiError) -> None:
    _note(f"ukihashi: {say(error)}")


def _consent() -> None:
    """Requirement B37, once at the start."""
    _note(
        _("Use it only on a network whose manager has agreed. No warranty: it can miss tunnels, and it can be wrong.")
    )


def _explain(finding: Finding) -> None:
    """The evidence, for people."""
    _note(
        _("  {verdict} by rule {rule}, {seconds:.1f} s after the connection began, score {score:.1f}").format(
            verdict=finding.verdict.value,
            rule=finding.rule,
            seconds=finding.decided - finding.begin,
            score=finding.score,
        )
    )
    for reason in finding.reasons:
        _note(f"    {_(reason.name)}: {reason.score:+.1f}")
    if finding.turns:
        _note(_("    bytes of the turns since the TLS hello: {turns}").format(turns=" ".join(map(str, finding.turns))))
    if finding.gaps:
        _note(_("    seconds of silence: {gaps}").format(gaps=" ".join(f"{gap:.2f}" for gap in finding.gaps[:16])))
        _note(_("    bytes after them: {sizes}").format(sizes=" ".join(map(str, finding.sizes[:16]))))
    if len(finding.connections) > 1:
        _note(_("    TCP connections so far: {count}").format(count=len(finding.connections)))


def _listen(
    alert: Alert,
    cards: Sequence[Device],
    options: Options,
    started: Callable[[], None],
    *,
    workers: int = 1,
    make: Make | None = None,
) -> None:
    """Capture until a signal; then statistics on standard error."""
    try:
        statistics = run_live(alert, cards, options, started, workers=workers, make=make)
    except UkihashiError:
        if alert.packets:
            alert.finish()
            _summary(alert, None)
        raise
    alert.finish()
    _summary(alert, statistics)


def _summary(alert: Alert, statistics: Statistics | None) -> None:
    if statistics is not None:
        _note(
            _("{packets} packets seen, {dropped} dropped by the kernel for lack of time").format(
                packets=alert.packets, dropped=statistics.dropped
            )
        )
    else:
        _note(_("{packets} packets read").format(packets=alert.packets))
    _note(
        _("{flows} TCP connections, {missed} bytes of them missing in the capture, {detections} detections").format(
            flows=alert.flows, missed=alert.missed, detections=alert.detections
        )
    )


def _read(alert: Alert, names: Sequence[str], expression: str) -> bool:
    """All files; False if one could not be read to its end."""
    good = True
    sieve = Sieve(expression) if expression else None
    for name in names:
        try:
            with open(0, "rb", closefd=False) if name == "-" else Path(name).open("rb") as file:
                batches = CaptureFile(file, name)
                alert.read(batches if sieve is None else filter(_has_packets, map(sieve, batches)))
        except InputUnreadable as error:
            _tell(error)
            good = False
        except OSError as error:
            _tell(InputUnreadable(N_("{file} can't be read: {reason}"), file=name, reason=error.strerror))
            good = False
    alert.finish()
    return good


def _has_packets(batch: Batch) -> bool:
    return bool(batch.packets)


def _label_help() -> str:
    return _("What log lines call the tunnel: by its family, or SoftEther 1.0 for all.")


def _sinks(json_file: str, log: str, *, classic: bool) -> list[Sink]:
    sinks: list[Sink] = [Console(click.echo, classic=classic, as_json=json_file == "-")]
    if json_file not in ("", "-"):
        sinks.append(JsonFile(Path(json_file)))
    if log:
        sinks.append(LogFile(Path(log), classic=classic))
    return sinks


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
@capture_options
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help=_(
        "Append the findings with their evidence as JSON lines;"
        " - puts them on standard output instead of the log lines."
    ),
)
@click.option("--log", metavar="FILE", help=_("Append the log lines to a file, too."))
@click.option("--explain", is_flag=True, help=_("Tell the evidence of each finding on standard error."))
@click.option("--probable", is_flag=True, help=_("Show findings that are only PROBABLE, too."))
@click.option("--fail-on-detect", is_flag=True, help=_("Exit with status 1 if something was detected."))
@click.option("--label", type=click.Choice(LABELS), help=_label_help())
@click.pass_context
def alert(
    context: click.Context,
    files: tuple[str, ...],
    interfaces: tuple[str, ...],
    expression: str,
    snap: int,
    ring_mib: int,
    workers: int,
    json_file: str | None,
    log: str | None,
    explain: bool,
    probable: bool,
    fail_on_detect: bool,
    label: str | None,
) -> None:
    """Find SoftEther and ukihashi tunnels on a network, or in capture files."""
    if context.invoked_subcommand is not None:
        return
    config = load_alert(config_dir() / "alert.toml")
    if bool(files) == bool(interfaces):
        raise UsageError(N_("give either capture files (-r FILE) or a card to listen on (-i CARD)"))
    classic = (label or config.label) == "classic"
    sinks = _sinks(config.json if json_file is None else json_file, config.log if log is None else log, classic=classic)
    detector = Alert(
        sinks,
        tell=_tell,
        explain=_explain if explain else None,
        probable=probable or config.probable,
        max_flows=config.max_flows,
        ssh_clients=config.ssh_clients,
    )
    _consent()
    good = True
    try:
        if interfaces:
            cards = cards_named(interfaces)
            options = Options(snap, ring_mib, expression)

            def started() -> None:
                for line in starting(cards):
                    _note(line)

            def worker(forward: Forward, tell: Callable[[UkihashiError], None]) -> Alert:
                return Alert(
                    [forward],
                    tell=tell,
                    probable=probable or config.probable,
                    max_flows=config.max_flows,
                    ssh_clients=config.ssh_clients,
                )

            _listen(detector, cards, options, started, workers=workers, make=worker)
        else:
            good = _read(detector, files, expression)
            _summary(detector, None)
    finally:
        detector.close()
    if not good:
        raise click.exceptions.Exit(InputUnreadable.exit_status)
    if detector.sink_failed:
        raise click.exceptions.Exit(SINK_FAILED)
    if fail_on_detect and detector.detections:
        raise click.exceptions.Exit(1)


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


def _operate(number: int | None, config: AlertConfig, *, classic: bool) -> Alert:
    """Banner, list, prompt, capture: the whole run of `sealert`."""
    cards = devices()
    click.echo(BANNER)
    _consent()
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
    detector = Alert(
        [Console(click.echo, classic=classic)],
        tell=_tell,
        max_flows=config.max_flows,
        ssh_clients=config.ssh_clients,
    )

    def started() -> None:
        detector.add(LogFile(Path(SEALERT_LOG), classic=classic))
        click.echo(starting([device])[0])

    try:
        _listen(detector, [device], Options(), started)
    finally:
        detector.close()
    return detector


def _sealert() -> click.Command:
    """The command, made when the language is known."""

    @click.command(
        "sealert",
        help=_(
            "Watch a network card, operated as the detector of 2004 was. NUMBER is a card of the list; without it, you"
            " are asked. Log lines go to the console and to sealert.log."
        ),
    )
    @click.argument("number", type=int, required=False)
    @click.option("--label", type=click.Choice(LABELS), help=_label_help())
    @click.version_option(__version__, prog_name="sealert", message="%(prog)s (ukihashi) %(version)s")
    def command(number: int | None, label: str | None) -> None:
        config = load_alert(config_dir() / "alert.toml")
        classic = (label or config.label) == "classic"
        if _operate(number, config, classic=classic).sink_failed:
            raise click.exceptions.Exit(SINK_FAILED)

    return command


def sealert() -> None:
    """The console script `sealert`."""
    set_language(language_of(os.environ))
    sys.exit(run(_sealert(), sys.argv[1:], name="sealert"))
