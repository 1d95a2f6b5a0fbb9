"""Where findings go: the console, `sealert.log`, a file of JSON lines."""

import contextlib
import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeGuard, runtime_checkable

from ukihashi.alert import eve
from ukihashi.detect.record import Finding, Found, log_line
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError

MAX_WAITING: Final = 1 << 20  # bytes of lines kept for a file that can't be written; later ones are lost, and counted

STUCK_S: Final = 5.0  # before it is told that no new file can be made


class Sink(Protocol):
    """One place."""

    def take(self, found: Found) -> None:
        """Write it down, at once.

        Raises:
            EnvironmentLacks: that place is full or gone. What was written before stays.
        """

    def close(self) -> None:
        """Nothing more comes."""


@runtime_checkable
class Lasting(Protocol):
    """A sink that mends itself: after an error it goes on with what it kept as soon as it can."""

    unwritten: int  # bytes, or messages, that wait or were lost; read after `close`

    def tick(self) -> Iterator[UkihashiError]:
        """Called each second; gives what should be told."""

    def reopen(self) -> Iterator[UkihashiError]:
        """Begin a new file, or connection, under the same name (SIGHUP)."""


@runtime_checkable
class Gauge(Protocol):
    """Who wants to know the counters, each second."""

    def count(self, stats: eve.Stats) -> None:
        """The counters of now; `stats.period` is above 0 when a period of the report ends.

        Raises: EnvironmentLacks: as `Sink.take`.
        """


def is_line(found: Found) -> TypeGuard[Finding]:
    """Does it get a log line? One for each login; none for what the allow list knows."""
    return isinstance(found, Finding) and not found.again and found.allowed is None


class Console:
    """Log lines through a function that prints one; EVE objects if `as_json`."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        classic: bool = False,
        as_json: bool = False,
        maker: eve.Eve | None = None,
    ) -> None:
        self._write = write
        self._classic = classic
        self._as_json = as_json
        self._eve = maker or eve.Eve()

    def take(self, found: Found) -> None:
        """See `Sink`."""
        if self._as_json:
            self._write(eve.line(self._eve.event(found)))
        elif is_line(found):
            self._write(log_line(found, zone=None, classic=self._classic))

    def count(self, stats: eve.Stats) -> None:
        """See `Gauge`."""
        if self._as_json and stats.period:
            self._write(eve.line(self._eve.stats(stats)))

    def close(self) -> None:
        """See `Sink`."""


class _File:
    """A file that is appended to, a whole line at a time; made anew when somebody has renamed or removed it.

    A full disk loses nothing: lines wait in memory, and a line that was cut is completed.
    """

    def __init__(self, path: Path) -> None:
        """Raises: EnvironmentLacks: the file can't be made or opened."""
        self._path = path
        self._waiting = bytearray()
        self._lost = 0  # lines
        self._is_broken = False  # told, and not mended yet
        self._stuck_since: float | None = None  # no new file can be made; seconds of a clock that never goes back
        self._is_stuck = False  # told so
        self._file = self._open()
        self._begin_line()

    @property
    def unwritten(self) -> int:
        """See `Lasting`."""
        return len(self._waiting) + self._lost

    def _open(self) -> io.FileIO:
        try:
            return self._path.open("ab", buffering=0)
        except OSError as error:
            raise EnvironmentLacks(
                N_("{file} can't be opened: {reason}"), file=self._path, reason=error.strerror
            ) from error

    def _begin_line(self) -> None:
        """Behind a line that a crash or a full disk has cut, begin a new one."""
        with contextlib.suppress(OSError):
            state = os.fstat(self._file.fileno())
            if stat.S_ISREG(state.st_mode) and state.st_size:
                with self._path.open("rb") as file:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        self._waiting[:0] = b"\n"

    def _append(self, line: str) -> None:
        notes = list(self.reopen())
        data = line.encode() + b"\n"
        if len(self._waiting) + len(data) > MAX_WAITING:
            self._lost += 1
            return
        self._waiting += data
        self._flush()
        for note in notes:
            raise note

    def _flush(self) -> None:
        """Raises: EnvironmentLacks: it can't be written, and that was not said yet."""
        if not self._waiting:
            return
        reason = os.strerror(errno.ENOSPC)  # the disk filled up inside the line; the next write would say so
        with contextlib.suppress(BlockingIOError):
            try:
                del self._waiting[: self._file.write(self._waiting) or 0]
            except OSError as error:
                reason = error.strerror or str(error)
        if self._waiting and not self._is_broken:
            self._is_broken = True
            raise EnvironmentLacks(
                N_("{file} can't be written ({reason}); its lines wait in memory until it can"),
                file=self._path,
                reason=reason,
            )

    def tick(self) -> Iterator[UkihashiError]:
        """See `Lasting`."""
        yield from self.reopen()
        try:
            self._flush()
        except EnvironmentLacks as error:
            yield error
        if self._is_broken and not self._waiting:
            self._is_broken = False
            yield EnvironmentLacks(
                N_("{file} can be written again; {lost} lines were lost"), file=self._path, lost=self._lost
            )

    def reopen(self) -> Iterator[UkihashiError]:
        """See `Lasting`. Whoever rotates files may make the new one a moment later, and only he may be able to."""
        if not self._is_elsewhere():
            self._stuck_since, self._is_stuck = None, False
            return
        try:
            fresh = self._open()
        except EnvironmentLacks as error:
            now = time.monotonic()
            self._stuck_since = now if self._stuck_since is None else self._stuck_since
            if now - self._stuck_since >= STUCK_S and not self._is_stuck:
                self._is_stuck = True
                yield error
            return
        self._stuck_since, self._is_stuck = None, False
        self._file.close()
        self._file = fresh

    def _is_elsewhere(self) -> bool:
        """Was the file renamed or removed?"""
        ours = os.fstat(self._file.fileno())
        if not stat.S_ISREG(ours.st_mode):
            return False
        try:
            return not os.path.samestat(ours, self._path.stat())
        except FileNotFoundError:
            return True
        except OSError:  # no right to look there any more: ours goes on
            return False

    def give_to(self, user: int) -> None:
        """Let that account own the file, if it is a plain one of root's: so will be the next. Raises: OSError."""
        state = os.fstat(self._file.fileno())
        if stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() == 0:
            os.fchown(self._file.fileno(), user, -1)

    def close(self) -> None:
        """See `Sink`."""
        if not self._file.closed:
            with contextlib.suppress(EnvironmentLacks):
                self._flush()
            self._file.close()


class LogFile(_File):
    """`sealert.log`: the console's lines, appended, made if absent (requirement B17)."""

    def __init__(self, path: Path, *, classic: bool = False) -> None:
        super().__init__(path)
        self._classic = classic

    def take(self, found: Found) -> None:
        """See `Sink`."""
        if is_line(found):
            self._append(log_line(found, zone=None, classic=self._classic))


class JsonFile(_File):
    """EVE objects, one a line; `stats` at the end of each period."""

    def __init__(self, path: Path, maker: eve.Eve | None = None) -> None:
        super().__init__(path)
        self._eve = maker or eve.Eve()

    def take(self, found: Found) -> None:
        """See `Sink`."""
        self._append(eve.line(self._eve.event(found)))

    def count(self, stats: eve.Stats) -> None:
        """See `Gauge`."""
        if stats.period:
            self._append(eve.line(self._eve.stats(stats)))
