"""The commands that README and documents print, to be run as printed.

A block of commands begins with three backquotes and `sh host=NAME`; `stays` behind it: its last command runs on. Words
in capitals are what the reader has to fill in.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
BLOCK: Final = re.compile(r"^```sh host=(\S+)(| stays)\n((?:.*\n)*?)```$", re.MULTILINE)


class Block(NamedTuple):
    """Commands of one place."""

    host: str
    stays: bool
    commands: list[str]


def script(command: str, values: Mapping[str, str]) -> list[str]:
    """The command line that runs it from the repository's folder, as a reader would, with what he knows by now."""
    words = shlex.join(values.get(word, word) for word in shlex.split(command))
    return ["bash", "-euc", f"cd {shlex.quote(str(ROOT))}\nexec {words}"]


def blocks(name: str, *, heading: str = "") -> list[Block]:
    """The blocks of a document (a path in the repository), in order; of one section only, if its `heading` is given."""
    text = (ROOT / name).read_text()
    if heading:
        text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [Block(host, bool(stays), body.splitlines()) for host, stays, body in BLOCK.findall(text)]


def unprepared() -> str:
    """Why `./run` would first have to set this clone up; "" if it starts at once."""
    ready = [ROOT / ".venv" / name for name in ("ukihashi-run", "ukihashi-words")]
    if all(path.exists() for path in ready):
        return ""
    return "this clone was not set up by ./run; do that first: ./run setup all"
