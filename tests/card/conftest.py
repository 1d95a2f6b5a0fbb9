"""Keys of hubs, a network of the test's own, accounts in a folder of the test's own."""

import ctypes
import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fake_hub import FakeHub
from ukihashi.config import places
from ukihashi.pki import ca
from ukihashi.tap import netlink

CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    """A hub's key and certificate."""
    return ca.load_or_make(tmp_path_factory.mktemp("hub"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture(scope="session")
def other_identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    """Somebody else's."""
    return ca.load_or_make(tmp_path_factory.mktemp("other"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, configuration and sockets of this test only."""
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


@pytest.fixture
def own_network() -> Iterator[None]:
    """Run the test in a network namespace of its own, loopback up."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0
        try:
            netlink.set_up("lo", mtu=65536)
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)


@pytest.fixture
def hub(identity: ca.Identity) -> Iterator[FakeHub]:
    """A fake hub on a loopback port."""
    with FakeHub(identity.certificate, identity.key) as made:
        yield made
