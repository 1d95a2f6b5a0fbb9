"""Packets in, findings out: joins a source of packets, the flow table, the detector and the sinks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from ukihashi.alert import live
from ukihashi.alert.sinks import Sink
from ukihashi.capture.batch import Batch
from ukihashi.capture.health import Coverage
from ukihashi.capture.live import LiveCapture, Statistics
from ukihashi.detect.flow import MAX_FLOWS, Flow, FlowTable, Kept
from ukihashi.detect.layers import LINK_TYPES
from ukihashi.detect.record import Finding, Found, Verdict
from ukihashi.detect.sieve import OPENINGS
from ukihashi.detect.verdict import Detector
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError

ROTATION_S: Final = 60.0  # a file that begins this soon after the one before goes on with it
JOIN_OVERLAP_S: Final = 1.0


class Alert:
    """One detector at work.

    `tell` is called with each problem that does not end the work: a sink that is full, packets lost, a link type that
    is unknown.
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
    ) -> None:
        self.packets = 0
        self.flows = 0
        self.missed = 0  # bytes that the capture lost, by the sequence numbers
        self.detections = 0  # log lines
        self.sink_failed = False
        self._sinks = list(sinks)
        self.tell: Final = tell
        self._explain = explain
        self._probable = probable
        self._max_flows = max_flows
        self._ssh_clients = ssh_clients
        self._now = 0.0
        self._bytes = 0
        self._unknown_links: set[int] = set()
        self._fresh()

    def add(self, sink: Sink) -> None:
        """One more place for findings."""
        self._sinks.append(sink)

    def _fresh(self) -> None:
        self._detector = Detector(self._headers, ssh_clients=self._ssh_clients)
        self._table = FlowTable(self._detector, limit=self._max_flows, sieve=OPENINGS)

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

    @property
    def tcp_bytes(self) -> int:
        """Bytes of connections that were followed, also those that the capture lost."""
        return self._bytes + self._table.bytes

    @property
    def missing(self) -> int:
        """Of those, the ones that the capture lost."""
        return self.missed + self._table.missed

    def take(self, batch: Batch) -> None:
        """One batch, in order of capture."""
        self.packets += len(batch.packets)
        if batch.link_type not in LINK_TYPES:
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

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()

    def _write(self) -> None:
        for drained in self._detector.drain():
            found = drained
            if isinstance(found, Finding) and found.again and not found.lined and not self._probable:
                found = replace(found, again=False)  # nobody was told of it before
            if isinstance(found, Finding) and found.verdict is not Verdict.CONFIRMED and not self._probable:
                continue
            if not isinstance(found, Finding) and found.finding.verdict is not Verdict.CONFIRMED and not self._probable:
                continue
            self.give(found)

    def give(self, found: Found) -> None:
        """To all sinks. One that fails is told of and left out from then on."""
        for sink in self._sinks[:]:
            try:
                sink.take(found)
            except EnvironmentLacks as error:
                self.sink_failed = True
                self._sinks.remove(sink)
                sink.close()
                self.tell(error)
        if isinstance(found, Finding):
            self.detections += found.verdict is Verdict.CONFIRMED and not found.lined
            if self._explain is not None:
                self._explain(found)
