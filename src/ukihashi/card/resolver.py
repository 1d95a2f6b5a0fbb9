"""The names of a virtual LAN for this machine: whoever answers for names here is told the hub's name servers.

    systemd-resolved    by link, split by domain; all of it goes with the interface        resolvectl(1)
    resolvconf          a record of ours among the others'                                 resolvconf(8)
    else                the file itself, its earlier content kept in the card's journal    resolv.conf(5)

What is changed is written into the journal before, and put back byte for byte; but what somebody else has changed
meanwhile is left as it is, and said.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from ukihashi.errors import N_, EnvironmentLacks

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLVED: Final = Path("/run/systemd/resolve")
NAMESPACES: Final = Path("/run/netns")
STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})  # where systemd-resolved listens
COMMAND_S: Final = 10.0
MOST_SERVERS: Final = 3  # that the C library asks (resolv.conf(5), MAXNS)
MOST_SEARCH: Final = 6
MOST_BYTES: Final = 65536  # of a file that is kept
MARK: Final = "# ukihashi card"

Manner = Literal["resolved", "resolvconf", "file"]


class Meddled(EnvironmentLacks):
    """Somebody else has changed it since; it is left as it is."""


class Names(msgspec.Struct, frozen=True):
    """What is wanted."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()  # short names are completed with these
    domains: tuple[str, ...] = ()  # whose names these servers are asked for
    everything: bool = False  # and all others


class Changed(msgspec.Struct, frozen=True):
    """What was done, as far as it outlives the interface."""

    manner: Manner
    interface: str
    path: str = ""  # "file": the real one, behind every link
    before: bytes | None = None  # "file": its content; None: there was none
    ours: bytes = b""  # "file": what we wrote


