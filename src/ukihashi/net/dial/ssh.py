"""A path through an SSH server: the system's `ssh -W`, with its own configuration, keys, agent and jump hosts (D19).

The connection to the server is ours (both IP families at once, firewall mark, addresses that worked) and handed to ssh
(`ProxyUseFdpass`), unless its configuration has a jump host or a proxy command for that server. Host keys must be known
already. A password goes through a FIFO that only we can open, to an `SSH_ASKPASS` that answers nothing else.

ssh reads the caller's bytes from the descriptor itself; a thread carries the others, and ends ssh with the descriptor.
The caller may end its direction first; when the hub ends its own, `ssh -W` ends both.
"""

import asyncio
import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.errors import N_
from ukihashi.net import link
from ukihashi.net.dial import direct, first, relay
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.names import KnownAddresses
from ukihashi.net.dial.via import Via

ALIVE_S: Final = 5  # seconds of the server's silence, three times over, after which ssh gives up
SAID_MAX: Final = 16 * 1024  # bytes of ssh's messages that are kept
END_S: Final = 2.0  # seconds ssh has to end by itself; then it is made to

OPTIONS: Final = (
    "ControlMaster=no",  # a shared connection would outlive ours
    "ControlPath=none",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "PermitLocalCommand=no",
    "NumberOfPasswordPrompts=1",
    f"ServerAliveInterval={ALIVE_S}",
    "ServerAliveCountMax=3",
    "Tunnel=no",
)
_OPENED: Final = b"open confirm rwindow"
_NO_ASKING: Final = ("BatchMode=yes",)
# that the tunnel is open: one message since 8.5, before it everything must be told
_TELL_OPENED: Final = ("LogLevel=INFO", "LogVerbose=*:channel_input_open_confirmation*:*")
_TELL_ALL: Final = ("LogLevel=DEBUG2",)
_SINCE_8_7: Final = ("StdinNull=no", "ForkAfterAuthentication=no")
_NOISE: Final = re.compile(r"debug[123]: |Pseudo-terminal |stdio forwarding failed|\*\* WARNING|\*\* ")

# Fetches the connection for ssh, which closes all but its first three descriptors when it starts.
_FETCH: Final = (
    "import socket as s,sys;a=s.socket(s.AF_UNIX);a.connect(sys.argv[1]);"
    "s.send_fds(s.socket(fileno=1),[b'0'],s.recv_fds(a,1,1)[1])"
)
# `printf` is the shell's own: the password is in nobody's argument list.
_ASKPASS: Final = """\
#!/bin/sh
case $1 in *assphrase*|*yes/no*|*ingerprint*) exit 1 ;; esac
case $1 in {prompts}) ;; *) exit 1 ;; esac
mv "$0.secret" "$0.asked" || exit 1
IFS= read -r secret <"$0.asked"
printf '%s\\n' "$secret"
"""

_OTHER: Final = N_("ssh to {via} ended: {detail}")
_SENTENCES: Final[tuple[tuple[str, Failure, str], ...]] = (
    (r"(?P<detail>ssh_askpass: exec.*)", Failure.SSH_UNUSABLE, _OTHER),  # a folder for temporary files without "exec"
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key .* has changed",
        Failure.HOST_KEY_CHANGED,
        N_(
            "the SSH server {via} shows another host key than the known one: somebody may be listening in, or it was"
            " set up anew. Compare the key with its administrator, then remove the old one: ssh-keygen -R {host}"
        ),
    ),
    (
        r"host key is known for|Host key verification failed",
        Failure.HOST_KEY_UNKNOWN,
        N_(
            "the host key of the SSH server {via} is not known here; compare its fingerprint with its administrator,"
            " once, in: ssh {host}"
        ),
    ),
    (
        r"Permission denied \((?P<detail>[^)]*)\)|Too many authentication failures",
        Failure.CREDENTIALS_REFUSED,
        N_(
            "the SSH server {via} did not let us in (it takes: {detail}); is the key in its authorized_keys and"
            " readable here, is the password right?"
        ),
    ),
    (
        r"open failed: administratively prohibited",
        Failure.FORBIDDEN,
        N_(
            "the SSH server {via} does not forward to {target}; ask its administrator for AllowTcpForwarding and"
            " PermitOpen"
        ),
    ),
    (
        r"open failed: connect failed: Connection refused",
        Failure.TARGET_REFUSED,
        N_("{via} says that {target} refused the connection; does a hub listen at that port?"),
    ),
    (
        r"open failed: ",
        Failure.TARGET_UNREACHABLE,
        N_("{via} can't reach {target}; is the name right, as that machine sees it, and is the hub on?"),
    ),
    (
        r"Could not resolve hostname|connect to host .* port|UNKNOWN port 65535|timed out",
        Failure.PROXY_UNREACHABLE,
        N_("the way to {via} itself failed: {detail}; is it on, are its name and port right?"),
    ),
    (
        r"banner|kex_exchange_identification|Protocol mismatch|Bad remote protocol|invalid format",
        Failure.NOT_A_PROXY,
        N_("what answers at {via} is no SSH server, or hangs up at once: {detail}"),
    ),
    (
        r"Connection (closed|reset)|Broken pipe",
        Failure.PROXY_CLOSED,
        N_("{via} hung up without an answer; does it let this machine in, is its kind right?"),
    ),
)


