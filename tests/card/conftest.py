"""Keys of hubs, a network of the test's own, accounts in a folder of the test's own."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.card.keys import Keys, make

from lab.fake_hub import FakeHub
from lab.own_network import own_network
from ukihashi.config import places
from ukihashi.pki import ca


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    """A hub's key and certificate."""
    return ca.load_or_make(tmp_path_factory.mktemp("hub"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture(scope="session")
def other_identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    """Somebody else's."""
    return ca.load_or_make(tmp_path_factory.mktemp("other"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Somebody's own key and certificate."""
    return make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, configuration and sockets of this test only."""
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


@pytest.fixture(name="own_network")
def _own_network() -> Iterator[None]:
    """Run the test in a network namespace of its own, loopback up."""
    with own_network():
        yield


@pytest.fixture
def hub(identity: ca.Identity) -> Iterator[FakeHub]:
    """A fake hub on a loopback port."""
    with FakeHub(identity.certificate, identity.key) as made:
        yield made
