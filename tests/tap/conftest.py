"""A network of the test's own, so that nothing of the machine is touched."""

from collections.abc import Iterator

import pytest

from lab.own_network import own_network


@pytest.fixture(name="own_network")
def _own_network() -> Iterator[None]:
    """Run the test in a network namespace of its own."""
    with own_network():
        yield