class _Settings(NamedTuple):
    """What ssh's configuration says about the server."""

    host: str
    port: int
    user: str
    by_itself: bool  # it goes over a jump host or a proxy command


async def dial(
    via: Via,
    host: str,
    port: int,
    *,
    mark: int,
    known: KnownAddresses,
    congestion: str,
    secret: str | None,
    config: Path | None,
    reached: Callable[[], object],
) -> tuple[socket.socket, socket.socket | None]:
    """The caller's end, and the connection to the server (to be closed), None if ssh made it. No deadline of its own.

    Raises: PathRefused.
    """
    if shutil.which("ssh") is None:
        raise PathRefused(
            Failure.SSH_MISSING,
            N_("the path {via} needs the program ssh; install the package openssh-client"),
            via=via,
        )
    words = ["ssh", *(["-F", str(config)] if config else []), *(["-p", str(via.port)] if via.port else [])]
    words += ["-l", via.user] if via.user else []
    settings = await _settings(via, [*words, "-G", "--", via.host])
    outer = None
    if not settings.by_itself:
        outer = await first.connect(via, settings.host, settings.port, mark, known, congestion)
    elif mark:
        raise PathRefused(
            Failure.SSH_UNUSABLE,
            N_(
                "the ssh configuration of {via} has a jump host or a proxy command, whose packets can't be kept out of"
                " the virtual LAN; give up its default route, or a path to the jump host"
            ),
            via=via,
        )
    reached()
    target, child = direct.location(host, port), None
    with contextlib.ExitStack() as at_failure:
        if outer is not None:
            at_failure.enter_context(outer)
            with contextlib.suppress(OSError):  # broken already: ssh will see
                link.tune(outer)
        try:
            with _room() as room, _environment(room, settings, secret) as environment:
                async with _handing_over(room, outer) as proxy_command:
                    options = [*OPTIONS, *await _for_version(via), *proxy_command]
                    options += _NO_ASKING if secret is None else ()
                    flags = [flag for option in options for flag in ("-o", option)]
                    argv = [*words, "-T", "-a", "-x", "-W", target, *flags, "--", via.host]
                    child = _Child(argv, environment)
                    said = await child.opened()
        except BaseException:
            if child is not None:
                child.end_soon()
            raise
        if said is not None:
            child.end_soon()
            raise _judge(said, via, settings, target)
        at_failure.pop_all()
        return child.carry(), outer


class _Child:
    """One ssh and the ends of its pipes."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str]) -> None:
        self._near, self._theirs = relay.pair()
        self._theirs.setblocking(True)  # ssh sets what it wants; the caller's end is another description
        self._out, out = os.pipe()
        self._said, said = os.pipe()
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=self._theirs.fileno(),
                stdout=out,
                stderr=said,
                env=environment,
                start_new_session=True,  # no terminal: it can't ask there
            )
        except BaseException:
            self._near.close()
            self._close()
            raise
        finally:
            os.close(out)
            os.close(said)
        os.set_blocking(self._said, False)

    async def opened(self) -> str | None:
        """None when the tunnel is open; else what ssh said before its end."""
        text = b""
        while True:
            await _readable(self._said)
            try:
                piece = os.read(self._said, 4096)
            except BlockingIOError:
                continue
            text = (text + piece)[-SAID_MAX:]
            if _OPENED in text:
                return None
            if not piece:
                return text.decode(errors="replace")

    def carry(self) -> socket.socket:
        """Let a thread carry until the end; the caller's end."""
        threading.Thread(target=self._carry, name="ssh", daemon=True).start()
        return self._near

    def end_soon(self) -> None:
        """End it without waiting for that."""
        self._near.close()
        threading.Thread(target=self._end, args=(0.0,), name="end of ssh", daemon=True).start()

    def _carry(self) -> None:
        until = left = 0.0  # the caller is gone; ssh has till then to pass on its last bytes
        pending, sources = memoryview(b""), {self._out, self._said}
        try:
            while pending or sources:
                poll = select.poll()
                for source in sources:
                    if source != self._out or not pending:
                        poll.register(source, select.POLLIN)
                if not until:
                    poll.register(self._theirs, select.POLLOUT if pending else 0)
                elif (left := until - time.monotonic()) <= 0:
                    break
                events = dict(poll.poll(left * 1000 if until else None))
                if events.get(self._theirs.fileno(), 0) & (select.POLLHUP | select.POLLERR):
                    until, pending = time.monotonic() + END_S, memoryview(b"")
                for source in sources & events.keys():
                    data = os.read(source, relay.HELD)
                    if not data:
                        sources.discard(source)
                    if source == self._out and not until:
                        pending = memoryview(data)
                        if not data:
                            self._theirs.shutdown(socket.SHUT_WR)
                if pending:
                    with contextlib.suppress(BlockingIOError):
                        pending = pending[self._theirs.send(pending, socket.MSG_DONTWAIT) :]
        except OSError:
            pass
        finally:
            self._end(0.1)

    def _end(self, patience: float) -> None:
        for number, seconds in ((None, patience), (signal.SIGTERM, END_S), (signal.SIGKILL, None)):
            if number is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)  # with whatever it started
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        self._close()

    def _close(self) -> None:
        self._theirs.close()
        os.close(self._out)
        os.close(self._said)


