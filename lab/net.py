"""Hosts (network namespaces) and the cables between them, removed again whatever happens.

    with Net() as net:
        card, hub = net.host("card"), net.host("hub")
        net.link(hub, card)                     # hub 10.77.1.1 fd77:0:0:1::1  <---->  card 10.77.1.2 fd77:0:0:1::2
        card.run(["ping", "-c1", hub.ipv4])

    with Net() as net:                          # many hosts on one wire:      hub .1 --+-- a .2
        hub, a, b = net.lan("hub", "a", "b")    #                                       +-- b .3

A namespace is called `uk<pid>x<n>-<host>`, so several runs live side by side. The owner holds a lock on its work folder
for as long as it lives; what a killed run left behind is swept away by the next one. IPv6 needs no duplicate address
detection here (it would cost each address a second or two), and TCP uses cubic, the ordinary default of Linux, whatever
the machine prefers.
"""

import atexit
import contextlib
import ctypes
import fcntl
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self, cast

from lab import ready
from lab.wait import TimeOver, until

ROOM: Final = Path("/run/ukihashi-lab")  # a folder for each Net: logs, state of the daemons, the owner's lock
NAMESPACES: Final = Path("/run/netns")
OWN_ETC: Final = Path("/etc/netns")  # files here lie over /etc of what runs in the namespace (ip-netns(8))
OURS: Final = re.compile(r"uk(\d+x\d+)-")
ALLOWED_CONTROL: Final = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
CONTROL: Final = "net/ipv4/tcp_congestion_control"
SYSCTL: Final = {
    CONTROL: "cubic",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/dad_transmits": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
GRACE_S: Final = 6.0  # seconds between the polite signal and SIGKILL
COMMAND_S: Final = 30.0  # seconds a command of `Host.run` may take if not told otherwise
CLEANING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc: Final = ctypes.CDLL(None, use_errno=True)
_numbers: Final = itertools.count(1)
_living: Final[list["Net"]] = []


class LabError(Exception):
    """A command of the laboratory failed, or this machine can't have one."""


class Ended(LabError):
    """A command ended with another status than 0."""

    def __init__(self, argv: Sequence[str], status: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{' '.join(argv)} -> {status}\n{stdout[-2000:]}{stderr[-2000:]}")
        self.status, self.stdout, self.stderr = status, stdout, stderr


def unfit() -> str:
    """Why this machine can't make a `Net`; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the program `ip` is missing (Debian package iproute2)"
    return ""


def run(argv: Sequence[str], *, timeout_s: float = COMMAND_S, stdin: str | None = None, check: bool = True) -> str:
    """Run a command to its end and give its standard output. Raises `Ended`, unless `check` is off."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, input=stdin, check=False)
    if check and done.returncode:
        raise Ended(argv, done.returncode, done.stdout, done.stderr)
    return done.stdout


class Process:
    """A program that runs on while the test does other things; its output goes into a log file."""

    def __init__(self, popen: subprocess.Popen[bytes] | ready.Forked, log: Path, begin: int) -> None:
        self.popen: Final = popen
        self.log: Final = log
        self._begin: Final = begin  # where in the log this process begins

    @property
    def pid(self) -> int:
        """The program's own pid: `ip netns exec` replaces itself by it."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self.popen.poll() is None

    def output(self) -> str:
        """All it has written so far, standard output and standard error."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def wait_for(self, pattern: str, *, seconds: float = 20.0) -> re.Match[str]:
        """Wait until its output matches the regular expression `pattern`. Raises `LabError` if it ends before."""

        def look() -> re.Match[str] | None:
            ended = not self.running  # asked first: what it wrote before its end is in the log then
            if found := re.search(pattern, self.output(), re.MULTILINE):
                return found
            if ended:
                raise LabError(f"ended with {self.popen.returncode} before {pattern!r} came:\n{self.output()[-2000:]}")
            return None

        try:
            return until(look, seconds=seconds, what=f"{pattern!r} in {self.log}")
        except TimeOver as late:
            raise LabError(f"{late}; it holds:\n{self.output()[-2000:]}") from None

    def wait(self, *, seconds: float = 20.0) -> int:
        """Wait for its end and give its exit status."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"still runs after {seconds:g} s:\n{self.output()[-2000:]}") from None

    def stop(self, sig: signal.Signals = signal.SIGTERM, *, grace_s: float = GRACE_S) -> int:
        """End it: `sig`, then SIGKILL after `grace_s`. Gives the exit status; negative = ended by that signal."""
        if self.running:
            self.popen.send_signal(sig)
            try:
                return self.popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait(GRACE_S)


class Host:
    """One namespace: a machine with its own interfaces, addresses, routes and ports."""

    def __init__(self, net: "Net", name: str) -> None:
        self.net: Final = net
        self.name: Final = name
        self.namespace: Final = f"uk{net.mark}-{name}"
        self.folder: Final = net.folder / name  # logs and state of what runs here
        self.addresses: Final[list[str]] = []  # in the order given, without prefix length

    @property
    def ipv4(self) -> str:
        """Its first IPv4 address on a lab wire."""
        return next(address for address in self.addresses if ":" not in address)

    @property
    def ipv6(self) -> str:
        """Its first IPv6 address on a lab wire."""
        return next(address for address in self.addresses if ":" in address)

    def inside_argv(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs `argv` on this host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, argv)]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float = COMMAND_S,
        stdin: str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command here to its end; its standard output. Raises `Ended`, unless `check` is off."""
        done = self.ask(argv, timeout_s=timeout_s, stdin=stdin, env=env)
        if check and done.returncode:
            raise Ended(list(map(str, argv)), done.returncode, done.stdout, done.stderr)
        return done.stdout

    def ask(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float = COMMAND_S,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, whatever its exit status; output and errors are kept apart.

        Its processes are ended when `timeout_s` has passed (`subprocess.TimeoutExpired`).
        """
        words, environment = list(map(str, argv)), {**os.environ, **(env or {})}
        if ready.can(words, environment):
            return ready.ask(words, env=environment, namespace=self.namespace, stdin=stdin, timeout_s=timeout_s)
        return subprocess.run(
            self.inside_argv(words),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            # no terminal: a program that asks gets the end of the input at once instead of hanging
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )

    def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        log: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Start a program here that runs on; it is ended with the `Net` at the latest."""
        path = self.folder / f"{log or Path(str(argv[0])).name}.log"
        begin = path.stat().st_size if path.exists() else 0
        words, environment = list(map(str, argv)), {**os.environ, **(env or {})}
        popen: subprocess.Popen[bytes] | ready.Forked
        with path.open("ab") as file, open(os.devnull, "rb") as empty:  # noqa: PTH123 - no file of ours
            if cwd is None and ready.can(words, environment):
                out = file.fileno()
                popen = ready.Forked(
                    words, env=environment, namespace=self.namespace, stdin=empty.fileno(), stdout=out, stderr=out
                )
            else:
                popen = subprocess.Popen(
                    self.inside_argv(words),
                    stdin=empty,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=cwd,
                    start_new_session=True,  # Ctrl-C reaches us alone; we end it in order
                )
        process = Process(popen, path, begin)
        self.net.processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let the calling thread be on this host for the block: sockets it opens there stay there for ever."""
        with (
            Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").open("rb") as home,
            (NAMESPACES / self.namespace).open("rb") as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def ip(self, command: str) -> str:
        """`ip COMMAND` here, words separated by blanks."""
        return run(["ip", "-n", self.namespace, *command.split()])

    def has_interface(self, interface: str) -> bool:
        """True if this host has an interface of that name."""
        return self.ask(["ip", "link", "show", interface]).returncode == 0

    def add_address(self, interface: str, cidr: str) -> None:
        """Give `interface` one more address ("10.77.1.1/24"); nothing happens if it has it."""
        flags = ["nodad"] if ":" in cidr else []
        run(["ip", "-n", self.namespace, "addr", "replace", cidr, "dev", interface, *flags])

    def own_etc(self, name: str, text: str) -> Path:
        """Give what starts here from now on a file /etc/NAME of its own; the machine must have one of that name."""
        path = OWN_ETC / self.namespace / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    def has_own_etc(self, name: str) -> bool:
        """Whether `own_etc` has given it that file."""
        return (OWN_ETC / self.namespace / name).exists()

    def set_sysctl(self, key: str, value: str) -> None:
        """Write a file below /proc/sys as it is here; a congestion control becomes one that may be chosen."""
        if key == CONTROL:
            _allow(value)
        with self.inside():
            (Path("/proc/sys") / key).write_text(value)

    def pings(self, address: str, *, seconds: float = 20.0) -> float:
        """Wait until `address` answers a ping from here; the round trip in milliseconds. Raises `TimeOver`."""

        def look() -> re.Match[str] | None:
            return re.search(r"time=([\d.]+) ms", self.ask(["ping", "-n", "-c1", "-W1", address]).stdout)

        return float(until(look, seconds=seconds, what=f"{self.name} hearing {address}", step_s=0.1)[1])

    def pids(self) -> list[int]:
        """The processes that live here."""
        try:
            inode = (NAMESPACES / self.namespace).stat().st_ino
        except FileNotFoundError:
            return []
        return _pids_in(inode)


Lay = Callable[[Host, str, Host, str], None]  # a host and its interface's name, twice


class Net:
    """A laboratory network. Leaving the block ends every process in it and removes every trace.

    Also at the end of the interpreter, at SIGTERM and SIGHUP, and (through KeyboardInterrupt) at Ctrl-C.
    """

    def __init__(self) -> None:
        self.mark: Final = f"{os.getpid()}x{next(_numbers)}"
        self.folder: Final = ROOM / self.mark
        self.hosts: Final[dict[str, Host]] = {}
        self.processes: Final[list[Process]] = []
        self._owner: Final = os.getpid()
        self._wires = itertools.count(1)
        self._lock = -1
        self._at_close: Final[list[Callable[[], None]]] = []

    def __enter__(self) -> Self:
        if reason := unfit():
            raise LabError(reason)
        _listen_to_signals()
        sweep()
        _living.append(self)  # before anything exists
        # the daemons drop their rights and must still reach what is theirs below this folder
        ROOM.mkdir(mode=0o755, exist_ok=True)
        self.folder.mkdir(mode=0o755)
        self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def at_close(self, orderly_end: Callable[[], None]) -> None:
        """Call `orderly_end` when the network closes, before its processes get a signal; last come, first called."""
        self._at_close.append(orderly_end)

    def host(self, name: str) -> Host:
        """The host of that name, made if it isn't there yet. At most 8 characters."""
        if name in self.hosts:
            return self.hosts[name]
        host = Host(self, name)
        host.folder.mkdir(mode=0o755)
        self.hosts[name] = host  # before it exists, so that a signal in between leaves nothing
        run(["ip", "netns", "add", host.namespace])
        host.ip("link set lo up")
        for key, value in SYSCTL.items():
            host.set_sysctl(key, value)
        return host

    def link(self, one: Host, other: Host, *, lay: Lay | None = None) -> tuple[str, str]:
        """A cable between two hosts; `one` gets .1 and `other` .2. Gives the interface names at each end.

        `lay`: makes both interfaces and what is between them; default is a plain cable (veth).
        """
        wire = next(self._wires)
        ends = (f"to-{other.name}", f"to-{one.name}")
        (lay or self._veth)(one, ends[0], other, ends[1])
        for number, (host, interface) in enumerate(zip((one, other), ends, strict=True), start=1):
            self._address(host, interface, wire, number)
        return ends

    def lan(self, *names: str, bridge: str = "wire") -> list[Host]:
        """Hosts on one wire: interface `eth0`, addresses .1, .2, ... in the order given.

        The wire is a bridge in a namespace of its own, named `bridge`; its ports are called `to-HOST`.
        """
        wire, middle = next(self._wires), self.host(bridge)
        middle.ip("link add br0 type bridge mcast_snooping 0")
        middle.ip("link set br0 up")
        hosts = [self.host(name) for name in names]
        for number, host in enumerate(hosts, start=1):
            self._veth(middle, f"to-{host.name}", host, "eth0")
            middle.ip(f"link set to-{host.name} master br0")
            middle.ip(f"link set to-{host.name} up")
            self._address(host, "eth0", wire, number)
        return hosts

    def close(self) -> None:
        """End what runs in it and remove it. Signals wait meanwhile; a second call does nothing."""
        if self not in _living or os.getpid() != self._owner:  # a forked child closes nothing of its parent's
            return
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, CLEANING_SIGNALS)
        try:
            for orderly_end in reversed(self._at_close):
                try:
                    orderly_end()
                except Exception as error:  # noqa: BLE001 - the rest must be cleaned whatever one part says
                    print(f"lab: {orderly_end} failed: {error!r}", file=sys.stderr)
            for process in reversed(self.processes):
                process.stop()
            for host in self.hosts.values():
                _remove(host.namespace)
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._lock >= 0:
                os.close(self._lock)
        finally:
            _living.remove(self)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def logs(self, *, tail: int = 3000) -> str:
        """The last `tail` characters of every log, for a failed test's report."""
        parts = []
        for path in sorted(self.folder.rglob("*.log")):
            text = path.read_text(errors="replace")
            if text.strip():
                parts.append(f"--- {path.relative_to(self.folder)}\n{text[-tail:]}")
        return "\n".join(parts)

    @staticmethod
    def _veth(one: Host, interface: str, other: Host, peer_interface: str) -> None:
        ends = (interface, "netns", one.namespace), (peer_interface, "netns", other.namespace)
        run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]])

    def _address(self, host: Host, interface: str, wire: int, number: int) -> None:
        for address, length in ((f"10.77.{wire}.{number}", 24), (f"fd77:0:0:{wire:x}::{number:x}", 64)):
            host.add_address(interface, f"{address}/{length}")
            host.addresses.append(address)
        host.ip(f"link set {interface} up")


