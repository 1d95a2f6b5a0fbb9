"""Passwords for paths: from the account, a file that only its owner can read, or the user's keyring.

A line of the file is `URL PASSWORD`, the URL as in `path.via` and without a password of its own; `#` begins a comment.

    http://taro@proxy.example:3128   a password, blanks within it too
    ssh://taro@gate.example          another

Kind, host and port must be the path's (`socks5` and `socks5h` are one kind here). The first line with the path's user
counts, else the first one without a user, whose password is then for any user. A path without a user takes the first
line of its place, user and all: so where everybody's environment says `http://proxy.example:3128`, this file says who
we are there.
"""

import importlib
import importlib.util
import os
import stat
import threading
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.config import places
from ukihashi.config.card import AUTO, PathToHub
from ukihashi.errors import N_, ConfigError, UsageError
from ukihashi.net.dial.via import DIRECT, Kind, Via, parse, split

FILE_NAME: Final = "paths.secret"  # in the configuration's folder
FILE_MAX: Final = 64 * 1024  # bytes
SERVICE: Final = "ukihashi"  # that a keyring keeps our passwords under; the user's name there is the path's URL
KEYRING_S: Final = 3.0  # a locked keyring asks somebody on a screen that may not be there

_SAME: Final = {Kind.SOCKS5H: Kind.SOCKS5}
_SILENT: Final = threading.Event()  # a keyring did not answer in time: it isn't asked again by this process


class Entry(NamedTuple):
    """A line of the file."""

    via: Via
    secret: str

    def __repr__(self) -> str:
        return f"Entry(via={self.via})"


class PathSecrets:
    """What is known for one account. The file is read when it is first needed, and once."""

    def __init__(self, path: PathToHub) -> None:
        self._path = path
        self._entries: list[Entry] | None = None

    def complete(self, via: Via) -> tuple[Via, str | None]:
        """The path with the user it is for, and the password; None: none is known.

        May take `KEYRING_S`. Raises: ConfigError: the file of passwords can't be used.
        """
        own = self._path
        if via == DIRECT:
            return via, None
        if own.password and own.via != AUTO and via == parse(own.via):
            return via, own.password
        if (entry := self._line(via)) is not None:
            return Via(via.kind, via.host, via.port, via.user or entry.via.user), entry.secret
        if via.user or via.kind is Kind.SSH:
            return via, from_keyring(via)
        return via, None

    def _line(self, via: Via) -> Entry | None:
        if self._entries is None:
            self._entries = read(self._path.secrets)
        here = [entry for entry in self._entries if _place(entry.via) == _place(via)]
        if not via.user:
            return next(iter(here), None)
        exact = (entry for entry in here if entry.via.user == via.user)
        return next(exact, None) or next((entry for entry in here if not entry.via.user), None)


def file_of(chosen: str) -> Path:
    """Where passwords lie; `chosen`: `path.secrets`."""
    return Path(chosen) if chosen else places.config_dir() / FILE_NAME


def read(chosen: str) -> list[Entry]:
    """The lines of the file; none if it isn't there, or is not for us to read, and nobody chose it.

    Raises: ConfigError: it can't be read, others can read it too, or a line is wrong. What a line holds is never said.
    """
    path = file_of(chosen)
    try:
        raw = _private_bytes(path)
    except OSError as error:
        if not chosen and isinstance(error, FileNotFoundError | PermissionError):
            return []
        if isinstance(error, FileNotFoundError):
            raise ConfigError(N_("{path} does not exist"), path=path) from None
        raise ConfigError(N_("{path} can't be read: {reason}"), path=path, reason=error.strerror) from None
    entries: list[Entry] = []
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise ConfigError(N_("{path}, line {line}: the text is not UTF-8"), path=path, line=number) from None
        if text and not text.startswith("#"):
            entries.append(_entry(path, number, text))
    return entries


def _entry(path: Path, number: int, text: str) -> Entry:
    url, *rest = text.split(maxsplit=1)
    try:
        via, within = split(url)
    except UsageError:
        via, within = DIRECT, None
    if via == DIRECT or within is not None or not rest:
        raise ConfigError(
            N_("{path}, line {line}: a line is a path as in path.via (with no password in it), a blank, the password"),
            path=path,
            line=number,
        ) from None
    return Entry(via, rest[0])


def _private_bytes(path: Path) -> bytes:
    """Raises: OSError, ConfigError."""
    # a pipe in its place would make us wait for whoever writes into it
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_MAX:
            raise ConfigError(N_("{path} is no file of passwords"), path=path)
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                N_(
                    "{path} holds passwords, and others on this machine can read it, so it is not used; make it"
                    " private: chmod 600 {path}"
                ),
                path=path,
            )
        return file.read(FILE_MAX)


def _place(via: Via) -> tuple[Kind, str, int]:
    return _SAME.get(via.kind, via.kind), via.host, via.port


def from_keyring(via: Via) -> str | None:
    """What the library `keyring`, if installed, keeps for the path; None also if it does not answer in time."""
    if _SILENT.is_set() or importlib.util.find_spec("keyring") is None:
        return None
    found: list[str | None] = []

    def ask() -> None:
        try:
            found.append(importlib.import_module("keyring").get_password(SERVICE, str(via)))
        except Exception:  # noqa: BLE001 - whatever a backend raises: there is no password then
            found.append(None)

    # nobody waits for this thread at the end: a backend can't be interrupted
    thread = threading.Thread(target=ask, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_S)
    if thread.is_alive():
        _SILENT.set()
        return None
    return next(iter(found), None)
