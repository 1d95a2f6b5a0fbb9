"""The options of a running hub: hub.toml as it was read last, read again, changed (A11, D11).

Lives in the supervisor, which may read and write the file; a child that is started anew inherits what holds then.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ukihashi.config.edit import edit
from ukihashi.config.hub import HubConfig, load_hub
from ukihashi.config.option_texts import Effect
from ukihashi.config.options import Change, applied, changed, option, parse, rows
from ukihashi.errors import N_, UsageError
from ukihashi.net.congestion import check_congestion
from ukihashi.pki.ca import Identity, pin_text


class LiveOptions:
    """See the module. Whatever fails leaves everything as it was."""

    def __init__(self, path: Path, config: HubConfig, identity: Identity, identify: Callable[[], Identity]) -> None:
        """`identify` reads key and certificate again, from where they were at the start."""
        self._path = path
        self._identify = identify
        self.config = config
        self.identity = identity

    def rows(self) -> list[dict[str, Any]]:
        """Every option, as `config.options.rows`."""
        return rows("hub", self.config)

    def read_again(self) -> list[Change]:
        """Take what the file says now, and the certificate that lies there now.

        Raises: ConfigError, EnvironmentLacks: what can't be used; UsageError: the hub's key is another one.
        """
        config, identity = load_hub(self._path), self._identify()
        check_congestion(config.congestion)
        if identity.pin != self.identity.pin:
            raise UsageError(
                N_(
                    "the hub's key has changed, from {old} to {new}: cards and join links know the hub by it."
                    " Nothing was taken over; put the old key back, or start the hub anew to really change it"
                ),
                old=pin_text(self.identity.pin),
                new=pin_text(identity.pin),
            )
        changes = changed(self.config, config)
        self.config, self.identity = config, identity
        return changes

    def put(self, key: str, text: str) -> list[Change]:
        """Change one option, in the file too. Only what is heeded at once: a page may ask, and must not move files.

        Raises: UsageError, ConfigError: it can't be; EnvironmentLacks: not on this machine, or not written.
        """
        one = option("hub", key)
        if one.effect is not Effect.NOW:
            raise UsageError(
                N_("{key} can't be changed while the hub runs; write it into {path}, then: ukihashi hub upgrade"),
                key=key,
                path=self._path,
            )
        value = parse("hub", key, text)
        check_congestion(applied(self.config, {key: value}).congestion)
        config = edit(self._path, HubConfig, {key: value})
        changes = changed(self.config, config)
        self.config = config
        return changes
