"""Child processes of the supervisor: a fork with a life of its own, and a descriptor that tells of its end."""

import os
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.messages import Failed
from ukihashi.hub.pipes import PipeBroken, send_with_fd
from ukihashi.locale import say

RESTARTS: Final = 5  # of one child within RESTARTS_S seconds
RESTARTS_S: Final = 60.0


class Starts:
    """When a child was started: one that keeps ending is not started for ever."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def note(self, now: float) -> None:
        """It was started."""
        self._times.append(now)

    def too_many(self, now: float) -> bool:
        """More than RESTARTS within RESTARTS_S."""
        while self._times and now - self._times[0] > RESTARTS_S:
            self._times.popleft()
        return len(self._times) > RESTARTS


@dataclass(eq=False)
class Child:
    """A running (or ended and not yet reaped) child."""

    name: str
    pid: int
    pidfd: int  # readable once it has ended
    link: socket.socket  # our end
    is_ready: bool = False
    last_words: bool = False  # it has said itself why it ends
    is_old: bool = False  # of the program that was here before an upgrade

    def reap(self) -> int:
        """Take the ended child's status: its exit status, or minus the signal that killed it. Waits if need be."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status)


def how_it_ended(status: int) -> UkihashiError:
    """A few words for what `reap` has given."""
    return UkihashiError(
        N_("killed by signal {number}") if status < 0 else N_("exit status {number}"), number=abs(status)
    )


def fork(name: str, ours: socket.socket, theirs: socket.socket, life: Callable[[], int]) -> Child:
    """Run `life` in a new process until it returns its exit status. An error it raises is told over `theirs`.

    Only for a process without threads: a lock that another thread holds would stay held in the child.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _live(name, theirs, life)
    return Child(name, pid, os.pidfd_open(pid), ours)


def _live(name: str, link: socket.socket, life: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        _forget_signals()
        status = life()
    except UkihashiError as error:
        status = error.exit_status
        with suppress(PipeBroken):
            send_with_fd(link, Failed(name, say(error)))
    except BaseException:  # noqa: BLE001 - the end of a process: there is nobody above to take it
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _forget_signals() -> None:
    """A child begins with the defaults, but leaves Ctrl-C to the supervisor: the terminal sends it to all of us."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
