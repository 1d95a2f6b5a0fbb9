"""Judge a capture file as it comes in, in a child process with bounds; nothing of it is written anywhere.

The bytes go through a pipe straight into the child, which holds no other descriptor than that pipe and the one that
its findings come back through. It is forked, not started anew: whoever calls may have given up the right to read our
files. One file at a time.
"""

import asyncio
import contextlib
import json
import math
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from ukihashi.alert import eve
from ukihashi.alert.page_state import Found, key_of, mapping, number, text
from ukihashi.alert.service import Alert
from ukihashi.capture.batch import Batch
from ukihashi.capture.pcap import CaptureFile
from ukihashi.capture.warm import warm
from ukihashi.detect import compiled
from ukihashi.detect.record import Finding
from ukihashi.detect.record import Found as Told
from ukihashi.detect.whatif import Change, changes
from ukihashi.errors import N_, EnvironmentLacks, InputUnreadable, UkihashiError, UsageError
from ukihashi.net.privileges import die_with

MAX_FILE: Final = 1 << 30  # bytes
MEMORY: Final = 1 << 30  # bytes of data of the child
CPU_S: Final = 600
WALL_S: Final = 1800.0  # from the first byte to the verdict; a slow browser counts, too
MAX_FINDINGS: Final = 1000
MAX_CHANGES: Final = 8  # findings for which it is said what would have changed the verdict
MAX_LINE: Final = 1 << 20
NICE: Final = 10  # the sensor beside it comes first
TELL_S: Final = 0.5


class State(Enum):
    """How far it is."""

    READING = "reading"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(slots=True)
class Judged:
    """One file: how far it was read and what was found. Kept in memory only, until the next one."""

    name: str
    size: int | None  # bytes, as the browser says
    begun: float  # seconds since 1970
    taken: int = 0  # bytes
    packets: int = 0
    flows: int = 0
    missed: int = 0  # bytes that the capture lost
    state: State = State.READING
    problems: list[UkihashiError] = field(default_factory=list)
    seconds: float = 0.0
    changes: int = 0
    ended: State | None = None  # as the child says; it becomes `state` when the next file may come
    _found: dict[str, Found] = field(default_factory=dict)

    def found(self) -> list[Found]:
        """Findings in the order of their begin."""
        return sorted(self._found.values(), key=lambda one: one.begin)

    def find(self, key: str) -> Found | None:
        """The finding of that key."""
        return self._found.get(key)

    def take(self, line: bytes) -> None:
        """One line of the child."""
        event = json.loads(line)
        self.changes += 1
        kind = event.get("event_type")
        if kind == "alert" and len(self._found) < MAX_FINDINGS:
            key = key_of(event)
            count = len(mapping(mapping(event.get("ukihashi")).get("evidence")).get("connections") or ())
            self._found[key] = Found(key, event, connections=max(1, count))
        elif kind == "changes":
            found = self._found.get(text(event.get("key")))
            if found is not None:
                ours = {**found.about, "changes": event.get("changes")}
                found.event = {**found.event, "ukihashi": ours}
        elif kind == "vpn_connection":
            for known in self._found.values():
                if known.event.get("community_id") == event.get("session"):
                    known.connections += 1
        elif kind in {"progress", "done"}:
            self.packets, self.flows = int(number(event.get("packets"))), int(number(event.get("flows")))
            self.missed = int(number(event.get("missed")))
            if kind == "done":
                self.ended = State.FAILED if event.get("failed") else State.DONE
        elif kind == "problem":
            self.problems.append(UkihashiError(text(event.get("template")), **dict(mapping(event.get("values")))))


def warm_up() -> None:
    """Load compiled code, if there is any already: who calls `Judge` later may reach no file of ours then."""
    if compiled.is_possible() and compiled.is_kept():
        with contextlib.suppress(ImportError, OSError, RuntimeError):  # large files are read more slowly then
            warm()


