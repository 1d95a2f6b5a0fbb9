"""Who is let into a virtual hub (protocol section 8.3; docs/protocol.md, "Joining by a link").

First the place (hub, source address), then the proof, then what the user may. Unknown users and wrong proofs look the
same and take the same time; what a user may is told only to who has proven to be that user. The true reason goes to the
log only.
"""

import asyncio
import hmac
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from ukihashi.auth import certificate
from ukihashi.auth.certificate import Shown, Trust, Wanted
from ukihashi.auth.names import name_key
from ukihashi.auth.password import check_secure_password, hash_password
from ukihashi.auth.token import Redeemed, redeem, token_digest
from ukihashi.errors import Refused, UkihashiError
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.messages import LOGIN_DEADLINE, LoginAnswered, LoginAsked, PasswordAsked
from ukihashi.hub.storage import Storage
from ukihashi.hub.throttle import Throttle
from ukihashi.store import authorities, hubs, invites, rules, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.store.rules import SourceRule
from ukihashi.store.users import User
from ukihashi.wire.constants import AuthType, Code
from ukihashi.wire.policy import ADMINISTRATOR, DEFAULT, Policy

A = TypeVar("A", LoginAsked, PasswordAsked)

MAX_DELAYED: Final = 256  # throttled logins that wait at once; more are told that the hub is busy
HASH_SIZE: Final = 20
ADMINISTRATOR_NAME: Final = "administrator"  # of a hub; no user's

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a login is as: a user of the hub, or its administrator. Nobody: no proof is right."""

    name: str
    user: User | None = None
    sha0: bytes = b""
    argon2: str = ""
    wanted: Wanted = Wanted()  # noqa: RUF009 - frozen
    group: str = ""
    policy: Policy = DEFAULT
    exists: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer, and why, in a word for the log."""

    code: int
    reason: str = ""
    hub: Hub | None = None
    subject: Subject | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of hub and user, read at once."""

    hub: Hub | None = None
    subject: Subject = Subject("", exists=False)
    sources: Sequence[SourceRule] = ()
    trust: Trust = Trust()  # noqa: RUF009 - frozen


class Logins:
    """Answers `LoginAsked` and `PasswordAsked`."""

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
        verdict = await self._judge(asked, self._decide)
        hub, subject = verdict.hub, verdict.subject
        if verdict.code == Code.NONE and hub and subject:
            return LoginAnswered(
                asked.ask,
                hub=hub.name,
                user=subject.name,
                group=subject.group,
                policy=subject.policy,
                max_sessions=hub.max_sessions,
            )
        _log.warning(
            "login_refused",
            hub=asked.hub,
            user=asked.user,
            peer=asked.peer,
            client=asked.client,
            code=int(verdict.code),
            reason=verdict.reason,
        )
        return LoginAnswered(
            asked.ask,
            error=int(verdict.code),
            no_save_password=subject is not None and subject.policy.no_save_password,
        )

    async def change_password(self, asked: PasswordAsked) -> LoginAnswered:
        """A member's own new password (section 17): taken, or refused with 8, 52, 68, 69 or 109."""
        verdict = await self._judge(asked, self._decide_change)
        told = {"hub": asked.hub, "user": asked.user, "peer": asked.peer}
        if verdict.code:
            _log.warning("password_refused", code=int(verdict.code), reason=verdict.reason, **told)
        else:
            _log.info("password_set", by="member", **told)
        return LoginAnswered(asked.ask, error=int(verdict.code))

    async def _judge(self, asked: A, decide: Callable[[A], Awaitable[Verdict]]) -> Verdict:
        """Decide in time, and hold guessers back."""
        peer, user_key = _address(asked.peer), name_key(asked.user)
        try:
            async with asyncio.timeout(LOGIN_DEADLINE - 1):
                if not await self._wait(peer, user_key):
                    return Verdict(Code.HUB_IS_BUSY, "too many guesses")
                verdict = await decide(asked)
        except TimeoutError:
            return Verdict(Code.HUB_IS_BUSY, "not decided in time")
        except Refused as refused:
            return Verdict(refused.code or Code.INTERNAL_ERROR, str(refused))
        except UkihashiError as error:
            return Verdict(Code.INTERNAL_ERROR, str(error))
        if verdict.code == Code.NONE:
            self._throttle.succeeded(peer, user_key)
        elif verdict.code in (Code.AUTH_FAILED, Code.OLD_PASSWORD_WRONG):
            self._throttle.failed(peer, user_key, self._monotonic())
        return verdict

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

    # -- logins ---------------------------------------------------------------------------------------------------

    async def _decide(self, asked: LoginAsked) -> Verdict:
        with_trust = asked.authtype == AuthType.CERTIFICATE
        known = await self._storage.read(_look_up, asked.hub, asked.user, with_trust=with_trust)
        hub, subject = known.hub, known.subject
        if hub is None:
            return Verdict(Code.HUB_NOT_FOUND, "no such hub")
        if not hub.online:
            return Verdict(Code.HUB_STOPPING, "hub is offline")
        if denied := _denied(known.sources, asked.peer):
            return Verdict(Code.IP_ADDRESS_DENIED, denied)
        if subject.user is None or not subject.user.anonymous:
            code, reason = await self._prove(asked, hub, known)
            if code:
                return Verdict(code, reason)
        code, reason = self._may(subject)
        return Verdict(code, reason, hub, subject)

    async def _prove(self, asked: LoginAsked, hub: Hub, known: Known) -> tuple[int, str]:
        subject = known.subject
        if asked.invite_token:
            return await self._storage.change(_redeem, asked, hub, subject.user, self._clock())
        match asked.authtype:
            case AuthType.PASSWORD_HASH:
                wrong = self._check_hash(asked, subject)
            case AuthType.PLAIN_PASSWORD:
                wrong = await self._check_plain(asked, subject)
            case AuthType.CERTIFICATE:
                shown = Shown(asked.certificate, asked.signature, asked.challenge)
                wrong = certificate.refusal(shown, subject.wanted, known.trust, self._clock())
            case AuthType.ANONYMOUS:
                wrong = "no password was given"
            case _:
                return Code.AUTHTYPE_NOT_SUPPORTED, f"kind of login {asked.authtype}"
        if not subject.exists:
            return Code.AUTH_FAILED, "no such user"
        return (Code.AUTH_FAILED, wrong) if wrong else (Code.NONE, "")

    def _check_hash(self, asked: LoginAsked, subject: Subject) -> str:
        right = check_secure_password(subject.sha0 or self._nobody, asked.challenge, asked.secure_password)
        if not subject.sha0:
            return _no_hash(subject)
        return "" if right else "wrong password"

    async def _check_plain(self, asked: LoginAsked, subject: Subject) -> str:
        chosen = await self._hasher.check(subject.argon2, asked.plain_password)
        given = _hashed(subject.name, asked.plain_password)
        kept = hmac.compare_digest(subject.sha0 or self._nobody, given)
        return "" if chosen or kept else "wrong password"

    def _may(self, subject: Subject) -> tuple[int, str]:
        """Whether one who has proven to be that user may enter now; what the hub has room for is the worker's."""
        now, user = self._clock(), subject.user
        if subject.sha0 and hmac.compare_digest(subject.sha0, _hashed(subject.name, "")):
            return Code.NULL_PASSWORD_LOCAL_ONLY, "the password is empty"
        if not subject.policy.access:
            return Code.ACCESS_DENIED, "the policy forbids logins"
        if user is not None and user.expired(now):
            return Code.ACCESS_DENIED, "the user has expired"
        if user is not None and user.spent(now):
            return Code.ACCESS_DENIED, "the user's quota of this period is used up"
        return Code.NONE, ""

    # -- a member's new password ----------------------------------------------------------------------------------

    async def _decide_change(self, asked: PasswordAsked) -> Verdict:
        known = await self._storage.read(_look_up, asked.hub, asked.user)
        subject, user = known.subject, known.subject.user
        right = check_secure_password(subject.sha0 or self._nobody, asked.challenge, asked.secure_old)
        if known.hub is None:
            return Verdict(Code.HUB_NOT_FOUND, "no such hub")
        if denied := _denied(known.sources, asked.peer):
            return Verdict(Code.IP_ADDRESS_DENIED, denied)
        if len(asked.new_hash) != HASH_SIZE:
            return Verdict(Code.PROTOCOL_ERROR, "a hash of the wrong length")
        if user is not None and user.kind != "password":
            return Verdict(Code.NOT_A_PASSWORD_USER, "the user has no password")
        if user is not None and user.argon2 and not user.sha0:
            return Verdict(Code.NOT_ENOUGH_RIGHT, "no standard hash is kept of this user, so none is taken (D10)")
        if user is None or not right:
            return Verdict(Code.OLD_PASSWORD_WRONG, "no such user" if user is None else "the old password is wrong")
        if subject.policy.fix_password:
            return Verdict(Code.NOT_ENOUGH_RIGHT, "the policy forbids it")
        if hmac.compare_digest(asked.new_hash, _hashed(user.name, "")):
            return Verdict(Code.NOT_ENOUGH_RIGHT, "the new password is empty")
        if not await self._storage.change(users.replace_hash, user, asked.new_hash, self._clock()):
            return Verdict(Code.OLD_PASSWORD_WRONG, "another has changed it meanwhile")
        return Verdict(Code.NONE)


