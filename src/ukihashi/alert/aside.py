"""Work that takes seconds while packets come in: done by a child, beside the capture."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from ukihashi.net.privileges import die_with

AT_ONCE: Final = 2  # children
LONGEST_S: Final = 30.0  # that one may take; then it is ended
NICE: Final = 10  # the capture comes first


class Aside:
    """A few children at a time, each for one piece of work; what one writes, it writes itself."""

    def __init__(self) -> None:
        self._begun: dict[int, float] = {}  # by pid: when, on a clock that never goes back

    def run(self, work: Callable[[], None]) -> bool:
        """Do `work` in a child; False, and nothing is done, while as many as may be are at work or none can be had."""
        self._reap()
        if len(self._begun) >= AT_ONCE:
            return False
        parent = os.getpid()
        try:
            child = os.fork()
        except OSError:
            return False
        if child:
            self._begun[child] = time.monotonic()
            return True
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent waits for us
            die_with(parent, signal.SIGKILL)
            os.nice(NICE)
            work()
            status = 0
        finally:
            os._exit(status)

    def close(self) -> None:
        """Wait for those at work, each at most as long as it may take."""
        while self._begun:
            self._reap()
            time.sleep(0.01)

    def _reap(self) -> None:
        for child, begun in list(self._begun.items()):
            if time.monotonic() - begun > LONGEST_S:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                ended, _status = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:  # somebody else has heard of its end
                ended = child
            if ended:
                del self._begun[child]
