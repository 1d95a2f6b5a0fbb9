"""Change settings in a TOML file that people write too: comments, order and what is not named stay as they are.

A file is written whole beside the old one and put in its place, so that an interrupted write leaves the old; and what
would not be a valid configuration is not written at all.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import tomlkit

from ukihashi.config import alert, card, hub
from ukihashi.config.load import parse
from ukihashi.config.options import applied
from ukihashi.errors import N_, EnvironmentLacks, InputUnreadable

NEW_MODE: Final = 0o644

Config = TypeVar("Config", card.CardConfig, hub.HubConfig, alert.AlertConfig)


def edit(path: Path, kind: type[Config], changes: Mapping[str, Any], *, mode: int | None = None) -> Config:
    """Set values, `{"times.dead": 12.0}`, None to take one out; the new configuration.

    Args:
        path: may be absent if all of `kind` has defaults.
        mode: as for `put`.
    Raises:
        ConfigError: the file can't be used as it is.
        UsageError: the new values can't be.
        EnvironmentLacks: it can't be written.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=path, reason=reason) from error
    wanted = applied(parse(path, text.encode(), kind), changes)
    new = edited(text, changes)
    written = parse(path, new.encode(), kind)
    assert written == wanted, f"an edit of {path} would say something else"
    put(path, new, mode=mode)
    return written


def edited(text: str, changes: Mapping[str, Any]) -> str:
    """The TOML `text` with some settings changed; None takes one out."""
    document = tomlkit.parse(text)
    for key, value in changes.items():
        section, _point, name = key.rpartition(".")
        table: Any = document
        if section:
            if section not in document:
                document[section] = tomlkit.table()
            table = document[section]
        if value is None:
            table.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(table.get(name), Mapping):
            table[name].clear()  # stays where it is: what follows is no part of it
            table[name].update(msgspec.to_builtins(value))
        else:
            table[name] = msgspec.to_builtins(value)
    return tomlkit.dumps(document)


def put(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write `path` whole or not at all. Mode None: that of the file whose place it takes. Raises: EnvironmentLacks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                _like(path, file.fileno(), mode)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> EnvironmentLacks:
    """The error for a file that the system doesn't let us write or remove."""
    return EnvironmentLacks(
        N_("{path} can't be written: {reason}; run this as root (sudo), or choose another --config-dir"),
        path=path,
        reason=error.strerror,
    )


def _like(path: Path, fd: int, mode: int | None) -> None:
    """The mode asked for or the old file's, and the old file's owner."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(fd, NEW_MODE if mode is None else mode)
        return
    os.fchmod(fd, old.st_mode & 0o7777 if mode is None else mode)
    if os.geteuid() == 0:
        os.fchown(fd, old.st_uid, old.st_gid)
