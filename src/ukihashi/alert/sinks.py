"""Where findings go: the console, `sealert.log`, a file of JSON lines."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeGuard

from ukihashi.alert import eve
from ukihashi.detect.record import Finding, Found, log_line
from ukihashi.errors import N_, EnvironmentLacks


class Sink(Protocol):
    """One place."""

    def take(self, found: Found) -> None:
        """Write it down, at once.

        Raises:
            EnvironmentLacks: that place is full or gone. What was written before stays.
        """

    def close(self) -> None:
        """Nothing more comes."""


def is_line(found: Found) -> TypeGuard[Finding]:
    """Does it get a log line? One for each login; none for what the allow list knows."""
    return isinstance(found, Finding) and not found.again and found.allowed is None


class Console:
    """Log lines through a function that prints one; JSON objects if `as_json`."""

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

    def close(self) -> None:
        """See `Sink`."""


class _File:
    """A file that is appended to, a whole line at a time."""

    def __init__(self, path: Path) -> None:
        """Raises: EnvironmentLacks: the file can't be made or opened."""
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise EnvironmentLacks(N_("{file} can't be opened: {reason}"), file=path, reason=error.strerror) from error

    def _append(self, line: str) -> None:
        data = line.encode() + b"\n"
        try:
            written = self._file.write(data)
        except OSError as error:
            raise self._full(error.strerror) from error
        if written != len(data):  # the disk filled up inside the line; the next write would say so
            raise self._full(os.strerror(errno.ENOSPC))

    def _full(self, reason: str | None) -> EnvironmentLacks:
        return EnvironmentLacks(
            N_("{file} can't be written ({reason}); the lines from here on are on the console only"),
            file=self._path,
            reason=reason,
        )

    def close(self) -> None:
        """See `Sink`."""
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
    """EVE objects, one a line."""

    def __init__(self, path: Path, maker: eve.Eve | None = None) -> None:
        super().__init__(path)
        self._eve = maker or eve.Eve()

    def take(self, found: Found) -> None:
        """See `Sink`."""
        self._append(eve.line(self._eve.event(found)))
