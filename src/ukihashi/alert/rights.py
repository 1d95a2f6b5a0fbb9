"""Gives up all rights once cards, logs and sockets are open: what a stranger's packet could do ends there."""

import codecs
import importlib
import os
from pathlib import Path
from typing import Final

from ukihashi.net.privileges import drop, identity, is_root

ACCOUNT: Final = "ukihashi-alert"
# what libraries import only when they come to it; files may be unreadable afterwards
LATE_MODULES: Final = ("linecache", "traceback", "stringprep", "zoneinfo", "ukihashi.detect.verdict")
LATE_CODECS: Final = ("ascii", "latin-1", "utf-8", "idna", "unicode-escape")


def hand_over(path: Path) -> None:
    """Give a folder or file to the account that the sensor will work as, if it has the right to. Raises: OSError."""
    if is_root():
        who = identity(ACCOUNT)
        os.chown(path, who.uid, who.gid)


def give_up() -> None:
    """Keep no right, and be no longer root. Raises: EnvironmentLacks: the kernel refused; do not go on."""
    for name in LATE_MODULES:
        importlib.import_module(name)
    for name in LATE_CODECS:
        codecs.lookup(name)
    drop(identity(ACCOUNT))