class Judge:
    """Takes one file at a time."""

    def __init__(
        self,
        *,
        max_file: int = MAX_FILE,
        memory: int = MEMORY,
        cpu_s: int = CPU_S,
        wall_s: float = WALL_S,
    ) -> None:
        self.max_file: Final = max_file
        self.last: Judged | None = None
        self._memory = memory
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._running: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """A file is being read."""
        return self._running is not None

    def cancel(self) -> None:
        """Stop reading; nothing happens when there is nothing to stop."""
        if self._running is not None:
            self._running.cancel()

    def forget(self) -> None:
        """Keep nothing of the last file. One that is being read stays."""
        if not self.busy:
            self.last = None

    async def run(self, parts: AsyncIterator[bytes], name: str, size: int | None) -> Judged:
        """Read `parts` to their end, or to a bound; what is wrong with the file stands in the result.

        Raises:
            UsageError: another file is being read.
        """
        if self.busy:
            raise UsageError(N_("another file is being judged; wait until it is done, or cancel it"))
        judged = self.last = Judged(text(name)[:200] or "-", size, time.time())
        if size is not None and size > self.max_file:
            self._fail(judged, self._too_large())
            return judged
        began = time.monotonic()
        task = self._running = asyncio.ensure_future(self._judge(parts, judged))
        try:
            await asyncio.wait([task])
        finally:  # also when who asked is gone
            task.cancel()
            (error,) = await asyncio.gather(task, return_exceptions=True)
            self._running = None
            judged.seconds = time.monotonic() - began
            if judged.state is State.READING:
                judged.state = judged.ended or State.CANCELLED
            judged.changes += 1
        if isinstance(error, Exception):  # what `parts` raised
            raise error
        return judged

    def _too_large(self) -> UkihashiError:
        return InputUnreadable(
            N_(
                "the file is larger than {limit} MiB; cut it with editcap or tcpdump, or read it with"
                " `ukihashi alert -r`"
            ),
            limit=self.max_file >> 20,
        )

    @staticmethod
    def _fail(judged: Judged, error: UkihashiError) -> None:
        judged.problems.append(error)
        judged.state = State.FAILED

    async def _judge(self, parts: AsyncIterator[bytes], judged: Judged) -> None:
        loop = asyncio.get_running_loop()
        child_in, feed = os.pipe()
        told, child_out = os.pipe()
        child = _fork(
            child_in, child_out, lambda: _bounded(child_in, child_out, judged.name, self._memory, self._cpu_s)
        )
        os.close(child_in)
        os.close(child_out)
        reader = asyncio.StreamReader(limit=MAX_LINE)
        listening, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(told, "rb"))
        feeding, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(feed, "wb"))
        writer = asyncio.StreamWriter(feeding, protocol, None, loop)
        hearing = asyncio.ensure_future(self._hear(reader, judged))
        try:
            async with asyncio.timeout(self._wall_s):
                if await self._feed(parts, writer, judged):
                    writer.close()
                    await hearing
            if judged.state is State.READING and judged.ended is None:
                self._fail(judged, EnvironmentLacks(N_("the process that judges the file ended before it was done")))
        except TimeoutError:
            self._fail(
                judged, EnvironmentLacks(N_("judging took longer than {seconds:g} s; stopped"), seconds=self._wall_s)
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 - it was killed: a matter of a millisecond
            hearing.cancel()
            if not feeding.is_closing():
                feeding.abort()
            listening.close()

    async def _feed(self, parts: AsyncIterator[bytes], writer: asyncio.StreamWriter, judged: Judged) -> bool:
        """False if the file is too large. A child that needs no more (the file is damaged) gets no more."""
        gone = False
        async for part in parts:
            judged.taken += len(part)
            judged.changes += 1
            if judged.taken > self.max_file:
                self._fail(judged, self._too_large())
                return False
            if gone or not part:
                continue
            try:
                writer.write(part)
                await writer.drain()
            except (BrokenPipeError, ConnectionError):
                gone = True
        return True

    @staticmethod
    async def _hear(reader: asyncio.StreamReader, judged: Judged) -> None:
        while (line := await reader.readline()).endswith(b"\n"):
            judged.take(line)


# -- the child ----------------------------------------------------------------------------------------------------


def _fork(child_in: int, child_out: int, work: Callable[[], None]) -> int:
    """Run `work` in a child that has these two descriptors and no other; its pid."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number_ in (signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number_, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        low, high = sorted((child_in, child_out))
        os.closerange(0, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        die_with(parent, signal.SIGKILL)
        work()
        status = 0
    finally:
        os._exit(status)


def _bounded(child_in: int, child_out: int, name: str, memory: int, cpu_s: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    os.nice(NICE)
    judge_file(child_in, child_out, name)


def _plain(change: Change) -> dict[str, Any]:
    bound = None if math.isnan(change.bound) else change.bound
    return change._asdict() | {"bound": bound, "verdict": change.verdict.value if change.verdict is not None else None}


def judge_file(source: int, target: int, name: str) -> None:
    """Read the capture file from one descriptor, write findings and progress to the other as JSON lines."""

    def tell(kind: str, **values: Any) -> None:
        data = json.dumps({"event_type": kind, **values}, default=str).encode() + b"\n"
        while data:
            data = data[os.write(target, data) :]

    def problem(error: UkihashiError) -> None:
        tell("problem", template=error.template, values=error.values)

    class Out:
        """The sink."""

        def take(self, found: Told) -> None:
            event = eve.event(found)
            if isinstance(found, Finding):
                event = eve.explained(event, found)
                kept[key_of(event)] = found
                if len(kept) > MAX_CHANGES:
                    del kept[next(iter(kept))]
            tell(str(event.pop("event_type")), **event)

        def close(self) -> None:
            pass

    def watched(batches: Iterable[Batch]) -> Iterator[Batch]:
        next_word = time.monotonic() + TELL_S
        for batch in batches:
            yield batch
            if time.monotonic() >= next_word:
                next_word = time.monotonic() + TELL_S
                tell("progress", packets=alert.packets, flows=alert.flows)

    kept: dict[str, Finding] = {}
    alert = Alert([Out()], tell=problem, probable=True)
    failed = False
    try:
        with os.fdopen(source, "rb", closefd=False) as file:
            alert.read(watched(CaptureFile(file, name)))
    except InputUnreadable as error:
        failed = True
        problem(error)
    except MemoryError:
        failed = True
        problem(EnvironmentLacks(N_("judging the file would take more memory than is allowed for it")))
    alert.finish()
    for key, finding in kept.items():
        tell("changes", key=key, changes=[_plain(change) for change in changes(finding)])
        tell("progress", packets=alert.packets, flows=alert.flows)
    tell("done", packets=alert.packets, flows=alert.flows, missed=alert.missed, failed=failed)
