"""What every test may ask for.

`@pytest.mark.netns` (or the fixture `net`): needs root; skipped with the reason where it can't be had.
`@pytest.mark.peer("vpnclient", "tshark")`: needs these programs of others.
With UKIHASHI_REQUIRE_ALL=1 (set by `./run test` for root) what is missing is a failure, not a skip.
"""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab import peers
from lab.net import Net, unfit

FAILED = pytest.StashKey[bool]()
SOFTETHER = ("vpnserver", "vpnclient", "vpncmd")


def lacks(reason: str) -> None:
    """Skip the running test because of what this machine lacks; fail where everything is required."""
    if os.environ.get("UKIHASHI_REQUIRE_ALL"):
        pytest.fail(f"everything is required here, but: {reason}", pytrace=False)
    pytest.skip(reason)


def _missing_programs(names: tuple[str, ...]) -> str:
    gone = [name for name in names if name not in SOFTETHER and shutil.which(name) is None]
    packages = peers.missing(*(name for name in names if name in SOFTETHER)) if set(names) & set(SOFTETHER) else ""
    return " ".join([*gone, *packages.split()])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that use namespaces are marked `netns`; soak tests run only when asked for by name."""
    for item in items:
        if "net" in getattr(item, "fixturenames", ()):
            item.add_marker("netns")
    if "soak" not in str(config.getoption("markexpr")):
        soak = [item for item in items if item.get_closest_marker("soak")]
        if soak:
            config.hook.pytest_deselected(items=soak)
            items[:] = [item for item in items if not item.get_closest_marker("soak")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for what the marks say is needed, before any fixture is made."""
    if item.get_closest_marker("netns") and (reason := unfit()):
        lacks(reason)
    for marker in item.iter_markers("peer"):
        if gone := _missing_programs(marker.args):
            lacks(f"not installed: {gone}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure, so that `net` can show its logs."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """An empty laboratory network; its logs are printed if the test fails."""
    with Net() as made:
        yield made
        if request.node.stash.get(FAILED, False):
            print(made.logs())


@pytest.fixture
def needs_root() -> None:
    """Skip (or fail, see the top) without root."""
    if os.geteuid() != 0:
        lacks("needs root")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the repository."""
    return Path(__file__).resolve().parent.parent