class Resolver:
    """This machine's way to names. All calls may take seconds: for a thread."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path: Final = path

    def manner(self) -> Manner:
        """Who answers for names here."""
        if _is_mounted(self._path):  # a namespace's or container's own: nobody manages it
            return "file"
        content = _read(self._path) or b""
        servers = {words[1] for line in content.decode("utf-8", "replace").splitlines()
                   if len(words := line.split()) > 1 and words[0] == "nameserver"}  # fmt: skip
        at = self._path.resolve()
        if (
            shutil.which("resolvectl")
            and RESOLVED.exists()
            and (RESOLVED in at.parents or (servers and servers <= STUBS))
        ):
            return "resolved"
        program = shutil.which("resolvconf")
        managed = "resolvconf" in str(at) or b"resolvconf" in content[:400]
        if program and Path(program).resolve().name != "resolvectl" and managed:
            return "resolvconf"
        return "file"

    def apply(
        self, account: str, interface: str, names: Names, known: Changed | None, keep: Callable[[Changed], None]
    ) -> Changed:
        """Let names go there, from now on.

        Args:
            known: what an earlier call gave; its content from before is what will be put back.
            keep: writes down what is about to change. Called before anything is.
        Raises: Meddled, EnvironmentLacks: nothing was changed.
        """
        manner = known.manner if known else self.manner()
        if manner == "resolved":
            changed = Changed("resolved", interface)
            keep(changed)
            routed = ["~."] if names.everything else [f"~{name}" for name in names.domains if name not in names.search]
            _run("resolvectl", "dns", interface, *names.servers)
            _run("resolvectl", "domain", interface, *names.search, *routed)
            _run("resolvectl", "default-route", interface, "yes" if names.everything else "no")
            return changed
        if manner == "resolvconf":
            changed = Changed("resolvconf", interface)
            keep(changed)
            _run("resolvconf", "-a", _record(interface), text=_content(account, names, b"").decode())
            return changed
        return self._apply_to_file(account, interface, names, known, keep)

    def _apply_to_file(
        self, account: str, interface: str, names: Names, known: Changed | None, keep: Callable[[Changed], None]
    ) -> Changed:
        path = Path(known.path) if known else self._real()
        content = _read(path)
        if known is not None and content != known.ours:
            raise _meddled(path)
        if known is None and content is not None and content.startswith(MARK.encode()):
            other = content.decode("utf-8", "replace").split("“")[-1].split("”")[0]
            raise EnvironmentLacks(
                N_("{path} holds the name servers of the card “{other}” already"), path=path, other=other
            )
        if len(content or b"") > MOST_BYTES:
            raise EnvironmentLacks(N_("{path} is too long to be kept"), path=path)
        before = known.before if known else content
        changed = Changed("file", interface, str(path), before, _content(account, names, before or b""))
        if known is not None and changed.ours == known.ours:
            return known
        keep(changed)
        _write(path, changed.ours)
        return changed

    def _real(self) -> Path:
        """The file behind `path`. Raises: EnvironmentLacks: none that is ours to change."""
        path = self._path
        if (name := _namespace()) and not _is_mounted(path):
            raise EnvironmentLacks(
                N_("{path} belongs to the whole machine, this card to its network namespace {name} alone; put a "
                   "file into /etc/netns/{name}/resolv.conf"),
                path=path, name=name,
            )  # fmt: skip
        try:
            real = path.resolve(strict=True)
        except FileNotFoundError:
            if not path.is_symlink():
                return path
            raise EnvironmentLacks(
                N_("{path} is a link to {target}, which does not exist"), path=path, target=path.readlink()
            ) from None
        except (OSError, RuntimeError) as error:
            raise _not_written(path, error) from error
        if RESOLVED in real.parents:
            raise EnvironmentLacks(
                N_("{path} belongs to systemd-resolved, but its command resolvectl is missing or it does not run"),
                path=path,
            )
        return real


def undo(changed: Changed) -> str:
    """Take it back; what was done, "" if nothing was there any more.

    Raises: Meddled; EnvironmentLacks: it can't be written.
    """
    if changed.manner == "resolved":  # it went with the interface, if that is gone
        if Path("/sys/class/net", changed.interface).exists() and shutil.which("resolvectl"):
            _run("resolvectl", "revert", changed.interface)
            return "systemd-resolved"
        return ""
    if changed.manner == "resolvconf":
        _run("resolvconf", "-d", _record(changed.interface))
        return "resolvconf"
    path = Path(changed.path)
    content = _read(path)
    if content == changed.before:
        return ""
    if content != changed.ours:
        raise _meddled(path)
    if changed.before is None:
        try:
            path.unlink()
        except OSError as error:
            raise _not_written(path, error) from error
    else:
        _write(path, changed.before)
    return str(path)


def meddled(changed: Changed) -> Meddled | None:
    """Has somebody else changed what we set?"""
    if changed.manner != "file" or _read(Path(changed.path)) == changed.ours:
        return None
    return _meddled(Path(changed.path))


def _meddled(path: Path) -> Meddled:
    return Meddled(N_("somebody else has changed {path} since the card wrote it; it is left as it is now"), path=path)


def _record(interface: str) -> str:
    return f"{interface}.ukihashi"


def _content(account: str, names: Names, before: bytes) -> bytes:
    """The file: the hub's servers first; the earlier ones after them, unless everything is to go to the hub."""
    servers, search, others = list(names.servers), list(names.search), list[str]()
    for line in before.decode("utf-8", "replace").splitlines():
        words = line.split()
        match words[:1]:
            case ["nameserver"] if len(words) > 1:
                servers += [] if names.everything else [words[1]]
            case ["search" | "domain"]:
                search += words[1:]
            case [word] if word[0] not in "#;":
                others.append(line)
    kept = list(dict.fromkeys(search))[:MOST_SEARCH]
    lines = [f"{MARK} “{account}”; what stood here before comes back when it leaves"]
    lines += [f"nameserver {one}" for one in list(dict.fromkeys(servers))[:MOST_SERVERS]]
    lines += ([f"search {' '.join(kept)}"] if kept else []) + others
    return ("\n".join(lines) + "\n").encode()


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    """Put a new file in the old one's place; where that can't be (it is mounted there), write into it."""
    temporary = ""
    try:
        if _is_mounted(path):
            _write_into(path, content)
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                old = path.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(handle, old.st_uid, old.st_gid)
                os.fchmod(handle, old.st_mode & 0o7777)
            if not path.exists():
                os.fchmod(handle, 0o644)
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if error.errno not in {errno.EBUSY, errno.EXDEV}:
            raise _not_written(path, error) from error
        try:
            _write_into(path, content)
        except OSError as again:
            raise _not_written(path, again) from again


def _write_into(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
        os.fsync(fd)
    finally:
        os.close(fd)


def _not_written(path: Path, error: OSError | RuntimeError) -> EnvironmentLacks:
    number = error.errno if isinstance(error, OSError) else errno.ELOOP
    if number == errno.EROFS:
        return EnvironmentLacks(N_("{path} can't be changed: its file system is read-only"), path=path)
    if number == errno.EPERM and os.geteuid() == 0:
        return EnvironmentLacks(
            N_("{path} can't be changed, not even by root; is it immutable? `lsattr {path}` shows an i then"), path=path
        )
    return EnvironmentLacks(N_("{path} can't be changed: {reason}"), path=path, reason=os.strerror(number or 0))


def _is_mounted(path: Path) -> bool:
    """Does something lie over this very file, as in a container, or by `ip netns exec`?"""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[4] == str(path) for line in lines)


def _namespace() -> str:
    """The name of the network namespace that we are in, "" for the machine's own or one without a name."""
    try:
        own = Path("/proc/self/ns/net").stat()
        for path in NAMESPACES.iterdir():
            found = path.stat()
            if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                return path.name
    except OSError:
        pass
    return ""


def _run(*words: str, text: str | None = None) -> None:
    """Raises: EnvironmentLacks."""
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False, errors="replace"
        )
        if done.returncode == 0:
            return
        reason = _last(done.stderr.splitlines()) or str(done.returncode)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    raise EnvironmentLacks(N_("{command} failed: {reason}"), command=" ".join(words), reason=reason)


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
