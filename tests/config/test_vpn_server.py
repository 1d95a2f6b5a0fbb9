"""What of a standard server's configuration a hub of ours can be, and what is told instead."""

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.auth.password import hash_password
from ukihashi.config.vpn_server import HubPlan, Left, SourcePlan, UserPlan, parse, plan
from ukihashi.errors import InputUnreadable
from ukihashi.switch.access import Rule
from ukihashi.wire.policy import Policy


def byte(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(tree: dict[str, Any], depth: int = 0) -> str:
    """The tree in the file's form; a value is (type, text)."""
    tabs, lines = "\t" * depth, ""
    for name, value in tree.items():
        if isinstance(value, dict):
            lines += f"{tabs}declare {name}\n{tabs}{{\n{written(value, depth + 1)}{tabs}}}\n"
        else:
            lines += f"{tabs}{value[0]} {name} {value[1]}\n"
    return lines


def server(**parts: Any) -> bytes:
    """A whole file."""
    return ("\ufeff# a comment\r\n#\r\n" + written({"root": {"uint": ("uint", "1"), **parts}})).encode()


def lan(**parts: Any) -> dict[str, Any]:
    """The folder of virtual hubs, with one that has these parts."""
    return {"LAN": {"bool": ("bool", "true"), "Online": ("bool", "true"), **parts}}


def hub_of(**parts: Any) -> tuple[HubPlan, tuple[Left, ...]]:
    found = plan(parse(server(VirtualHUB=lan(**parts))))
    (hub,) = found.hubs
    return hub, found.left


def users(**entries: Any) -> dict[str, Any]:
    return {"SecurityAccountDatabase": {"UserList": entries}}


HASH = hash_password("hanako", "old password")
HANAKO = {
    "AuthType": ("uint", "1"),
    "AuthPassword": ("byte", byte(HASH)),
    "RealName": ("string", "山田$20花子"),
    "Note": ("string", "$"),
    "ExpireTime": ("uint64", "1893521045000"),
    "GroupName": ("string", "staff"),
}


def test_a_user_keeps_name_hash_group_and_the_day_it_ends() -> None:
    database = {
        "GroupList": {"staff": {"RealName": ("string", "Staff"), "Policy": {"MultiLogins": ("uint", "3")}}},
        "UserList": {"hanako": HANAKO},
    }
    hub, left = hub_of(SecurityAccountDatabase=database)
    assert hub.users == (
        UserPlan(
            name="hanako",
            kind="password",
            group="staff",
            real_name="山田 花子",
            sha0=HASH,
            expires_at=1893553445.0,  # 2030-01-02 03:04:05 UTC
        ),
    )
    assert hub.groups[0].policy == Policy(access=False, max_connection=0, timeout_s=0, multi_logins=3)
    assert left == ()


@pytest.mark.parametrize(
    ("entry", "made"),
    [
        ({"AuthType": ("uint", "0")}, {"kind": "anonymous"}),
        ({"AuthType": ("uint", "2"), "AuthUserCert": ("byte", byte(b"der"))}, {"certificate": b"der"}),
        (
            {"AuthType": ("uint", "3"), "AuthCommonName": ("string", "a.b"), "AuthSerial": ("byte", "Cgs=")},
            {"kind": "issued", "common_name": "a.b", "serial": b"\n\x0b"},
        ),
        ({**HANAKO, "GroupName": ("string", "gone")}, {"group": ""}),
        ({**HANAKO, "AuthPassword": ("byte", byte(b"short"))}, {"sha0": b""}),
    ],
)
def test_every_kind_of_user_that_we_have(entry: dict[str, Any], made: dict[str, Any]) -> None:
    hub, _ = hub_of(**users(u=entry))
    assert {name: getattr(hub.users[0], name) for name in made} == made


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("r", {"AuthType": ("uint", "4")}),
        ("n", {"AuthType": ("uint", "5")}),
        ("*", {"AuthType": ("uint", "4")}),
        ("c", {"AuthType": ("uint", "2")}),
    ],
)
def test_a_user_that_we_can_not_have_is_named(name: str, entry: dict[str, Any]) -> None:
    hub, left = hub_of(**users(**{name: entry}))
    assert hub.users == ()
    (one,) = left
    assert one.values == {"hub": "LAN", "name": name}


def test_a_policy_out_of_range_is_told_and_the_user_comes_without() -> None:
    hub, left = hub_of(**users(u={**HANAKO, "Policy": {"TimeOut": ("uint", "7000")}}))
    assert hub.users[0].policy is None
    assert "TimeOut" in left[0].values["problem"]


