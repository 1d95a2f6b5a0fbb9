"""What the families of calls have in common: a call's declaration, who may call it, what stands behind it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ukihashi.auth.names import name_key
from ukihashi.errors import Refused
from ukihashi.hub.backstage import Facts, Live
from ukihashi.hub.rpc.access import Access
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Row, Verbs
from ukihashi.store import hubs
from ukihashi.store.hubs import Hub
from ukihashi.wire.constants import Code, sentence
from ukihashi.wire.rpc import Struct, Values

Handler = Callable[["Caller", Values], Awaitable[Values]]


class Right(Enum):
    """Who may call."""

    WHOLE = "whole"  # the administrator of the whole only
    HUB = "hub"  # a virtual hub's administrator too, for that hub
    ANY = "any"  # everybody who was let in; the handler heeds the difference


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    hub: str  # whose administrator; "" = of the whole
    peer: str  # "address:port"

    def owns(self, hub: str) -> bool:
        """Whether this one may administrate that hub."""
        return not self.hub or name_key(self.hub) == name_key(hub)


@dataclass(frozen=True, slots=True)
class Method:
    """One call."""

    name: str
    takes: Struct
    gives: Struct
    handle: Handler
    right: Right = Right.HUB
    hub_field: str = "HubName"  # where a call with `Right.HUB` names its hub


@dataclass(frozen=True, slots=True)
class Backing:
    """What stands behind the calls."""

    facts: Facts
    storage: Storage
    live: Live
    verbs: Verbs
    access: Access
    clock: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)

    async def do(self, verb: str, /, **arguments: Any) -> list[Row]:
        """Ask a verb of the command line."""
        return await self.verbs.ask(verb, **arguments)

    async def hub(self, name: str) -> Hub:
        """The hub of that name. Raises: Refused: there is none."""
        found = await self.storage.read(hubs.find, name)
        if found is None:
            raise refused(Code.HUB_NOT_FOUND)
        return found


def refused(code: int) -> Refused:
    """A no with a code of section 11."""
    return Refused(sentence(code), code=code)


def not_ours(reason: str, **values: object) -> Refused:
    """Something that our hub does otherwise; `reason` is for the log."""
    return Refused(reason, code=int(Code.NOT_SUPPORTED), **values)
