"""Virtual hubs and users taken over from a standard server's configuration (`config.vpn_server` reads it).

A hub comes whole or not at all; what can't come is told. Passwords stay valid: the server kept the hash that official
clients answer to, and so do we from now on (D10: an administrator asks for it by importing).
"""

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import structlog

from ukihashi.auth.names import check_user_name
from ukihashi.auth.password import hash_password
from ukihashi.config.vpn_server import GroupPlan, HubPlan, Left, UserPlan
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.hub.desk import Desk
from ukihashi.hub.filters import checked_rule
from ukihashi.hub.people import checked_user_name
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import authorities, groups, hubs, rules, users
from ukihashi.store.address_settings import SILENT
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub

MAX_USERS: Final = 1000  # of one request; more come in further ones

_log = structlog.get_logger()


class Importer:
    """The verbs about taking over."""

    def __init__(self, storage: Storage, desk: Desk, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._desk = desk
        self._clock = clock

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {"import_hub": self.import_hub, "import_users": self.import_users}

    async def import_hub(self, plan: dict[str, Any]) -> list[Row]:
        """Make a virtual hub as `plan` (a `HubPlan` as plain values) says; its users too, if they are in it."""
        wanted = _converted(plan, HubPlan)
        (made,) = await self._desk.create(wanted.name, offline=True)
        try:
            left = await self._storage.change(self._fill, wanted)
        except UkihashiError:
            await self._desk.delete(made["name"])
            raise
        hub = await self._storage.read(hubs.get, wanted.name)
        _log.info("hub_imported", hub=hub.name, users=len(wanted.users), groups=len(wanted.groups), by=asker.get())
        await self._desk.announce(hub)
        users_left = sum("name" in one.values for one in left)
        return [
            {
                "hub": hub.name,
                "users": len(wanted.users) - users_left,
                "groups": len(wanted.groups),
                "access": len(wanted.access) - (len(left) - users_left),
                "sources": len(wanted.sources),
                "authorities": len(wanted.authorities),
                "left": [msgspec.to_builtins(one) for one in left],
            }
        ]

    async def import_users(self, hub: str, plans: list[dict[str, Any]]) -> list[Row]:
        """More users for a hub that was imported."""
        if len(plans) > MAX_USERS:
            raise UsageError(N_("at most {limit} users come in one request"), limit=MAX_USERS)
        wanted = [_converted(one, UserPlan) for one in plans]
        left = await self._storage.change(self._add_users, hub, wanted)
        _log.info("users_imported", hub=hub, users=len(wanted) - len(left), by=asker.get())
        return [{"hub": hub, "users": len(wanted) - len(left), "left": [msgspec.to_builtins(one) for one in left]}]

    def _fill(self, db: Database, wanted: HubPlan) -> list[Left]:
        hub = hubs.get(db, wanted.name)
        hubs.put_settings(
            db,
            replace(
                hub,
                online=wanted.online,
                max_sessions=wanted.max_sessions,
                listed=wanted.listed,
                banner=wanted.banner,
                rules=wanted.rules,
            ),
        )
        hubs.put_addresses(db, replace(hub, addresses=SILENT))  # whoever did that for this hub goes on doing it
        if wanted.admin_hash and not hmac.compare_digest(wanted.login_hash, hash_password("administrator", "")):
            hubs.put_administrator(db, hub, admin_hash=wanted.admin_hash, login_hash=wanted.login_hash)
        for group in wanted.groups:
            _add_group(db, hub, group)
        left: list[Left] = []
        for rule in wanted.access:
            try:
                rules.put_access(db, hub, checked_rule(rule))
            except UsageError as error:
                values = {"hub": hub.name, "note": rule.note, "problem": str(error)}
                left.append(Left(N_("entry “{note}” of hub {hub}'s access list: {problem}"), values))
        for source in wanted.sources:
            rules.add_source(db, hub, priority=source.priority, network=source.network, deny=source.deny)
        for certificate in wanted.authorities:
            authorities.add(db, hub, certificate)
        return left + self._add_users(db, hub.name, wanted.users)

    def _add_users(self, db: Database, hub_name: str, wanted: Sequence[UserPlan]) -> list[Left]:
        hub = hubs.get(db, hub_name)
        left: list[Left] = []
        for user in wanted:
            try:
                self._add_user(db, hub, user)
            except UsageError as error:
                values = {"hub": hub.name, "name": user.name, "problem": str(error)}
                left.append(Left(N_("user {name} of hub {hub}: {problem}"), values))
        return left

    def _add_user(self, db: Database, hub: Hub, user: UserPlan) -> None:
        name = checked_user_name(user.name)
        sha0 = user.sha0
        if sha0 and hmac.compare_digest(sha0, hash_password(user.name, "")):
            raise UsageError(N_("this user has an empty password, which no hub of ours allows"))
        made = users.create(db, hub, name, sha0=sha0, note=user.note, now=self._clock())
        group = groups.find(db, hub, user.group) if user.group else None
        users.put(
            db,
            replace(
                made,
                group_id=group.id if group else 0,
                kind=user.kind,
                certificate=user.certificate,
                common_name=user.common_name,
                serial=user.serial,
                real_name=user.real_name,
                policy=user.policy,
                expires_at=user.expires_at,
            ),
            self._clock(),
        )


def _add_group(db: Database, hub: Hub, group: GroupPlan) -> None:
    groups.create(db, hub, check_user_name(group.name), real_name=group.real_name, note=group.note, policy=group.policy)


def _converted(plan: dict[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(plan, kind)
    except msgspec.ValidationError as error:
        raise UsageError(N_("this can't be imported: {problem}"), problem=error) from error
