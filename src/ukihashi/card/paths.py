"""The connections of a card to its hub: over which path each attempt goes, and where its packets leave this machine."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Final, NamedTuple

from ukihashi.card.orders import Place
from ukihashi.card.path_finder import Finder, PathMemory
from ukihashi.card.path_sources import Candidate
from ukihashi.config.card import CardConfig, PathToHub
from ukihashi.errors import UkihashiError
from ukihashi.net.dial import through
from ukihashi.net.dial.names import KnownAddresses
from ukihashi.net.dial.via import Kind
from ukihashi.net.network_id import network_id
from ukihashi.net.route_watch import RouteWatch


class Dialled(NamedTuple):
    """The connection of an attempt, the socket aside, which the data process has."""

    candidate: Candidate
    peer: Place  # direct: the hub's address; else the hub as the path was asked for it
    way: RouteWatch | None  # None: nobody can say where the packets go


class Paths:
    """See the module."""

    def __init__(self, sources: Callable[[CardConfig], list[Candidate]], memory: PathMemory) -> None:
        """`sources`: the paths that a configuration gives; raises `UkihashiError`."""
        self._sources: Final = sources
        self.known: Final = KnownAddresses()
        self._told = PathToHub()
        self._dialled: dict[int, Dialled] = {}  # by attempt
        self.finder: Final = Finder(memory)

    def __len__(self) -> int:
        return len(self.finder)

    async def look(self, config: CardConfig) -> None:
        """Which paths there are now, and where this machine is. Raises: UkihashiError."""
        self._told = config.path
        self.finder.take(await asyncio.to_thread(self._sources, config))
        await self.look_around(config)

    async def look_around(self, config: CardConfig) -> None:
        """Where this machine is, if there is a choice. Raises: UkihashiError: only if other paths have been told."""
        if config.path != self._told:
            await self.look(config)
        elif len(self) > 1:
            self.finder.enter(await asyncio.to_thread(network_id, config.interface.name))

    async def dial(
        self,
        attempt: int,
        candidate: Candidate,
        place: Place,
        config: CardConfig,
        *,
        mark: int,
        deadline: float,
        reached: Callable[[], object],
    ) -> socket:
        """A connection to the hub over that path. `reached`: as `through.dial` has it. Raises: UkihashiError."""
        own = config.path
        try:
            line = await through.dial(
                candidate.via,
                *place,
                deadline=deadline,
                mark=mark,
                known=self.known,
                congestion=config.connection.congestion,
                secret=candidate.secret,
                authorities=Path(own.authorities) if own.authorities else None,
                ssh_config=Path(own.ssh_config) if own.ssh_config else None,
                reached=reached,
            )
        except UkihashiError as error:
            self.finder.failed(candidate.via, error)
            raise
        peer, way = place, None
        if line.outer is not None:
            way = RouteWatch(line.outer.local, line.outer.peer, mark)
            if candidate.via.kind is Kind.DIRECT:
                peer = Place(line.outer.peer, line.outer.port)
        self._dialled[attempt] = Dialled(candidate, peer, way)
        return line.sock

    def way(self, attempt: int) -> RouteWatch | None:
        """Where the packets of that attempt leave this machine."""
        dialled = self._dialled.get(attempt)
        return dialled.way if dialled is not None else None

    def chosen(self, attempt: int) -> None:
        """That attempt got there first."""
        dialled = self._dialled.get(attempt)
        if dialled is not None:
            self.finder.choose(dialled.candidate.via)

    def carries(self, attempt: int) -> Dialled | None:
        """The link of that attempt carries the session; the ones before are forgotten."""
        self._dialled = {number: one for number, one in self._dialled.items() if number >= attempt}
        dialled = self._dialled.get(attempt)
        if dialled is not None:
            self.finder.carries(dialled.candidate.via)
        return dialled
