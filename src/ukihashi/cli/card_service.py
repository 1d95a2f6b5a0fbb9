"""A card under a service manager, which is told when it serves, how it stands, and that it turns."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from ukihashi.card.status import Standing, State
from ukihashi.cli.card_status import state_word
from ukihashi.errors import UkihashiError
from ukihashi.locale import _, say
from ukihashi.ops.notify import Notifier

if TYPE_CHECKING:
    from ukihashi.card.dialler import Card

ROUNDS: Final = 4  # of looks within the time that the manager allows


class ToldStanding(Standing):
    """A card's standing, of which the manager is told."""

    def __init__(self, notifier: Notifier) -> None:
        super().__init__()
        self._notifier = notifier

    def become(self, state: State, reason: UkihashiError | None = None) -> None:
        """See `Standing`."""
        super().become(state, reason)
        if state is State.LEAVING:
            self._notifier.stopping()
        else:
            self._notifier.status(self.line())

    def line(self) -> str:
        """How it stands, and why."""
        return state_word(self.state) + (f": {say(self.reason)}" if self.reason is not None else "")

    def first(self, error: UkihashiError | None, *, keep_trying: bool) -> None:
        """The first try has come to this."""
        if error is None:
            self._notifier.ready(self.line())
        elif keep_trying:
            self._notifier.ready(_("not online yet: {reason}").format(reason=say(error)))


async def run_card(card: "Card", notifier: Notifier) -> None:
    """`card.run()`, and the manager's watchdog is fed while both of its processes turn."""
    feeding = asyncio.create_task(_feed(card, notifier))
    try:
        await card.run()
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding


async def _feed(card: "Card", notifier: Notifier) -> None:
    while notifier.watchdog_s is not None:
        if await card.turns():
            notifier.alive()
        await asyncio.sleep(notifier.watchdog_s / ROUNDS)
