"""Calls about what may pass (access list) and where logins may come from (source rules)."""

import base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final

import msgspec

from ukihashi.errors import N_, UsageError
from ukihashi.hub.rpc.method import Backing, Caller, Method, not_ours, refused
from ukihashi.store import authorities, rules
from ukihashi.store.rules import SourceRule
from ukihashi.switch.access import Rule
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import Code
from ukihashi.wire.pack import Address
from ukihashi.wire.rpc import Values

MAC_LENGTH: Final = 6
WHOLE_MAC: Final = b"\xff" * MAC_LENGTH
NOWHERE6: Final = bytes(16)
IPV4_BITS: Final = 32
IPV6_BITS: Final = 128


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _AccessList(backing)
    return [
        Method("EnumAccess", s.HUB, s.ACCESS_LIST, family.enum),
        Method("AddAccess", s.ACCESS_LIST, s.ACCESS_LIST, family.add),
        Method("SetAccessList", s.ACCESS_LIST, s.ACCESS_LIST, family.set),
        Method("DeleteAccess", s.ACCESS_ID, s.ACCESS_ID, family.delete),
        Method("GetAcList", s.HUB, s.SOURCES, family.sources),
        Method("SetAcList", s.SOURCES, s.SOURCES, family.set_sources),
        Method("EnumCa", s.HUB, s.AUTHORITIES, family.authorities),
        Method("GetCa", s.HUB_KEY, s.AUTHORITY, family.authority),
        Method("AddCa", s.AUTHORITY, s.AUTHORITY, family.add_authority),
        Method("DeleteCa", s.HUB_KEY, s.HUB_KEY, family.delete_authority),
    ]


