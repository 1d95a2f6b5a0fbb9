"""Who is let into a virtual hub (protocol section 8.3; docs/protocol.md, "Joining by a link").

Unknown users and wrong passwords look the same and take the same time. The true reason goes to the log only.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from ukihashi.auth.names import name_key
from ukihashi.auth.password import check_secure_password, hash_password
from ukihashi.auth.token import Redeemed, redeem, token_digest
from ukihashi.errors import Refused, UkihashiError
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.messages import LOGIN_DEADLINE, LoginAnswered, LoginAsked
from ukihashi.hub.storage import Storage
from ukihashi.hub.throttle import Throttle
from ukihashi.store import hubs, invites, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.store.users import User
from ukihashi.wire.constants import AuthType, Code

MAX_DELAYED: Final = 256  # throttled logins that wait at once; more are told that the hub is busy
HASH_SIZE: Final = 20

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer, and why, in a word for the log."""

    code: int
    reason: str = ""
    hub: Hub | None = None
    user: User | None = None


class Logins:
    """Answers `LoginAsked`."""

    def __init__(
        self,
        storage: Storage,
        hasher: Hasher,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._hasher = hasher
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._throttle: Final = Throttle()
        self._delayed = 0
        self._nobody: Final = secrets.token_bytes(HASH_SIZE)  # checked in place of an unknown user's hash

    async def answer(self, asked: LoginAsked) -> LoginAnswered:
        """Let in or refuse, always, before `LOGIN_DEADLINE`; never raises for what a peer sent."""
        peer, user_key = _address(asked.peer), name_key(asked.user)
        try:
            async with asyncio.timeout(LOGIN_DEADLINE - 1):
                if not await self._wait(peer, user_key):
                    verdict = Verdict(Code.HUB_IS_BUSY, "too many guesses")
                else:
                    verdict = await self._decide(asked)
        except TimeoutError:
            verdict = Verdict(Code.HUB_IS_BUSY, "not decided in time")
        except Refused as refused:
            verdict = Verdict(refused.code or Code.INTERNAL_ERROR, str(refused))
        except UkihashiError as error:
            verdict = Verdict(Code.INTERNAL_ERROR, str(error))
        if verdict.code == Code.NONE and verdict.hub and verdict.user:
            self._throttle.succeeded(peer, user_key)
            return LoginAnswered(asked.ask, hub=verdict.hub.name, user=verdict.user.name)
        if verdict.code == Code.AUTH_FAILED:
            self._throttle.failed(peer, user_key, self._monotonic())
        _log.warning(
            "login_refused",
            hub=asked.hub,
            user=asked.user,
            peer=asked.peer,
            client=asked.client,
            code=int(verdict.code),
            reason=verdict.reason,
        )
        return LoginAnswered(asked.ask, error=int(verdict.code))

    async def _wait(self, peer: str, user_key: str) -> bool:
        """Hold a guesser back; False when too many are held back already."""
        delay = self._throttle.delay(peer, user_key, self._monotonic())
        if not delay:
            return True
        if self._delayed >= MAX_DELAYED:
            return False
        _log.warning("login_delayed", peer=peer, user=user_key, seconds=delay)
        self._delayed += 1
        try:
            await self._sleep(delay)
        finally:
            self._delayed -= 1
        return True

    async def _decide(self, asked: LoginAsked) -> Verdict:
        hub, user = await self._storage.read(_look_up, asked.hub, asked.user)
        if hub is None:
            return Verdict(Code.HUB_NOT_FOUND, "no such hub")
        if not hub.online:
            return Verdict(Code.HUB_STOPPING, "hub is offline", hub)
        if user is not None and user.anonymous:
            return Verdict(Code.NONE, hub=hub, user=user)
        if asked.invite_token:
            return await self._storage.change(_redeem, asked, hub, user, self._clock())
        if asked.authtype == AuthType.PASSWORD_HASH:
            return self._check_hash(asked, hub, user)
        if asked.authtype == AuthType.PLAIN_PASSWORD:
            return await self._check_plain(asked, hub, user)
        if asked.authtype == AuthType.ANONYMOUS:
            return Verdict(Code.AUTH_FAILED, "no password was given", hub)
        return Verdict(Code.AUTHTYPE_NOT_SUPPORTED, f"kind of login {asked.authtype}", hub)

    def _check_hash(self, asked: LoginAsked, hub: Hub, user: User | None) -> Verdict:
        stored = user.sha0 if user and user.sha0 else self._nobody
        right = check_secure_password(stored, asked.challenge, asked.secure_password)
        if user is None:
            return Verdict(Code.AUTH_FAILED, "no such user", hub)
        if not user.sha0:
            return Verdict(
                Code.AUTH_FAILED,
                "chosen password: this client must use plain password login, or the user needs a standard hash"
                if user.argon2
                else "no password was set; the join link was not used yet",
                hub,
            )
        return Verdict(Code.NONE, hub=hub, user=user) if right else Verdict(Code.AUTH_FAILED, "wrong password", hub)

    async def _check_plain(self, asked: LoginAsked, hub: Hub, user: User | None) -> Verdict:
        chosen = await self._hasher.check(user.argon2 if user else "", asked.plain_password)
        given = _hashed(user.name if user else asked.user, asked.plain_password)
        kept = hmac.compare_digest(user.sha0 if user and user.sha0 else self._nobody, given)
        if user is None:
            return Verdict(Code.AUTH_FAILED, "no such user", hub)
        if chosen or kept:
            return Verdict(Code.NONE, hub=hub, user=user)
        return Verdict(Code.AUTH_FAILED, "wrong password", hub)


def _look_up(db: Database, hub_name: str, user_name: str) -> tuple[Hub | None, User | None]:
    hub = hubs.find(db, hub_name)
    return hub, users.find(db, hub, user_name) if hub else None


def _redeem(db: Database, asked: LoginAsked, hub: Hub, user: User | None, now: float) -> Verdict:
    """Spend the token of a join link for the password that the card made; see `auth.token.redeem`."""
    if len(asked.invite_hash) != HASH_SIZE or asked.authtype != AuthType.PASSWORD_HASH:
        return Verdict(Code.PROTOCOL_ERROR, "a join without a password of its own", hub)
    if not check_secure_password(asked.invite_hash, asked.challenge, asked.secure_password):
        return Verdict(Code.AUTH_FAILED, "the join's password and its hash differ", hub)
    found = invites.find(db, user, token_digest(asked.invite_token)) if user else None
    if user is None or found is None:
        return Verdict(Code.AUTH_FAILED, "no such join link for this user", hub)
    invite_id, invite = found
    outcome = redeem(invite, asked.invite_hash, user.sha0, now)
    if outcome is Redeemed.FIRST:
        users.set_standard_hash(db, user, asked.invite_hash)
        invites.mark_used(db, invite_id, asked.invite_hash, now)
        _log.info("invite_used", hub=hub.name, user=user.name, invite=invite_id, peer=asked.peer)
    elif outcome is not Redeemed.AGAIN:
        return Verdict(Code.AUTH_FAILED, f"join link {invite_id} is {outcome.value}", hub)
    return Verdict(Code.NONE, hub=hub, user=user)


def _hashed(user: str, password: str) -> bytes:
    try:
        return hash_password(user, password)
    except UnicodeEncodeError:
        return b""


def _address(peer: str) -> str:
    return peer.rpartition(":")[0] or peer
