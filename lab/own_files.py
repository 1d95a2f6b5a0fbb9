"""A program that finds other files below /etc than the rest of the machine does."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path


def with_files(argv: Sequence[str | Path], files: Mapping[str, Path]) -> list[str]:
    """The command line that runs `argv` with those files in the place of these, {"/etc/hosts": Path("mine")}."""
    mounts = [f"mount --bind {shlex.quote(str(own))} {shlex.quote(name)}" for name, own in files.items()]
    return ["unshare", "-m", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *map(str, argv)]
