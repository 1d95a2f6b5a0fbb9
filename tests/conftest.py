"""What every test may ask for.

`@pytest.mark.netns` (or the fixture `net`): needs root; skipped with the reason where it can't be had.
`@pytest.mark.peer("vpnclient", "tshark")`: needs these programs of others.
With UKIHASHI_REQUIRE_ALL=1 (set by `./run test` for root) what is missing is a failure, not a skip, except for the
Debian packages named in UKIHASHI_NOT_INSTALLABLE, which `./run` tried to install in vain.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from lab import offices, peers, ready
from lab.net import Net, unfit

# A shared machine's pauses say nothing about the code. `--hypothesis-profile=long` and `./run fuzz` try more.
hypothesis.settings.register_profile("here", deadline=None, max_examples=40)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("here")

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # Python 3.12 warns of a fork beside threads, and numpy starts some

# A caller may ignore these (`nohup`, a job in the background), and every program that a test starts would inherit that.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

LONG = (  # beginnings of the names of files that take long, the longest first
    "tests/lab/test_demo", "tests/netns/test_first", "tests/card/test_softether", "tests/netns/test_resume",
    "tests/netns/test_cascade", "tests/netns/test_cuts", "tests/netns/test_workers", "tests/netns/test_upgrade",
    "tests/netns/test_app", "tests/bench/", "tests/web/test_real", "tests/netns/", "tests/cli/test_card.py",
    "tests/hub/", "tests/session/", "tests/card/", "tests/cli/", "tests/web/",
    "tests/house/test_wheel", "tests/house/test_readme",
)  # fmt: skip
FAILED = pytest.StashKey[bool]()
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where daemons are, though a user's PATH may not say so
PACKAGES = {
    **peers.PACKAGES, "sshd": "openssh-server", "ssh": "openssh-client", "ip": "iproute2", "nft": "nftables",
    "tincd": "tinc", "danted": "dante-server", "ss": "iproute2", "mitmdump": "mitmproxy",
    "systemd-analyze": "systemd", "systemd-nspawn": "systemd-container", "man": "man-db", **offices.PACKAGES,
}  # fmt: skip


def _lacks(reason: str) -> None:
    """Skip the running test because of what this machine lacks; fail where everything is required."""
    if os.environ.get("UKIHASHI_REQUIRE_ALL"):
        pytest.fail(f"everything is required here, but: {reason}", pytrace=False)
    pytest.skip(reason)


def _missing_packages(programs: tuple[str, ...]) -> set[str]:
    softether = [name for name in programs if name in peers.PACKAGES]
    others = [name for name in programs if name not in peers.PACKAGES]
    gone = {PACKAGES.get(name, name) for name in others if shutil.which(name, path=SEARCH) is None}
    return gone | (set(peers.missing(*softether).split()) if softether else set())


def pytest_configure(config: pytest.Config) -> None:
    """The long tests start programs as users do, the others as forks (lab/ready.py).

    On Python before 3.11.4 a failure is shown by Python's own traceback.

    pytest's parses the source, at which those versions (Debian 12's is one) can fall over: "AST constructor recursion
    depth mismatch", python/cpython issue 106905. The run would end there.
    """
    if "soak" not in str(config.getoption("markexpr")):
        ready.enable()
    if sys.version_info < (3, 11, 4) and config.option.tbstyle == "auto":
        config.option.tbstyle = "native"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that use namespaces are marked `netns`; soak tests run only when asked for by name.

    Files that take long come first, so that several processes end at about the same time.
    """
    items.sort(key=lambda item: next((at for at, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))
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
        _lacks(reason)
    for marker in item.iter_markers("peer"):
        if gone := _missing_packages(marker.args):
            if gone <= set(os.environ.get("UKIHASHI_NOT_INSTALLABLE", "").split()):
                pytest.skip(f"can't be installed here: {' '.join(sorted(gone))}")
            _lacks(f"not installed: {' '.join(sorted(gone))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure, so that `net` can show its logs."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command that ran inside a test set up its log, onto a stream that ends with the test."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


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
        _lacks("needs root")


@pytest.fixture
def lacks() -> Callable[[str], None]:
    """To call with what this machine lacks: skips the test, or fails it where everything is required."""
    return _lacks


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the repository."""
    return Path(__file__).resolve().parent.parent
