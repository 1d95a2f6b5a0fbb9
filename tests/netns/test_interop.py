"""Debian's real programs and ours, in every combination that makes sense (lab/matrix.py).

`./run test` tries a core; the full matrix runs in `./run soak` and writes docs/interop.md.
"""

import datetime as dt
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from lab import matrix, peers
from lab.interop import BULK, try_trouble, try_variant
from lab.matrix import Cell
from lab.net import LabError, Net
from lab.wait import TimeOver
from ukihashi import __version__

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnserver", "vpnclient", "vpncmd", "openssl")]

BROKEN = ("Traceback (most recent call last)", "internal_error", "internal error")


def try_cell(net: Net, role: str, row: str) -> list[str]:
    """One cell, whichever table it is in; our programs must not have stumbled meanwhile."""
    variant = next((one for one in matrix.VARIANTS if one.name == row), None)
    if variant is not None:
        notes = try_variant(net, role, variant)
    else:
        notes = try_trouble(net, role, next(one for one in matrix.TROUBLES if one.name == row))
    stumbled = [line for line in net.logs(tail=1 << 20).splitlines() if any(words in line for words in BROKEN)]
    assert stumbled == []
    return notes


def try_alone(role: str, row: str) -> str:
    """One cell in a network of its own; what went wrong."""
    with Net() as net:
        try:
            try_cell(net, role, row)
        except (AssertionError, LabError, TimeOver, OSError) as error:
            return f"{role}, {row}: {error}\n{net.logs()}"
    return ""


@pytest.mark.timeout(240)
def test_a_core_of_the_matrix() -> None:
    """Three at a time: a cell mostly waits."""
    with ThreadPoolExecutor(3) as pool:
        troubles = list(pool.map(try_alone, *zip(*matrix.CORE, strict=True)))
    assert troubles == [""] * len(matrix.CORE)


class Found:
    """What the cells of a full run found: a file each, so that several processes may share the work.

    UKIHASHI_MATRIX names the folder; without it, one process does all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, role: str, row: str, cell: Cell, commit: str) -> None:
        value = asdict(cell) | {"commit": commit, "at": time.time()}
        (self.folder / f"{role}.{row}.json").write_text(json.dumps(value))

    def page(self) -> str:
        """The page; "" while a cell is missing."""
        found: dict[tuple[str, str], Cell] = {}
        runs: list[tuple[float, str]] = []
        for role, row in matrix.cells():
            path = self.folder / f"{role}.{row}.json"
            if not path.exists():
                return ""
            value = json.loads(path.read_text())
            runs.append((value.pop("at"), value.pop("commit")))
            found[role, row] = Cell(**value)
        (first, one), (last, other) = min(runs), max(runs)
        facts = {
            "date": dt.datetime.fromtimestamp(last, dt.UTC).date().isoformat(),
            "version": f"ukihashi {__version__}",
            "commit": one if one == other else f"{one} to {other}, while others were at work",
            "others": f"softether-vpn {peers.version()} (vpnserver, vpnclient, vpncmd)",
            "run": f"{len(found)} cells in {(last - first) / 60:.0f} min",
        }
        return matrix.page(found, megabytes=BULK >> 20, facts=facts)


@pytest.fixture(scope="module")
def found(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """The page is written when the last cell is through, whatever was found; a run of a few leaves it alone."""
    folder = os.environ.get("UKIHASHI_MATRIX")
    made = Found(Path(folder) if folder else tmp_path_factory.mktemp("matrix"))
    yield made
    if page := made.page():
        (repository / "docs/interop.md").write_text(page)


@pytest.fixture
def commit(repository: Path) -> str:
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=repository, check=False)
    return done.stdout.strip() or "unknown"


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("role", "row"), matrix.cells())
def test_the_matrix(net: Net, role: str, row: str, found: Found, commit: str) -> None:
    begin = time.monotonic()
    try:
        notes = try_cell(net, role, row)
    except BaseException as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        found.put(role, row, Cell("failed", notes=[reason.replace("|", "/")]), commit)
        raise
    found.put(role, row, Cell("passed", time.monotonic() - begin, notes), commit)
