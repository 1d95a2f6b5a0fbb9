"""Options of `ukihashi alert` about where findings go, and the settings they make together with `alert.toml`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from ukihashi.alert import bus, syslog
from ukihashi.capture.live import Options
from ukihashi.config.alert import AlertConfig
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _

LABELS: Final = ("modern", "classic")
OFF: Final = "off"
METRICS_HOST: Final = "127.0.0.1"
METRICS_PORT: Final = 9719
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")

Command = TypeVar("Command", bound=Callable[..., Any])


class Settings(NamedTuple):
    """What holds for one run: options first, then the file."""

    classic: bool
    probable: bool
    eve: str  # file, "-" = standard output
    log: str
    syslog: syslog.Target | None
    metrics: tuple[str, int] | None
    bus: Path | None  # None = off
    bus_asked: bool  # named by the user, so that it must work
    evidence: Path | None
    evidence_per_day: int
    evidence_mib: int
    report_s: float  # 0 = off
    seed: int
    send: bool  # on a card that is captured on
    max_flows: int
    workers: int
    capture: Options
    ssh_clients: tuple[str, ...]


def label_option(command: Command) -> Command:
    """Adds --label."""
    return click.option(
        "--label",
        type=click.Choice(LABELS),
        help=_("What log lines call the tunnel: by its family, or SoftEther 1.0 for all."),
    )(command)


def output_options(command: Command) -> Command:
    """Adds the options about outputs."""
    for option in reversed(
        (
            click.option(
                "--eve",
                "--json",
                "eve",
                metavar="FILE",
                help=_(
                    "Append events as JSON lines, in the shape of Suricata's EVE; - puts them on standard output"
                    " instead of the log lines."
                ),
            ),
            click.option("--log", metavar="FILE", help=_("Append the log lines to a file, too.")),
            click.option(
                "--syslog",
                is_flag=False,
                flag_value=syslog.LOCAL,
                metavar="[SERVER]",
                help=_("Send the log lines by syslog: to this machine's, or to udp://HOST:PORT or tcp://HOST:PORT."),
            ),
            click.option(
                "--metrics",
                metavar="[ADDRESS:]PORT",
                help=_("Offer the counters to Prometheus at http://ADDRESS:PORT/metrics [127.0.0.1]."),
            ),
            click.option(
                "--bus",
                metavar="PATH",
                help=_("Socket for other programs (top, web, block) [alert.sock in the runtime folder]; or off."),
            ),
            click.option(
                "--evidence", metavar="FOLDER", help=_("Keep a signed bundle with the evidence of each finding.")
            ),
            click.option(
                "--report",
                metavar="TIME",
                help=_("Say on standard error how much of the traffic was seen, each 1h, 10m, ...; or off [off]."),
            ),
            click.option(
                "--community-id-seed",
                "seed",
                type=click.IntRange(0, 65535),
                metavar="NUMBER",
                help=_("Seed of the Community ID, as in your other tools [0]."),
            ),
            click.option(
                "--send-on-capture-card",
                "send",
                is_flag=True,
                default=None,
                help=_("Let syslog or metrics use a card that is captured on, too."),
            ),
            click.option(
                "--max-flows",
                type=click.IntRange(1024, 4_000_000),
                metavar="NUMBER",
                help=_("TCP connections known at once [65536]."),
            ),
            click.option("--explain", is_flag=True, help=_("Tell the evidence of each finding on standard error.")),
            click.option(
                "--probable", is_flag=True, default=None, help=_("Show findings that are only PROBABLE, too.")
            ),
            click.option("--fail-on-detect", is_flag=True, help=_("Exit with status 1 if something was detected.")),
            label_option,
        )
    ):
        command = option(command)
    return command


def settings(given: Mapping[str, Any], config: AlertConfig, *, live: bool) -> Settings:
    """Options over the file.

    Args:
        given: what click parsed; None = not given.
        live: cards are listened to; else the bus and the like are off unless asked for.
    Raises:
        UsageError: a value that can't be.
    """

    def chosen(name: str, setting: Any) -> Any:
        return setting if given.get(name) is None else given[name]

    bus_text = str(chosen("bus", config.bus))
    if bus_text == OFF or (not live and not given.get("bus")):
        path = None
    else:
        path = Path(bus_text).absolute() if bus_text else bus.default_path()
    evidence = str(chosen("evidence", config.evidence))
    server = str(chosen("syslog", config.syslog))
    offered = str(chosen("metrics", config.metrics))
    return Settings(
        classic=chosen("label", config.label) == "classic",
        probable=bool(chosen("probable", config.probable)),
        eve=str(chosen("eve", config.eve or config.json)),
        log=str(chosen("log", config.log)),
        syslog=syslog.target(server) if server and server != OFF else None,
        metrics=listen(offered) if offered and offered != OFF else None,
        bus=path,
        bus_asked=bool(bus_text),
        evidence=Path(evidence).absolute() if evidence and evidence != OFF else None,
        evidence_per_day=config.evidence_per_day,
        evidence_mib=config.evidence_mib,
        report_s=duration(str(chosen("report", config.report))),
        seed=int(chosen("seed", config.community_id_seed)),
        send=bool(chosen("send", config.send_on_capture_card)),
        max_flows=int(chosen("max_flows", config.max_flows)),
        workers=int(chosen("workers", config.workers)),
        capture=Options(
            int(chosen("snap", config.snaplen)),
            int(chosen("ring_mib", config.ring)),
            str(chosen("expression", config.filter)),
        ),
        ssh_clients=config.ssh_clients,
    )


def listen(text: str) -> tuple[str, int]:
    """Read PORT, ADDRESS:PORT or [IPV6]:PORT. Raises: UsageError."""
    if text.isascii() and text.isdecimal():
        text = f"{METRICS_HOST}:{text}"
    return syslog.address(text, METRICS_PORT)


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m`, `1h`, `1d`; 0 for `off` and for nothing. Raises: UsageError."""
    if text in ("", OFF):
        return 0.0
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if seconds < 1:
        raise UsageError(N_("“{text}” is no time; write for example 10m or 1h"), text=text)
    return float(seconds)
