"""Calls about users and groups.

A tool reads a user, changes a field and writes the whole back. So what we don't tell (hashes) comes back as zeros, and
zeros mean: as it is.
"""

import base64
import hmac
from typing import Any, Final

import msgspec

from ukihashi.auth.password import hash_password
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.hub.rpc.method import Backing, Caller, Method, not_ours, refused
from ukihashi.hub.rpc.whole import moved, traffic
from ukihashi.store import groups, users
from ukihashi.store.db import Database
from ukihashi.store.groups import Group
from ukihashi.store.hubs import Hub
from ukihashi.store.users import User
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import DIGEST_LENGTH, Code
from ukihashi.wire.rpc import POLICY, Values

KINDS: Final = {"anonymous": 0, "password": 1, "certificate": 2, "issued": 3}  # by `AuthType`
NTLM_LENGTH: Final = 16
NO_HASH: Final = bytes(DIGEST_LENGTH)


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _People(backing)
    return [
        Method("CreateUser", s.USER, s.USER, family.create_user),
        Method("SetUser", s.USER, s.USER, family.set_user),
        Method("GetUser", s.HUB_ITEM, s.USER, family.user),
        Method("EnumUser", s.HUB, s.USERS, family.users),
        Method("DeleteUser", s.HUB_ITEM, s.HUB_ITEM, family.delete_user),
        Method("CreateGroup", s.GROUP, s.GROUP, family.create_group),
        Method("SetGroup", s.GROUP, s.GROUP, family.set_group),
        Method("GetGroup", s.HUB_ITEM, s.GROUP, family.group),
        Method("EnumGroup", s.HUB, s.GROUPS, family.groups),
        Method("DeleteGroup", s.HUB_ITEM, s.HUB_ITEM, family.delete_group),
    ]


