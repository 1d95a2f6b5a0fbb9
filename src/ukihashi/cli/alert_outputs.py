"""Opens what the findings of `ukihashi alert` go to, and says what people read on standard error."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ukihashi.alert import allow, duties, silence
from ukihashi.alert.aside import Aside
from ukihashi.alert.bus import Bus
from ukihashi.alert.eve import Eve
from ukihashi.alert.rights import ACCOUNT
from ukihashi.alert.service import PERIOD_S, Alert
from ukihashi.alert.sinks import Console, JsonFile, LogFile
from ukihashi.alert.syslog import Syslog
from ukihashi.capture.health import Coverage
from ukihashi.cli.alert_options import Settings
from ukihashi.config.places import state_dir
from ukihashi.detect.record import Finding, moment
from ukihashi.detect.whatif import Change
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.locale import _, current_language, say
from ukihashi.net.privileges import identity

if TYPE_CHECKING:
    from ukihashi.alert.bundle import Circumstances


def note(text: str) -> None:
    """A line on standard error."""
    click.echo(text, err=True)


def tell(error: UkihashiError) -> None:
    """A problem, on standard error."""
    note(f"ukihashi: {say(error)}")


def consent() -> None:
    """Requirement B37, once at the start."""
    note(_("Use it only on a network whose manager has agreed. No warranty: it can miss tunnels, and it can be wrong."))


def explainer(aside: Aside | None) -> Callable[[Finding], None]:
    """Tells the evidence of a finding, and what to do next (requirement B38).

    What would have changed the verdict takes up to seconds. With `aside` a child looks for it while packets come in; a
    finding for which there is none left is told without.
    """
    from ukihashi.alert import explain  # now: once rights are given up, files may be out of reach

    def text(finding: Finding, found: Sequence[Change] | None) -> str:
        next_steps = [f"      {_(duty)}" for duty in (duties.ASK, *duties.DUTIES)]
        return "\n".join([*explain.lines(finding, _, found=found), f"    {_(duties.HEADING)}", *next_steps])

    def whole(finding: Finding) -> None:
        data = (text(finding, None) + "\n").encode()
        while data:  # not by sys.stderr: another thread of the parent may have held its lock when the child began
            data = data[os.write(2, data) :]

    def explained(finding: Finding) -> None:
        if aside is None:
            note(text(finding, None))
        elif not aside.run(lambda: whole(finding)):
            note(text(finding, ()))

    return explained


def report_line(seen: Coverage, lines: int) -> str:
    """What a period's silence is worth (requirements B30, B31)."""
    return _(
        "{begin} to {end}: coverage {share} %; {packets} packets, {lost} lost; {missing} of {bytes} TCP bytes missing;"
        " {lines} detections"
    ).format(
        begin=f"{moment(seen.begin).astimezone():%Y/%m/%d %H:%M:%S}",
        end=f"{moment(seen.end).astimezone():%Y/%m/%d %H:%M:%S}",
        share=percent(seen.share),
        packets=seen.packets,
        lost=seen.lost,
        missing=seen.missing,
        bytes=seen.tcp_bytes,
        lines=lines,
    )


def percent(share: float) -> str:
    """Two digits, rounded down: 100 only if nothing was lost."""
    return f"{int(share * 10_000 + 1e-9) / 100:.2f}"


