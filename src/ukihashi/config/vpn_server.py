"""The configuration file of a standard server, `vpn_server.config`, taken apart: what of it a hub of ours can be.

The file is a tree of folders and typed values, one to a line:

    declare NAME            TYPE is bool, uint, uint64, string, byte (base64)
    {                       in names and strings `$` with two hexadecimal digits is one character, `$` alone nothing
        TYPE NAME VALUE
    }

Found by reading what Debian's softether-vpnserver 5.01 wrote. Nothing is executed, nothing is fetched.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from ukihashi.errors import N_, InputUnreadable, UkihashiError
from ukihashi.switch.access import Rule
from ukihashi.switch.rules import HubRules
from ukihashi.wire.policy import Policy

MAX_BYTES: Final = 64 * 1024 * 1024  # of the file
MAX_DEPTH: Final = 32
EPOCH_S: Final = 32_400  # its times are so many seconds behind UTC's
HASH_SIZE: Final = 20

_ESCAPE: Final = re.compile(r"\$([0-9A-Fa-f]{2})")
_KINDS: Final[Mapping[int, str]] = {0: "anonymous", 1: "password", 2: "certificate", 3: "issued"}

Kind = Literal["anonymous", "password", "certificate", "issued"]


@dataclass
class Folder:
    """One `declare`. Names are compared as they are written."""

    values: dict[str, int | str | bytes] = field(default_factory=dict)
    folders: dict[str, "Folder"] = field(default_factory=dict)

    def at(self, *path: str) -> "Folder":
        """The folder below, an empty one if there is none."""
        found = self
        for name in path:
            found = found.folders.get(name) or Folder()
        return found

    def number(self, name: str, default: int = 0) -> int:
        """A bool or number."""
        value = self.values.get(name, default)
        return value if isinstance(value, int) else default

    def text(self, name: str) -> str:
        """A string."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else ""

    def data(self, name: str) -> bytes:
        """Bytes."""
        value = self.values.get(name, b"")
        return value if isinstance(value, bytes) else b""


class Left(msgspec.Struct, frozen=True):
    """Something that is not taken over: a template to translate and its values."""

    template: str
    values: dict[str, str] = {}


class UserPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A user to be made."""

    name: str
    kind: Kind
    group: str = ""
    real_name: str = ""
    note: str = ""
    sha0: bytes = b""  # kind password: the hash that the user's old password answers to
    certificate: bytes = b""  # kind certificate, DER
    common_name: str = ""  # kind issued
    serial: bytes = b""
    policy: Policy | None = None
    expires_at: float = 0.0  # seconds since 1970; 0 = never


class GroupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A group to be made."""

    name: str
    real_name: str = ""
    note: str = ""
    policy: Policy | None = None


class SourcePlan(msgspec.Struct, frozen=True):
    """Where logins may come from."""

    priority: int
    network: str
    deny: bool


class HubPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual hub to be made."""

    name: str
    online: bool = True
    max_sessions: int = 0
    listed: bool = True
    banner: str = ""
    rules: HubRules = HubRules()
    admin_hash: bytes = b""
    login_hash: bytes = b""
    groups: tuple[GroupPlan, ...] = ()
    users: tuple[UserPlan, ...] = ()
    access: tuple[Rule, ...] = ()
    sources: tuple[SourcePlan, ...] = ()
    authorities: tuple[bytes, ...] = ()  # DER


@dataclass(frozen=True)
class ServerPlan:
    """All of it."""

    hubs: tuple[HubPlan, ...]
    listen: tuple[str, ...]  # as in hub.toml
    certificate: bytes  # of the server, DER; b"" = none
    key: bytes = field(repr=False)  # DER
    left: tuple[Left, ...] = ()


def parse(data: bytes) -> Folder:
    """The file as a tree.

    Raises:
        InputUnreadable: it is not such a file; names the line.
    """
    if len(data) > MAX_BYTES:
        raise InputUnreadable(N_("the file is larger than {limit} MiB"), limit=MAX_BYTES >> 20)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputUnreadable(N_("the file is not text in UTF-8")) from error
    top = Folder()
    open_folders = [top]
    announced: Folder | None = None  # by `declare`, its brace is to come
    for number, line in enumerate(lines, 1):
        words = line.strip().split(" ", 2)
        match words:
            case [""]:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case ["declare", name] if announced is None and len(open_folders) <= MAX_DEPTH:
                announced = open_folders[-1].folders.setdefault(_unescaped(name), Folder())
            case ["{"] if announced is not None:
                open_folders.append(announced)
                announced = None
            case ["}"] if announced is None and len(open_folders) > 1:
                open_folders.pop()
            case [kind, name, value] if announced is None and len(open_folders) > 1 and kind in _READERS:
                open_folders[-1].values[_unescaped(name)] = _value(kind, value, number)
            case [kind, name] if announced is None and len(open_folders) > 1 and kind in _READERS:
                open_folders[-1].values[_unescaped(name)] = _value(kind, "", number)
            case _:
                raise _unreadable(number)
    if len(open_folders) != 1 or announced is not None or "root" not in top.folders:
        raise _unreadable(len(lines))
    return top.folders["root"]


def _unreadable(number: int) -> UkihashiError:
    return InputUnreadable(
        N_("line {number} is not what a server's configuration file has there; give the file vpn_server.config"),
        number=number,
    )


def _unescaped(text: str) -> str:
    return "" if text == "$" else _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def _value(kind: str, text: str, number: int) -> int | str | bytes:
    try:
        value: int | str | bytes = _READERS[kind](text)
    except (ValueError, binascii.Error) as error:
        raise _unreadable(number) from error
    return value


def _read_bool(text: str) -> int:
    return int({"true": True, "false": False}[text.lower()]) if text.lower() in {"true", "false"} else int(text)


def _read_bytes(text: str) -> bytes:
    return b"" if text == "$" else base64.b64decode(text, validate=True)


_READERS: Final[Mapping[str, Any]] = {
    "bool": _read_bool,
    "uint": int,
    "int": int,
    "uint64": int,
    "string": _unescaped,
    "byte": _read_bytes,
}


# -- the plan -----------------------------------------------------------------------------------------------------


def plan(root: Folder) -> ServerPlan:
    """What a hub of ours can be of it, and what not."""
    left: list[Left] = []
    server = root.at("ServerConfiguration")
    hubs = tuple(_hub(name, folder, left) for name, folder in root.at("VirtualHUB").folders.items())
    ports = [one.number("Port") for one in root.at("ListenerList").folders.values() if one.number("Enabled")]
    for name, folder in root.at("LocalBridgeList").folders.items():
        device = folder.text("DeviceName") or name
        left.append(Left(N_("the local bridge of {device}"), {"device": device}))
    switches = root.at("VirtualLayer3SwitchList").folders
    left += [Left(N_("the layer 3 switch “{name}”"), {"name": name}) for name in switches]
    left += _server_left(root, server)
    return ServerPlan(
        hubs=hubs,
        listen=tuple(str(port) for port in ports if 0 < port < 65536),
        certificate=server.data("ServerCert"),
        key=server.data("ServerKey"),
        left=tuple(left),
    )


def _server_left(root: Folder, server: Folder) -> Iterator[Left]:
    ipsec = root.at("IPsec")
    if ipsec.number("L2TP_IPsec") or ipsec.number("L2TP_Raw") or ipsec.number("EtherIP_IPsec"):
        yield Left(N_("L2TP, IPsec and EtherIP"))
    if server.number("ServerType"):
        yield Left(N_("the cluster of servers"))
    if server.number("EnableVpnOverDns") or server.number("EnableVpnOverIcmp"):
        yield Left(N_("VPN over DNS and ICMP"))
    if server.data("HashedPassword"):
        yield Left(N_("the password of the server's administrator; allow such tools with: ukihashi hub admin tools"))


def _hub(name: str, folder: Folder, left: list[Left]) -> HubPlan:
    accounts = folder.at("SecurityAccountDatabase")
    option = folder.at("Option")
    if folder.folders.get("SecureNAT") and not folder.at("SecureNAT").number("Disabled", 1):
        left.append(Left(N_("SecureNAT of hub {hub}"), {"hub": name}))
    for cascade in folder.at("CascadeList").folders.values():
        to = cascade.at("ClientOption")
        values = {
            "hub": name,
            "name": to.text("AccountName"),
            "address": f"{to.text('Hostname')}:{to.number('Port')}",
            "far": to.text("HubName"),
        }
        left.append(Left(N_("the cascade “{name}” of hub {hub} to hub {far} at {address}"), values))
    groups = tuple(
        GroupPlan(
            name=one, real_name=group.text("RealName"), note=group.text("Note"), policy=_policy(group, name, one, left)
        )
        for one, group in accounts.at("GroupList").folders.items()
    )
    users = tuple(
        made
        for one, user in accounts.at("UserList").folders.items()
        if (made := _user(name, one, user, {group.name for group in groups}, left)) is not None
    )
    return HubPlan(
        name=name,
        online=bool(folder.number("Online", 1)),
        max_sessions=option.number("MaxSession"),
        listed=not option.number("NoEnum"),
        banner=_banner(folder.at("Message")),
        rules=_rules(option),
        admin_hash=_hash(folder.data("HashedPassword")),
        login_hash=_hash(folder.data("SecurePassword")),
        groups=groups,
        users=users,
        access=tuple(_access(name, folder.at("AccessList").folders.values(), left)),
        sources=tuple(_sources(name, accounts.at("IPAccessControlList").folders.values(), left)),
        authorities=tuple(
            data for one in accounts.at("CertList").folders.values() if (data := one.data("X509") or one.data("Cert"))
        ),
    )


def _hash(data: bytes) -> bytes:
    return data if len(data) == HASH_SIZE else b""


def _banner(folder: Folder) -> str:
    value = next((value for value in folder.values.values() if value), "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _rules(option: Folder) -> HubRules:
    return HubRules(
        storm_threshold=option.number("BroadcastStormDetectionThreshold") or HubRules().storm_threshold,
        vlans_apart=not option.number("NoManageVlanId"),
        bridges_by_id=not option.number("NoLookBPDUBridgeId"),
        private_ipv4_only=bool(option.number("ManageOnlyPrivateIP", 1)),
        local_ipv6_only=bool(option.number("ManageOnlyLocalUnicastIPv6", 1)),
        privacy_drops_broadcasts=bool(option.number("DropBroadcastsInPrivacyFilterMode", 1)),
        privacy_drops_arp=bool(option.number("DropArpInPrivacyFilterMode", 1)),
        least_client_build=option.number("ClientMinimumRequiredBuild"),
        required_client_id=option.number("RequiredClientId"),
    )


def _policy(folder: Folder, hub: str, name: str, left: list[Left]) -> Policy | None:
    if "Policy" not in folder.folders:
        return None
    values = folder.at("Policy").values
    try:
        return Policy.from_wire({key: value for key, value in values.items() if isinstance(value, int)})
    except UkihashiError as error:
        left.append(Left(N_("the policy of {name} in hub {hub}: {problem}"), _of(hub, name, problem=str(error))))
        return None


def _user(hub: str, name: str, folder: Folder, groups: set[str], left: list[Left]) -> UserPlan | None:
    number = folder.number("AuthType")
    if name == "*" or number not in _KINDS:
        left.append(
            Left(N_("user {name} of hub {hub}, whose password another server checks (RADIUS, NT)"), _of(hub, name))
        )
        return None
    kind = _KINDS[number]
    sha0, certificate = _hash(folder.data("AuthPassword")), folder.data("AuthUserCert")
    if kind == "certificate" and not certificate:
        left.append(Left(N_("user {name} of hub {hub}, who has no certificate"), _of(hub, name)))
        return None
    expires = folder.number("ExpireTime")
    group = folder.text("GroupName")
    return UserPlan(
        name=name,
        kind=msgspec.convert(kind, Kind),
        group=group if group in groups else "",
        real_name=folder.text("RealName"),
        note=folder.text("Note"),
        sha0=sha0 if kind == "password" else b"",
        certificate=certificate if kind == "certificate" else b"",
        common_name=folder.text("AuthCommonName") if kind == "issued" else "",
        serial=folder.data("AuthSerial") if kind == "issued" else b"",
        policy=_policy(folder, hub, name, left),
        expires_at=expires / 1000 + EPOCH_S if expires else 0.0,
    )


def _access(hub: str, entries: Iterable[Folder], left: list[Left]) -> Iterator[Rule]:
    for entry in entries:
        note = entry.text("Note")
        if any(entry.number(name) for name in ("Delay", "Jitter", "Loss")) or entry.text("RedirectUrl"):
            what = {"hub": hub, "note": note, "priority": str(entry.number("Priority"))}
            left.append(
                Left(N_("delay, loss or redirection in entry {priority} “{note}” of hub {hub}'s access list"), what)
            )
            continue
        six = bool(entry.number("IsIPv6"))
        try:
            yield Rule(
                discard=bool(entry.number("Discard")),
                note=note,
                active=bool(entry.number("Active", 1)),
                priority=entry.number("Priority"),
                ipv6=six,
                source=_network(entry, "Src", six),
                destination=_network(entry, "Dest", six),
                protocol=entry.number("Protocol"),
                source_ports=(entry.number("SrcPortStart"), entry.number("SrcPortEnd")),
                destination_ports=(entry.number("DestPortStart"), entry.number("DestPortEnd")),
                source_user=entry.text("SrcUsername"),
                destination_user=entry.text("DestUsername"),
                source_mac=_mac(entry, "Src", "CheckSrcMac"),
                destination_mac=_mac(entry, "Dst", "CheckDstMac"),
                established=bool(entry.number("Established")) if entry.number("CheckTcpState") else None,
            )
        except ValueError as error:
            what = {"hub": hub, "note": note, "problem": str(error)}
            left.append(Left(N_("entry “{note}” of hub {hub}'s access list: {problem}"), what))


def _network(entry: Folder, side: str, six: bool) -> str:
    """Address and mask as a network; "" = any. Raises: ValueError."""
    end = "6" if six else ""
    address, mask = entry.text(f"{side}IpAddress{end}"), entry.text(f"{side}SubnetMask{end}")
    if not mask or not int(ipaddress.ip_address(mask)):
        return ""
    if six:
        bits = f"{int(ipaddress.IPv6Address(mask)):0128b}".rstrip("0")
        if "0" in bits:
            raise ValueError(mask)
        return str(ipaddress.ip_network(f"{address}/{len(bits)}", strict=False))
    return str(ipaddress.ip_network(f"{address}/{mask}", strict=False))


def _mac(entry: Folder, side: str, check: str) -> str:
    if not entry.number(check):
        return ""
    address, mask = entry.text(f"{side}MacAddress"), entry.text(f"{side}MacMask")
    text = address.replace("-", ":").lower()
    return text if mask.upper() == "FF-FF-FF-FF-FF-FF" else f"{text}/{mask.replace('-', ':').lower()}"


def _sources(hub: str, entries: Iterable[Folder], left: list[Left]) -> Iterator[SourcePlan]:
    for entry in entries:
        address, mask = entry.text("IpAddress"), entry.text("NetMask")
        try:
            network = ipaddress.ip_network(f"{address}/{mask}" if mask else address, strict=False)
        except ValueError as error:
            left.append(Left(N_("a rule for sources of hub {hub}: {problem}"), {"hub": hub, "problem": str(error)}))
            continue
        yield SourcePlan(entry.number("Priority"), str(network), bool(entry.number("Deny")))


def _of(hub: str, name: str, **more: str) -> dict[str, str]:
    return {"hub": hub, "name": name, **more}
