"""The structures of the administration calls that we answer (protocol section 19.1), in the notation of `rpc`."""

from typing import Final

from ukihashi.wire.rpc import Struct


def _traffic(prefix: str = "") -> str:
    return ", ".join(
        f"{prefix}{way}.{cast}{what} q"
        for way in ("Recv", "Send")
        for cast in ("Broadcast", "Unicast")
        for what in ("Bytes", "Count")
    )


TRAFFIC: Final = _traffic()
TRAFFIC_COLUMNS: Final = _traffic("Ex.")

NOTHING: Final = Struct()
HUB: Final = Struct("HubName s")
HUB_ITEM: Final = Struct("HubName s, Name s")
HUB_KEY: Final = Struct("HubName s, Key i")
TEXT: Final = Struct("String s")

# -- the whole ----------------------------------------------------------------------------------------------------

TEST: Final = Struct("Int64Value q, IntValue i, StrValue s, UniStrValue u")
SERVER_INFO: Final = Struct(
    "ServerProductName s, ServerVersionString s, ServerBuildInfoString s, ServerVerInt i, ServerBuildInt i,"
    "ServerHostName s, ServerType i, ServerBuildDate t, ServerFamilyName s, OsType i, OsServicePack i, OsSystemName s,"
    "OsProductName s, OsVendorName s, OsVersion s, KernelName s, KernelVersion s"
)
SERVER_STATUS: Final = Struct(
    "ServerType i, NumTcpConnections i, NumTcpConnectionsLocal i, NumTcpConnectionsRemote i, NumHubTotal i,"
    "NumHubStandalone i, NumHubStatic i, NumHubDynamic i, NumSessionsTotal i, NumSessionsLocal i, NumSessionsRemote i,"
    "NumMacTables i, NumIpTables i, NumUsers i, NumGroups i, AssignedBridgeLicenses i, AssignedClientLicenses i,"
    f"AssignedBridgeLicensesTotal i, AssignedClientLicensesTotal i, {TRAFFIC}, CurrentTime t, CurrentTick q,"
    "StartTime t, TotalMemory q, UsedMemory q, FreeMemory q, TotalPhys q, UsedPhys q, FreePhys q"
)
LISTENER: Final = Struct("Port i, Enable b")
LISTENERS: Final = Struct(rows="ListenerList", columns="Ports i, Enables b, Errors b")
SERVER_PASSWORD: Final = Struct("HashedPassword d, PlainTextPassword s")
KEY_PAIR: Final = Struct("Cert d, Key d, Flag1 i")
CONNECTIONS: Final = Struct(rows="ConnectionList", columns="Name s, Hostname s, Ip a, Port i, ConnectedTime t, Type i")
CONNECTION: Final = Struct(
    "Name s, Type i, Hostname s, Ip a, Port i, ConnectedTime t, ServerStr s, ServerVer i, ServerBuild i, ClientStr s,"
    "ClientVer i, ClientBuild i"
)
NAME: Final = Struct("Name s")
KEEP: Final = Struct(
    "UseKeepConnect b, KeepConnectHost s, KeepConnectPort i, KeepConnectProtocol i, KeepConnectInterval i"
)
SYSLOG: Final = Struct("SaveType i, Hostname s, Port i")
FARM: Final = Struct(
    "ServerType i, NumPort i, Ports i[], PublicIp a, ControllerName s, ControllerPort i, MemberPassword d,"
    "MemberPasswordPlaintext s, Weight i, ControllerOnly b"
)
BRIDGE_SUPPORT: Final = Struct("IsBridgeSupportedOs b, IsWinPcapNeeded b")
LOG_FILES: Final = Struct("NumItem i", rows="LogFiles", columns="ServerName s, FilePath s, FileSize i, UpdatedTime t")
LOG_PART: Final = Struct("ServerName s, FilePath s, Offset i, Buffer d?")

# -- virtual hubs -------------------------------------------------------------------------------------------------