class _People:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    # -- users ----------------------------------------------------------------------------------------------------

    async def create_user(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """A new user, with the proof that is given."""
        hub = await self._backing.hub(given["HubName"])
        if await self._backing.storage.read(users.find, hub, given["Name"]) is not None:
            raise refused(Code.USER_ALREADY_EXISTS)
        await self._check_group(hub, given)
        fields = _user_fields(given)
        await self._backing.do("user_create", hub=hub.name, name=given["Name"])  # with a password that nobody knows
        try:
            await self._backing.do("user_set", hub=hub.name, name=given["Name"], **fields)
        except UkihashiError:
            await self._backing.do("user_delete", hub=hub.name, name=given["Name"])
            raise
        return await self._user(hub, given["Name"])

    async def set_user(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Everything of a user at once."""
        hub = await self._backing.hub(given["HubName"])
        found = await self._find_user(hub, given["Name"])
        await self._check_group(hub, given)
        await self._backing.do("user_set", hub=hub.name, name=found.name, **_user_fields(given))
        return await self._user(hub, found.name)

    async def user(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One user; of the password nothing."""
        hub = await self._backing.hub(given["HubName"])
        return await self._user(hub, given["Name"])

    async def _user(self, hub: Hub, name: str) -> Values:
        user = await self._find_user(hub, name)
        proof: dict[str, Any] = {}
        if user.kind == "password":
            proof = {"HashedKey": NO_HASH, "NtLmSecureHash": bytes(NTLM_LENGTH)}
        elif user.kind == "certificate":
            proof = {"UserX": user.certificate}
        elif user.kind == "issued":
            proof = {"CommonName": user.common_name, "Serial": user.serial}
        return {
            "HubName": hub.name,
            "Name": user.name,
            "GroupName": user.group,
            "Realname": user.real_name,
            "Note": user.note,
            "CreatedTime": user.created_at,
            "UpdatedTime": user.updated_at,
            "ExpireTime": user.expires_at,
            "AuthType": KINDS[user.kind],
            **proof,
            "NumLogin": user.logins,
            **traffic(moved([user])),
            "UsePolicy": user.policy is not None,
            POLICY: user.policy,
        }

    async def users(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Every user of a hub."""
        hub = await self._backing.hub(given["HubName"])
        known = await self._backing.storage.read(users.all_users, hub)
        return {"HubName": hub.name, "UserList": [_user_row(user) for user in known]}

    async def delete_user(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Gone, and its sessions with it."""
        hub = await self._backing.hub(given["HubName"])
        user = await self._find_user(hub, given["Name"])
        await self._backing.do("user_delete", hub=hub.name, name=user.name)
        return given

    async def _find_user(self, hub: Hub, name: str) -> User:
        user = await self._backing.storage.read(users.find, hub, name)
        if user is None:
            raise refused(Code.OBJECT_NOT_FOUND)
        return user

    async def _check_group(self, hub: Hub, given: Values) -> None:
        if given["GroupName"] and await self._backing.storage.read(groups.find, hub, given["GroupName"]) is None:
            raise refused(Code.GROUP_NOT_FOUND)

    # -- groups ---------------------------------------------------------------------------------------------------

    async def create_group(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """A new group."""
        hub = await self._backing.hub(given["HubName"])
        if await self._backing.storage.read(groups.find, hub, given["Name"]) is not None:
            raise refused(Code.GROUP_ALREADY_EXISTS)
        await self._backing.do("group_create", hub=hub.name, name=given["Name"], **_fields(given))
        return await self._group(hub, given["Name"])

    async def set_group(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Everything of a group at once."""
        hub = await self._backing.hub(given["HubName"])
        group = await self._find_group(hub, given["Name"])
        await self._backing.do("group_set", hub=hub.name, name=group.name, **_fields(given))
        return await self._group(hub, group.name)

    async def group(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One group."""
        hub = await self._backing.hub(given["HubName"])
        return await self._group(hub, given["Name"])

    async def _group(self, hub: Hub, name: str) -> Values:
        group = await self._find_group(hub, name)
        members = [user for user in await self._backing.storage.read(users.all_users, hub) if user.group_id == group.id]
        return {
            "HubName": hub.name,
            "Name": group.name,
            "Realname": group.real_name,
            "Note": group.note,
            **traffic(moved(members)),
            "UsePolicy": group.policy is not None,
            POLICY: group.policy,
        }

    async def groups(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Every group of a hub."""
        hub = await self._backing.hub(given["HubName"])

        def read(db: Database) -> list[Values]:
            members = groups.count_members(db, hub)
            return [
                {
                    "Name": group.name,
                    "Realname": group.real_name,
                    "Note": group.note,
                    "NumUsers": members.get(group.id, 0),
                    "DenyAccess": group.policy is not None and not group.policy.access,
                }
                for group in groups.all_groups(db, hub)
            ]

        return {"HubName": hub.name, "GroupList": await self._backing.storage.read(read)}

    async def delete_group(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Gone; its users stay."""
        hub = await self._backing.hub(given["HubName"])
        group = await self._find_group(hub, given["Name"])
        await self._backing.do("group_delete", hub=hub.name, name=group.name)
        return given

    async def _find_group(self, hub: Hub, name: str) -> Group:
        group = await self._backing.storage.read(groups.find, hub, name)
        if group is None:
            raise refused(Code.OBJECT_NOT_FOUND)
        return group


def _user_row(user: User) -> Values:
    return {
        "Name": user.name,
        "GroupName": user.group,
        "Realname": user.real_name,
        "Note": user.note,
        "AuthType": KINDS[user.kind],
        "NumLogin": user.logins,
        "LastLoginTime": user.last_login_at,
        "DenyAccess": not user.effective_policy.access,
        "IsTrafficFilled": True,
        **{f"Ex.{name}": value for name, value in traffic(moved([user])).items()},
        "IsExpiresFilled": True,
        "Expires": user.expires_at,
    }


def _fields(given: Values) -> dict[str, Any]:
    """What users and groups have in common, as the verbs take it."""
    fields: dict[str, Any] = {"real_name": given["Realname"], "note": given["Note"]}
    if not given["UsePolicy"]:
        return fields | {"own_policy": False}
    if given[POLICY] is not None:
        fields["policy"] = {
            field.name: getattr(given[POLICY], field.name) for field in msgspec.structs.fields(type(given[POLICY]))
        }
    return fields


def _user_fields(given: Values) -> dict[str, Any]:
    fields = _fields(given) | {"group": given["GroupName"], "expires_at": given["ExpireTime"]}
    kind = {number: name for name, number in KINDS.items()}.get(given["AuthType"])
    if kind is None:
        raise not_ours(N_("this hub asks no RADIUS server and no domain controller about users"))
    fields["kind"] = kind
    if kind == "password":
        hashed = given.get("HashedKey", b"")
        if plain := given.get("Auth_Password", ""):
            hashed = hash_password(given["Name"], plain)
        if len(hashed) == DIGEST_LENGTH and hashed != NO_HASH:
            if hmac.compare_digest(hashed, hash_password(given["Name"], "")):
                raise UsageError(N_("a user's password can't be empty"))
            fields["password_hash"] = hashed.hex()
    elif kind == "certificate" and given.get("UserX"):
        fields["certificate"] = base64.b64encode(given["UserX"]).decode()
    elif kind == "issued":
        fields |= {"common_name": given.get("CommonName", ""), "serial": given.get("Serial", b"").hex()}
    return fields
