"""Calls of administration tools against control's side: a real database and the real verbs, a worker of rows."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import pytest
from argon2 import PasswordHasher

from ukihashi.auth.password import admin_hash, hash_password, secure_password
from ukihashi.config.hub import Endpoint
from ukihashi.errors import EnvironmentLacks, Refused
from ukihashi.hub.administrator import Administrator
from ukihashi.hub.backstage import Facts
from ukihashi.hub.cascades import Cascades
from ukihashi.hub.desk import Desk
from ukihashi.hub.filters import Filters
from ukihashi.hub.groups import Groups
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.messages import AdminAsked, HubPut, Message
from ukihashi.hub.people import People
from ukihashi.hub.rpc.access import Access
from ukihashi.hub.rpc.calls import Calls
from ukihashi.hub.rpc.method import Backing
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Row, Verbs
from ukihashi.store import admin, cascades, hubs, users
from ukihashi.store.db import Database
from ukihashi.wire.constants import Code
from ukihashi.wire.pack import Pack
from ukihashi.wire.policy import DEFAULT
from ukihashi.wire.rpc import BEHIND_S, MAX_TIME_S, MAX_U32, MAX_U64, Kind

NOW = 1_700_000_000.0
WIRE_NOW = int(NOW - BEHIND_S)  # as a PACK has it
PEER = "192.0.2.7:50000"
CHALLENGE = b"c" * 20
SESSION: Row = {
    "session": "SID-HANAKO-1",
    "hub": "LAN",
    "user": "hanako",
    "group": "staff",
    "peer": "198.51.100.9:40000",
    "client": "Some VPN Client",
    "state": "online",
    "mode": "bridge",
    "connections": 2,
    "max_connections": 8,
    "half_duplex": True,
    "compression": False,
    "encrypted": True,
    "udp": False,
    "vlan": 7,
    "since": NOW - 60,
    "last_heard": NOW - 1,
    "tls_cipher": "TLS_AES_128_GCM_SHA256",
    "frames_in": 10,
    "bytes_in": 1000,
    "frames_out": 20,
    "bytes_out": 2000,
    "node": {
        "host": "desk7",
        "system": "Linux",
        "client": "Some VPN Client",
        "client_version": 501,
        "client_build": 9674,
        "ip": "10.0.0.7",
        "unique_id": "0123456789abcdef0123456789abcdef",
    },
}


class Live:
    """The worker and the supervisor."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.asked: list[tuple[str, str, str]] = []
        self.rows: dict[str, list[Row]] = {"status": [{"connections": 3}]}
        self.gone = False

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[Row]:
        if self.gone:
            raise EnvironmentLacks("there is no worker")
        self.asked.append((what, hub, name))
        rows = self.rows.get(what, [])
        return [row for row in rows if not hub or row.get("hub", hub) == hub]

    async def tell_worker(self, message: Message) -> None:
        self.told.append(message)

    async def tell_supervisor(self, message: Message) -> None:
        self.told.append(message)

    async def wish(self, what: str, *, key: str = "", value: str = "") -> list[Row]:
        return []