HUB_SETTINGS: Final = Struct(
    "HubName s, HashedPassword d, SecurePassword d, AdminPasswordPlainText s, Online b, MaxSession i, NoEnum b,"
    "HubType i"
)
HUBS: Final = Struct(
    rows="HubList",
    columns="HubName s, Online b, HubType i, NumSessions i, NumUsers i, NumGroups i, NumMacTables i, NumIpTables i,"
    f"LastCommTime t, CreatedTime t, LastLoginTime t, NumLogin i, IsTrafficFilled b, {TRAFFIC_COLUMNS}",
)
HUB_ONLINE: Final = Struct("HubName s, Online b")
HUB_STATUS: Final = Struct(
    "HubName s, Online b, HubType i, NumSessions i, NumSessionsClient i, NumSessionsBridge i, NumAccessLists i,"
    f"NumUsers i, NumGroups i, NumMacTables i, NumIpTables i, {TRAFFIC}, SecureNATEnabled b, LastCommTime t,"
    "LastLoginTime t, CreatedTime t, NumLogin i"
)
HUB_LOG: Final = Struct(
    "HubName s, SaveSecurityLog b, SecurityLogSwitchType i, SavePacketLog b, PacketLogSwitchType i, PacketLogConfig i[]"
)
HUB_MESSAGE: Final = Struct("HubName s, Msg d")
HUB_RADIUS: Final = Struct(
    "HubName s, RadiusServerName s, RadiusPort i, RadiusSecret s, RadiusRetryInterval i, RadiusRetryTimeout i"
)
OPTIONS: Final = Struct("HubName s, NumItem i", rows="AdminOptionList", columns="Name s, Value i, Descrption u")
SOURCES: Final = Struct(
    "HubName s, NumItem i",
    rows="ACList",
    columns="Id i, Deny b, IpAddress a, Masked b, SubnetMask a, Priority i",
)
AUTHORITIES: Final = Struct("HubName s", rows="CAList", columns="Key i, SubjectName u, IssuerName u, Expires t")
AUTHORITY: Final = Struct("HubName s, Key i, Cert d")

# -- users and groups ---------------------------------------------------------------------------------------------

USER: Final = Struct(
    "HubName s, Name s, GroupName s, Realname u, Note u, CreatedTime t, UpdatedTime t, ExpireTime t, AuthType i,"
    "Auth_Password s?, HashedKey d?, NtLmSecureHash d?, UserX d?, Serial d?, CommonName u?, RadiusUsername u?,"
    f"NtUsername u?, NumLogin i, {TRAFFIC}, UsePolicy b",
    policy=True,
)
USERS: Final = Struct(
    "HubName s",
    rows="UserList",
    columns="Name s, GroupName s, Realname u, Note u, AuthType i, NumLogin i, LastLoginTime t, DenyAccess b,"
    f"IsTrafficFilled b, {TRAFFIC_COLUMNS}, IsExpiresFilled b, Expires t",
)
GROUP: Final = Struct(f"HubName s, Name s, Realname u, Note u, {TRAFFIC}, UsePolicy b", policy=True)
GROUPS: Final = Struct("HubName s", rows="GroupList", columns="Name s, Realname u, Note u, NumUsers i, DenyAccess b")

# -- sessions and tables ------------------------------------------------------------------------------------------

