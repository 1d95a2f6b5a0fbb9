"""Calls about what is live: sessions, stations, addresses, connections. The worker's rows in others' words."""

import platform
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from ukihashi.auth.names import name_key
from ukihashi.hub.rpc.method import Backing, Caller, Method, Right, refused
from ukihashi.hub.rpc.whole import BUILD, VERSION, traffic
from ukihashi.net.control_socket import Row
from ukihashi.store import users
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import NODE_ID_LENGTH, Code
from ukihashi.wire.pack import Address, swapped
from ukihashi.wire.policy import DEFAULT
from ukihashi.wire.rpc import POLICY, Values

ESTABLISHED: Final = 3  # `SessionStatus`
RETRYING: Final = 4
KINDS: Final = {"opening": 1, "login": 2, "additional": 3, "admin": 5, "password": 7}  # of connections


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _Sessions(backing)
    whole = Right.WHOLE
    return [
        Method("EnumSession", s.HUB, s.SESSIONS, family.enum),
        Method("GetSessionStatus", s.HUB_ITEM, s.SESSION, family.status),
        Method("DeleteSession", s.HUB_ITEM, s.HUB_ITEM, family.end),
        Method("EnumMacTable", s.HUB, s.MAC_TABLE, family.stations),
        Method("DeleteMacTable", s.HUB_KEY, s.HUB_KEY, family.forget_station),
        Method("EnumIpTable", s.HUB, s.IP_TABLE, family.addresses),
        Method("DeleteIpTable", s.HUB_KEY, s.HUB_KEY, family.forget_address),
        Method("EnumConnection", s.NOTHING, s.CONNECTIONS, family.connections, whole),
        Method("GetConnectionInfo", s.NAME, s.CONNECTION, family.connection, whole),
        Method("DisconnectConnection", s.NAME, s.NAME, family.end_connection, whole),
    ]