class Outputs:
    """All outputs of one run. `open` them when cards are open and processes forked; `close` them at the end."""

    def __init__(self, settings: Settings, cards: Sequence[str], *, console: Console | None = None) -> None:
        """Raises: ConfigError: the allow list is wrong. UsageError: it would send on a card that is captured on."""
        self._settings = settings
        self._cards = tuple(cards)
        self._syslog: Syslog | None = None
        self._stack = contextlib.ExitStack()
        self.allow = allow.AllowList()
        self.eve = Eve(",".join(cards), seed=settings.seed)
        self.console = console or Console(
            click.echo, classic=settings.classic, as_json=settings.eve == "-", maker=self.eve
        )
        if not settings.send:
            if settings.syslog is not None and settings.syslog.kind != "unix":
                silence.check_way(settings.syslog.host, self._cards, settings.syslog)
            if settings.metrics is not None:
                host, port = settings.metrics
                silence.check_listen(host, self._cards, f"{host}:{port}")

    def detector(self, *, explains: bool = False) -> Alert:
        """The detector with the console; the other outputs come with `open`."""
        settings = self._settings
        return Alert(
            [self.console],
            tell=tell,
            explain=self._explainer() if explains else None,
            probable=settings.probable,
            max_flows=settings.max_flows,
            ssh_clients=settings.ssh_clients,
            allow=self.allow,
            report=self._report if settings.report_s else None,
            period_s=settings.report_s or PERIOD_S,
        )

    def _explainer(self) -> Callable[[Finding], None]:
        if not self._cards:
            return explainer(None)
        aside = Aside()
        self._stack.callback(aside.close)
        return explainer(aside)

    def open(self, alert: Alert, *, give: bool = True) -> None:
        """Open the rest. `give`: files of a live run belong to the account it goes on as.

        Raises: EnvironmentLacks: one can't be opened.
        """
        settings = self._settings
        files: list[JsonFile | LogFile] = []
        if settings.eve not in ("", "-"):
            files.append(JsonFile(Path(settings.eve), self.eve))
        if settings.log:
            files.append(LogFile(Path(settings.log), classic=settings.classic))
        for file in files:
            if self._cards and give:  # rights are given up soon: what rotation puts in its place has the same owner
                file.give_to(identity(ACCOUNT).uid)
            alert.add(file)
        if settings.bus is not None:
            try:
                alert.add(Bus(settings.bus, self._cards, self.eve))
            except EnvironmentLacks as error:
                if settings.bus_asked:
                    raise
                tell(error)  # nobody asked for it: detection goes on
        if settings.metrics is not None:
            from ukihashi.alert.metrics import Metrics

            alert.add(Metrics(*settings.metrics, cards=self._cards))
        if settings.syslog is not None:
            self._syslog = Syslog(settings.syslog, classic=settings.classic)
            alert.add(self._syslog)
        if settings.evidence is not None:
            self._keep_evidence(alert)

    def tell_expired(self) -> None:
        """Entries of the allow list that are over, for a run over capture files."""
        for error in self.allow.expired(time.time()):
            tell(error)

    def close(self) -> None:
        """What is not closed with the detector."""
        self._stack.close()

    def _keep_evidence(self, alert: Alert) -> None:
        from ukihashi.alert.bundle import Circumstances
        from ukihashi.alert.evidence import Evidence
        from ukihashi.alert.rights import hand_over
        from ukihashi.alert.sensor_key import load_or_make

        settings = self._settings
        assert settings.evidence is not None
        host = socket.gethostname()

        def about() -> "Circumstances":
            seen = alert.seen
            return Circumstances(
                interface=",".join(self._cards),
                host=host,
                packets=alert.packets,
                dropped=seen.lost,
                missed=seen.missing,
                coverage=seen.share,
                ssh_clients=settings.ssh_clients,
            )

        key = load_or_make(state_dir())
        evidence = Evidence(
            settings.evidence,
            key,
            tell=tell,
            about=about,
            language=current_language(),
            per_day=settings.evidence_per_day,
            max_mib=settings.evidence_mib,
        )
        self._stack.callback(evidence.close)
        if self._cards:
            try:
                hand_over(settings.evidence)
            except OSError as error:
                tell(EnvironmentLacks(N_("{what}: {reason}"), what=settings.evidence, reason=error.strerror))
        alert.keep(evidence.take)

    def _report(self, seen: Coverage, lines: int) -> None:
        text = report_line(seen, lines)
        note(text)
        if self._syslog is not None:
            self._syslog.say(text)
