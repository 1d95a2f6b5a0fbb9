"""Our program, imported once and waiting: what a test starts of it is a fork, which saves half a second of CPU each.

    test ---- argv, environment, namespace, descriptors ---> ready ---- fork ---> `ukihashi WORDS`
         <--------------- pid, then its exit status -------

Off unless `enable` was called: `./run demo` and the benches start the program as everybody does, and so does a test
that sets `own_interpreter` (lab.ukihashi). What is forked is the whole program, from `main()` to the last exit handler,
in the namespaces that `ip netns exec` makes. Left out is only that the interpreter would free every object one by one
before it ends: in a fork each touches memory that was shared, ten times what most commands cost.
"""

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
MODULE: Final = "ukihashi.cli.main"
LANGUAGE: Final = "en"  # help texts are in the language of the first import
PROGRAMS: Final = ("ukihashi.cli.main", "ukihashi.cli.hub", "ukihashi.cli.card", "ukihashi.cli.background")
READ_AT_START: Final = ("PYTHONPATH", "LD_PRELOAD", "OPENSSL_CONF")
MAX_REQUEST: Final = 1 << 17
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
MS_BIND, MS_REC, MS_SLAVE, MNT_DETACH = 0x1000, 0x4000, 0x80000, 2  # linux/mount.h
OWN_ETC: Final = Path("/etc/netns")

_enabled = False
_lock: Final = threading.Lock()
_door: socket.socket | None = None
_waiting: subprocess.Popen[bytes] | None = None


def enable() -> None:
    """From now on programs in English are forked."""
    global _enabled  # noqa: PLW0603 - the one switch
    _enabled = True


def is_enabled() -> bool:
    """True after `enable`."""
    return _enabled


