"""Calls about virtual hubs: make, change, list, delete, what they say and allow."""

from dataclasses import dataclass
from typing import Final

import msgspec

from ukihashi.auth.password import admin_hash, hash_password
from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.rpc.access import ADMINISTRATOR, EMPTY_HASH
from ukihashi.hub.rpc.method import Backing, Caller, Method, Right, not_ours, refused
from ukihashi.hub.rpc.whole import moved, traffic
from ukihashi.net.control_socket import Row
from ukihashi.store import groups, hubs, rules, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.switch.rules import HubRules
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import DIGEST_LENGTH, Code
from ukihashi.wire.rpc import Values

STANDALONE: Final = 0  # hub type
DAILY: Final = 4  # log files change daily, to who asks; ours is one stream
PACKET_KINDS: Final = 16


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a hub as tools know it, and the field of `HubRules` behind it."""

    name: str
    field: str
    opposite: bool = False  # 1 means False


OPTIONS: Final = (
    Option("BroadcastStormDetectionThreshold", "storm_threshold"),
    Option("ClientMinimumRequiredBuild", "least_client_build"),
    Option("DropArpInPrivacyFilterMode", "privacy_drops_arp"),
    Option("DropBroadcastsInPrivacyFilterMode", "privacy_drops_broadcasts"),
    Option("ManageOnlyLocalUnicastIPv6", "local_ipv6_only"),
    Option("ManageOnlyPrivateIP", "private_ipv4_only"),
    Option("NoLookBPDUBridgeId", "bridges_by_id", opposite=True),
    Option("NoManageVlanId", "vlans_apart", opposite=True),
    Option("RequiredClientId", "required_client_id"),
)


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _Hubs(backing)
    return [
        Method("CreateHub", s.HUB_SETTINGS, s.HUB_SETTINGS, family.create, Right.WHOLE),
        Method("SetHub", s.HUB_SETTINGS, s.HUB_SETTINGS, family.set),
        Method("GetHub", s.HUB, s.HUB_SETTINGS, family.get),
        Method("EnumHub", s.NOTHING, s.HUBS, family.enum, Right.ANY),
        Method("DeleteHub", s.HUB, s.HUB, family.delete, Right.WHOLE),
        Method("SetHubOnline", s.HUB_ONLINE, s.HUB_ONLINE, family.set_online),
        Method("GetHubStatus", s.HUB, s.HUB_STATUS, family.status),
        Method("GetHubMsg", s.HUB, s.HUB_MESSAGE, family.message),
        Method("SetHubMsg", s.HUB_MESSAGE, s.HUB_MESSAGE, family.set_message),
        Method("GetHubLog", s.HUB, s.HUB_LOG, family.log),
        Method("SetHubLog", s.HUB_LOG, s.HUB_LOG, family.set_log),
        Method("GetHubRadius", s.HUB, s.HUB_RADIUS, family.radius),
        Method("SetHubRadius", s.HUB_RADIUS, s.HUB_RADIUS, family.set_radius),
        Method("GetHubAdminOptions", s.OPTIONS, s.OPTIONS, family.admin_options),
        Method("GetDefaultHubAdminOptions", s.OPTIONS, s.OPTIONS, family.admin_options),
        Method("GetHubExtOptions", s.OPTIONS, s.OPTIONS, family.options),
        Method("SetHubExtOptions", s.OPTIONS, s.OPTIONS, family.set_options),
    ]


class _Hubs:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def create(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """A new hub, with a password of its own administrator if one is given."""
        name = given["HubName"]
        if await self._backing.storage.read(hubs.find, name) is not None:
            raise refused(Code.HUB_ALREADY_EXISTS)
        await self._backing.do("create", name=name, offline=not given["Online"])
        await self._backing.do("hub_set", name=name, max_sessions=given["MaxSession"], listed=not given["NoEnum"])
        await self._put_password(name, given)
        return _echo(given)

    async def set(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Its settings; a password only if one is given."""
        hub = await self._backing.hub(given["HubName"])
        settings = {"online": given["Online"], "max_sessions": given["MaxSession"], "listed": not given["NoEnum"]}
        await self._backing.do("hub_set", name=hub.name, **settings)
        await self._put_password(hub.name, given)
        return _echo(given)

    async def _put_password(self, name: str, given: Values) -> None:
        forms = _password(given)
        if forms is None:
            return

        def put(db: Database) -> None:
            hubs.put_administrator(db, hubs.get(db, name), admin_hash=forms[0], login_hash=forms[1])

        await self._backing.storage.change(put)

    async def get(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Its settings; of a password nothing."""
        hub = await self._backing.hub(given["HubName"])
        return {
            "HubName": hub.name,
            "HashedPassword": bytes(DIGEST_LENGTH),
            "SecurePassword": bytes(DIGEST_LENGTH),
            "Online": hub.online,
            "MaxSession": hub.max_sessions,
            "NoEnum": not hub.listed,
            "HubType": STANDALONE,
        }

    async def enum(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Every hub; a hub's administrator sees that one."""
        known = [hub for hub in await self._backing.storage.read(hubs.all_hubs) if caller.owns(hub.name)]
        return {"HubList": [await self._row(hub) for hub in known]}

    async def _row(self, hub: Hub) -> Values:
        seen = await self._look(hub)
        counted = {f"Ex.{name}": value for name, value in traffic(seen).items()}
        return {
            "HubName": hub.name,
            "Online": hub.online,
            "HubType": STANDALONE,
            "NumSessions": len(seen["sessions"]),
            "NumUsers": seen["users"],
            "NumGroups": seen["groups"],
            "NumMacTables": seen["stations"],
            "NumIpTables": seen["addresses"],
            "LastCommTime": seen["last_heard"],
            "CreatedTime": hub.created_at,
            "LastLoginTime": hub.last_login_at or hub.created_at,
            "NumLogin": hub.logins,
            "IsTrafficFilled": True,
            **counted,
        }

    async def status(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """How it is."""
        hub = await self._backing.hub(given["HubName"])
        seen = await self._look(hub)
        bridges = sum(row.get("mode") == "bridge" for row in seen["sessions"])
        return {
            "HubName": hub.name,
            "Online": hub.online,
            "HubType": STANDALONE,
            "NumSessions": len(seen["sessions"]),
            "NumSessionsClient": len(seen["sessions"]) - bridges,
            "NumSessionsBridge": bridges,
            "NumAccessLists": seen["rules"],
            "NumUsers": seen["users"],
            "NumGroups": seen["groups"],
            "NumMacTables": seen["stations"],
            "NumIpTables": seen["addresses"],
            **traffic(seen),
            "LastCommTime": seen["last_heard"],
            "LastLoginTime": hub.last_login_at or hub.created_at,
            "CreatedTime": hub.created_at,
            "NumLogin": hub.logins,
        }

    async def _look(self, hub: Hub) -> Row:
        """What the database and the worker know of it."""

        def count(db: Database) -> Row:
            known = users.all_users(db, hub)
            return {
                "users": len(known),
                "groups": len(groups.all_groups(db, hub)),
                "rules": len(rules.access_list(db, hub)),
                **moved(known),
            }

        counted = await self._backing.storage.read(count)
        live = self._backing.live
        try:
            sessions = await live.ask_worker("sessions", hub=hub.name)
            stations = len(await live.ask_worker("mac_table", hub=hub.name))
            addresses = len(await live.ask_worker("ip_table", hub=hub.name))
        except UkihashiError:  # no worker at the moment, or it does not have this hub yet
            sessions, stations, addresses = [], 0, 0
        heard = max((float(row.get("last_heard", 0.0)) for row in sessions), default=0.0)
        return counted | {
            "sessions": sessions,
            "stations": stations,
            "addresses": addresses,
            "last_heard": heard or hub.last_login_at or hub.created_at,
        }

    async def delete(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Gone, with its users and sessions."""
        hub = await self._backing.hub(given["HubName"])
        await self._backing.do("delete", name=hub.name)
        return given

    async def set_online(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Let members in, or not."""
        hub = await self._backing.hub(given["HubName"])
        await self._backing.do("hub_set", name=hub.name, online=given["Online"])
        return given

    # -- what it says ---------------------------------------------------------------------------------------------

    async def message(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Its banner."""
        hub = await self._backing.hub(given["HubName"])
        return {"HubName": hub.name, "Msg": hub.banner.encode()}

    async def set_message(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Another banner; empty: none."""
        hub = await self._backing.hub(given["HubName"])
        banner = given["Msg"].partition(b"\0")[0].decode("utf-8", "replace")
        await self._backing.do("hub_set", name=hub.name, banner=banner)
        return given

    # -- log, RADIUS: what is, and nothing else -------------------------------------------------------------------

    async def log(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Logins, sessions and changes are logged always, packets never."""
        hub = await self._backing.hub(given["HubName"])
        return {
            "HubName": hub.name,
            "SaveSecurityLog": True,
            "SecurityLogSwitchType": DAILY,
            "PacketLogSwitchType": DAILY,
            "PacketLogConfig": [0] * PACKET_KINDS,
        }

    async def set_log(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """What is so already may be asked for."""
        await self._backing.hub(given["HubName"])
        cycles = {given["SecurityLogSwitchType"], given["PacketLogSwitchType"]}
        if not given["SaveSecurityLog"] or given["SavePacketLog"] or any(given["PacketLogConfig"]) or cycles != {DAILY}:
            raise not_ours(N_("this hub logs logins, sessions and changes always, and packets never"))
        return given

    async def radius(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """There is none."""
        hub = await self._backing.hub(given["HubName"])
        return {"HubName": hub.name, "RadiusPort": 1812, "RadiusRetryInterval": 500}

    async def set_radius(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """None is what there is."""
        await self._backing.hub(given["HubName"])
        if given["RadiusServerName"]:
            raise not_ours(N_("this hub asks no RADIUS server"))
        return given

    # -- options --------------------------------------------------------------------------------------------------

    async def admin_options(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """What a hub's administrator may not do: nothing is held back."""
        hub = await self._backing.hub(given["HubName"])
        return {"HubName": hub.name}

    async def options(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """The rules of its switch, by the names that tools know."""
        hub = await self._backing.hub(given["HubName"])
        rows = [
            {"Name": option.name, "Value": int(getattr(hub.rules, option.field)) ^ option.opposite}
            for option in OPTIONS
        ]
        return {"HubName": hub.name, "NumItem": len(rows), "AdminOptionList": rows}

    async def set_options(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Change those that are named; one that we don't have is refused unless it is 0."""
        hub = await self._backing.hub(given["HubName"])
        known = {option.name.casefold(): option for option in OPTIONS}
        found = msgspec.structs.asdict(hub.rules)
        for row in given["AdminOptionList"]:
            option = known.get(row["Name"].casefold())
            if option is None:
                if row["Value"]:
                    raise not_ours(N_("this hub has no option “{name}”"), name=row["Name"])
                continue
            value = int(row["Value"])
            found[option.field] = bool(value) ^ option.opposite if isinstance(found[option.field], bool) else value
        await self._backing.do("hub_set", name=hub.name, rules=msgspec.to_builtins(HubRules(**found)))
        return given


def _password(given: Values) -> tuple[bytes, bytes] | None:
    """Both forms of the password of the hub's own administrator; None: it stays as it is."""
    plain = given["AdminPasswordPlainText"]
    hashed, secure = given["HashedPassword"], given["SecurePassword"]
    if len(hashed) == DIGEST_LENGTH and len(secure) == DIGEST_LENGTH and any(hashed) and any(secure):
        return (b"", b"") if hashed == EMPTY_HASH else (hashed, secure)
    if plain:
        return admin_hash(plain), hash_password(ADMINISTRATOR, plain)
    return None


def _echo(given: Values) -> Values:
    """What came, without the password."""
    nothing = bytes(DIGEST_LENGTH)
    return given | {"HashedPassword": nothing, "SecurePassword": nothing, "AdminPasswordPlainText": ""}
