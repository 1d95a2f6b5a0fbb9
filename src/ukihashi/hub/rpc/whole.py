"""Calls about the whole: what it is, how it is, what it can, and settings that our hub has no use for."""

import os
import platform
from typing import Any, Final

from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.rpc.method import Backing, Caller, Method, Right, not_ours
from ukihashi.net.control_socket import Row
from ukihashi.store import groups, hubs, users
from ukihashi.store.db import Database
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.rpc import Struct, Values

VERSION: Final = 501  # what compatible programs number themselves by: major * 100 + minor
BUILD: Final = 9999
LINUX: Final = 3100
STANDALONE: Final = 0
MAX_SESSIONS: Final = 100_000
MAX_USERS: Final = 10_000
MAX_RULES: Final = 32_768
TABLE_SIZE: Final = 65_536

CAPS: Final[dict[str, int]] = {  # appendix C; what is not named here is not supported
    "i_max_packet_size": MAX_FRAME,
    "i_max_hubs": 4096,
    "i_max_sessions": MAX_SESSIONS,
    "i_max_user_creation": MAX_USERS,
    "i_max_users_per_hub": MAX_USERS,
    "i_max_groups_per_hub": MAX_USERS,
    "i_max_access_lists": MAX_RULES,
    "i_max_mac_tables": TABLE_SIZE,
    "i_max_ip_tables": TABLE_SIZE,
    "b_standalone": 1,
    "b_vpn_client_connect": 1,
    "b_support_config_hub": 1,
    "b_support_config_log": 1,
    "b_support_limit_multilogin": 1,
    "b_support_check_mac": 1,
    "b_support_policy_ver_3": 1,
    "b_support_udp_acceleration": 1,
    "b_support_msg": 1,
    "b_support_hide_hub": 1,
    "b_support_hub_ext_options": 1,
    "b_support_hub_admin_option": 1,
    "b_support_read_log": 1,
    "b_support_cascade": 1,
    "b_support_ac": 1,
    "b_support_ex_acl": 1,  # asked for by vpncmd before any rule about IPv6; delays and losses are refused all the same
    "b_support_ipv6_ac": 1,
    "b_support_check_tcp_state": 1,
    "b_support_cascade_cert": 1,
    "b_support_cascade_client_cert": 1,
    "b_support_ipv6_acl": 1,
    "b_support_vlan": 1,
    "b_is_softether": 1,
    "b_vpn3": 1,
}

CAPS_STRUCT: Final = Struct(  # older tools read one number by its own name each
    ", ".join(f"caps_{name} i" for name in CAPS), rows="CapsList", columns="CapsName s, CapsValue i, CapsDescrption u"
)


def methods(backing: Backing) -> list[Method]:
    """The family."""
    whole = _Whole(backing)
    return [
        Method("Test", s.TEST, s.TEST, whole.test, Right.ANY),
        Method("GetServerInfo", s.NOTHING, s.SERVER_INFO, whole.info, Right.ANY),
        Method("GetServerStatus", s.NOTHING, s.SERVER_STATUS, whole.status, Right.WHOLE),
        Method("GetCaps", s.NOTHING, CAPS_STRUCT, whole.caps, Right.ANY),
        Method("Flush", s.TEST, s.TEST, whole.flush, Right.WHOLE),
        Method("GetKeep", s.NOTHING, s.KEEP, whole.keep, Right.WHOLE),
        Method("SetKeep", s.KEEP, s.KEEP, whole.set_keep, Right.WHOLE),
        Method("GetSysLog", s.NOTHING, s.SYSLOG, whole.syslog, Right.WHOLE),
        Method("SetSysLog", s.SYSLOG, s.SYSLOG, whole.set_syslog, Right.WHOLE),
        Method("GetFarmSetting", s.NOTHING, s.FARM, whole.farm, Right.WHOLE),
        Method("GetBridgeSupport", s.NOTHING, s.BRIDGE_SUPPORT, whole.bridges, Right.ANY),
    ]


