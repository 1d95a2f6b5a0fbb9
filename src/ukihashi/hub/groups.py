"""Groups: the hub's verbs about the policies that several users share."""

import time
from collections.abc import Callable
from typing import Unpack

import structlog

from ukihashi.auth.names import check_user_name
from ukihashi.hub.backstage import Live, end_sessions, pick_hub
from ukihashi.hub.changes import GroupFields, changed_group
from ukihashi.hub.rows import barred, group_row
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import groups, hubs, users
from ukihashi.store.db import Database
from ukihashi.store.groups import Group
from ukihashi.store.hubs import Hub

_log = structlog.get_logger()


class Groups:
    """The verbs about groups."""

    def __init__(self, storage: Storage, live: Live, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._live = live
        self._clock = clock

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "groups": self.groups,
            "group_show": self.group_show,
            "group_create": self.group_create,
            "group_set": self.group_set,
            "group_delete": self.group_delete,
        }

    async def groups(self, hub: str = "") -> list[Row]:
        """Groups of one hub; of all hubs if none is named."""
        named = [await pick_hub(self._storage, hub)] if hub else await self._storage.read(hubs.all_hubs)
        return [row for one in named for row in await self._storage.read(_rows, one)]

    async def group_show(self, name: str, hub: str = "") -> list[Row]:
        """One group."""
        home = await pick_hub(self._storage, hub)
        return await self._storage.read(_row, home, name)

    async def group_create(self, name: str, hub: str = "", **fields: Unpack[GroupFields]) -> list[Row]:
        """Make a group."""
        home = await pick_hub(self._storage, hub)
        name = check_user_name(name)

        def make(db: Database) -> list[Row]:
            groups.put(db, changed_group(groups.create(db, home, name), fields))
            return _row(db, home, name)

        rows = await self._storage.change(make)
        _log.info("group_created", hub=home.name, group=name, by=asker.get())
        return rows

    async def group_set(self, name: str, hub: str = "", **fields: Unpack[GroupFields]) -> list[Row]:
        """Change what is named. Members who may no longer enter are put out; other sessions keep their policy."""
        home = await pick_hub(self._storage, hub)

        def put(db: Database) -> tuple[list[Row], list[str]]:
            group = groups.get(db, home, name)
            groups.put(db, changed_group(group, fields))
            return _row(db, home, name), _barred_members(db, home, group, self._clock())

        rows, out = await self._storage.change(put)
        _log.info("group_changed", hub=home.name, group=rows[0]["name"], changed=sorted(fields), by=asker.get())
        if out:
            await end_sessions(self._live, home, out, "the group's policy forbids logins")
        return rows

    async def group_delete(self, name: str, hub: str = "") -> list[Row]:
        """Delete a group; its users stay, in none."""
        home = await pick_hub(self._storage, hub)

        def take(db: Database) -> list[Row]:
            rows = _row(db, home, name)
            groups.delete(db, groups.get(db, home, name))
            return rows

        rows = await self._storage.change(take)
        _log.info("group_deleted", hub=home.name, group=rows[0]["name"], by=asker.get())
        return rows


def _rows(db: Database, hub: Hub) -> list[Row]:
    members = groups.count_members(db, hub)
    return [group_row(hub, group, members.get(group.id, 0)) for group in groups.all_groups(db, hub)]


def _row(db: Database, hub: Hub, name: str) -> list[Row]:
    group = groups.get(db, hub, name)
    return [group_row(hub, group, groups.count_members(db, hub).get(group.id, 0))]


def _barred_members(db: Database, hub: Hub, group: Group, now: float) -> list[str]:
    return [one.name for one in users.all_users(db, hub) if one.group_id == group.id and barred(one, now)]
