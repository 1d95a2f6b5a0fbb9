"""Packets in, findings out: joins a source of packets, the flow table, the detector and the sinks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from ukihashi.alert import live
from ukihashi.alert.allow import AllowList, allowed
from ukihashi.alert.eve import Stats
from ukihashi.alert.sinks import Gauge, Lasting, Sink
from ukihashi.capture.batch import Batch
from ukihashi.capture.health import Coverage, between
from ukihashi.capture.live import LiveCapture, Statistics
from ukihashi.detect import compiled
from ukihashi.detect.flow import MAX_FLOWS, PLAIN, Engine, Flow, FlowTable, Kept
from ukihashi.detect.layers import LINK_TYPES
from ukihashi.detect.record import Finding, Found, Verdict
from ukihashi.detect.sieve import OPENINGS
from ukihashi.detect.verdict import Detector
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError

ROTATION_S: Final = 60.0  # a file that begins this soon after the one before goes on with it
JOIN_OVERLAP_S: Final = 1.0
PERIOD_S: Final = 3600.0  # of the report of what was seen and what was lost


class Alert:
    """One detector at work.

    `tell` is called with each problem that does not end the work: a sink that is full, packets lost, a link type that
    is unknown. `evidence` keeps the packets of a finding and gives the file's name, "" for none. `report` is told what
    was seen in each period of `period_s` seconds, and how many log lines there were.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        tell: Callable[[UkihashiError], None],
        explain: Callable[[Finding], None] | None = None,
        probable: bool = False,
        max_flows: int = MAX_FLOWS,
        ssh_clients: Sequence[str] = (),
        allow: AllowList | None = None,
        evidence: Callable[[Finding], str] | None = None,
        report: Callable[[Coverage, int], None] | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self.packets = 0
        self.flows = 0
        self.known = 0  # TCP connections that other processes know now
        self.missed = 0  # bytes that the capture lost, by the sequence numbers
        self.detections = 0  # log lines
        self.findings: dict[str, int] = {}  # "softether TCP CONFIRMED": number; "... allowed" beside it
        self.sink_failed = False
        self.turns = True  # all processes that share the work have spoken lately
        self._sinks = list(sinks)
        self.tell: Final = tell
        self._explain = explain
        self._probable = probable
        self._max_flows = max_flows
        self._ssh_clients = ssh_clients
        self._allow = allow
        self._evidence = evidence
        self._report = report
        self._period_s = period_s
        self._reported: Coverage | None = None  # as of the last report
        self._seen: Coverage | None = None
        self._lines = 0  # as of the last report
        self._reopen = False
        self._first = 0.0  # time of the first packet
        self._now = 0.0
        self._bytes = 0
        self._skipped = 0
        self._unknown_links: set[int] = set()
        self._engine = PLAIN
        self._hurried = False
        self._fresh()

    def add(self, sink: Sink) -> None:
        """One more place for findings."""
        self._sinks.append(sink)

    def keep(self, evidence: Callable[[Finding], str]) -> None:
        """From now on keep the packets of findings; see the class."""
        self._evidence = evidence

    def _fresh(self) -> None:
        self._detector = Detector(self._headers, ssh_clients=self._ssh_clients)
        self._table = FlowTable(self._detector, limit=self._max_flows, sieve=OPENINGS, engine=self._engine)

    def _headers(self, flow: Flow) -> list[Kept]:
        return self._table.headers(flow)

    def read(self, batches: Iterable[Batch]) -> None:
        """All of one capture file. One that begins where the last one ended goes on with its connections.

        Raises:
            InputUnreadable: as the source does; findings so far were written.
        """
        first = True
        try:
            for batch in batches:
                begin = batch.packets[0][0]
                if first and not -JOIN_OVERLAP_S <= begin - self._now <= ROTATION_S:
                    self.finish()
                first = False
                self.take(batch)
                self._now = max(self._now, batch.packets[-1][0])
        finally:
            self._table.advance(self._now)
            self._write()

    def listen(self, capture: LiveCapture, stop: Callable[[], bool]) -> Statistics:
        """Packets of cards until `stop()`; then the kernel's counters.

        Raises:
            EnvironmentLacks: a card went away.
        """
        return live.listen(self, capture, stop)

    def idle(self, now: float) -> None:
        """Time passes without packets. `now`: seconds since 1970 UTC, the clock of the packets."""
        self._now = max(self._now, now)
        self._table.advance(self._now)
        self._write()

    def measured(self, total: Coverage, period: Coverage) -> None:
        """What was seen and what was lost, since the begin and in the last second: called each second of a capture."""
        del period
        self._seen = total
        if self._reported is None:
            self._reported = Coverage(total.begin, total.begin)
        if self._allow is not None:
            self._allow.refresh(self.tell)
            for error in self._allow.expired(total.end):
                self.tell(error)
        again, self._reopen = self._reopen, False
        for sink in self._sinks:
            if isinstance(sink, Lasting):
                for error in (*(sink.reopen() if again else ()), *sink.tick()):
                    self.tell(error)
        self._count(total, ends=total.end - self._reported.end >= self._period_s)

    def reopen(self) -> None:
        """Begin new files under the same names within a second. May be called from a signal handler."""
        self._reopen = True

    def _count(self, total: Coverage, *, ends: bool) -> None:
        """Tell those who want the counters; the report, if its period ends."""
        reported = self._reported or Coverage(total.begin, total.begin)
        stats = Stats(
            total.end,
            total.end - total.begin,
            packets=total.packets,
            drops=total.lost,
            gaps=total.missing,
            coverage=total.share,
            flows=self.known + len(self._table),
            flows_total=self.connections[1],
            flows_forgotten=self._table.forgotten,
            skipped=self._skipped,
            findings=dict(self.findings),
            period=total.end - reported.end if ends else 0.0,
        )
        for sink in self._sinks:
            if isinstance(sink, Gauge):
                try:
                    sink.count(stats)
                except EnvironmentLacks as error:
                    self.tell(error)
        if ends:
            if self._report is not None:
                self._report(between(reported, total), self.detections - self._lines)
            self._reported, self._lines = total, self.detections

    @property
    def connections(self) -> tuple[int, int]:
        """TCP connections known now, and ever."""
        return len(self._table), self.flows + self._table.opened

    @property
    def tcp_bytes(self) -> int:
        """Bytes of connections that were followed, also those that the capture lost."""
        return self._bytes + self._table.bytes

    @property
    def missing(self) -> int:
        """Of those, the ones that the capture lost."""
        return self.missed + self._table.missed

    def use(self, engine: Engine) -> None:
        """Count with this one from now on."""
        self._hurried = True
        self._engine = engine
        self._table.use(engine)

    def hurry(self) -> None:
        """Count with compiled code from now on; where there is none, say once that it goes slower."""
        if self._hurried:
            return
        self._hurried = True
        if compiled.is_possible() and not compiled.is_kept():
            self.tell(EnvironmentLacks(N_("compiling the packet reader, this once; it takes about a minute")))
        if compiled.is_ready():
            self.use(compiled.engine())
        else:
            self.tell(EnvironmentLacks(N_("numba is not at hand, so packets are read fifty times as slowly")))

    def take(self, batch: Batch) -> None:
        """One batch, in order of capture."""
        if self.packets >= compiled.WORTH_IT:
            self.hurry()
        if not self.packets and batch.packets:
            self._first = batch.packets[0][0]
        self.packets += len(batch.packets)
        if batch.link_type not in LINK_TYPES:
            self._skipped += len(batch.packets)
            if batch.link_type not in self._unknown_links:
                self._unknown_links.add(batch.link_type)
                self.tell(
                    EnvironmentLacks(
                        N_("packets of link type {number} can't be read; left out"), number=batch.link_type
                    )
                )
            return
        self._table.take(batch.link_type, batch.buffer, batch.packets)
        self._write()

    def finish(self) -> None:
        """No more packets: decide what can be decided, then forget all connections."""
        self._table.advance(self._now)
        self._detector.finish(self._now)
        self._write()
        self.flows += self._table.opened
        self.missed += self._table.missed
        self._bytes += self._table.bytes
        self._fresh()

    @property
    def seen(self) -> Coverage:
        """What was seen and lost so far; of a card, as of the last second."""
        return self._seen or Coverage(
            self._first, max(self._now, self._first), self.packets, tcp_bytes=self.tcp_bytes, missing=self.missing
        )

    def close(self) -> None:
        """The last counters, and close the sinks."""
        if self._seen is not None or self.packets:
            self._count(self.seen, ends=True)
        for sink in self._sinks:
            sink.close()
            self.sink_failed |= isinstance(sink, Lasting) and bool(sink.unwritten)

    def _write(self) -> None:
        for found in self._detector.drain():
            self.give(found)

    def give(self, found: Found) -> None:
        """To all sinks. One that fails is told of, and left out from then on unless it mends itself."""
        found = self._known(found)
        finding = found if isinstance(found, Finding) else found.finding
        shown = self._probable or finding.verdict is Verdict.CONFIRMED
        if shown and self._evidence is not None and isinstance(found, Finding) and found.allowed is None:
            found = replace(found, evidence_file=self._evidence(found))
        if isinstance(found, Finding):
            self._tally(found)
        for sink in self._sinks[:]:
            probable = self._probable or getattr(sink, "wants_probable", False)
            if not probable and not shown:
                continue
            told = found
            if isinstance(found, Finding) and found.again and not found.lined and not probable:
                told = replace(found, again=False)  # nobody was told of it before
            try:
                sink.take(told)
            except EnvironmentLacks as error:
                if not isinstance(sink, Lasting):
                    self.sink_failed = True
                    self._sinks.remove(sink)
                    sink.close()
                self.tell(error)
        if isinstance(found, Finding) and shown and found.allowed is None and self._explain is not None:
            self._explain(found)

    def _known(self, found: Found) -> Found:
        """With the entry of the allow list that it matches."""
        if self._allow is None:
            return found
        finding = found if isinstance(found, Finding) else found.finding
        entry = self._allow.match(finding, max(self._now, finding.decided))
        if entry is None:
            return found
        finding = replace(finding, allowed=allowed(entry))
        return finding if isinstance(found, Finding) else replace(found, finding=finding)

    def _tally(self, finding: Finding) -> None:
        words = f"{finding.family.name.lower()} {finding.outer.value} {finding.verdict.value}"
        if finding.allowed is not None:
            words += " allowed"
        elif finding.verdict is Verdict.CONFIRMED and not finding.lined:
            self.detections += 1
        if not (finding.again and finding.lined):
            self.findings[words] = self.findings.get(words, 0) + 1
