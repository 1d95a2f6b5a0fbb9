"""The administrator's own page in place of ours (A14): files of one folder, found without leaving it.

Names come from strangers. A path is walked folder by folder, each opened without following a symbolic link and
relative to the one before, so neither `..` nor a link, nor a folder swapped meanwhile, leads out of `page_dir`.
"""

import mimetypes
import os
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from ukihashi.locale import LANGUAGES

MAX_HELD: Final = 1024 * 1024  # bytes of a file that is held in memory; a larger one is read piece by piece
PIECE: Final = 65536  # bytes
MAX_DEPTH: Final = 16
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block the open


class LargeFile:
    """An open file above `MAX_HELD`. Whoever has it must `close` it."""

    def __init__(self, file: BinaryIO, status: os.stat_result) -> None:
        self._file = file
        self.size: Final = status.st_size
        self.tag: Final = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    def read(self) -> bytes:
        """The next piece; b"" at the end."""
        return self._file.read(PIECE)

    def close(self) -> None:
        """A second call does nothing."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class OwnFile:
    """One file of the folder. `language` is set where its name says it (`index.ja.html`)."""

    body: bytes  # none of a large one
    media_type: str
    language: str = ""
    large: LargeFile | None = None


def find(page_dir: Path, path: str, language: str) -> OwnFile | None:
    """The file that the request path `path` (decoded) names, or None.

    A path that ends with `/` names that folder's `index.LANGUAGE.html`, else `index.html`, else the index in another
    language. Hidden names, symbolic links and anything but plain files are not found. A large file comes open.
    """
    *folders, name = path.removeprefix("/").split("/")
    if len(folders) > MAX_DEPTH or not all(map(_is_plain, folders)) or not (name == "" or _is_plain(name)):
        return None
    with suppress(OSError):
        handle = os.open(page_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                inner = os.open(folder, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = inner
            if name:
                return _read(handle, name)
            return _index(handle, language)
        finally:
            os.close(handle)
    return None


def _index(folder: int, language: str) -> OwnFile | None:
    for tongue in (language, "", *LANGUAGES):
        found = _read(folder, f"index.{tongue}.html" if tongue else "index.html")
        if found is not None:
            return replace(found, language=tongue)
    return None


def _read(folder: int, name: str) -> OwnFile | None:
    try:
        handle = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        return None
    with ExitStack() as stack:
        file = stack.enter_context(os.fdopen(handle, "rb"))
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > MAX_HELD:
            stack.pop_all()
            return OwnFile(b"", _media_type(name), large=LargeFile(file, status))
        return OwnFile(file.read(MAX_HELD), _media_type(name))  # it may have grown since


def _media_type(name: str) -> str:
    media_type, encoding = mimetypes.guess_type(name)
    if media_type is None or encoding is not None:
        return "application/octet-stream"
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def _is_plain(name: str) -> bool:
    return bool(name) and not name.startswith(".") and name.isprintable() and "\\" not in name and len(name) <= 255
