"""The names of one card's virtual LAN on this machine: what is wanted, what was set, and what stands in the way."""

from collections.abc import Callable
from typing import Any, Final

import structlog

from ukihashi.card import journal, offers, resolver
from ukihashi.card.journal import Journal, Left
from ukihashi.card.offers import Offer
from ukihashi.card.resolver import Changed, Names, Resolver
from ukihashi.card.status import told
from ukihashi.config.card import Interface
from ukihashi.errors import N_, UkihashiError
from ukihashi.locale import say

LOG_TEXTS: Final = {
    "names_set": N_("names are looked up at the hub's name servers"),
    "names_not_set": N_("the hub's name servers could not be set"),
    "names_undone": N_("names are looked up as before"),
    "names_left": N_("where names are looked up was changed by somebody else and is left as it is"),
}

_log = structlog.get_logger()


class LocalNames:
    """All calls but `state` are for a thread, one at a time."""

    def __init__(self, account: str, its_journal: Callable[[], Journal], own: Resolver | None = None) -> None:
        self._account: Final = account
        self._journal: Final = its_journal
        self._resolver: Final = own or Resolver()
        self._wanted: Names | None = None
        self._problem: UkihashiError | None = None

    def set(self, interface: str, settings: Interface, offer: Offer, *, everything: bool, left: Left) -> None:
        """As the account accepts what is offered. What is in the way is kept for `state` and logged."""
        wanted: Names | None = None
        if "dns" in settings.accept and offer.name_servers:
            search, domains = offers.domains(offer, settings.dns_domains)
            wanted = Names(offer.name_servers, tuple(search), tuple(domains), everything)
        if wanted == self._wanted and self._problem is None:
            return
        before = str(self._problem)
        self._wanted, self._problem = wanted, None
        if wanted is None:
            self.undo(left)
            return
        known = self._journal().names
        try:
            if known is None:
                journal.clean_names_of_the_dead(left)
            self._keep(self._resolver.apply(self._account, interface, wanted, known, self._keep))
            _log.info("names_set", account=self._account, servers=list(wanted.servers), domains=list(wanted.domains))
        except UkihashiError as error:
            self._problem = error
            if not isinstance(error, resolver.Meddled):  # then nothing was changed, or only the new is missing
                self._keep(known)
            if str(error) != before:
                _log.warning("names_not_set", account=self._account, reason=say(error))

    @property
    def waits(self) -> bool:
        """Something stood in the way, and may have gone."""
        return self._problem is not None

    def undo(self, left: Left) -> None:
        """Take everything back. Raises: EnvironmentLacks: it can't be; what is written down stays."""
        self._wanted = self._problem = None
        changed = self._journal().names
        if changed is None:
            return
        try:
            resolver.undo(changed)
            _log.info("names_undone", account=self._account)
        except resolver.Meddled as error:
            left(error)
        self._keep(None)

    def state(self, *, accepted: bool) -> dict[str, Any]:
        """What became of the offer, and why not."""
        if not accepted:
            return {"state": "offered", "reason": None}
        changed = self._journal().names
        problem = self._problem or (resolver.meddled(changed) if changed else None)
        if problem is not None:
            return {"state": "refused", "reason": told(problem)}
        return {"state": "applied" if changed else "not set", "reason": None}

    def _keep(self, changed: Changed | None) -> None:
        own = self._journal()
        if own.names != changed:
            own.names = changed
            journal.write(self._account, own)
