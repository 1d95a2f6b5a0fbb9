from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.store import hubs
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "hub.db")
    yield opened
    opened.close()


@pytest.fixture
def hub(db: Database) -> Hub:
    return hubs.create(db, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", host_port="uklan", now=1.0)