def _judge(said: str, via: Via, settings: _Settings, target: str) -> PathRefused:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _NOISE.match(line)]
    last = lines[-1][:300] if lines else "-"
    for pattern, kind, template in _SENTENCES:
        if found := re.search(pattern, "\n".join(lines)):
            detail = found.groupdict().get("detail") or last
            name = f"[{settings.host}]:{settings.port}" if settings.port != 22 else settings.host
            shown = name if kind is Failure.HOST_KEY_CHANGED else via.host
            return PathRefused(kind, template, via=via, target=target, detail=detail, host=shlex.quote(shown))
    return PathRefused(Failure.SSH_UNUSABLE, _OTHER, via=via, detail=last)


async def _settings(via: Via, argv: Sequence[str]) -> _Settings:
    status, text = await _output(argv)
    rows = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    try:
        port = int(rows["port"])
        own = any(rows.get(name, "none") != "none" for name in ("proxyjump", "proxycommand"))
        return _Settings(rows["hostname"], port, rows["user"], own)
    except (KeyError, ValueError):
        last = (text.strip().splitlines() or [str(status)])[-1]
        raise PathRefused(Failure.SSH_UNUSABLE, _OTHER, via=via, detail=last[:300]) from None


async def _for_version(via: Via) -> list[str]:
    """Options that not every ssh knows."""
    _status, text = await _output(["ssh", "-V"])
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if not found:
        raise PathRefused(Failure.SSH_UNUSABLE, _OTHER, via=via, detail=text.strip()[:300] or "ssh -V")
    return [*(_TELL_OPENED if version >= (8, 5) else _TELL_ALL), *(_SINCE_8_7 if version >= (8, 7) else ())]


async def _output(argv: Sequence[str]) -> tuple[int, str]:
    """Run a program that only says something; its status and what it said."""
    process, source = _started(argv)
    text = b""
    try:
        while True:
            await _readable(source)
            piece = os.read(source, 65536)
            text = (text + piece)[: 4 * 65536]
            if not piece:
                return process.wait(), text.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(source)


def _started(argv: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    source, sink = os.pipe()
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        null = subprocess.DEVNULL
        return subprocess.Popen(argv, stdin=null, stdout=sink, stderr=sink, env=environment), source
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(sink)


async def _readable(source: int) -> None:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not came.done():
            came.set_result(None)

    loop.add_reader(source, tell)
    try:
        await came
    finally:
        loop.remove_reader(source)


@contextlib.contextmanager
def _room() -> Iterator[Path]:
    """A folder that only we can enter."""
    with tempfile.TemporaryDirectory(prefix="ukihashi-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def _handing_over(room: Path, outer: socket.socket | None) -> AsyncIterator[list[str]]:
    """Give our connection to the helper that ssh starts; the options that make it start one."""
    if outer is None:
        yield []
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(room / "way"))
        listener.listen(1)

        async def give() -> None:
            with contextlib.suppress(OSError):  # ssh has ended, and says why
                there, _ = await asyncio.get_running_loop().sock_accept(listener)
                with there:
                    socket.send_fds(there, [b"0"], [outer.fileno()])

        giving = asyncio.create_task(give())
        try:
            words = [sys.executable, "-I", "-S", "-c", _FETCH, str(room / "way")]
            yield [f"ProxyCommand={shlex.join(words).replace('%', '%%')}", "ProxyUseFdpass=yes"]
        finally:
            giving.cancel()
            await asyncio.wait([giving])


@contextlib.contextmanager
def _environment(room: Path, settings: _Settings, secret: str | None) -> Iterator[dict[str, str]]:
    """As ours, in English; with a password, the program that says it, for as long as the block lasts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SSH_ASKPASS")}
    environment["LC_ALL"] = "C"
    # for proxy commands: bash takes a socket at its input for a remote shell's, and would run the user's .bashrc
    environment["SHELL"] = "/bin/sh"
    if secret is None:
        yield {**environment, "SSH_ASKPASS_REQUIRE": "never"}  # the ssh to a jump host would ask on the screen
        return
    askpass, fifo = room / "askpass", room / "askpass.secret"
    # a jump host must never get the password of the server behind it
    prompts = f"*{shlex.quote(f'{settings.user}@{settings.host}')}*" if settings.by_itself else "*"
    askpass.write_text(_ASKPASS.format(prompts=prompts))
    askpass.chmod(0o700)
    os.mkfifo(fifo, 0o600)
    held = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(held, secret.encode() + b"\n")
        yield {**environment, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    finally:
        os.close(held)
