"""A network namespace for the running test itself: quicker than `lab.net` where one machine is enough."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lab.net import LabError
from ukihashi.tap import netlink

CLONE_NEWNET = 0x40000000  # linux/sched.h


@contextmanager
def own_network() -> Iterator[None]:
    """The calling thread, threads and programs it starts live in an empty network, loopback up, until the block ends.

    The namespace vanishes with its last socket and process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise LabError(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            netlink.set_up("lo", mtu=65536)
            yield
        finally:
            libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