class _Sessions:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def _rows(self, what: str, hub: str) -> list[Row]:
        """The worker's rows of a hub. Raises: Refused: there is no such hub."""
        found = await self._backing.hub(hub)
        return await self._backing.live.ask_worker(what, hub=found.name)

    # -- sessions -------------------------------------------------------------------------------------------------

    async def enum(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Every session of a hub."""
        rows = await self._rows("sessions", given["HubName"])
        return {"HubName": given["HubName"], "SessionList": [_session_row(row) for row in rows]}

    async def status(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One session in full."""
        row = await self._find(given)
        hub = await self._backing.hub(given["HubName"])
        user = await self._backing.storage.read(users.find, hub, str(row.get("user", "")))
        node: Row = row.get("node") or {}
        address, host = _address(row.get("peer", "")), str(node.get("host") or _host(row.get("peer", "")))
        count, since, online = (
            int(row.get("connections", 0)),
            float(row.get("since", 0.0)),
            row.get("state") == "online",
        )
        cipher = str(row.get("tls_cipher") or "")
        return {
            "HubName": hub.name,
            "Name": str(row["session"]),
            "Username": str(row.get("user", "")),
            "RealUsername": str(row.get("user", "")),
            "GroupName": str(row.get("group") or ""),
            "SessionStatus_ClientIp": address,
            "SessionStatus_ClientHostName": host,
            "Client_Ip_Address": address,
            "ServerName": platform.node(),
            "ServerProductName": f"ukihashi hub {self._backing.facts.version}",
            "ServerProductVer": VERSION,
            "ServerProductBuild": BUILD,
            "CipherName": cipher,
            "SessionName": str(row["session"]),
            "SessionKey": bytes(20),  # it lets connections in: nobody is told
            "Active": True,
            "Connected": online,
            "SessionStatus": ESTABLISHED if online else RETRYING,
            "ServerPort": self._backing.facts.endpoints[0].port,
            "NumConnectionsEstablished": 1 + int(row.get("resumes", 0)),
            "HalfConnection": bool(row.get("half_duplex")),
            "MaxTcpConnections": int(row.get("max_connections", 1)),
            "NumTcpConnections": count,
            "NumTcpConnectionsUpload": count,
            "NumTcpConnectionsDownload": count,
            "UseEncrypt": bool(row.get("encrypted", True)),
            "UseCompress": bool(row.get("compression")),
            "UnderlayProtocol": "Standard TCP/IP " + ("(IPv6)" if isinstance(address, IPv6Address) else "(IPv4)"),
            "IsUdpAccelerationEnabled": bool(row.get("udp")),
            "IsUsingUdpAcceleration": bool(row.get("udp")),
            "IsBridgeMode": row.get("mode") == "bridge",
            "IsMonitorMode": row.get("mode") == "monitor",
            "StartTime": since,
            "FirstConnectionEstablisiedTime": since,
            "CurrentConnectionEstablishTime": since,
            "TotalSendSize": int(row.get("bytes_out", 0)),
            "TotalRecvSize": int(row.get("bytes_in", 0)),
            "TotalSendSizeReal": int(row.get("bytes_out", 0)),
            "TotalRecvSizeReal": int(row.get("bytes_in", 0)),
            "VLanId": int(row.get("vlan") or 0),
            **traffic(row),
            **_node(row, node, address, host),
            POLICY: user.effective_policy if user else DEFAULT,
        }

    async def end(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """End it; a client of others logs in again unless it is told not to."""
        row = await self._find(given)
        await self._backing.do("disconnect", session=str(row["session"]), hub=given["HubName"])
        return given

    async def _find(self, given: Values) -> Row:
        key = name_key(given["Name"])
        for row in await self._rows("sessions", given["HubName"]):
            if name_key(str(row.get("session", ""))) == key:
                return row
        raise refused(Code.OBJECT_NOT_FOUND)

    # -- tables ---------------------------------------------------------------------------------------------------

    async def stations(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """The MAC table."""
        now = self._backing.clock()
        return {
            "HubName": given["HubName"],
            "MacTable": [
                {
                    "Key": int(row.get("key", 0)),
                    "SessionName": str(row.get("session", "")),
                    "MacAddress": bytes.fromhex(str(row["mac"]).replace(":", "")),
                    "VlanId": int(row.get("vlan") or 0),
                    **_times(row, now),
                    "RemoteHostname": platform.node(),
                }
                for row in await self._rows("mac_table", given["HubName"])
            ],
        }

    async def addresses(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """The IP table."""
        now = self._backing.clock()
        found = []
        for row in await self._rows("ip_table", given["HubName"]):
            address = ip_address(str(row["ip"]))
            four = address if isinstance(address, IPv4Address) else None
            found.append(
                {
                    "Key": int(row.get("key", 0)),
                    "SessionName": str(row.get("session", "")),
                    "Ip": four,
                    "IpV6": address,
                    "IpAddress": address,
                    "DhcpAllocated": bool(row.get("dhcp")),
                    **_times(row, now),
                    "RemoteHostname": platform.node(),
                }
            )
        return {"HubName": given["HubName"], "IpTable": found}

    async def forget_station(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One entry of the MAC table less."""
        return await self._forget("mac_table", "forget_mac", given)

    async def forget_address(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One entry of the IP table less."""
        return await self._forget("ip_table", "forget_ip", given)

    async def _forget(self, table: str, order: str, given: Values) -> Values:
        hub = await self._backing.hub(given["HubName"])
        rows = await self._backing.live.ask_worker(table, hub=hub.name)
        if not any(int(row.get("key", 0)) == given["Key"] for row in rows):
            raise refused(Code.OBJECT_NOT_FOUND)
        await self._backing.live.ask_worker(order, hub=hub.name, name=str(given["Key"]))
        return given

    # -- connections ----------------------------------------------------------------------------------------------

    async def connections(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """TCP connections that are no tunnel, or carry one."""
        rows = await self._backing.live.ask_worker("connections")
        return {"ConnectionList": [_connection_row(row) for row in rows]}

    async def connection(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One of them."""
        row = await self._find_connection(given["Name"])
        return _connection_row(row) | {
            "ServerStr": f"ukihashi hub {self._backing.facts.version}",
            "ServerVer": VERSION,
            "ServerBuild": BUILD,
            "ClientStr": str(row.get("client", "")),
            "ClientVer": int(row.get("client_version", 0)),
            "ClientBuild": int(row.get("client_build", 0)),
        }

    async def end_connection(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """End it in good order."""
        row = await self._find_connection(given["Name"])
        await self._backing.live.ask_worker("end_connection", name=str(row["connection"]))
        return given

    async def _find_connection(self, name: str) -> Row:
        for row in await self._backing.live.ask_worker("connections"):
            if name_key(str(row.get("connection", ""))) == name_key(name):
                return row
        raise refused(Code.OBJECT_NOT_FOUND)


def _session_row(row: Row) -> Values:
    node: Row = row.get("node") or {}
    address, since = _address(row.get("peer", "")), float(row.get("since", 0.0))
    mode = row.get("mode") or ""
    return {
        "Name": str(row["session"]),
        "Username": str(row.get("user", "")),
        "Ip": address if isinstance(address, IPv4Address) else None,
        "ClientIP": address,
        "Hostname": str(node.get("host") or _host(row.get("peer", ""))),
        "MaxNumTcp": int(row.get("max_connections", 1)),
        "CurrentNumTcp": int(row.get("connections", 0)),
        "PacketSize": int(row.get("bytes_in", 0)) + int(row.get("bytes_out", 0)),
        "PacketNum": int(row.get("frames_in", 0)) + int(row.get("frames_out", 0)),
        "LinkMode": mode == "cascade",
        "BridgeMode": mode == "host",
        "Client_BridgeMode": mode == "bridge",
        "Client_MonitorMode": mode == "monitor",
        "VLanId": int(row.get("vlan") or 0),
        "UniqueId": _unique_id(node),
        "CreatedTime": since,
        "LastCommTime": float(row.get("last_heard") or since),
    }


def _connection_row(row: Row) -> Values:
    peer = str(row.get("peer", ""))
    return {
        "Name": str(row.get("connection", "")),
        "Hostname": _host(peer),
        "Ip": _address(peer),
        "Port": int(peer.rpartition(":")[2] or 0) if peer.rpartition(":")[2].isdecimal() else 0,
        "ConnectedTime": float(row.get("since", 0.0)),
        "Type": KINDS.get(str(row.get("kind", "")), KINDS["opening"]),
    }


def _node(row: Row, node: Row, address: Address | None, host: str) -> Values:
    """What the client told of its machine; its numbers travel with their bytes reversed (5.4)."""
    peer = str(row.get("peer", ""))
    port = peer.rpartition(":")[2]
    return {
        "ClientProductName": str(node.get("client") or row.get("client", "")),
        "ClientProductVer": swapped(int(node.get("client_version") or 0)),
        "ClientProductBuild": swapped(int(node.get("client_build") or 0)),
        "ClientOsName": str(node.get("system") or ""),
        "ClientHostname": host,
        "ClientIpAddress": address,
        "ClientPort": swapped(int(port) if port.isdecimal() else 0),
        "ServerHostname": platform.node(),
        "UniqueId": _unique_id(node),
    }


def _times(row: Row, now: float) -> Values:
    return {
        "CreatedTime": now - float(row.get("created_s") or row.get("age_s") or 0.0),
        "UpdatedTime": now - float(row.get("age_s") or 0.0),
    }


def _unique_id(node: Row) -> bytes:
    try:
        return bytes.fromhex(str(node.get("unique_id") or ""))[:NODE_ID_LENGTH].ljust(NODE_ID_LENGTH, b"\0")
    except ValueError:
        return bytes(NODE_ID_LENGTH)


def _host(peer: Any) -> str:
    return str(peer).rpartition(":")[0].strip("[]")


def _address(peer: Any) -> Address | None:
    try:
        return ip_address(_host(peer).partition("%")[0])
    except ValueError:
        return None
