"""The administrator's own page in place of ours (A14): files of one folder, found without leaving it.

Names come from strangers. A path is walked folder by folder, each opened without following a symbolic link and
relative to the one before, so neither `..` nor a link, nor a folder swapped meanwhile, leads out of `page_dir`.
"""

import mimetypes
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ukihashi.locale import LANGUAGES

MAX_FILE: Final = 1024 * 1024  # bytes; all of a file is held in memory, and the worker passes on no larger body
MAX_DEPTH: Final = 16
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block the open


@dataclass(frozen=True, slots=True)
class OwnFile:
    """One file of the folder. `language` is set where its name says it (`index.ja.html`)."""

    body: bytes
    media_type: str
    language: str = ""


def find(page_dir: Path, path: str, language: str) -> OwnFile | None:
    """The file that the request path `path` (decoded) names, or None.

    A path that ends with `/` names that folder's `index.LANGUAGE.html`, else `index.html`, else the index in another
    language. Hidden names, symbolic links, anything but plain files, and files above `MAX_FILE` are not found.
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
            return OwnFile(found.body, found.media_type, tongue)
    return None


def _read(folder: int, name: str) -> OwnFile | None:
    try:
        handle = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
            return None
        body = file.read(MAX_FILE + 1)  # it may have grown since
    return OwnFile(body, _media_type(name)) if len(body) <= MAX_FILE else None


def _media_type(name: str) -> str:
    media_type, encoding = mimetypes.guess_type(name)
    if media_type is None or encoding is not None:
        return "application/octet-stream"
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def _is_plain(name: str) -> bool:
    return bool(name) and not name.startswith(".") and name.isprintable() and "\\" not in name and len(name) <= 255
