"""Who may administrate with the tools of others: nobody, until an administrator allows it (D10).

The protocol of these tools needs an unsalted SHA-0 hash, which is as good as the password. So there is none until
`ukihashi hub admin tools --on` makes a password of 100 random bits, or somebody who is in already sets one by name.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ukihashi.auth import token
from ukihashi.auth.names import name_key
from ukihashi.auth.password import admin_hash, check_secure_password, hash_password
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.hub.messages import LOGIN_DEADLINE, AdminAsked, LoginAnswered
from ukihashi.hub.storage import Storage
from ukihashi.hub.throttle import Throttle
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import admin, hubs
from ukihashi.store.db import Database
from ukihashi.wire.constants import DIGEST_LENGTH, Code

ADMINISTRATOR: Final = "administrator"  # user name of a hub's own administrator (section 8.2)
EMPTY_HASH: Final = admin_hash("")
MAX_DELAYED: Final = 64  # throttled logins that wait at once; more are told that the hub is busy

_log = structlog.get_logger()


class Access:
    """Lets tools in, and the verbs that allow or forbid it."""

    def __init__(
        self,
        storage: Storage,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._monotonic = monotonic
        self._sleep = sleep
        self._throttle: Final = Throttle()
        self._delayed = 0
        self._nobody: Final = secrets.token_bytes(DIGEST_LENGTH)  # checked where nothing is stored

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {"tools": self.tools, "tools_on": self.tools_on, "tools_off": self.tools_off}

    # -- verbs ----------------------------------------------------------------------------------------------------

    async def tools(self) -> list[Row]:
        """For the whole and for each hub: whether tools are let in."""

        def read(db: Database) -> list[Row]:
            whole: list[Row] = [{"hub": "", "on": bool(admin.rpc_hash(db))}]
            return whole + [{"hub": hub.name, "on": bool(hub.admin_hash)} for hub in hubs.all_hubs(db)]

        return await self._storage.read(read)

    async def tools_on(self, hub: str = "") -> list[Row]:
        """Let tools in with a password that we make and tell in the row, this once; an older one is forgotten."""
        password = token.make_password(secrets.token_bytes(token.PASSWORD_BYTES))
        return [await self._put(hub, password) | {"password": password}]

    async def tools_off(self, hub: str = "") -> list[Row]:
        """Let no tool in any more."""
        return [await self._put(hub, "")]

    async def _put(self, hub: str, password: str) -> Row:
        hashed = admin_hash(password) if password else b""

        def put(db: Database) -> str:
            if not hub:
                admin.put_rpc_hash(db, hashed)
                return ""
            found = hubs.get(db, hub)
            login = hash_password(ADMINISTRATOR, password) if password else b""
            hubs.put_administrator(db, found, admin_hash=hashed, login_hash=login)
            return found.name

        name = await self._storage.change(put)
        _log.info("tools_allowed" if password else "tools_forbidden", hub=name, by=asker.get())
        return {"hub": name, "on": bool(password)}

    async def set_password(self, hashed: bytes) -> None:
        """Another password for tools, given as its hash by one who is in already. Raises: UsageError: an empty one."""
        if len(hashed) != DIGEST_LENGTH or not any(hashed) or hmac.compare_digest(hashed, EMPTY_HASH):
            raise UsageError(
                N_("the password for tools can't be empty; to forbid tools: ukihashi hub admin tools --off")
            )
        await self._storage.change(admin.put_rpc_hash, hashed)
        _log.info("tools_allowed", hub="", by=asker.get())

    # -- letting in -----------------------------------------------------------------------------------------------

    async def admin_login(self, asked: AdminAsked) -> LoginAnswered:
        """Let in or refuse, always, before `LOGIN_DEADLINE`; never raises for what a peer sent."""

        def fits(stored: bytes) -> bool:
            return check_secure_password(stored, asked.challenge, asked.secure_password)

        code = await self._let_in(asked.hub, asked.peer, fits, asked.client)
        if code == Code.NONE:
            _log.info("tool_let_in", hub=asked.hub, peer=asked.peer, client=asked.client)
        return LoginAnswered(asked.ask, error=code, hub=asked.hub)

    async def is_allowed(self, hub: str) -> bool:
        """Whether tools are still allowed for that hub ("" = the whole): one that was let in may stay."""
        return bool((await self._storage.read(_stored, hub))[1])

    async def password_login(self, hub: str, password: str, peer: str) -> int:
        """As `admin_login`, by the password itself: 0, or the error's code."""
        try:
            given = admin_hash(password)
        except UnicodeEncodeError:
            given = b""
        return await self._let_in(hub, peer, lambda stored: hmac.compare_digest(stored, given), "JSON")

    async def _let_in(self, hub: str, peer: str, fits: Callable[[bytes], bool], client: str) -> int:
        address, key = peer.rpartition(":")[0] or peer, "tool:" + name_key(hub)
        try:
            async with asyncio.timeout(LOGIN_DEADLINE - 1):
                code, reason = await self._decide(hub, address, key, fits)
        except TimeoutError:
            code, reason = Code.HUB_IS_BUSY, "not decided in time"
        except UkihashiError as error:
            code, reason = Code.INTERNAL_ERROR, str(error)
        if code == Code.NONE:
            self._throttle.succeeded(address, key)
        else:
            _log.warning("tool_refused", hub=hub, peer=peer, client=client, code=int(code), reason=reason)
        return int(code)

    async def _decide(self, hub: str, address: str, key: str, fits: Callable[[bytes], bool]) -> tuple[Code, str]:
        if not await self._wait(address, key):
            return Code.HUB_IS_BUSY, "too many guesses"
        known, stored = await self._storage.read(_stored, hub)
        right = fits(stored or self._nobody)
        if not known:
            return Code.HUB_NOT_FOUND, "no such hub"
        if right and stored:
            return Code.NONE, ""
        self._throttle.failed(address, key, self._monotonic())
        return Code.ACCESS_DENIED, "wrong password" if stored else "tools are not allowed here"

    async def _wait(self, address: str, key: str) -> bool:
        """Hold a guesser back; False when too many are held back already."""
        delay = self._throttle.delay(address, key, self._monotonic())
        if not delay:
            return True
        if self._delayed >= MAX_DELAYED:
            return False
        _log.warning("login_delayed", peer=address, user=key, seconds=delay)
        self._delayed += 1
        try:
            await self._sleep(delay)
        finally:
            self._delayed -= 1
        return True


def _stored(db: Database, hub: str) -> tuple[bool, bytes]:
    """Whether there is such a hub (or the whole is meant), and the hash of the tools' password, b"" = none."""
    if not hub:
        return True, admin.rpc_hash(db)
    found = hubs.find(db, hub)
    return (found is not None), (found.admin_hash if found else b"")