class _Whole:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def test(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """What came, and the number in words."""
        return given | {"StrValue": str(given["IntValue"])}

    async def info(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Who we are. Programs of others read numbers, people the words."""
        version = self._backing.facts.version
        system = platform.uname()
        return {
            "ServerProductName": f"ukihashi hub {version}",
            "ServerVersionString": f"ukihashi {version}, compatible with version {VERSION / 100:.2f} build {BUILD}",
            "ServerBuildInfoString": f"ukihashi {version}, Python {platform.python_version()}",
            "ServerVerInt": VERSION,
            "ServerBuildInt": BUILD,
            "ServerHostName": system.node,
            "ServerType": STANDALONE,
            "ServerFamilyName": "ukihashi",
            "OsType": LINUX,
            "OsSystemName": system.system,
            "OsProductName": system.system,
            "OsVendorName": "",
            "OsVersion": system.release,
            "KernelName": system.system,
            "KernelVersion": system.release,
        }

    async def status(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Numbers of the whole."""
        now = self._backing.clock()
        counted = await self._backing.storage.read(_count)
        live = self._backing.live
        try:
            worker: Row = (await live.ask_worker("status") or [{}])[0]
            sessions = await live.ask_worker("sessions")
            stations = sum([len(await live.ask_worker("mac_table", hub=name)) for name in counted["names"]])
            addresses = sum([len(await live.ask_worker("ip_table", hub=name)) for name in counted["names"]])
        except UkihashiError:  # no worker at the moment: nothing is live
            worker, sessions, stations, addresses = {}, [], 0, 0
        connections = int(worker.get("connections", 0))
        hubs_, memory = len(counted["names"]), _memory()
        return {
            "ServerType": STANDALONE,
            "NumTcpConnections": connections,
            "NumTcpConnectionsLocal": connections,
            "NumHubTotal": hubs_,
            "NumHubStandalone": hubs_,
            "NumSessionsTotal": len(sessions),
            "NumSessionsLocal": len(sessions),
            "NumMacTables": stations,
            "NumIpTables": addresses,
            "NumUsers": counted["users"],
            "NumGroups": counted["groups"],
            **traffic(counted),
            "CurrentTime": now,
            "CurrentTick": int(now * 1000),
            "StartTime": self._backing.started,
            **memory,
        }

    async def caps(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """What we support; what is left out is not."""
        return {
            "CapsList": [{"CapsName": name, "CapsValue": value} for name, value in CAPS.items()],
            **{f"caps_{name}": value for name, value in CAPS.items()},
        }

    async def flush(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Every change is on the disk before it is answered; so only the size is told."""
        return {"IntValue": await self._backing.storage.read(lambda db: db.path.stat().st_size)}

    async def keep(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """We keep no line open by calling strangers."""
        return {"KeepConnectInterval": 50}

    async def set_keep(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Off is what it is."""
        if given["UseKeepConnect"] or given["KeepConnectHost"]:
            raise not_ours(N_("this hub keeps no line open by calling other machines"))
        return given

    async def syslog(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Our log goes to the journal, whose settings are its own."""
        return {}

    async def set_syslog(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Off is what it is."""
        if given["SaveType"]:
            raise not_ours(N_("the log goes to the journal; let the journal pass it on"))
        return given

    async def farm(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One machine."""
        return {"ServerType": STANDALONE, "Weight": 100}

    async def bridges(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Bridges to this machine's own Ethernet are made with host ports, not by tools."""
        return {}


def traffic(counted: Row, prefix: str = "") -> Values:
    """The traffic block. We count frames, not kinds of frames: all of it stands under unicast."""
    return {
        f"{prefix}Recv.UnicastBytes": counted["bytes_in"],
        f"{prefix}Recv.UnicastCount": counted["frames_in"],
        f"{prefix}Send.UnicastBytes": counted["bytes_out"],
        f"{prefix}Send.UnicastCount": counted["frames_out"],
    }


def moved(rows: list[Any]) -> Row:
    """The sums of rows that have traffic counters as attributes or as keys."""
    names = ("bytes_in", "frames_in", "bytes_out", "frames_out")
    return {
        name: sum(int(row.get(name, 0)) if isinstance(row, dict) else getattr(row, name) for row in rows)
        for name in names
    }


def _count(db: Database) -> Row:
    known = hubs.all_hubs(db)
    everybody = [user for hub in known for user in users.all_users(db, hub)]
    return {
        "names": [hub.name for hub in known],
        "users": len(everybody),
        "groups": sum(len(groups.all_groups(db, hub)) for hub in known),
        **moved(everybody),
    }


def _memory() -> Values:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    total, free = page * pages, page * os.sysconf("SC_AVPHYS_PAGES")
    return {
        "TotalMemory": total,
        "UsedMemory": total - free,
        "FreeMemory": free,
        "TotalPhys": total,
        "UsedPhys": total - free,
        "FreePhys": free,
    }