def _look_up(db: Database, hub_name: str, user_name: str, *, with_trust: bool = False) -> Known:
    hub = hubs.find(db, hub_name)
    if hub is None:
        return Known()
    user = users.find(db, hub, user_name)
    trust = Trust()
    if with_trust:
        trust = Trust(
            [one.certificate for one in authorities.all_authorities(db, hub)],
            frozenset(one.serial for one in authorities.all_revoked(db, hub)),
        )
    return Known(hub, _subject(hub, user, user_name), rules.sources(db, hub), trust)


def _subject(hub: Hub, user: User | None, name: str) -> Subject:
    if hub.login_hash and name_key(name) == ADMINISTRATOR_NAME:
        return Subject(ADMINISTRATOR_NAME, sha0=hub.login_hash, policy=ADMINISTRATOR)
    if user is None:
        return Subject(name, exists=False)
    return Subject(
        user.name,
        user=user,
        sha0=user.sha0,
        argon2=user.argon2,
        wanted=Wanted(user.certificate, user.kind == "issued", user.common_name, user.serial),
        group=user.group,
        policy=user.effective_policy,
    )


def _denied(sources: Sequence[SourceRule], peer: str) -> str:
    """Why a hub's source rules refuse this address; "" if they don't. The first that matches decides."""
    if not sources:
        return ""
    try:
        address = ipaddress.ip_address(_address(peer).strip("[]").partition("%")[0])
    except ValueError:
        return "the peer's address is not known"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    for rule in sources:
        if address in ipaddress.ip_network(rule.network):
            return f"source rule {rule.id} ({rule.network})" if rule.deny else ""
    return ""