def can(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """True if this very program would come of a fork, too."""
    words = list(argv[3:])
    in_english = words[:1] == [f"--lang={LANGUAGE}"] or env.get("LANGUAGE") == LANGUAGE
    return (
        _enabled
        and list(argv[:3]) == [sys.executable, "-m", MODULE]
        and in_english
        and all(env.get(name, "") == os.environ.get(name, "") for name in READ_AT_START)
        and not any(word.startswith(("--lang", "ukihashi://")) for word in words[1:])  # a link is hidden in argv
    )


class Forked:
    """A program that was forked; as `subprocess.Popen`, as far as the laboratory uses it."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], namespace: str, stdin: int, stdout: int, stderr: int
    ) -> None:
        self.args: Final = list(argv)
        self.returncode: int | None = None
        self._link, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"words": argv[3:], "env": dict(env), "namespace": namespace}).encode()
        with its:
            socket.send_fds(_ready(), [request], [its.fileno(), stdin, stdout, stderr])
        told = self._link.recv(64)
        if not told:
            raise RuntimeError("the waiting program has ended")
        self.pid: Final = int(told)

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            ready = select.select([self._link], [], [], timeout)[0]
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            told = self._link.recv(64)
            self.returncode = int(told) if told else -signal.SIGKILL  # with the one that forked it
            self._link.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def here() -> str:
    """The namespace that this thread is in, for `ask` and `Forked`, whether it has a name or not."""
    return f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"


def ask(
    argv: Sequence[str], *, env: Mapping[str, str], namespace: str, stdin: str | None, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Raises `subprocess.TimeoutExpired`; the program is killed then."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(os.fdopen(os.memfd_create(name), "w+b", 0)) for name in ("in", "out", "err")]
        files[0].write((stdin or "").encode())
        files[0].seek(0)
        into, out, err = (file.fileno() for file in files)
        program = Forked(argv, env=env, namespace=namespace, stdin=into, stdout=out, stderr=err)
        try:
            status = program.wait(timeout_s)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
        said, complained = (os.pread(fd, os.fstat(fd).st_size, 0).decode() for fd in (out, err))
    return subprocess.CompletedProcess(list(argv), status, said, complained)


def _ready() -> socket.socket:
    global _door, _waiting  # noqa: PLW0603 - one for each test process
    with _lock:
        if _door is None:
            _door, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from lab.ready import serve; serve({its.fileno()})"
            with its:
                _waiting = subprocess.Popen(
                    [sys.executable, "-P", "-c", code],
                    pass_fds=[its.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "LANGUAGE": LANGUAGE, "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"},
                    start_new_session=True,
                )
                atexit.register(_close)
        return _door


def _close() -> None:
    """The one that waits ends when the door is closed, at the latest with this process."""
    if _door is not None and _waiting is not None:
        _door.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            _waiting.wait(5.0)


# -- the one that waits -----------------------------------------------------------------------------------------------


def serve(door_fd: int) -> None:
    """Fork a program for each request until nobody can ask any more."""
    from ukihashi.locale import LANGUAGES, catalogue, set_language

    set_language(LANGUAGE)
    for name in PROGRAMS:
        importlib.import_module(name)
    from ukihashi.cli import serving
    from ukihashi.ether import segment
    from ukihashi.web import render

    for name in serving.LATE_MODULES:
        importlib.import_module(name)
    segment.preload()
    render.preload()
    for language in LANGUAGES:
        catalogue(language)
    gc.collect()
    gc.freeze()
    door = socket.socket(fileno=door_fd)
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    poll = select.poll()
    poll.register(door, select.POLLIN)
    while True:
        for fd, _event in poll.poll():
            if fd in running:
                poll.unregister(fd)
                pid, link = running.pop(fd)
                os.close(fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with link, contextlib.suppress(OSError):
                    link.send(str(status).encode())
                continue
            request, fds = _receive(door)
            if not request:
                return
            link = socket.socket(fileno=fds[0])
            pid = os.fork()
            if pid == 0:
                for sock in (door, link, *(one for _pid, one in running.values())):
                    sock.detach()  # closed below with all the others
                _live(json.loads(request), fds)
                return
            for one in fds[1:]:
                os.close(one)
            link.send(str(pid).encode())
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, link
            poll.register(pidfd, select.POLLIN)


def _receive(door: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _flags, _address = door.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(4 * fds.itemsize))
    for _level, _kind, words in ancillary:
        fds.frombytes(words[: len(words) - len(words) % fds.itemsize])
    return data, list(fds)


def _live(request: dict[str, object], fds: Sequence[int]) -> None:
    """In the fork: be that program. Its end is the interpreter's."""
    words, env = request["words"], request["env"]
    assert isinstance(words, list)
    assert isinstance(env, dict)
    os.setsid()
    for number, fd in enumerate(fds[1:]):
        os.dup2(fd, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _enter(str(request["namespace"]))
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(sys.modules[MODULE].__file__), *words]
    sys.orig_argv = [sys.executable, "-m", MODULE, *words]
    gc.unfreeze()
    try:
        sys.modules[MODULE].main()
    except SystemExit as end:
        _end(end)


def _end(end: SystemExit) -> None:
    """What the interpreter does at its end, in its order, and then no more (Py_FinalizeEx, before it frees)."""
    if not isinstance(end.code, int | None):
        raise end  # a text: the interpreter prints it
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads that aren't daemons
    atexit._run_exitfuncs()  # noqa: SLF001
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise end from None
    os._exit((end.code or 0) & 0xFF)


def _enter(namespace: str) -> None:
    """As `ip netns exec` does it (ip-netns(8)): the network, a /sys that shows it, and files of its own in /etc."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")

    fd = os.open(Path("/run/netns", namespace), os.O_RDONLY)  # a whole path may be given, too
    call("setns", fd, CLONE_NEWNET)
    os.close(fd)
    call("unshare", CLONE_NEWNS)
    call("mount", b"", b"/", b"none", ctypes.c_ulong(MS_SLAVE | MS_REC), None)
    call("umount2", b"/sys", MNT_DETACH)
    call("mount", namespace.encode(), b"/sys", b"sysfs", ctypes.c_ulong(0), None)
    own = OWN_ETC / namespace
    for path in own.iterdir() if own.is_dir() else ():
        call("mount", bytes(path), b"/etc/" + path.name.encode(), b"none", ctypes.c_ulong(MS_BIND), None)
