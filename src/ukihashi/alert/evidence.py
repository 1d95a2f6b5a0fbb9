"""Where evidence bundles go: a folder with bounds, written beside the capture by a thread of its own.

When a bound is reached the earlier bundles stay and later findings get none: the first evidence of an incident is what
is asked for, a flood must not push it out, and nothing here deletes evidence. A bundle that is there already is left
as it is.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Full, Queue
from typing import Final

from ukihashi.alert import bundle
from ukihashi.alert.bundle import Circumstances
from ukihashi.alert.sensor_key import SensorKey
from ukihashi.detect.record import Finding, Verdict
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError

PER_DAY: Final = 200  # bundles
MAX_MIB: Final = 512  # of all bundles in the folder
WAITING: Final = 64  # findings that wait for their bundle
TELL_AGAIN_S: Final = 3600.0
_DAY_S: Final = 86_400.0


class Evidence:
    """Writes a bundle for each CONFIRMED finding that is not allowed. Close it: it finishes what waits."""

    def __init__(
        self,
        folder: Path,
        key: SensorKey,
        *,
        tell: Callable[[UkihashiError], None],
        about: Callable[[], Circumstances],
        language: str = "en",
        per_day: int = PER_DAY,
        max_mib: float = MAX_MIB,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises: EnvironmentLacks: the folder can't be made or written."""
        self.written = 0
        self.failed = 0
        self._folder, self._key, self._tell, self._about = folder, key, tell, about
        self._language, self._per_day, self._max_bytes, self._now = language, per_day, max_mib * (1 << 20), now
        self._told: dict[str, float] = {}
        self._queue: Queue[tuple[Finding, Circumstances, float] | None] = Queue(WAITING)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            for draft in folder.glob(".ukihashi-*.part"):  # of a run that was killed
                draft.unlink(missing_ok=True)
            # Held open: once the sensor has given up its rights, the folders above may be closed to it.
            self._at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise EnvironmentLacks(
                N_("evidence can't be written to {folder}: {reason}"), folder=folder, reason=error.strerror
            ) from error
        bundle.prepare()
        self._thread: threading.Thread | None = None  # begins with the first finding, so that it has no right either

    def take(self, finding: Finding) -> str:
        """The path of the finding's bundle, which is written soon; "" if it gets none."""
        if finding.verdict is not Verdict.CONFIRMED or finding.allowed is not None:
            return ""
        name = bundle.name_of(finding)
        now = self._now()
        if not self._is_there(name):
            if not self._has_room(now):
                return ""
            try:
                self._queue.put_nowait((finding, self._about(), now))
            except Full:
                self._say(
                    EnvironmentLacks(
                        N_("more than {count} findings wait for their evidence; the others get none"), count=WAITING
                    ),
                    now,
                )
                return ""
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="evidence", daemon=True)
                self._thread.start()
        return str(self._folder / name)

    def _is_there(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._at)
        except OSError:
            return False
        return True

    def wait(self) -> None:
        """Until all that waits is written."""
        self._queue.join()

    def close(self) -> None:
        """Write what waits, then stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._at >= 0:
            os.close(self._at)
            self._at = -1

    def _has_room(self, now: float) -> bool:
        waiting = self._queue.qsize()
        today, size = waiting, 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._at):
                if entry.name.endswith(".zip"):
                    about = entry.stat(follow_symlinks=False)
                    size += about.st_size
                    today += now - about.st_mtime < _DAY_S
        if today >= self._per_day:
            self._say(
                EnvironmentLacks(
                    N_("{count} evidence bundles in 24 hours: later findings get none until the oldest is a day old"),
                    count=self._per_day,
                ),
                now,
            )
            return False
        if size >= self._max_bytes:
            self._say(
                EnvironmentLacks(
                    N_("the evidence in {folder} has reached {size:g} MiB: take it away, or later findings get none"),
                    folder=self._folder,
                    size=self._max_bytes / (1 << 20),
                ),
                now,
            )
            return False
        return True

    def _say(self, error: UkihashiError, now: float) -> None:
        """Once an hour for each reason."""
        last = self._told.get(error.template)
        if last is None or not 0 <= now - last < TELL_AGAIN_S:
            self._told[error.template] = now
            self._tell(error)

    def _work(self) -> None:
        while (waiting := self._queue.get()) is not None:
            finding, about, now = waiting
            try:
                self._write(finding, about, now)
                self.written += 1
            except OSError as error:
                self.failed += 1
                self._say(
                    EnvironmentLacks(
                        N_("the evidence of {client} can't be written to {folder}: {reason}"),
                        client=finding.client,
                        folder=self._folder,
                        reason=error.strerror,
                    ),
                    now,
                )
            finally:
                self._queue.task_done()

    def _write(self, finding: Finding, about: Circumstances, now: float) -> None:
        data = bundle.build(finding, self._key, about, language=self._language, made=now)
        name = bundle.name_of(finding)
        draft = f".{name}.part"
        try:
            number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=self._at)
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, name, src_dir_fd=self._at, dst_dir_fd=self._at)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=self._at)
            raise