def sweep() -> None:
    """Remove what runs that no longer live left behind, and end the processes that still sit in it."""
    marks = {path.name for path in ROOM.glob("*x*")} if ROOM.is_dir() else set[str]()
    namespaces = [path.name for path in NAMESPACES.glob("uk*")] if NAMESPACES.is_dir() else []
    marks |= {found[1] for found in map(OURS.match, namespaces) if found}
    for mark in marks:
        if _is_owned(mark):
            continue
        for name in namespaces:
            if name.startswith(f"uk{mark}-"):
                _remove(name)
        shutil.rmtree(ROOM / mark, ignore_errors=True)


def _is_owned(mark: str) -> bool:
    """True if the process that made the network of that mark still holds it."""
    try:
        lock = os.open(ROOM / mark / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # perhaps being made or removed just now
        return Path(f"/proc/{mark.partition('x')[0]}").exists()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _pids_in(inode: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                if (folder / "ns/net").stat().st_ino == inode:
                    found.append(int(folder.name))
    return found


def _remove(namespace: str) -> None:
    """End what lives in a namespace of ours, one pid at a time, and delete it."""
    path = NAMESPACES / namespace
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return

    def empty() -> bool:
        left = [pid for pid in _pids_in(inode) if pid != os.getpid()]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    # a zombie has no namespace any more, so this ends as soon as they are dead; then the name may go
    with contextlib.suppress(TimeOver):
        until(empty, seconds=GRACE_S, what="the processes ending")
    run(["ip", "netns", "del", namespace], check=False)
    shutil.rmtree(OWN_ETC / namespace, ignore_errors=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _allow(control: str) -> None:
    """Let namespaces choose a congestion control the machine knows (it need not be the machine's own).

    Only the list of what may be chosen grows, and it stays: another run may be using it.
    """
    allowed = ALLOWED_CONTROL.read_text().split()
    if control not in allowed:
        ALLOWED_CONTROL.write_text(" ".join([*allowed, control]))


def _close_all() -> None:
    for net in reversed(_living.copy()):
        net.close()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    """Clean, then die of the same signal, so that the parent sees why."""
    _close_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _listen_to_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):  # Ctrl-C arrives as an exception and needs no help
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, cast("Any", _on_signal))


atexit.register(_close_all)
