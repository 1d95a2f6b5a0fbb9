"""Load balancers before the hub: whose word about where a client comes from is taken, and what they do wrong."""

import ipaddress
from collections.abc import Sequence
from typing import Final

import structlog

from ukihashi.errors import PeerViolation
from ukihashi.hub.loop import Loop

QUIET_S: Final = 10.0  # between two complaints: a balancer that is set up wrongly brings each client so

_log = structlog.get_logger()


class Balancers:
    """Networks of load balancers that say the client's address by the PROXY protocol. Usually none."""

    def __init__(self, loop: Loop, networks: Sequence[str]) -> None:
        self._loop = loop
        self._untold = 0  # closed without a word since the last complaint
        self._quiet_until = 0.0
        self.set(networks)

    def set(self, networks: Sequence[str]) -> None:
        """Other networks, as in hub.toml; for connections from now on."""
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]

    def has(self, peer: str) -> bool:
        """Is `peer` ("address:port") one?"""
        if not self._networks:
            return False
        address = ipaddress.ip_address(peer.rpartition(":")[0].strip("[]"))
        return any(address in network for network in self._networks)

    def complain(self, peer: str, why: PeerViolation) -> None:
        """A connection of `peer` is closed because it didn't begin with a header; into the log, not too often."""
        if self._loop.now < self._quiet_until:
            self._untold += 1
            return
        self._quiet_until = self._loop.now + QUIET_S
        _log.warning("proxy_header_wrong", peer=peer, reason=str(why), as_many_before=self._untold or None)
        self._untold = 0
