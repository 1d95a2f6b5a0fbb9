"""A card's way to its hub: makes connections, with an order for each, and hands both to the data process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from ukihashi.card import orders
from ukihashi.card.child import SPARE_S, DataChild
from ukihashi.card.messages import Connect, Opened, SentOn
from ukihashi.card.orders import Place
from ukihashi.card.path_sources import Candidate
from ukihashi.card.paths import Paths
from ukihashi.card.race import Race
from ukihashi.card.status import Standing
from ukihashi.config.card import CardConfig
from ukihashi.net.dial import direct
from ukihashi.net.dial.via import Kind
from ukihashi.net.route_watch import RouteWatch

TICKET_S: Final = 60.0  # that a ticket for a cluster's member holds (protocol section 16)

_log = structlog.get_logger()


class Connecting:
    """One card's connections. Each that comes about is an event of the data process (`child.py`)."""

    def __init__(
        self,
        name: str,
        config: CardConfig,
        standing: Standing,
        paths: Paths,
        ids: bytes,
        *,
        mark: Callable[[], int],
        amend: Callable[[Connect], Connect] = lambda order: order,
    ) -> None:
        """`mark`: of the packets that carry the tunnel, now. `amend`: the last word on an order."""
        self.config = config
        self.paths: Final = paths
        self.vouched_pin = b""  # of the controller that sent us to a cluster's member
        self._name: Final = name
        self._standing: Final = standing
        self._ids: Final = ids
        self._mark: Final = mark
        self._amend: Final = amend
        self._child: DataChild | None = None
        self._member: Place | None = None  # of a cluster, that the session is at
        self._first_at: Place | None = None  # the address that the session's first connection has

    # -- for a session ---------------------------------------------------------------------------------------------

    async def open(self, child: DataChild) -> int:
        """A connection to log in over, or to go on over with a standard session; gives the attempt's number.

        If there is more than one path, it is over the one that leads to the hub first. Raises: UkihashiError.
        """
        self._child = child
        if self._standing.session is None:
            self._member, self.vouched_pin = None, b""
        await self.paths.look(self.config)
        if len(self.paths) == 1:
            number = self._next()
            await self._connect(self._order(number), self._place, self.paths.finder.best)
            return number
        finder = self.paths.finder
        race = Race(child, self._begin, lambda candidate, error: finder.failed(candidate.via, error))
        won = await race.run(finder.order, 2 * self.config.times.dial + SPARE_S)
        if won is None:
            raise finder.failure(self._name)
        self.paths.chosen(won)
        child.go_on(won)
        return won

    async def go_to_member(self, sent_on: SentOn) -> int | None:
        """Where a cluster's controller sends us, with its ticket; None: a member sends us on, which it may not.

        Raises: UkihashiError.
        """
        if self._member is not None:
            return None
        self._member = orders.member_of(sent_on, self.config.hub.port)
        self.vouched_pin = sent_on.pin
        _log.info("sent_on", account=self._name, member=direct.location(*self._member))
        number = self._next()
        order = orders.with_ticket(self.config, number, self._ids, sent_on, self._member)
        deadline = min(self.config.times.dial, TICKET_S / 2)
        await self._connect(order, self._member, self.paths.finder.best, deadline=deadline)
        return number

    async def again(self, attempt: int, reached: Callable[[], object]) -> RouteWatch | None:
        """A link to go on over with an exact session, over each path in turn; gives where its packets go.

        `reached`: called when the first machine on the way has taken the connection. Raises: UkihashiError.
        """
        await self.paths.look_around(self.config)
        return await self._connect(self._order(attempt), self._place, self.paths.finder.next(), reached=reached)

    async def further(self, attempt: int) -> None:
        """Another connection beside those of the session, to the same address as theirs. Raises: UkihashiError."""
        assert self._first_at is not None
        await self._connect(self._order(attempt), self._first_at, self.paths.finder.best)

    def carried(self, attempt: int) -> None:
        """The link of that attempt carries the session."""
        dialled = self.paths.carries(attempt)
        if dialled is not None:
            self._first_at = dialled.peer
            self._standing.peer = direct.location(*dialled.peer)
            self._standing.via = str(dialled.candidate.via)

    async def sign(self, challenge: bytes) -> bytes:
        """Prove that our key is ours. Raises: UkihashiError."""
        from ukihashi.card import credentials

        own = self.config.login
        return await asyncio.to_thread(lambda: credentials.load(own.certificate, own.key).sign(challenge))

    # -- one connection --------------------------------------------------------------------------------------------

    @property
    def _place(self) -> Place:
        return self._member or Place(self.config.hub.host, self.config.hub.port)

    def _next(self) -> int:
        self._standing.attempts += 1
        return self._standing.attempts

    def _begin(self, candidate: Candidate) -> tuple[int, Awaitable[object]]:
        number = self._next()
        return number, self._try(number, candidate)

    async def _try(self, number: int, candidate: Candidate) -> None:
        order = msgspec.structs.replace(self._order(number), waits=True)
        await self._connect(order, self._place, candidate)

    def _order(self, attempt: int) -> Connect:
        """Log in, or go on with the session there is. Raises: UkihashiError."""
        session: Opened | None = self._standing.session
        if session is None:
            return orders.login(self.config, attempt, self._ids, self._standing.takes)
        return orders.further(self.config, attempt, session, self._place, at_member=self._member is not None)

    async def _connect(
        self,
        order: Connect,
        place: Place,
        candidate: Candidate,
        *,
        deadline: float = 0.0,
        reached: Callable[[], object] = lambda: None,
    ) -> RouteWatch | None:
        assert self._child is not None
        order, mark, udp = self._amend(order), self._mark(), None
        deadline = deadline or self.config.times.dial
        sock = await self.paths.dial(
            order.attempt, candidate, place, self.config, mark=mark, deadline=deadline, reached=reached
        )
        if candidate.via.kind is Kind.DIRECT:
            udp = orders.udp_socket(self.config, order, sock, mark)
        self._child.connect(order, sock, udp)
        return self.paths.way(order.attempt)
