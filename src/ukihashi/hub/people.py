"""Users and join links: the part of the hub's verbs that is about people (D10, D18)."""

import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Unpack

import structlog

from ukihashi.auth import token
from ukihashi.auth.link import VIA_BYTES, VIA_MAX, Link
from ukihashi.auth.names import check_user_name, name_key
from ukihashi.auth.password import hash_password
from ukihashi.config.hub import parse_public
from ukihashi.errors import N_, UsageError
from ukihashi.hub.addresses import FIRST_NUMBER, LAST_NUMBER, addresses
from ukihashi.hub.backstage import Facts, Live, check_length, end_sessions, pick_hub
from ukihashi.hub.changes import PROOFS, UserFields, changed_user
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.logins import ADMINISTRATOR_NAME
from ukihashi.hub.rows import barred, user_details, user_row
from ukihashi.hub.storage import Storage
from ukihashi.net import host
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.net.dial.via import DIRECT, parse
from ukihashi.store import hubs, invites, leases, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.store.users import User

MIN_PASSWORD: Final = 8  # characters of a chosen password
MAX_DAYS: Final = 3650.0
FORGET_DAYS: Final = 30.0  # links that ended so long ago leave the list

_log = structlog.get_logger()


class People:
    """The verbs about users and join links."""

    def __init__(
        self, facts: Facts, storage: Storage, hasher: Hasher, live: Live, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._facts = facts
        self._storage = storage
        self._hasher = hasher
        self._live = live
        self._clock = clock

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "users": self.users,
            "user_create": self.user_create,
            "user_show": self.user_show,
            "user_set": self.user_set,
            "user_password": self.user_password,
            "user_delete": self.user_delete,
            "invite": self.invite,
            "invites": self.invites,
            "invite_revoke": self.invite_revoke,
        }

    # -- users ----------------------------------------------------------------------------------------------------

    async def users(self, hub: str = "") -> list[Row]:
        """Users of one hub; of all hubs if none is named."""
        named = [await self._pick(hub)] if hub else await self._storage.read(hubs.all_hubs)
        now = self._clock()
        return [user_row(one, user, now) for one in named for user in await self._storage.read(users.all_users, one)]

    async def user_create(
        self,
        name: str,
        *,
        hub: str = "",
        anonymous: bool = False,
        password: str = "",
        standard_hash: bool = False,
        **fields: Unpack[UserFields],
    ) -> list[Row]:
        """Make a user. Without any proof a password is generated and told in the row, this once."""
        home = await self._pick(hub)
        name = checked_user_name(name)
        if anonymous:
            fields.setdefault("kind", "anonymous")
        proven = bool(PROOFS & fields.keys())
        if proven and (password or standard_hash):
            raise UsageError(N_("this user logs in otherwise than by password; leave one of the two out"))
        forms = _Forms() if proven else await self._forms(name, password, standard_hash)
        now = self._clock()

        def make(db: Database) -> User:
            user = users.create(db, home, name, sha0=forms.sha0, argon2=forms.argon2, now=now)
            users.put(db, changed_user(db, home, user, fields, now), now)
            return users.get(db, home, name)

        user = await self._storage.change(make)
        _log.info("user_created", hub=home.name, user=user.name, login=user.login, by=asker.get())
        return [user_row(home, user, now) | ({"password": forms.told} if forms.told else {})]

    async def user_set(self, name: str, hub: str = "", **fields: Unpack[UserFields]) -> list[Row]:
        """Change what is named. Who may no longer enter is put out; other sessions keep the policy they began with."""
        home = await self._pick(hub)
        now = self._clock()

        def put(db: Database) -> User:
            user = users.get(db, home, name)
            users.put(db, changed_user(db, home, user, fields, now), now)
            return users.get(db, home, name)

        user = await self._storage.change(put)
        _log.info("user_changed", hub=home.name, user=user.name, changed=sorted(fields), by=asker.get())
        if why := barred(user, now):
            await end_sessions(self._live, home, [user.name], f"the user may not enter: {why}")
        return [user_details(home, user, now)]

    async def user_show(self, name: str, hub: str = "") -> list[Row]:
        """One user."""
        home = await self._pick(hub)
        return [user_details(home, await self._storage.read(users.get, home, name), self._clock())]

    async def user_password(
        self, name: str, hub: str = "", password: str = "", standard_hash: bool = False
    ) -> list[Row]:
        """Replace a user's password; without `password` one is generated and told in the row, this once."""
        home = await self._pick(hub)
        user = await self._storage.read(users.get, home, name)
        forms = await self._forms(user.name, password, standard_hash)
        await self._storage.change(users.set_password, user, sha0=forms.sha0, argon2=forms.argon2)
        _log.info("password_set", hub=home.name, user=user.name, by=asker.get())
        user = await self._storage.read(users.get, home, name)
        return [user_row(home, user, self._clock()) | ({"password": forms.told} if forms.told else {})]

    async def user_delete(self, name: str, hub: str = "") -> list[Row]:
        """Delete a user; running sessions of that user end."""
        home = await self._pick(hub)
        user = await self._storage.read(users.get, home, name)
        await self._storage.change(users.delete, user)
        _log.info("user_deleted", hub=home.name, user=user.name, by=asker.get())
        await end_sessions(self._live, home, [user.name], "the user was deleted")
        return [user_row(home, user, self._clock())]

    async def _forms(self, user: str, password: str, standard_hash: bool) -> "_Forms":
        if not password:
            password = token.make_password(secrets.token_bytes(token.PASSWORD_BYTES))
            return _Forms(sha0=hash_password(user, password), told=password)
        check_length(password, MIN_PASSWORD)
        return _Forms(
            sha0=hash_password(user, password) if standard_hash else b"", argon2=await self._hasher.make(password)
        )

    # -- join links -----------------------------------------------------------------------------------------------

    async def invite(
        self,
        user: str,
        hub: str = "",
        host_name: str = "",
        days: float = token.INVITE_DAYS,
        via: Sequence[str] = (),
    ) -> list[Row]:
        """A new join link for a user, who is made if absent and keeps the addresses once assigned.

        `via`: paths that the card may try besides the direct one, the best first.
        """
        paths = _paths(via)
        if not 0 < days <= MAX_DAYS:
            raise UsageError(N_("a link lives more than 0 and at most {limit:g} days"), limit=MAX_DAYS)
        home = await self._pick(hub)
        name = checked_user_name(user)
        where = await self._where(host_name)
        secret = token.make_token(secrets.token_bytes(token.TOKEN_BYTES))
        now = self._clock()

        def make(db: Database) -> tuple[User, int, int]:
            invites.forget_old(db, now - FORGET_DAYS * 86_400)
            guest = users.find(db, home, name) or users.create(db, home, name, now=now)
            if guest.kind != "password":
                raise UsageError(
                    N_("user “{name}” does not log in by password, so a join link has nothing to give; set one first"),
                    name=guest.name,
                )
            taken = leases.taken_numbers(db, home.id, now)
            number = users.assign_number(db, guest, first=FIRST_NUMBER, last=LAST_NUMBER, without=taken)
            digest = token.token_digest(secret)
            return guest, number, invites.create(db, guest, digest, now=now, expires_at=now + days * 86_400)

        guest, number, invite_id = await self._storage.change(make)
        link = Link(
            host=where[0],
            port=where[1],
            hub=home.name,
            user=guest.name,
            token=secret,
            pin=self._facts.pin,
            addresses=addresses(home, number),
            via=paths,
        ).text()
        _log.info("invite_made", hub=home.name, user=guest.name, invite=invite_id, by=asker.get())
        return [
            {
                "id": invite_id,
                "hub": home.name,
                "user": guest.name,
                "link": link,
                "command": f"ukihashi card join {shlex.quote(link)}",
                "addresses": list(addresses(home, number)),
                "expires_at": now + days * 86_400,
            }
        ]

    async def invites(self, hub: str = "") -> list[Row]:
        """Join links and what became of them."""
        home = await self._pick(hub) if hub else None
        now = self._clock()
        return [
            {
                "id": row.id,
                "hub": row.hub,
                "user": row.user,
                "state": row.state(now),
                "created_at": row.created_at,
                "expires_at": row.expires_at,
                "used_at": row.used_at or None,
            }
            for row in await self._storage.read(invites.all_invites, home)
        ]

    async def invite_revoke(self, invite: int) -> list[Row]:
        """Make a join link useless."""
        if not await self._storage.change(invites.revoke, invite, self._clock()):
            raise UsageError(N_("there is no join link number {number}"), number=invite)
        _log.info("invite_revoked", invite=invite, by=asker.get())
        return [{"id": invite, "state": "revoked"}]

    async def _where(self, given: str) -> tuple[str, int]:
        """Host and port for a link: what was given, else the configured address, else what this machine looks like."""
        port = self._facts.endpoints[0].port
        if given or self._facts.public_address:
            return parse_public(given or self._facts.public_address, port)
        for endpoint in self._facts.endpoints:
            if endpoint.address not in ("0.0.0.0", "::"):  # noqa: S104 - a comparison
                return endpoint
        own = {one.host_port for one in await self._storage.read(hubs.all_hubs)}
        return host.own_address(own), port

    async def _pick(self, name: str) -> Hub:
        return await pick_hub(self._storage, name)


def _paths(urls: Sequence[str]) -> tuple[str, ...]:
    """What goes into a link. Raises: UsageError."""
    paths = tuple(dict.fromkeys(str(one) for one in map(parse, urls) if one != DIRECT))
    if len(paths) > VIA_MAX or len("".join(paths).encode()) > VIA_BYTES:
        raise UsageError(
            N_("a link takes at most {most} paths, of {bytes} bytes together"),
            most=VIA_MAX,
            bytes=VIA_BYTES,
        )
    return paths


def checked_user_name(name: str) -> str:
    """A name that a user may have, in its one spelling. Raises: UsageError."""
    name = check_user_name(name)
    if name_key(name) == ADMINISTRATOR_NAME:
        raise UsageError(N_("“{name}” is the hub's own administrator; give the user another name"), name=name)
    return name


@dataclass(frozen=True, slots=True)
class _Forms:
    """A password's stored forms, and the password itself where we made it."""

    sha0: bytes = b""
    argon2: str = ""
    told: str = ""
