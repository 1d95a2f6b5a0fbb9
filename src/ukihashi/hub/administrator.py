"""The hub's administrator: a one-time secret at the first start, then a password of their own choice (D10)."""

import secrets
import time
from collections.abc import Callable
from typing import Final

import structlog

from ukihashi.auth import token
from ukihashi.errors import N_, Refused, UsageError
from ukihashi.hub.backstage import check_length
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import admin
from ukihashi.wire.constants import Code

MIN_PASSWORD: Final = 12  # characters

_log = structlog.get_logger()


class Administrator:
    """The verbs about the administrator's own secret."""

    def __init__(self, storage: Storage, hasher: Hasher, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._hasher = hasher
        self._clock = clock

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "admin_check": self.admin_check,
            "admin_set_password": self.admin_set_password,
            "admin_reset": self.admin_reset,
        }

    async def first_secret(self) -> str:
        """Make the one-time secret if there is none yet; "" otherwise."""
        return "" if await self._storage.read(admin.get) else await self._new_secret()

    async def admin_check(self, secret: str) -> list[Row]:
        """Whether this is the administrator's password or one-time secret."""
        stored = await self._storage.read(admin.get)
        if not await self._hasher.check(stored.argon2 if stored else "", secret) or stored is None:
            _log.warning("admin_refused", by=asker.get())
            raise Refused(N_("the administrator's password is wrong"), code=Code.ACCESS_DENIED)
        return [{"one_time": stored.one_time}]

    async def admin_set_password(self, old: str, new: str) -> list[Row]:
        """Put a chosen password in the place of the present one or of the one-time secret."""
        await self.admin_check(old)
        check_length(new, MIN_PASSWORD)
        if new == old:
            raise UsageError(N_("the new password is the old one"))
        argon2 = await self._hasher.make(new)
        await self._storage.change(admin.put, argon2, one_time=False, now=self._clock())
        _log.info("admin_password_set", by=asker.get())
        return [{"one_time": False}]

    async def admin_reset(self) -> list[Row]:
        """A new one-time secret in the place of the administrator's password; only for who may use the socket."""
        secret = await self._new_secret()
        _log.info("admin_secret_reset", by=asker.get())
        return [{"secret": secret, "one_time": True}]

    async def _new_secret(self) -> str:
        secret = token.make_password(secrets.token_bytes(token.PASSWORD_BYTES))
        argon2 = await self._hasher.make(secret)
        await self._storage.change(admin.put, argon2, one_time=True, now=self._clock())
        return secret
