"""The locked wheels for one Python and one machine: fetched once, checked by their hashes, unpacked without pip."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's word: the wheels'
NEWEST_GLIBC: Final = 36  # of the Debian this is for; wheels for any older one fit
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


class Wheel(NamedTuple):
    """One file."""

    path: Path
    name: str  # canonical
    version: str
    requires: list[str]  # `Requires-Dist`
    license: str


def fetch(lock: Path, cache: Path, machine: str) -> list[Wheel]:
    """All wheels of a lock file; from `cache`, if it has been filled for exactly this."""
    key = hashlib.sha256(f"{PYTHON} {machine} ".encode() + lock.read_bytes()).hexdigest()[:16]
    folder = cache / f"{lock.stem}-{key}"
    if not folder.is_dir():
        fresh = cache / f"{folder.name}.part"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        arch = MACHINES[machine]
        platforms = [f"manylinux_2_{minor}_{arch}" for minor in range(NEWEST_GLIBC, 4, -1)]
        platforms += [f"manylinux2014_{arch}", f"manylinux2010_{arch}", f"manylinux1_{arch}"]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
        command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", PYTHON]
        command += ["--implementation", "cp", *(word for one in platforms for word in ("--platform", one))]
        command += ["--dest", str(fresh), "--requirement", str(lock)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        fresh.rename(folder)
    return [read(path) for path in sorted(folder.glob("*.whl"))]


def read(path: Path) -> Wheel:
    """What a wheel says of itself."""
    with zipfile.ZipFile(path) as archive:
        (metadata,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        head = HeaderParser().parsestr(archive.read(metadata).decode())
    licenses = [head.get("License-Expression", ""), *_classified(head.get_all("Classifier", []))]
    licenses.append(head.get("License", "").split("\n")[0])
    return Wheel(
        path,
        canonicalize_name(head["Name"]),
        head["Version"],
        head.get_all("Requires-Dist", []),
        next(filter(None, licenses), "unknown"),
    )


def _classified(classifiers: Iterable[str]) -> Iterator[str]:
    for one in classifiers:
        if one.startswith("License :: ") and one.count("::") > 1:
            yield one.rpartition(":: ")[2]


def needed(wheels: Iterable[Wheel], root: Wheel, extras: Iterable[str]) -> list[Wheel]:
    """Those that `root` needs with these extras, directly or not: a lock file also holds what only builds."""
    by_name = {wheel.name: wheel for wheel in wheels}
    found: dict[str, Wheel] = {}
    waiting = [(root, frozenset(extras))]
    seen = set[tuple[str, frozenset[str]]]()
    while waiting:
        wheel, wanted = waiting.pop()
        if (wheel.name, wanted) in seen:
            continue
        seen.add((wheel.name, wanted))
        for line in wheel.requires:
            one = Requirement(line)
            name = canonicalize_name(one.name)
            if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                continue
            if name not in by_name:
                raise SystemExit(f"{wheel.name} needs {one}, which no lock file names")
            found[name] = by_name[name]
            waiting.append((by_name[name], frozenset(one.extras)))
    return [found[name] for name in sorted(found)]


def unpack(wheel: Wheel, target: Path) -> None:
    """Put a wheel's modules into a folder; no script of it, and no tests of large libraries, which nobody runs."""
    with zipfile.ZipFile(wheel.path) as archive:
        for info in archive.infolist():
            parts = Path(info.filename).parts
            if parts[0].endswith(".data"):
                if parts[1] not in {"purelib", "platlib"}:
                    continue
                parts = parts[2:]
            if info.is_dir() or (wheel.name in {"numpy", "numba", "llvmlite"} and "tests" in parts):
                continue
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
