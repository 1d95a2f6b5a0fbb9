"""What the verbs of a hub share: the facts of this start, the way to the other processes, how a hub is named."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from ukihashi.auth.names import name_key
from ukihashi.config.hub import Endpoint
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.hub.log_ring import LogRing
from ukihashi.hub.messages import Message
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Row
from ukihashi.store import hubs
from ukihashi.store.hubs import Hub

MAX_PASSWORD: Final = 256  # characters

_log = structlog.get_logger()


@dataclass(slots=True)
class Facts:
    """What the process was started with and tells on request; options change while it runs."""

    version: str
    endpoints: tuple[Endpoint, ...]
    pin: bytes  # 32 bytes
    public_address: str = ""  # as in hub.toml
    session_timeout_s: float = 20.0
    mac_ageing_s: float = 600.0
    host_ports: bool = True  # whether the supervisor may make interfaces (root)
    certificate: bytes = b""  # the hub's own, DER
    ciphers: tuple[str, ...] = ()  # cipher suites that are offered, the first liked best
    tls: str = ""  # the library that encrypts, with its version
    bridges: bool = False  # hub.toml joins Ethernets of this machine to virtual hubs
    uplinks: frozenset[str] = frozenset()  # virtual hubs whose members get out by this machine; by `name_key`
    log: LogRing = field(default_factory=LogRing)


class Live(Protocol):
    """The way to the other processes."""

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[Row]:
        """Rows of the worker's answer; UkihashiError when it doesn't answer."""

    async def tell_worker(self, message: Message) -> None:
        """Send a setting; silently nothing while there is no worker (it gets all when it comes)."""

    async def tell_supervisor(self, message: Message) -> None:
        """Send a message that has no answer."""

    async def wish(self, what: str, *, key: str = "", value: str = "") -> list[Row]:
        """Rows of the supervisor's answer; UkihashiError: its no."""


async def pick_hub(storage: Storage, name: str) -> Hub:
    """The hub of that name; the only one if the name is empty."""
    if name:
        return await storage.read(hubs.get, name)
    known = await storage.read(hubs.all_hubs)
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError(N_("there is no virtual hub yet; make one with: ukihashi hub create {name}"), name="LAN")
    names = ", ".join(one.name for one in known)
    raise UsageError(N_("there are several virtual hubs; name one of: {names}"), names=names)


async def end_sessions(live: Live, hub: Hub, names: Collection[str], reason: str) -> int:
    """End the sessions of these users; `reason` is for the log. How many there were."""
    keys = {name_key(name) for name in names}
    ended = 0
    try:
        for session in await live.ask_worker("sessions", hub=hub.name):
            if name_key(str(session.get("user", ""))) in keys:
                name = str(session.get("session", ""))
                ended += len(await live.ask_worker("disconnect", hub=hub.name, name=name, reason=reason))
    except UkihashiError as error:
        _log.warning("internal_error", reason=str(error))  # without a worker there are no sessions either
    return ended


def check_length(password: str, least: int) -> None:
    """Raise UsageError unless the length fits."""
    if not least <= len(password) <= MAX_PASSWORD:
        raise UsageError(
            N_("a password has {least} to {most} characters; this one has {length}"),
            least=least,
            most=MAX_PASSWORD,
            length=len(password),
        )