class House:
    """Control without its processes."""

    def __init__(self, path: Path) -> None:
        self.storage = Storage(Database(path))
        self.live = Live()
        self.hasher = Hasher(hasher=PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        self.slept: list[float] = []
        self.facts = Facts(
            version="9.9",
            endpoints=(Endpoint("0.0.0.0", 443), Endpoint("::", 443), Endpoint("0.0.0.0", 5555)),
            pin=b"p" * 32,
            host_ports=False,
            certificate=b"DER",
            ciphers=("TLS_A", "TLS_B"),
        )
        self.access = Access(self.storage, monotonic=lambda: NOW, sleep=self._sleep)
        self.desk = Desk(self.facts, self.storage, self.live, clock=lambda: NOW)
        people = People(self.facts, self.storage, self.hasher, self.live, clock=lambda: NOW)
        administrator = Administrator(self.storage, self.hasher, clock=lambda: NOW)
        groups = Groups(self.storage, self.live, clock=lambda: NOW)
        filters = Filters(self.storage, self.desk.tell_worker)
        joined = Cascades(self.storage, self.live, clock=lambda: NOW)
        self.verbs = Verbs(
            self.desk.verbs()
            | joined.verbs()
            | people.verbs()
            | groups.verbs()
            | filters.verbs()
            | administrator.verbs()
            | self.access.verbs()
        )
        self.calls = Calls(Backing(self.facts, self.storage, self.live, self.verbs, self.access, clock=lambda: NOW))
        self.administrator = administrator

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def call(self, function: str, /, **elements: Any) -> Pack:
        """One call as a tool makes it: the name of an element says its type by its first letter, `i_Port=443`.

        `hub`: who calls was let in for that one only.
        """
        hub, pack = elements.pop("hub", ""), Pack()
        pack.add_str("function_name", function)
        for name, value in elements.items():
            kind, _, rest = name.partition("_")
            add: dict[str, Callable[..., None]] = {
                "i": pack.add_int,
                "q": pack.add_int64,
                "s": pack.add_str,
                "u": pack.add_unistr,
                "d": pack.add_data,
            }
            add[kind](rest, *(value if isinstance(value, list) else [value]))
        return Pack.decode(await self.calls.call(hub, pack.encode(), PEER))

    async def good(self, function: str, /, **elements: Any) -> Pack:
        answer = await self.call(function, **elements)
        assert answer.get_int("error") == 0, (function, answer.get_int("error"))
        return answer

    async def code(self, function: str, /, **elements: Any) -> int:
        return (await self.call(function, **elements)).get_int("error")

    def close(self) -> None:
        self.hasher.close()
        self.storage.close()


class Run(Protocol):
    def __call__(self, test: Callable[[House], Awaitable[None]], allowed: Sequence[str] = ...) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a test's coroutine in a house with the hub LAN."""

    def go(test: Callable[[House], Awaitable[None]], allowed: Sequence[str] = ("", "LAN")) -> None:
        async def whole() -> None:
            house = House(tmp_path / "hub.db")
            try:
                await house.administrator.first_secret()
                await house.verbs.ask("create", name="LAN")
                for hub in allowed:
                    await house.verbs.ask("tools_on", hub=hub)
                await test(house)
            finally:
                house.close()

        asyncio.run(whole())

    return go


def column(pack: Pack, name: str) -> list[Any]:
    return [element for one in pack if one.name == name for element in one.values]


# -- the call itself ----------------------------------------------------------------------------------------------


def test_the_proven_call(run: Run) -> None:
    """Vector rpc-test, byte by byte as a real server was asked."""

    async def test(house: House) -> None:
        vectors = json.loads(Path("tests/wire/softether-vectors.json").read_text())["vectors"]
        (vector,) = [one for one in vectors if one["id"] == "rpc-test"]
        request = bytes.fromhex(vector["request_hex"])[4:]
        answer = Pack.decode(await house.calls.call("", request, PEER))
        assert answer == Pack.decode(bytes.fromhex(vector["response_hex"])[4:])
        assert (answer.get_int("IntValue"), answer.get_str("StrValue"), answer.get_int("error")) == (42, "42", 0)

    run(test)


@pytest.mark.parametrize("name", ["SetFarmSetting", "EnableSecureNAT", "RebootServer", "SetConfig", "", "x" * 300])
def test_an_unknown_call_is_error_33(run: Run, name: str) -> None:
    async def test(house: House) -> None:
        assert await house.code(name) == Code.NOT_SUPPORTED

    run(test)


def test_unreadable_bytes_end_the_connection(run: Run) -> None:
    async def test(house: House) -> None:
        assert await house.calls.call("", b"\xff" * 30, PEER) == b""

    run(test)


def test_a_fault_of_ours_is_an_internal_error(run: Run) -> None:
    async def test(house: House) -> None:
        house.live.rows["mac_table"] = [{"hub": "LAN"}]  # without a MAC
        assert await house.code("EnumMacTable", s_HubName="LAN") == Code.INTERNAL_ERROR

    run(test)


def test_no_call_fails_inside_whatever_is_in_it(run: Run) -> None:
    """Every call with nothing, with only names, and with every field as odd as it can be."""

    async def test(house: House) -> None:
        house.live.rows |= {"sessions": [SESSION]}
        for name in sorted(house.calls.names, key=lambda one: one.startswith("Delete")):
            method = house.calls._methods[name.casefold()]
            odd = {
                Kind.BOOL: True,
                Kind.INT: MAX_U32,
                Kind.INT64: MAX_U64,
                Kind.TIME: MAX_TIME_S,
                Kind.STR: "x" * 70_000,
                Kind.UNISTR: "\u202e" * 300,
                Kind.DATA: b"\xff" * 20,
                Kind.IP: ip_address("fe80::1"),
            }
            values: dict[str, Any] = {
                one.name: [odd[one.kind]] if one.many else odd[one.kind] for one in method.takes.fields
            }
            if method.takes.rows:
                values[method.takes.rows] = [{one.name: odd[one.kind] for one in method.takes.columns}] * 2
            names = {"HubName": "LAN", "HubName_Ex": "LAN", "Name": "guest"}
            for given in ({}, names, values, values | names, values | {"HubName": "LAN", "HubName_Ex": "LAN"}):
                pack = method.takes.to_pack(given)
                pack.add_str("function_name", name)
                answer = Pack.decode(await house.calls.call("", pack.encode(), PEER))
                assert answer.get_int("error") != Code.INTERNAL_ERROR, (name, given)

    run(test)


def test_a_call_in_json_has_the_same_answer(run: Run) -> None:
    async def test(house: House) -> None:
        assert await house.calls.call_json("", "Test", {"IntValue_u32": 5}, PEER) == {
            "Int64Value_u64": 0,
            "IntValue_u32": 5,
            "StrValue_str": "5",
            "UniStrValue_utf": "",
        }
        with pytest.raises(Refused) as caught:
            await house.calls.call_json("", "GetHub", {"HubName_str": "none"}, PEER)
        assert caught.value.code == Code.HUB_NOT_FOUND
        with pytest.raises(Refused) as caught:
            await house.calls.call_json("", "GetHub", {"HubName_str": 7}, PEER)
        assert caught.value.code == Code.INVALID_PARAMETER

    run(test)


# -- who may ------------------------------------------------------------------------------------------------------


def test_a_hub_administrator_has_that_hub_and_nothing_else(run: Run) -> None:
    async def test(house: House) -> None:
        await house.verbs.ask("create", name="OTHER")
        assert column(await house.good("EnumHub", hub="LAN"), "HubName") == ["LAN"]
        assert column(await house.good("EnumHub"), "HubName") == ["LAN", "OTHER"]
        await house.good("GetHubStatus", hub="LAN", s_HubName="lan")
        for name in ("GetHubStatus", "EnumUser", "EnumSession", "GetHub", "EnumAccess", "EnumMacTable", "EnumLink"):
            assert await house.code(name, hub="LAN", s_HubName="OTHER") == Code.NOT_ENOUGH_RIGHT, name
            assert await house.code(name, hub="LAN") == Code.NOT_ENOUGH_RIGHT, name
        for name in (
            "CreateHub",
            "DeleteHub",
            "SetServerPassword",
            "EnumListener",
            "EnumConnection",
            "GetServerStatus",
        ):
            assert await house.code(name, hub="LAN", s_HubName="LAN") == Code.NOT_ENOUGH_RIGHT, name
        files = column(await house.good("EnumLogFile", hub="LAN"), "FilePath")
        assert files == ["hub/LAN.log"]
        assert await house.code("ReadLogFile", hub="LAN", s_FilePath="server.log") == Code.NOT_ENOUGH_RIGHT
        assert await house.code("ReadLogFile", hub="LAN", s_FilePath="hub/OTHER.log") == Code.NOT_ENOUGH_RIGHT

    run(test)


def test_no_tool_is_let_in_before_an_administrator_says_so(run: Run) -> None:
    async def test(house: House) -> None:
        for password in ("", "x"):
            hashed = secure_password(admin_hash(password), CHALLENGE)
            for hub in ("", "LAN"):
                answer = await house.access.admin_login(AdminAsked(1, hub, CHALLENGE, hashed, peer=PEER))
                assert answer.error == Code.ACCESS_DENIED
        assert await house.access.password_login("", "", PEER) == Code.ACCESS_DENIED

    run(test, allowed=())


@pytest.mark.parametrize("hub", ["", "LAN"])
def test_the_password_of_tools_lets_in_until_it_is_forgotten(run: Run, hub: str) -> None:
    async def test(house: House) -> None:
        (row,) = await house.verbs.ask("tools_on", hub=hub)
        assert (row["hub"], row["on"], len(row["password"])) == (hub, True, 23)
        secure = secure_password(admin_hash(row["password"]), CHALLENGE)
        asked = AdminAsked(7, hub, CHALLENGE, secure, peer=PEER)
        assert (await house.access.admin_login(asked)).error == 0
        assert (await house.access.admin_login(AdminAsked(7, hub, b"d" * 20, secure, peer=PEER))).error == 12
        assert await house.access.password_login(hub, row["password"], PEER) == 0
        other = "LAN" if not hub else ""
        assert await house.access.password_login(other, row["password"], PEER) == Code.ACCESS_DENIED
        assert await house.verbs.ask("tools") == [{"hub": "", "on": not hub}, {"hub": "LAN", "on": bool(hub)}]
        if hub:
            found = await house.storage.read(hubs.get, hub)
            assert found.login_hash == hash_password("administrator", row["password"])
        await house.verbs.ask("tools_off", hub=hub)
        assert (await house.access.admin_login(asked)).error == Code.ACCESS_DENIED

    run(test, allowed=())


def test_no_such_hub_is_error_8(run: Run) -> None:
    async def test(house: House) -> None:
        assert (await house.access.admin_login(AdminAsked(1, "none", CHALLENGE, b"x" * 20, peer=PEER))).error == 8

    run(test)


def test_guesses_are_slowed_down(run: Run) -> None:
    async def test(house: House) -> None:
        for _ in range(10):
            assert await house.access.password_login("", "wrong", PEER) == Code.ACCESS_DENIED
        assert house.slept == []
        await house.access.password_login("", "wrong", PEER)
        await house.access.password_login("", "wrong", "192.0.2.8:1")
        assert house.slept == [1.0]

    run(test)


def test_the_password_of_tools_can_be_changed_by_a_tool_but_not_emptied(run: Run) -> None:
    async def test(house: House) -> None:
        await house.good("SetServerPassword", d_HashedPassword=admin_hash("new one"))
        assert await house.access.password_login("", "new one", PEER) == 0
        assert await house.code("SetServerPassword", d_HashedPassword=admin_hash("")) == Code.INVALID_PARAMETER
        assert await house.code("SetServerPassword", d_HashedPassword=bytes(20)) == Code.INVALID_PARAMETER
        assert await house.storage.read(admin.rpc_hash) == admin_hash("new one")

    run(test)


def test_a_tool_that_is_in_goes_when_tools_are_forbidden(run: Run) -> None:
    async def test(house: House) -> None:
        request = Pack()
        request.add_str("function_name", "EnumHub")
        for hub in ("", "LAN"):
            assert await house.calls.call(hub, request.encode(), PEER) != b""
            await house.verbs.ask("tools_off", hub=hub)
            assert await house.calls.call(hub, request.encode(), PEER) == b""
        assert await house.calls.call("none", request.encode(), PEER) == b""

    run(test)


# -- the whole ----------------------------------------------------------------------------------------------------


def test_what_a_tool_asks_first(run: Run) -> None:
    async def test(house: House) -> None:
        info = await house.good("GetServerInfo")
        assert info.get_str("ServerProductName") == "ukihashi hub 9.9"
        assert (info.get_int("ServerVerInt"), info.get_int("OsType")) == (501, 3100)
        caps = await house.good("GetCaps")
        assert dict(zip(column(caps, "CapsName"), column(caps, "CapsValue"), strict=True))["b_support_cascade"] == 1
        assert caps.get_int("caps_b_support_cascade") == 1
        assert (await house.good("GetServerCert")).get_data("Cert") == b"DER"
        assert not (await house.good("GetServerCert")).get_data("Key")
        status = await house.good("GetServerStatus")
        assert (status.get_int("NumHubTotal"), status.get_int("NumTcpConnections")) == (1, 3)
        assert status.get_int64("CurrentTime") == WIRE_NOW * 1000
        house.live.gone = True
        assert (await house.good("GetServerStatus")).get_int("NumSessionsTotal") == 0

    run(test)


def test_listeners_are_told_and_not_changed(run: Run) -> None:
    async def test(house: House) -> None:
        assert column(await house.good("EnumListener"), "Ports") == [443, 5555]
        for name in ("CreateListener", "DeleteListener", "EnableListener", "SetServerCert", "RegenerateServerCert"):
            assert await house.code(name, i_Port=444) == Code.NOT_SUPPORTED
        assert await house.code("SetServerCipher", s_String="X") == Code.NOT_SUPPORTED
        assert (await house.good("GetServerCipher")).get_str("String") == "TLS_A:TLS_B"

    run(test)


# -- hubs ---------------------------------------------------------------------------------------------------------


def test_a_hub_from_making_to_deleting(run: Run) -> None:
    async def test(house: House) -> None:
        hashed, secure = admin_hash("geheim"), hash_password("administrator", "geheim")
        made = await house.good(
            "CreateHub",
            s_HubName="TOKYO",
            d_HashedPassword=hashed,
            d_SecurePassword=secure,
            i_Online=1,
            i_MaxSession=5,
            i_NoEnum=1,
        )
        assert made.get_data("HashedPassword") == bytes(20)
        assert await house.code("CreateHub", s_HubName="tokyo", i_Online=1) == Code.HUB_ALREADY_EXISTS
        hub = await house.storage.read(hubs.get, "TOKYO")
        assert (hub.max_sessions, hub.listed, hub.online) == (5, False, True)
        assert (hub.admin_hash, hub.login_hash) == (hashed, secure)
        assert await house.access.password_login("TOKYO", "geheim", PEER) == 0
        told = await house.good("GetHub", s_HubName="TOKYO")
        assert (told.get_int("MaxSession"), told.get_int("NoEnum"), told.get_data("HashedPassword")) == (
            5,
            1,
            bytes(20),
        )
        await house.good("SetHub", s_HubName="TOKYO", i_Online=1, i_MaxSession=9, d_HashedPassword=bytes(20))
        hub = await house.storage.read(hubs.get, "TOKYO")
        assert (hub.max_sessions, hub.listed, hub.admin_hash) == (9, True, hashed)
        await house.good("SetHubOnline", s_HubName="TOKYO", i_Online=0)
        put = [one for one in house.live.told if isinstance(one, HubPut)][-1]
        assert (put.hub, put.online) == ("TOKYO", False)
        assert (await house.good("GetHubStatus", s_HubName="TOKYO")).get_int("Online") == 0
        await house.good("DeleteHub", s_HubName="TOKYO")
        assert await house.code("GetHub", s_HubName="TOKYO") == Code.HUB_NOT_FOUND

    run(test)


def test_an_empty_password_is_none(run: Run) -> None:
    async def test(house: House) -> None:
        empty = {"d_HashedPassword": admin_hash(""), "d_SecurePassword": hash_password("administrator", "")}
        await house.good("CreateHub", s_HubName="OPEN", i_Online=1, **empty)
        assert (await house.storage.read(hubs.get, "OPEN")).admin_hash == b""
        assert await house.access.password_login("OPEN", "", PEER) == Code.ACCESS_DENIED

    run(test)


def test_banner_and_options(run: Run) -> None:
    async def test(house: House) -> None:
        await house.good("SetHubMsg", s_HubName="LAN", d_Msg="ようこそ".encode())
        assert (await house.good("GetHubMsg", s_HubName="LAN")).get_data("Msg") == "ようこそ".encode()
        options = await house.good("GetHubExtOptions", s_HubName="LAN")
        known = dict(zip(column(options, "Name"), column(options, "Value"), strict=True))
        assert known["BroadcastStormDetectionThreshold"] == 32
        assert known["NoManageVlanId"] == 0
        names = ["BroadcastStormDetectionThreshold", "NoManageVlanId", "FilterPPPoE"]
        await house.good("SetHubExtOptions", s_HubName="LAN", s_Name=names, i_Value=[99, 1, 0])
        rules = (await house.storage.read(hubs.get, "LAN")).rules
        assert (rules.storm_threshold, rules.vlans_apart) == (99, False)
        unknown = {"s_Name": ["FilterPPPoE"], "i_Value": [1]}
        assert await house.code("SetHubExtOptions", s_HubName="LAN", **unknown) == Code.NOT_SUPPORTED

    run(test)


def test_log_settings_can_be_read_and_set_to_what_they_are(run: Run) -> None:
    async def test(house: House) -> None:
        told = await house.good("GetHubLog", s_HubName="LAN")
        assert (told.get_int("SaveSecurityLog"), told.get_int("SavePacketLog")) == (1, 0)
        assert len(column(told, "PacketLogConfig")) == 16
        same = {"i_SaveSecurityLog": 1, "i_SecurityLogSwitchType": 4, "i_PacketLogSwitchType": 4}
        await house.good("SetHubLog", s_HubName="LAN", **same)
        changes: list[dict[str, Any]] = [
            {"i_SavePacketLog": 1},
            {"i_SaveSecurityLog": 0},
            {"i_PacketLogSwitchType": 3},
            {"i_PacketLogConfig": [0, 2]},
        ]
        for change in changes:
            assert await house.code("SetHubLog", s_HubName="LAN", **(same | change)) == Code.NOT_SUPPORTED

    run(test)


# -- users and groups ---------------------------------------------------------------------------------------------


def test_a_user_from_making_to_deleting(run: Run) -> None:
    async def test(house: House) -> None:
        hashed = hash_password("hanako", "himitsu")
        lan = {"s_HubName": "LAN", "s_Name": "Hanako"}
        await house.good("CreateUser", **lan, u_Realname="花子", u_Note="n", i_AuthType=1, d_HashedKey=hashed)
        assert await house.code("CreateUser", **lan, i_AuthType=0) == Code.USER_ALREADY_EXISTS
        hub = await house.storage.read(hubs.get, "LAN")
        user = await house.storage.read(users.get, hub, "hanako")
        assert (user.sha0, user.real_name, user.policy) == (hashed, "花子", None)
        told = await house.good("GetUser", **lan)
        assert (told.get_data("HashedKey"), told.get_int("AuthType"), told.get_int("UsePolicy")) == (bytes(20), 1, 0)
        policy = {f"i_policy:{name}": value for name, value in DEFAULT.to_wire().items()} | {"i_policy:MaxUpload": 1000}
        written_back = {"u_Realname": "花子", "u_Note": "m", "i_AuthType": 1, "d_HashedKey": bytes(20)}
        await house.good("SetUser", **lan, **written_back, i_UsePolicy=1, q_ExpireTime=(WIRE_NOW + 60) * 1000, **policy)
        user = await house.storage.read(users.get, hub, "hanako")
        assert (user.sha0, user.note, user.expires_at) == (hashed, "m", NOW + 60)
        assert user.policy is not None
        assert user.policy.max_upload == 1000
        assert (await house.good("GetUser", **lan)).get_int("policy:MaxUpload") == 1000
        await house.good("SetUser", **lan, i_AuthType=1)
        user = await house.storage.read(users.get, hub, "hanako")
        assert (user.sha0, user.policy, user.expires_at) == (hashed, None, 0.0)
        listed = await house.good("EnumUser", s_HubName="LAN")
        assert (column(listed, "Name"), column(listed, "AuthType")) == (["Hanako"], [1])
        await house.good("SetUser", **lan, i_AuthType=0)
        assert (await house.good("GetUser", **lan)).get_int("AuthType") == 0
        await house.good("DeleteUser", **lan)
        assert await house.code("GetUser", **lan) == Code.OBJECT_NOT_FOUND
        assert await house.code("DeleteUser", **lan) == Code.OBJECT_NOT_FOUND

    run(test)


def test_what_cannot_be_of_a_user_leaves_none_behind(run: Run) -> None:
    async def test(house: House) -> None:
        lan = {"s_HubName": "LAN", "s_Name": "taro"}
        assert await house.code("CreateUser", **lan, i_AuthType=4) == Code.NOT_SUPPORTED
        assert await house.code("CreateUser", **lan, i_AuthType=2, d_UserX=b"junk") == Code.INVALID_PARAMETER
        empty = hash_password("taro", "")
        assert await house.code("CreateUser", **lan, i_AuthType=1, d_HashedKey=empty) == Code.INVALID_PARAMETER
        assert await house.code("CreateUser", **lan, s_GroupName="none", i_AuthType=0) == Code.GROUP_NOT_FOUND
        assert column(await house.good("EnumUser", s_HubName="LAN"), "Name") == []
        assert await house.code("CreateUser", s_HubName="LAN", s_Name="a/b", i_AuthType=0) == Code.INVALID_PARAMETER

    run(test)


def test_groups(run: Run) -> None:
    async def test(house: House) -> None:
        staff = {"s_HubName": "LAN", "s_Name": "staff"}
        await house.good("CreateGroup", **staff, u_Realname="Staff")
        assert await house.code("CreateGroup", **staff) == Code.GROUP_ALREADY_EXISTS
        await house.good("CreateUser", s_HubName="LAN", s_Name="taro", s_GroupName="staff", i_AuthType=0)
        listed = await house.good("EnumGroup", s_HubName="LAN")
        assert (column(listed, "Name"), column(listed, "NumUsers"), column(listed, "DenyAccess")) == (
            ["staff"],
            [1],
            [0],
        )
        denied = {f"i_policy:{name}": value for name, value in DEFAULT.to_wire().items()} | {"i_policy:Access": 0}
        await house.good("SetGroup", **staff, i_UsePolicy=1, **denied)
        assert column(await house.good("EnumGroup", s_HubName="LAN"), "DenyAccess") == [1]
        assert column(await house.good("EnumUser", s_HubName="LAN"), "DenyAccess") == [1]
        assert (await house.good("GetGroup", **staff)).get_int("policy:Access", 7) == 0
        await house.good("DeleteGroup", **staff)
        assert await house.code("GetGroup", **staff) == Code.OBJECT_NOT_FOUND

    run(test)


# -- sessions and tables ------------------------------------------------------------------------------------------


def test_sessions(run: Run) -> None:
    async def test(house: House) -> None:
        house.live.rows |= {"sessions": [SESSION], "disconnect": [{"session": "SID-HANAKO-1"}]}
        listed = await house.good("EnumSession", s_HubName="LAN")
        assert (column(listed, "Name"), column(listed, "Hostname")) == (["SID-HANAKO-1"], ["desk7"])
        assert (column(listed, "Client_BridgeMode"), column(listed, "VLanId")) == ([1], [7])
        assert str(listed.get_ip("ClientIP")) == "198.51.100.9"
        status = await house.good("GetSessionStatus", s_HubName="LAN", s_Name="sid-hanako-1")
        assert (status.get_int("NumTcpConnections"), status.get_int("MaxTcpConnections")) == (2, 8)
        assert (status.get_int("HalfConnection"), status.get_str("GroupName")) == (1, "staff")
        assert status.get_int64("Recv.UnicastBytes") == 1000
        assert status.get_data("SessionKey") == bytes(20)
        assert status.get_int("ClientProductVer") == int.from_bytes((501).to_bytes(4, "little"), "big")
        assert await house.code("GetSessionStatus", s_HubName="LAN", s_Name="none") == Code.OBJECT_NOT_FOUND
        await house.good("DeleteSession", s_HubName="LAN", s_Name="SID-HANAKO-1")
        assert ("disconnect", "LAN", "SID-HANAKO-1") in house.live.asked
        house.live.rows["sessions"] = []
        assert "Name" not in await house.good("EnumSession", s_HubName="LAN")

    run(test)


def test_tables(run: Run) -> None:
    async def test(house: House) -> None:
        house.live.rows["mac_table"] = [
            {"hub": "LAN", "key": 5, "mac": "02:00:5e:00:00:01", "vlan": 0, "session": "S", "age_s": 3, "created_s": 9}
        ]
        house.live.rows["ip_table"] = [
            {"hub": "LAN", "key": 6, "ip": "10.0.0.7", "session": "S", "age_s": 1, "created_s": 2, "dhcp": True},
            {"hub": "LAN", "key": 7, "ip": "fd00::7", "session": "S", "age_s": 1, "created_s": 2, "dhcp": False},
        ]
        stations = await house.good("EnumMacTable", s_HubName="LAN")
        assert column(stations, "MacAddress") == [bytes.fromhex("02005e000001")]
        assert (stations.get_int64("CreatedTime"), stations.get_int64("UpdatedTime")) == (
            (WIRE_NOW - 9) * 1000,
            (WIRE_NOW - 3) * 1000,
        )
        addresses = await house.good("EnumIpTable", s_HubName="LAN")
        assert [str(addresses.get_ip("IpAddress", index)) for index in range(2)] == ["10.0.0.7", "fd00::7"]
        assert column(addresses, "DhcpAllocated") == [1, 0]
        await house.good("DeleteMacTable", s_HubName="LAN", i_Key=5)
        await house.good("DeleteIpTable", s_HubName="LAN", i_Key=7)
        assert await house.code("DeleteIpTable", s_HubName="LAN", i_Key=8) == Code.OBJECT_NOT_FOUND
        assert {("forget_mac", "LAN", "5"), ("forget_ip", "LAN", "7")} <= set(house.live.asked)

    run(test)


def test_connections(run: Run) -> None:
    async def test(house: House) -> None:
        house.live.rows["connections"] = [
            {"connection": "CID-1", "peer": PEER, "since": NOW - 5, "kind": "admin", "client": "Tool"}
        ]
        listed = await house.good("EnumConnection")
        assert (column(listed, "Name"), column(listed, "Type"), column(listed, "Port")) == (["CID-1"], [5], [50000])
        assert (await house.good("GetConnectionInfo", s_Name="cid-1")).get_str("ClientStr") == "Tool"
        await house.good("DisconnectConnection", s_Name="CID-1")
        assert ("end_connection", "", "CID-1") in house.live.asked
        assert await house.code("GetConnectionInfo", s_Name="CID-2") == Code.OBJECT_NOT_FOUND

    run(test)


# -- access list --------------------------------------------------------------------------------------------------


def test_the_access_list(run: Run) -> None:
    async def test(house: House) -> None:
        rule = {
            "u_Note": "no mail",
            "i_Active": 1,
            "i_Priority": 10,
            "i_Discard": 1,
            "i_SrcIpAddress": int.from_bytes(bytes([10, 0, 0, 0]), "little"),
            "i_SrcSubnetMask": int.from_bytes(bytes([255, 0, 0, 0]), "little"),
            "i_DestIpAddress": 0,
            "i_DestSubnetMask": 0,
            "i_Protocol": 6,
            "i_DestPortStart": 25,
            "i_DestPortEnd": 25,
            "s_SrcUsername": "taro",
            "i_CheckSrcMac": 1,
            "d_SrcMacAddress": bytes.fromhex("02005e000001"),
            "d_SrcMacMask": b"\xff" * 6,
            "i_CheckTcpState": 1,
            "i_Established": 0,
        }
        await house.good("AddAccess", s_HubName="LAN", **rule)
        (row,) = await house.verbs.ask("access_list", hub="LAN")
        assert (row["source"], row["destination_ports"], row["source_mac"]) == (
            "10.0.0.0/8",
            (25, 25),
            "02:00:5e:00:00:01",
        )
        assert row["established"] is False
        listed = await house.good("EnumAccess", s_HubName="LAN")
        assert str(listed.get_ip("SrcSubnetMask")) == "255.0.0.0"
        assert (column(listed, "DestPortStart"), column(listed, "Note")) == ([25], ["no mail"])
        again = house.calls._methods["setaccesslist"].takes.from_pack(listed)
        await house.calls.call_json(
            "", "SetAccessList", house.calls._methods["setaccesslist"].takes.to_json(again), PEER
        )
        (same,) = await house.verbs.ask("access_list", hub="LAN")
        assert {**same, "number": 0} == {**row, "number": 0}
        assert await house.code("AddAccess", s_HubName="LAN", i_Delay=5) == Code.NOT_SUPPORTED
        assert await house.code("DeleteAccess", s_HubName="LAN", i_Id=999) == Code.OBJECT_NOT_FOUND
        await house.good("DeleteAccess", s_HubName="LAN", i_Id=same["number"])
        assert await house.verbs.ask("access_list", hub="LAN") == []

    run(test)


def test_a_rule_about_ipv6(run: Run) -> None:
    async def test(house: House) -> None:
        network = bytes.fromhex("fd000000000000010000000000000000")
        mask = b"\xff" * 8 + bytes(8)
        six = {"i_IsIPv6": 1, "d_DestIpAddress6": network, "d_DestSubnetMask6": mask, "d_SrcIpAddress6": bytes(16)}
        await house.good("AddAccess", s_HubName="LAN", i_Priority=1, **six)
        (row,) = await house.verbs.ask("access_list", hub="LAN")
        assert (row["ipv6"], row["source"], row["destination"]) == (True, "", "fd00:0:0:1::/64")
        listed = await house.good("EnumAccess", s_HubName="LAN")
        assert (listed.get_data("DestIpAddress6"), listed.get_data("DestSubnetMask6")) == (network, mask)
        gap = b"\xff\x00\xff" + bytes(13)
        assert await house.code("AddAccess", s_HubName="LAN", **(six | {"d_DestSubnetMask6": gap})) == 38

    run(test)


def test_where_logins_may_come_from(run: Run) -> None:
    async def test(house: House) -> None:
        rows = [
            {"Priority_u32": 1, "Deny_bool": True, "IpAddress_ip": "192.0.2.5", "Masked_bool": False},
            {
                "Priority_u32": 2,
                "Deny_bool": False,
                "IpAddress_ip": "192.0.2.0",
                "Masked_bool": True,
                "SubnetMask_ip": "255.255.255.0",
            },
            {"Priority_u32": 3, "Deny_bool": True, "IpAddress_ip": "fd00::1", "Masked_bool": False},
        ]
        await house.calls.call_json("", "SetAcList", {"HubName_str": "LAN", "ACList": rows}, PEER)
        known = await house.verbs.ask("sources", hub="LAN")
        assert [row["network"] for row in known] == ["192.0.2.5/32", "192.0.2.0/24", "fd00::1/128"]
        told = await house.good("GetAcList", s_HubName="LAN")
        assert (told.get_int("NumItem"), column(told, "Masked")) == (3, [0, 1, 0])
        await house.calls.call_json("", "SetAcList", {"HubName_str": "LAN", "ACList": rows[1:]}, PEER)
        left = await house.verbs.ask("sources", hub="LAN")
        assert [row["number"] for row in left] == [row["number"] for row in known[1:]]

    run(test)


# -- cascades -----------------------------------------------------------------------------------------------------


def test_a_cascade_from_making_to_deleting(run: Run) -> None:
    async def test(house: House) -> None:
        lan = {"s_HubName_Ex": "LAN", "u_AccountName": "tokyo"}
        link = {
            "s_Hostname": "vpn.example.org",
            "i_Port": 5555,
            "s_HubName": "OFFICE",
            "i_MaxConnection": 8,
            "i_UseEncrypt": 1,
            "s_Username": "branch",
        }
        await house.good("CreateLink", **lan, **link, i_AuthType=0)
        assert await house.code("CreateLink", **lan, **link, i_AuthType=0) == Code.LINK_ALREADY_EXISTS
        listed = await house.good("EnumLink", s_HubName="LAN")
        assert (column(listed, "AccountName"), column(listed, "Online"), column(listed, "Hostname")) == (
            ["tokyo"],
            [0],
            ["vpn.example.org"],
        )
        told = await house.good("GetLink", **lan)
        assert (told.get_int("Port"), told.get_int("MaxConnection"), told.get_int("AuthType")) == (5555, 8, 0)
        hashed = hash_password("branch", "geheim")
        await house.good("SetLink", **lan, **link, i_AuthType=1, d_HashedPassword=hashed)
        told = await house.good("GetLink", **lan)
        assert (told.get_int("AuthType"), told.get_data("HashedPassword")) == (1, bytes(20))
        written_back = link | {"i_AuthType": 1, "d_HashedPassword": bytes(20), "i_UseCompress": 1}
        await house.good("SetLink", **lan, **written_back)
        hub = await house.storage.read(hubs.get, "LAN")
        kept = await house.storage.read(cascades.get, hub, "tokyo")
        assert kept.secrets["password_hash"] == hashed.hex()
        assert kept.account["standard"]["compression"] is True
        await house.good("SetLink", **lan, **written_back, i_CheckServerCert=1)
        assert (await house.good("GetLink", **lan)).get_int("CheckServerCert") == 1
        await house.good("SetLink", **lan, **written_back)
        assert (await house.good("GetLink", **lan)).get_int("CheckServerCert") == 0
        assert await house.code("GetLinkStatus", **lan) == Code.LINK_IS_OFFLINE
        name = {"s_HubName": "LAN", "u_AccountName": "tokyo"}
        await house.good("SetLinkOnline", **name)
        assert (await house.good("GetLinkStatus", **lan)).get_int("Connected") == 0
        await house.good("SetLinkOffline", **name)
        for wrong in ({"i_UseEncrypt": 0}, {"i_ProxyType": 1}, {"i_AuthType": 4}):
            assert await house.code("SetLink", **lan, **(written_back | wrong)) in {33, 38}
        await house.good("DeleteLink", **name)
        assert await house.code("GetLink", **lan) == Code.OBJECT_NOT_FOUND
        assert await house.code("SetLinkOnline", **name) == Code.OBJECT_NOT_FOUND

    run(test)


# -- logs ---------------------------------------------------------------------------------------------------------


def test_the_log_can_be_read(run: Run) -> None:
    async def test(house: House) -> None:
        house.facts.log.note({"event": "session_opened", "hub": "LAN", "user": "hanako"})
        house.facts.log.note({"event": "hub_started"})
        files = await house.good("EnumLogFile")
        assert column(files, "FilePath") == ["server.log", "hub/LAN.log"]
        whole = (await house.good("ReadLogFile", s_FilePath="server.log", i_Offset=0)).get_data("Buffer")
        assert b"session_opened" in whole
        assert b"hub_started" in whole
        own = (await house.good("ReadLogFile", hub="LAN", s_FilePath="hub/LAN.log", i_Offset=0)).get_data("Buffer")
        assert b"session_opened" in own
        assert b"hub_started" not in own
        end = await house.good("ReadLogFile", s_FilePath="server.log", i_Offset=len(whole))
        assert "Buffer" not in end
        assert await house.code("ReadLogFile", s_FilePath="/etc/passwd") == Code.OBJECT_NOT_FOUND
        assert await house.code("ReadLogFile", s_FilePath="hub/none.log") == Code.OBJECT_NOT_FOUND

    run(test)
