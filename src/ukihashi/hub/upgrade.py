"""`hub upgrade`, the supervisor's side: this process becomes the new program and keeps its children and descriptors.

    old program   a child tries the new program out (`--check`); what it says decides
                  exec: listening sockets, TAPs and the children's links stay open, a note says which is which
    new program   replaces the children one after the other (`succession`)

What is executed is this process's own command line; nothing comes from outside.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final, NoReturn

import msgspec

from ukihashi import __version__
from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.hub.bridges import InheritedBridge
from ukihashi.hub.handover import FORM
from ukihashi.hub.uplink import InheritedUplink

INHERITED: Final = "UKIHASHI_INHERITED"  # in the environment: pid and descriptor, for exactly that process
CHECK_WORDS: Final = ("--check", "--json")
CHECK_S: Final = 25.0  # for the new program's check
MAX_WORDS: Final = 65536  # bytes of what a check says
HEEDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # by the supervisor


class Checked(msgspec.Struct, frozen=True):
    """What a check prints on standard output."""

    version: str
    form: int  # of states and of `Inherited`, that it reads
    pin: str  # of the hub's key, hexadecimal


class Check:
    """The new program, tried out in a child of its own. Watch `fileno`; readable: ask `result`."""

    def __init__(self, program: Sequence[str], asked_by: int) -> None:
        """Raises: EnvironmentLacks: it can't even be started."""
        self.asked_by: Final = asked_by  # number of the wish
        self._due = time.monotonic() + CHECK_S
        self._said = os.memfd_create("said"), os.memfd_create("complained")
        try:
            self._process = subprocess.Popen(
                [*program, *CHECK_WORDS], stdin=subprocess.DEVNULL, stdout=self._said[0], stderr=self._said[1]
            )
        except OSError as error:
            self._forget_words()
            raise _refusal(error.strerror or str(error)) from error
        self._pidfd = os.pidfd_open(self._process.pid)

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._pidfd

    @property
    def left_s(self) -> float:
        """Seconds that it may still take."""
        return max(0.0, self._due - time.monotonic())

    def result(self) -> Checked:
        """What it says of itself; it has ended, or is ended now. Raises: EnvironmentLacks: why it can't be used."""
        late = self._process.poll() is None
        if late:
            self._process.kill()
        status = self._process.wait()
        said, complained = (os.pread(fd, MAX_WORDS, 0).decode(errors="replace") for fd in self._said)
        os.close(self._pidfd)
        self._forget_words()
        if late:
            raise EnvironmentLacks(
                N_("the new program did not finish its check within {seconds:g} s; the hub goes on as it was"),
                seconds=CHECK_S,
            )
        lines = [line.strip() for line in complained.splitlines() if line.strip()]
        if status:
            raise _refusal(lines[-1] if lines else f"exit status {status}")
        try:
            return msgspec.json.decode(said, type=Checked)
        except msgspec.DecodeError as error:
            raise _refusal(str(error)) from error

    def _forget_words(self) -> None:
        for fd in self._said:
            os.close(fd)


def _refusal(reason: str) -> EnvironmentLacks:
    reason = reason.removeprefix("ukihashi: ")
    return EnvironmentLacks(N_("the new program can't take over: {reason} — the hub goes on as it was"), reason=reason)


def agree(checked: Checked, pin: bytes) -> None:
    """Raise EnvironmentLacks unless the new program can go on with what this one has."""
    if checked.form != FORM:
        raise EnvironmentLacks(
            N_(
                "version {new} can't take over the sessions of version {old}; the hub goes on as it was."
                " Start it anew (cards log in again by themselves)"
            ),
            new=checked.version,
            old=__version__,
        )
    if pin and checked.pin != pin.hex():
        raise EnvironmentLacks(
            N_(
                "the hub's key has changed, from {old} to {new}: cards and join links know the hub by it. The hub goes"
                " on as it was; put the old key back, or start the hub anew to really change it"
            ),
            old=pin.hex(":").upper(),
            new=bytes.fromhex(checked.pin).hex(":").upper(),
        )


# -- what stays open --------------------------------------------------------------------------------------------------


class InheritedListener(msgspec.Struct, frozen=True):
    """A listening TCP socket."""

    host: str
    port: int  # as it was asked for, 0 included
    fd: int


class InheritedPort(msgspec.Struct, frozen=True):
    """A host port's TAP."""

    hub: str
    interface: str
    addresses: tuple[str, ...]
    fd: int


class InheritedChild(msgspec.Struct, frozen=True):
    """A process of the old program."""

    name: str
    pid: int
    fd: int  # our end of its link


class Inherited(msgspec.Struct, frozen=True, kw_only=True):
    """All that a supervisor leaves to the program which takes its place."""

    version: str
    number: int  # upgrades, this one included
    listeners: list[InheritedListener]
    fronts: list[int]  # page socket, admin socket
    host_ports: list[InheritedPort]
    children: list[InheritedChild]
    uplink: InheritedUplink | None = None
    bridges: list[InheritedBridge] = []
    handed: bool = False  # the listeners are the service manager's: all of them stay, whatever hub.toml says

    def descriptors(self) -> list[int]:
        """Every one."""
        return [
            *self.fronts,
            *(one.fd for one in self.listeners),
            *(one.fd for one in self.host_ports),
            *(one.fd for one in self.children),
            *([self.uplink.fd] if self.uplink is not None else []),
            *(one.fd for one in self.bridges),
        ]


def become(program: Sequence[str], inherited: Inherited) -> NoReturn:
    """Become the new program; the caller has blocked HEEDED, so that none comes while nobody hears.

    Raises: EnvironmentLacks: the system refuses; nothing has changed, and HEEDED are heard.
    """
    note = os.memfd_create("inherited")
    descriptors = [note, *inherited.descriptors()]
    try:
        os.write(note, msgspec.msgpack.encode(inherited))
        for fd in descriptors:
            os.set_inheritable(fd, True)
        os.execve(program[0], list(program), {**os.environ, INHERITED: f"{os.getpid()}:{note}"})  # noqa: S606 - our own command line
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
        for fd in descriptors:
            os.set_inheritable(fd, False)
        os.close(note)
        raise _refusal(error.strerror or str(error)) from error


def inherited() -> Inherited | None:
    """What this process was left by the program that was here before; None at an ordinary start."""
    pid, _, fd = os.environ.pop(INHERITED, "").partition(":")
    if pid != str(os.getpid()):
        return None
    note = int(fd)
    left = msgspec.msgpack.decode(os.pread(note, os.fstat(note).st_size, 0), type=Inherited)
    os.close(note)
    for one in left.descriptors():
        os.set_inheritable(one, False)
    return left
