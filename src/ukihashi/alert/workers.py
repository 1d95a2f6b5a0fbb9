"""Several processes that share the packets of the same cards, for lines that are too fast for one.

The kernel deals packets out by their addresses, so that all connections of a client to a server come to one process: it
sees whole sessions and needs nobody's help to judge them. What the processes find they send to the first one, which
alone writes it down.
"""

import contextlib
import gc
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ukihashi.alert import live
from ukihashi.capture.health import Coverage, Meter
from ukihashi.capture.live import LiveCapture, Statistics
from ukihashi.detect import compiled
from ukihashi.detect.record import Found
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError

if TYPE_CHECKING:
    from ukihashi.alert.service import Alert

END_S: Final = 10.0  # a worker may take so long to end
SILENT_S: Final = 10.0  # each tells its counters each second; one that has not for so long stands still


Make = Callable[["Forward", Callable[[UkihashiError], None]], "Alert"]


class Forward:
    """In a worker: the sink that gives everything to the first process."""

    wants_probable = True  # the first process chooses

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe

    def take(self, found: Found) -> None:
        """See `Sink`."""
        self._pipe.send(found)

    def close(self) -> None:
        """See `Sink`."""


class _Worker:
    """As the first process sees it."""

    def __init__(self, pid: int, pipe: "Connection[Any, Any]") -> None:
        self.pid: Final = pid
        self.pipe: Final = pipe
        self.total = Coverage(0, 0)
        self.known = self.flows = 0  # TCP connections now, and ever
        self.problem: UkihashiError | None = None
        self.ended = False
        self.heard_at = time.monotonic()
        self._asked = False

    def end(self, *, hard: bool) -> None:
        """Ask it to end, once; kill it if `hard`. To be repeated: while it still has its rights, it hears nothing."""
        with contextlib.suppress(PermissionError, ProcessLookupError):
            if hard:
                os.kill(self.pid, signal.SIGKILL)
            elif not self._asked:
                os.kill(self.pid, signal.SIGTERM)
                self._asked = True


class Workers:
    """All of them, forked. Call `listen` next: until then what they find waits."""

    def __init__(self, captures: Sequence[LiveCapture], make: Make, drop: Callable[[], None]) -> None:
        """Fork one for each capture.

        Args:
            captures: of one group (`Options.group`).
            make: the detector of a worker, from its sink and from whom to tell of problems.
            drop: gives up all rights, in each worker.
        """
        self._workers: list[_Worker] = []
        gc.collect()
        gc.freeze()  # else each worker's collector would copy what all share
        parent = os.getpid()
        for capture in captures:
            ours, theirs = Pipe(duplex=False)
            pid = os.fork()
            if pid == 0:
                ours.close()
                for other in captures:
                    if other is not capture:
                        other.close()
                _work(capture, theirs, make, drop, parent)
            theirs.close()
            self._workers.append(_Worker(pid, ours))
        for capture in captures:
            capture.close()

    def listen(self, alert: "Alert", stop: Callable[[], bool]) -> Statistics:
        """Write down what the workers find, until `stop()` and they have ended; the sum of the kernel's counters.

        Raises:
            EnvironmentLacks: a worker ended before; the others were ended.
        """
        meter, losses = Meter(time.time()), live.Losses(alert.tell)
        problem: UkihashiError | None = None
        asked_at, due = 0.0, time.monotonic() + live.MEASURE_S
        while left := [worker for worker in self._workers if not worker.ended]:
            if not asked_at and (problem is not None or stop()):
                asked_at = time.monotonic()
            if asked_at:
                for worker in left:
                    worker.end(hard=time.monotonic() > asked_at + END_S)
            for ready in wait([worker.pipe for worker in left], live.WAIT_S):
                worker = next(worker for worker in left if worker.pipe is ready)
                problem = self._hear(worker, alert, stopping=bool(asked_at)) or problem
            if time.monotonic() >= due:
                due += live.MEASURE_S
                self._measure(alert, meter, losses)
        self._measure(alert, meter, losses)
        losses.end()
        if problem is not None:
            raise problem
        return self._statistics()

    def _statistics(self) -> Statistics:
        parts = [worker.total for worker in self._workers]
        return Statistics(
            sum(part.packets for part in parts),
            sum(part.dropped for part in parts),
            sum(part.freezes for part in parts),
            max(part.card_lost for part in parts),  # each counts for all, because they have the same cards
        )

    def _measure(self, alert: "Alert", meter: Meter, losses: live.Losses) -> None:
        parts = [worker.total for worker in self._workers]
        statistics = self._statistics()
        alert.packets, alert.missed = statistics.packets, sum(part.missing for part in parts)
        alert.known = sum(worker.known for worker in self._workers)
        alert.flows = sum(worker.flows for worker in self._workers)
        period = meter.period(
            time.time(), statistics, tcp_bytes=sum(part.tcp_bytes for part in parts), missing=alert.missed
        )
        alert.turns = all(worker.heard_at > time.monotonic() - SILENT_S for worker in self._workers)
        alert.measured(meter.total(), period)
        losses.note(period, time.monotonic())

    def _hear(self, worker: _Worker, alert: "Alert", *, stopping: bool) -> UkihashiError | None:
        """One message; what to end for, if anything."""
        worker.heard_at = time.monotonic()
        try:
            message = worker.pipe.recv()
        except EOFError:
            worker.ended = True
            worker.pipe.close()
            _pid, status = os.waitpid(worker.pid, 0)
            if stopping and os.waitstatus_to_exitcode(status) == 0:
                return None
            return worker.problem or EnvironmentLacks(N_("a process that reads packets ended by itself; start again"))
        match message:
            case Coverage():
                worker.total = message
            case (int() as known, int() as ever):
                worker.known, worker.flows = known, ever
            case UkihashiError():
                alert.tell(message)
            case (UkihashiError() as problem,):
                worker.problem = problem
            case _:
                alert.give(message)
        return None


def _work(
    capture: LiveCapture, pipe: "Connection[Any, Any]", make: Make, drop: Callable[[], None], parent: int
) -> NoReturn:
    """A worker's whole life."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    def measured(total: Coverage, _period: Coverage) -> None:
        pipe.send(total)
        pipe.send(alert.connections)

    status = 1
    try:
        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key reaches all of us; the first process says when to end
        drop()
        alert = make(Forward(pipe), pipe.send)
        if compiled.is_ready():  # the first process has seen to that, while it could
            alert.use(compiled.engine())
        try:
            live.listen(alert, capture, lambda: asked or os.getppid() != parent, measured=measured)
            status = 0
        except UkihashiError as error:
            pipe.send((error,))
        alert.finish()
        pipe.send(alert.connections)
    except ConnectionError:  # the first process is gone
        status = 1
    except Exception:  # noqa: BLE001 - our own fault: nothing above us would show it
        traceback.print_exc()
    finally:
        os._exit(status)