RULE = {
    "Active": ("bool", "true"),
    "Discard": ("bool", "true"),
    "Priority": ("uint", "10"),
    "Protocol": ("uint", "6"),
    "SrcIpAddress": ("string", "10.0.0.0"),
    "SrcSubnetMask": ("string", "255.0.0.0"),
    "DestIpAddress": ("string", "0.0.0.0"),
    "DestSubnetMask": ("string", "0.0.0.0"),
    "DestPortStart": ("uint", "80"),
    "DestPortEnd": ("uint", "81"),
    "SrcUsername": ("string", "bob"),
    "Note": ("string", "no$20web"),
}
RULE6 = {
    "IsIPv6": ("bool", "true"),
    "SrcIpAddress6": ("string", "fd00::"),
    "SrcSubnetMask6": ("string", "ff00::"),
    "DestIpAddress6": ("string", "::"),
    "DestSubnetMask6": ("string", "::"),
    "CheckSrcMac": ("bool", "true"),
    "SrcMacAddress": ("string", "02-00-00-00-00-00"),
    "SrcMacMask": ("string", "FF-00-00-00-00-00"),
    "CheckTcpState": ("bool", "true"),
    "Established": ("bool", "true"),
    "Priority": ("uint", "20"),
}


def test_the_access_list_comes_entry_by_entry() -> None:
    hub, left = hub_of(AccessList={"1": RULE, "2": RULE6, "3": {**RULE, "Delay": ("uint", "5")}})
    assert hub.access == (
        Rule(
            priority=10,
            note="no web",
            source="10.0.0.0/8",
            protocol=6,
            destination_ports=(80, 81),
            source_user="bob",
        ),
        Rule(
            discard=False,
            priority=20,
            ipv6=True,
            source="fd00::/8",
            source_mac="02:00:00:00:00:00/ff:00:00:00:00:00",
            established=True,
        ),
    )
    assert [one.values["note"] for one in left] == ["no web"]


@pytest.mark.parametrize("mask", ["255.0.255.0", "nonsense"])
def test_a_mask_with_a_hole_is_told(mask: str) -> None:
    hub, left = hub_of(AccessList={"1": {**RULE, "SrcSubnetMask": ("string", mask)}})
    assert hub.access == ()
    assert mask in left[0].values["problem"]


def test_settings_sources_and_what_there_is_no_room_for() -> None:
    hub, left = hub_of(
        Option={"MaxSession": ("uint", "77"), "NoEnum": ("bool", "true"), "NoManageVlanId": ("bool", "true")},
        SecurityAccountDatabase={
            "IPAccessControlList": {
                "1": {
                    "Deny": ("bool", "true"),
                    "IpAddress": ("string", "192.0.2.0"),
                    "NetMask": ("string", "255.255.255.0"),
                    "Priority": ("uint", "5"),
                }
            }
        },
        SecureNAT={"Disabled": ("bool", "false")},
        CascadeList={
            "Cascade0": {
                "ClientOption": {
                    "AccountName": ("string", "up"),
                    "Hostname": ("string", "hub.example"),
                    "Port": ("uint", "443"),
                    "HubName": ("string", "FAR"),
                }
            }
        },
        HashedPassword=("byte", byte(b"h" * 20)),
        SecurePassword=("byte", byte(b"s" * 20)),
    )
    assert (hub.max_sessions, hub.listed, hub.rules.vlans_apart) == (77, False, False)
    assert (hub.admin_hash, hub.login_hash) == (b"h" * 20, b"s" * 20)
    assert hub.sources == (SourcePlan(5, "192.0.2.0/24", True),)
    said = [one.template.format(**one.values) for one in left]
    assert said == ["SecureNAT of hub LAN", "the cascade “up” of hub LAN to hub FAR at hub.example:443"]


def test_the_server_around_the_hubs() -> None:
    found = plan(
        parse(
            server(
                ListenerList={
                    "Listener0": {"Enabled": ("bool", "true"), "Port": ("uint", "443")},
                    "Listener1": {"Enabled": ("bool", "false"), "Port": ("uint", "992")},
                },
                ServerConfiguration={"ServerCert": ("byte", byte(b"c")), "ServerKey": ("byte", byte(b"k"))},
                LocalBridgeList={"LocalBridge0": {"DeviceName": ("string", "eth1")}},
            )
        )
    )
    assert (found.hubs, found.listen, found.certificate, found.key) == ((), ("443",), b"c", b"k")
    assert [one.values for one in found.left] == [{"device": "eth1"}]
    assert "b'k'" not in repr(found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("declare root\n", 1),
        ("declare root\n{\n", 2),
        ("declare root\n{\n\tuint A x\n}\n", 3),
        ("declare root\n{\n\tbyte A %%\n}\n", 3),
        ("declare root\n{\n\tfloat A 1\n}\n", 3),
        ("declare root\n{\n}\n}\n", 4),
        ("declare other\n{\n}\n", 3),
        ("uint A 1\n", 1),
        ("declare root\ndeclare root\n{\n}\n", 2),
        ("declare a\n{\n" * 40, 65),
    ],
)
def test_another_file_is_refused_with_the_line(text: str, line: int) -> None:
    with pytest.raises(InputUnreadable, match=rf"line {line}\b"):
        parse(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputUnreadable, match="UTF-8"):
        parse(b"declare root\n{\n\xff\n}\n")


@given(st.text())
def test_no_text_makes_it_fall_over(text: str) -> None:
    for file in (text, f"declare root\n{{\ndeclare VirtualHUB\n{{\ndeclare A\n{{\n{text}\n}}\n}}\n}}\n"):
        with contextlib.suppress(InputUnreadable):
            plan(parse(file.encode("utf-8", "replace")))
