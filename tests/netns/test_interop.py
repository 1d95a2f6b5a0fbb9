"""Debian's real programs and ours, in every combination that makes sense (lab/matrix.py).

`./run test` tries a core; the full matrix runs in `./run soak` and writes docs/interop.md.
"""

import datetime as dt
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import matrix, peers
from lab.interop import BULK, try_trouble, try_variant
from lab.matrix import Cell
from lab.net import Net
from ukihashi import __version__

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnserver", "vpnclient", "vpncmd", "openssl")]

FOUND: dict[tuple[str, str], Cell] = {}  # of the full run
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


@pytest.mark.parametrize(("role", "row"), matrix.CORE)
def test_a_core_of_the_matrix(net: Net, role: str, row: str) -> None:
    try_cell(net, role, row)


@pytest.fixture(scope="module")
def found(repository: Path) -> Iterator[dict[tuple[str, str], Cell]]:
    """What the cells find; the page is written when the last of them is through, whatever they found."""
    yield FOUND
    if set(FOUND) == set(matrix.cells()):  # a run of a few cells leaves the page alone
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=repository, check=False
        )
        facts = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "version": f"ukihashi {__version__}",
            "commit": commit.stdout.strip() or "unknown",
            "others": f"softether-vpn {peers.version()} (vpnserver, vpnclient)",
        }
        page = matrix.page(FOUND, megabytes=BULK >> 20, facts=facts)
        (repository / "docs/interop.md").write_text(page)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("role", "row"), matrix.cells())
def test_the_matrix(net: Net, role: str, row: str, found: dict[tuple[str, str], Cell]) -> None:
    begin = time.monotonic()
    try:
        notes = try_cell(net, role, row)
    except BaseException as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        found[role, row] = Cell("failed", notes=[reason.replace("|", "/")])
        raise
    found[role, row] = Cell("passed", time.monotonic() - begin, notes)
