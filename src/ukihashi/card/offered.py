"""What the hub leased and offers to one card now, and what of it is applied: `offers.py` with this machine's facts."""

import ipaddress
from collections.abc import Callable, Collection
from typing import Any, Final

import structlog

from ukihashi.card import offers, routes
from ukihashi.card.dhcp_client import Lease
from ukihashi.card.offers import Machine, Offer, Refusal, Taken
from ukihashi.card.status import told
from ukihashi.config.card import CardConfig, Route
from ukihashi.errors import N_
from ukihashi.locale import say
from ukihashi.tap import held

LOG_TEXTS: Final = {"offer_refused": N_("something that the hub offers is not applied")}

_log = structlog.get_logger()


class Offered:
    """One card's. `judge` says what may be set; the rest asks what it said."""

    def __init__(self, account: str) -> None:
        self._account: Final = account
        self._lease: Lease | None = None
        self._told = Offer()
        self.router6 = ""  # of router advertisements
        self.leased = ""  # the leased address, if it may be set
        self.routes: list[Route] = []  # offered, accepted and possible
        self._refused: list[Refusal] = []

    @property
    def offer(self) -> Offer:
        """All of it."""
        return offers.with_router6(self._told, self.router6)

    def told(self, lease: Lease | None) -> None:
        """By DHCP. To be judged."""
        self._lease = lease
        self._told = offers.read(lease.options, lease.server) if lease else Offer()

    def judge(self, interface: str, config: CardConfig, outer: Collection[str]) -> bool:
        """Look at this machine; True if something else may be set than before."""
        before, settings, offer = (self.leased, self.routes), config.interface, self.offer
        self.leased, self.routes, refused = self._lease.address if self._lease else "", [], list[Refusal]()
        if self.leased or offer.routes:
            networks = held.held_elsewhere(interface)
            machine = Machine(
                outer,
                [Taken(ipaddress.ip_network(one.network), one.interface) for one in networks if not one.is_wide],
                {6 if ":" in one.network else 4: one.interface for one in networks if one.is_wide},
            )
            if self.leased and (reason := offers.overlap(str(ipaddress.ip_interface(self.leased).network), machine)):
                refused.append(Refusal(self.leased, reason))
                self.leased = ""
            self.routes, more = offers.judged(offer, settings.accept, machine, settings.routes)
            refused += more
        for one in refused:
            if all(one.about != known.about for known in self._refused):
                _log.warning("offer_refused", account=self._account, about=one.about, reason=say(one.reason))
        self._refused = refused
        return before != (self.leased, self.routes)

    def rows(
        self, accept: Collection[str], state_of: Callable[[Route], dict[str, Any]], names: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """For `card status`: each part that is offered, what became of it, and why.

        Args:
            state_of: of a route that was to be set. names: the state of the name servers.
        """
        offer, refused = self.offer, {one.about: one.reason for one in self._refused}
        rows: list[dict[str, Any]] = []
        for route in offer.routes:
            kind = "default" if routes.wide_version(route) else "routes"
            row: dict[str, Any] = {"kind": kind, "to": route.to, "via": route.via, "state": "offered", "reason": None}
            if reason := refused.get(route.to):
                row |= {"state": "refused", "reason": told(reason)}
            elif route in self.routes:
                row |= state_of(route)
            elif kind in accept:  # the account has a route of its own there
                row |= {"state": "own"}
            rows.append(row)
        if self._lease and (reason := refused.get(self._lease.address)):
            rows.append({"kind": "address", "to": self._lease.address, "state": "refused", "reason": told(reason)})
        if offer.name_servers:
            domains = offers.domains(offer, [])[0]
            rows.append({"kind": "dns", "servers": list(offer.name_servers), "domains": domains, **names})
        return rows
