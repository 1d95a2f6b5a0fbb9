"""Reading an account again while its card is up: what differs, and what that means."""

from typing import Any, Final, NamedTuple

import msgspec

from ukihashi.card import account
from ukihashi.config import options
from ukihashi.config.card import CardConfig
from ukihashi.config.option_texts import Effect

SETTLED: Final = frozenset(  # by a login: settings or sections
    {"hub.hub", "hub.user", "login", "trust", "interface.offload", "interface.bridge"}
)


class Reloaded(NamedTuple):
    """What the file says now."""

    config: CardConfig  # to go by; what is heeded at the next start is as before
    rows: list[dict[str, Any]]  # option, old, new, effect; secrets without their values
    fresh_login: bool  # the next connection is not to go on with the session


def reload(name: str, old: CardConfig) -> Reloaded:
    """Read the account `name`, which runs as `old`. Raises: ConfigError, UsageError: it can't be used."""
    changes = options.changed(old, account.read(name))
    later = {change.key for change in changes if change.effect is Effect.NEXT_START}
    config = options.applied(old, {change.key: change.new for change in changes if change.key not in later})
    rows = []
    for change in changes:
        secret = options.option("card", change.key).secret
        rows.append(
            {
                "option": change.key,
                "old": None if secret else msgspec.to_builtins(change.old),
                "new": None if secret else msgspec.to_builtins(change.new),
                "effect": str(change.effect),
            }
        )
    settled = any({change.key, change.key.partition(".")[0]} & SETTLED for change in changes)
    return Reloaded(config, rows, settled)