SESSIONS: Final = Struct(
    "HubName s",
    rows="SessionList",
    columns="Name s, RemoteSession b, RemoteHostname s, Username s, Ip a, ClientIP a, Hostname s, MaxNumTcp i,"
    "CurrentNumTcp i, PacketSize q, PacketNum q, LinkMode b, SecureNATMode b, BridgeMode b, Layer3Mode b,"
    "Client_BridgeMode b, Client_MonitorMode b, VLanId i, UniqueId d, CreatedTime t, LastCommTime t,"
    "IsDormantEnabled b, IsDormant b, LastCommDormant t",
)
_CONNECTION_STATUS: Final = (
    "ServerName s, ServerProductName s, ServerProductVer i, ServerProductBuild i, CipherName s, SessionName s,"
    "ConnectionName s, SessionKey d, Active b, Connected b, SessionStatus i, ServerPort i, NumConnectionsEstablished i,"
    "HalfConnection b, QoS b, MaxTcpConnections i, NumTcpConnections i, NumTcpConnectionsUpload i,"
    "NumTcpConnectionsDownload i, UseEncrypt b, UseCompress b, IsRUDPSession b, UnderlayProtocol s,"
    "IsUdpAccelerationEnabled b, IsUsingUdpAcceleration b, IsBridgeMode b, IsMonitorMode b, StartTime t,"
    "FirstConnectionEstablisiedTime t, CurrentConnectionEstablishTime t, TotalSendSize q, TotalRecvSize q,"
    f"TotalSendSizeReal q, TotalRecvSizeReal q, VLanId i, {TRAFFIC}"
)
SESSION: Final = Struct(
    "HubName s, Name s, Username s, GroupName s, RealUsername s, SessionStatus_ClientIp a,"
    f"SessionStatus_ClientHostName s, Client_Ip_Address a, {_CONNECTION_STATUS}, ClientProductName s,"
    "ClientProductVer i?, ClientProductBuild i?, ClientOsName s, ClientOsVer s, ClientOsProductId s, ClientHostname s,"
    "ClientIpAddress a, ClientPort i?, ServerHostname s, ServerIpAddress a, ServerPort2 i?, ProxyHostname s,"
    "ProxyIpAddress a, ProxyPort i?, UniqueId d",
    policy=True,
)
MAC_TABLE: Final = Struct(
    "HubName s",
    rows="MacTable",
    columns="Key i, SessionName s, MacAddress d, VlanId i, CreatedTime t, UpdatedTime t, RemoteItem b,RemoteHostname s",
)
IP_TABLE: Final = Struct(
    "HubName s",
    rows="IpTable",
    columns="Key i, SessionName s, Ip a, IpV6 a, IpAddress a, DhcpAllocated b, CreatedTime t, UpdatedTime t,"
    "RemoteItem b, RemoteHostname s",
)

# -- access list --------------------------------------------------------------------------------------------------

_ACCESS: Final = (
    "Id i, Note u, Active b, Priority i, Discard b, SrcIpAddress a, SrcSubnetMask a, DestIpAddress a,"
    "DestSubnetMask a, Protocol i, SrcPortStart i, SrcPortEnd i, DestPortStart i, DestPortEnd i, SrcUsername s,"
    "DestUsername s, CheckSrcMac b, SrcMacAddress d, SrcMacMask d, CheckDstMac b, DstMacAddress d, DstMacMask d,"
    "CheckTcpState b, Established b, Delay i, Jitter i, Loss i, IsIPv6 b, UniqueId i, RedirectUrl s,"
    "SrcIpAddress6 d, SrcSubnetMask6 d, DestIpAddress6 d, DestSubnetMask6 d"
)
ACCESS_LIST: Final = Struct("HubName s", rows="AccessList", columns=_ACCESS)
ACCESS_ID: Final = Struct("HubName s, Id i")

# -- cascade links ------------------------------------------------------------------------------------------------

LINK: Final = Struct(
    "HubName_Ex s, Online b, CheckServerCert b, ServerCert d?, AccountName u, Hostname s, Port i, PortUDP i,"
    "ProxyType i, ProxyName s, ProxyPort i, ProxyUsername s, ProxyPassword s, HubName s, DeviceName s, NumRetry i,"
    "RetryInterval i, MaxConnection i, UseEncrypt b, UseCompress b, HalfConnection b, NoRoutingTracking b,"
    "AdditionalConnectionInterval i, ConnectionDisconnectSpan i, DisableQoS b, NoTls1 b, NoUdpAcceleration b,"
    "RequireMonitorMode b, RequireBridgeRoutingMode b, AuthType i, Username s, HashedPassword d?, PlainPassword s?,"
    "ClientX d?, ClientK d?",
    policy=True,
)
LINKS: Final = Struct(
    "HubName s",
    rows="LinkList",
    columns="AccountName u, Online b, Connected b, LastError i, ConnectedTime t, Hostname s, ConnectedHubName s,"
    "TargetHubName s",
)
LINK_NAME: Final = Struct("HubName s, AccountName u")
LINK_STATUS: Final = Struct(f"HubName_Ex s, AccountName u, {_CONNECTION_STATUS}", policy=True)
LINK_RENAME: Final = Struct("HubName s, OldAccountName u, NewAccountName u")
