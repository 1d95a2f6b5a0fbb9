"""A network of the test's own, so that nothing of the machine is touched."""

import ctypes
import os
from collections.abc import Iterator

import pytest

CLONE_NEWNET = 0x40000000


@pytest.fixture
def own_network() -> Iterator[None]:
    """Run the test in an empty network namespace; it vanishes with its last socket."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace can be made here: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)