def _redeem(db: Database, asked: LoginAsked, hub: Hub, user: User | None, now: float) -> tuple[int, str]:
    """Spend the token of a join link for the password that the card made; see `auth.token.redeem`."""
    if len(asked.invite_hash) != HASH_SIZE or asked.authtype != AuthType.PASSWORD_HASH:
        return Code.PROTOCOL_ERROR, "a join without a password of its own"
    if not check_secure_password(asked.invite_hash, asked.challenge, asked.secure_password):
        return Code.AUTH_FAILED, "the join's password and its hash differ"
    found = invites.find(db, user, token_digest(asked.invite_token)) if user else None
    if user is None or found is None:
        return Code.AUTH_FAILED, "no such join link for this user"
    if user.kind != "password":
        return Code.AUTH_FAILED, "the user has no password any more for which a join link is good"
    invite_id, invite = found
    outcome = redeem(invite, asked.invite_hash, user.sha0, now)
    if outcome is Redeemed.FIRST:
        users.set_standard_hash(db, user, asked.invite_hash)
        invites.mark_used(db, invite_id, asked.invite_hash, now)
        _log.info("invite_used", hub=hub.name, user=user.name, invite=invite_id, peer=asked.peer)
    elif outcome is not Redeemed.AGAIN:
        return Code.AUTH_FAILED, f"join link {invite_id} is {outcome.value}"
    return Code.NONE, ""


def _no_hash(subject: Subject) -> str:
    if subject.user is not None and subject.user.kind != "password":
        return "the user logs in by certificate"
    if subject.argon2:
        return "chosen password: this client must use plain password login, or the user needs a standard hash"
    return "no password was set; the join link was not used yet"


def _hashed(user: str, password: str) -> bytes:
    try:
        return hash_password(user, password)
    except UnicodeEncodeError:
        return b""


def _address(peer: str) -> str:
    return peer.rpartition(":")[0] or peer