class _AccessList:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    # -- frames ---------------------------------------------------------------------------------------------------

    async def enum(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """All rules, as they are asked."""
        hub = await self._backing.hub(given["HubName"])
        known = await self._backing.storage.read(rules.access_list, hub)
        return {"HubName": hub.name, "AccessList": [rule_row(one.id, one.rule) for one in known]}

    async def add(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One rule more."""
        hub = await self._backing.hub(given["HubName"])
        for rule in [read_rule(row) for row in given["AccessList"]]:
            await self._backing.do("access_put", hub=hub.name, rule=msgspec.to_builtins(rule))
        return given

    async def set(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """These in the place of all."""
        hub = await self._backing.hub(given["HubName"])
        wanted = [msgspec.to_builtins(read_rule(row)) for row in given["AccessList"]]
        await self._backing.do("access_replace", hub=hub.name, wanted=wanted)
        return given

    async def delete(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One rule less."""
        hub = await self._backing.hub(given["HubName"])
        known = await self._backing.storage.read(rules.access_list, hub)
        if all(one.id != given["Id"] for one in known):
            raise refused(Code.OBJECT_NOT_FOUND)
        await self._backing.do("access_remove", hub=hub.name, number=given["Id"])
        return given

    # -- logins ---------------------------------------------------------------------------------------------------

    async def sources(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Where logins may come from."""
        hub = await self._backing.hub(given["HubName"])
        rows = [_source_row(one) for one in await self._backing.storage.read(rules.sources, hub)]
        return {"HubName": hub.name, "NumItem": len(rows), "ACList": rows}

    async def set_sources(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """These in the place of all; what stays is not touched."""
        hub = await self._backing.hub(given["HubName"])
        wanted = [(row["Priority"], _source_network(row), row["Deny"]) for row in given["ACList"]]
        gone = []
        for one in await self._backing.storage.read(rules.sources, hub):
            if (same := (one.priority, one.network, one.deny)) in wanted:
                wanted.remove(same)
            else:
                gone.append(one.id)
        for priority, network, deny in wanted:
            await self._backing.do("source_put", hub=hub.name, priority=priority, network=network, deny=deny)
        for number in gone:
            await self._backing.do("source_remove", hub=hub.name, number=number)
        return given

    # -- authorities ----------------------------------------------------------------------------------------------

    async def authorities(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Whose certificates are taken as proof."""
        from cryptography import x509

        hub = await self._backing.hub(given["HubName"])
        found = []
        for one in await self._backing.storage.read(authorities.all_authorities, hub):
            certificate = x509.load_der_x509_certificate(one.certificate)
            found.append(
                {
                    "Key": one.id,
                    "SubjectName": certificate.subject.rfc4514_string(),
                    "IssuerName": certificate.issuer.rfc4514_string(),
                    "Expires": certificate.not_valid_after_utc.timestamp(),
                }
            )
        return {"HubName": hub.name, "CAList": found}

    async def authority(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One of them."""
        hub = await self._backing.hub(given["HubName"])
        for one in await self._backing.storage.read(authorities.all_authorities, hub):
            if one.id == given["Key"]:
                return given | {"Cert": one.certificate}
        raise refused(Code.OBJECT_NOT_FOUND)

    async def add_authority(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Trust one more."""
        hub = await self._backing.hub(given["HubName"])
        text = base64.b64encode(given["Cert"]).decode()
        await self._backing.do("authority_add", hub=hub.name, certificate_text=text)
        return given

    async def delete_authority(self, caller: Caller, given: Values) -> Values:
        """Trust it no more."""
        await self.authority(caller, given)
        hub = await self._backing.hub(given["HubName"])
        await self._backing.do("authority_remove", hub=hub.name, number=given["Key"])
        return given


# -- one rule about frames ----------------------------------------------------------------------------------------


def rule_row(number: int, rule: Rule) -> Values:
    """A rule as tools see it."""
    source, source_mask = _ends(rule.source)
    destination, destination_mask = _ends(rule.destination)
    row = {
        "Id": number,
        "UniqueId": number,
        "Note": rule.note,
        "Active": rule.active,
        "Priority": rule.priority,
        "Discard": rule.discard,
        "Protocol": rule.protocol,
        "SrcPortStart": rule.source_ports[0],
        "SrcPortEnd": rule.source_ports[1],
        "DestPortStart": rule.destination_ports[0],
        "DestPortEnd": rule.destination_ports[1],
        "SrcUsername": rule.source_user,
        "DestUsername": rule.destination_user,
        "CheckTcpState": rule.established is not None,
        "Established": bool(rule.established),
        "IsIPv6": rule.ipv6,
        **_mac_fields("Src", rule.source_mac),
        **_mac_fields("Dst", rule.destination_mac),
    }
    ends = {
        "SrcIpAddress": source,
        "SrcSubnetMask": source_mask,
        "DestIpAddress": destination,
        "DestSubnetMask": destination_mask,
    }
    if rule.ipv6:
        return row | {f"{name}6": address.packed if address else NOWHERE6 for name, address in ends.items()}
    return row | ends | {f"{name}6": NOWHERE6 for name in ends}


def read_rule(row: Mapping[str, Any]) -> Rule:
    """What a tool wants. Raises: UsageError: it can't be; Refused: our switch does no such thing."""
    if row["Delay"] or row["Jitter"] or row["Loss"] or row["RedirectUrl"]:
        raise not_ours(N_("an access list here neither delays, nor loses, nor redirects"))
    six = row["IsIPv6"]
    return Rule(
        discard=row["Discard"],
        note=row["Note"],
        active=row["Active"],
        priority=row["Priority"],
        ipv6=six,
        source=_network6(row, "Src") if six else _network4(row, "Src"),
        destination=_network6(row, "Dest") if six else _network4(row, "Dest"),
        protocol=row["Protocol"],
        source_ports=_ports(row["SrcPortStart"], row["SrcPortEnd"]),
        destination_ports=_ports(row["DestPortStart"], row["DestPortEnd"]),
        source_user=row["SrcUsername"],
        destination_user=row["DestUsername"],
        source_mac=_mac(row, "Src"),
        destination_mac=_mac(row, "Dst"),
        established=row["Established"] if row["CheckTcpState"] else None,
    )


def _ports(first: int, last: int) -> tuple[int, int]:
    return (first, last or first) if first else (0, 0)


def _ends(network: str) -> tuple[Address | None, Address | None]:
    """Address and mask; of any network, none."""
    if not network:
        return None, None
    read = ip_network(network)
    return read.network_address, read.netmask


def _network4(row: Mapping[str, Any], end: str) -> str:
    address, mask = row[f"{end}IpAddress"], row[f"{end}SubnetMask"]
    if not isinstance(mask, IPv4Address) or not isinstance(address, IPv4Address) or not int(mask):
        return ""
    return str(ip_network(f"{address}/{_prefix(int(mask), IPV4_BITS)}", strict=False))


def _network6(row: Mapping[str, Any], end: str) -> str:
    address, mask = row[f"{end}IpAddress6"], row[f"{end}SubnetMask6"]
    if len(address) != len(NOWHERE6) or len(mask) != len(NOWHERE6) or not any(mask):
        return ""
    prefix = _prefix(int.from_bytes(mask, "big"), IPV6_BITS)
    return str(ip_network(f"{IPv6Address(address)}/{prefix}", strict=False))


def _prefix(mask: int, bits: int) -> int:
    ones = mask.bit_count()
    if mask != ((1 << ones) - 1) << (bits - ones):
        raise UsageError(N_("a network mask with gaps can't be used here"))
    return ones


def _mac_fields(end: str, mac: str) -> Values:
    address, _, mask = mac.partition("/")
    return {
        f"Check{end}Mac": bool(mac),
        f"{end}MacAddress": bytes.fromhex(address.replace(":", "")) if mac else bytes(MAC_LENGTH),
        f"{end}MacMask": bytes.fromhex(mask.replace(":", "")) if mask else WHOLE_MAC if mac else bytes(MAC_LENGTH),
    }


def _mac(row: Mapping[str, Any], end: str) -> str:
    if not row[f"Check{end}Mac"]:
        return ""
    address: bytes = row[f"{end}MacAddress"]
    mask: bytes = row[f"{end}MacMask"]
    if len(address) != MAC_LENGTH or len(mask) not in {0, MAC_LENGTH}:
        raise UsageError(N_("a MAC address has 6 bytes"))
    return address.hex(":") + ("" if mask in {b"", WHOLE_MAC} else "/" + mask.hex(":"))


# -- one rule about logins ----------------------------------------------------------------------------------------


def _source_row(rule: SourceRule) -> Values:
    network = ip_network(rule.network)
    return {
        "Id": rule.id,
        "Deny": rule.deny,
        "IpAddress": network.network_address,
        "Masked": network.prefixlen != network.max_prefixlen,
        "SubnetMask": network.netmask,
        "Priority": rule.priority,
    }


def _source_network(row: Mapping[str, Any]) -> str:
    address, mask = row["IpAddress"], row["SubnetMask"]
    if address is None:
        raise UsageError(N_("a rule about logins needs an address"))
    bits = IPV6_BITS if isinstance(address, IPv6Address) else IPV4_BITS
    prefix = _prefix(int(mask), bits) if row["Masked"] and mask is not None else bits
    return str(ip_network(f"{address}/{prefix}", strict=False))
