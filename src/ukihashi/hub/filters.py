"""Who and what gets through: the hub's verbs about source addresses, authorities, and the access list of frames."""

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from ukihashi.auth import certificate
from ukihashi.errors import N_, UsageError
from ukihashi.hub.backstage import pick_hub
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import authorities, rules
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.switch.access import Rule

MAX_RULES: Final = 4096  # of a hub, of each kind: every frame, every login asks them in turn
MAX_AUTHORITIES: Final = 64  # of a hub: each login by certificate asks them all
MAX_PRIORITY: Final = 0xFFFFFFFF
MAX_PORT: Final = 65535
MAX_PROTOCOL: Final = 255

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

_log = structlog.get_logger()


class Filters:
    """The verbs about rules."""

    def __init__(self, storage: Storage, tell_worker: Callable[[Hub], Awaitable[None]]) -> None:
        self._storage = storage
        self._tell_worker = tell_worker

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "access_list": self.access_list,
            "access_put": self.access_put,
            "access_remove": self.access_remove,
            "access_replace": self.access_replace,
            "sources": self.sources,
            "source_put": self.source_put,
            "source_remove": self.source_remove,
            "authorities": self.authorities,
            "authority_add": self.authority_add,
            "authority_remove": self.authority_remove,
            "revoked": self.revoked,
            "revoke_add": self.revoke_add,
            "revoke_remove": self.revoke_remove,
        }

    # -- frames ---------------------------------------------------------------------------------------------------

    async def access_list(self, hub: str = "") -> list[Row]:
        """Rules about frames, in the order in which they are asked."""
        home = await self._pick(hub)
        return [_access_row(home, one.id, one.rule) for one in await self._storage.read(rules.access_list, home)]

    async def access_put(self, rule: Rule, hub: str = "", number: int = 0) -> list[Row]:
        """Add a rule, or give the one of that number this content. It holds from the next frame on."""
        home = await self._pick(hub)
        rule = checked_rule(rule)

        def put(db: Database) -> rules.AccessRule | None:
            _check_room(number, len(rules.access_list(db, home)))
            return rules.put_access(db, home, rule, number)

        made = await self._storage.change(put)
        if made is None:
            raise _no_number(home, number)
        _log.info("access_changed", hub=home.name, rule=made.id, by=asker.get())
        await self._tell_worker(home)
        return [_access_row(home, made.id, made.rule)]

    async def access_remove(self, number: int, hub: str = "") -> list[Row]:
        """Remove a rule."""
        home = await self._pick(hub)
        if not await self._storage.change(rules.remove_access, home, number):
            raise _no_number(home, number)
        _log.info("access_changed", hub=home.name, rule=number, by=asker.get())
        await self._tell_worker(home)
        return [{"hub": home.name, "number": number}]

    async def access_replace(self, wanted: list[Rule], hub: str = "") -> list[Row]:
        """These rules in the place of all."""
        home = await self._pick(hub)
        _check_room(0, len(wanted) - 1)
        await self._storage.change(rules.replace_access, home, [checked_rule(rule) for rule in wanted])
        _log.info("access_changed", hub=home.name, by=asker.get())
        await self._tell_worker(home)
        return await self.access_list(home.name)

    # -- source addresses -----------------------------------------------------------------------------------------

    async def sources(self, hub: str = "") -> list[Row]:
        """Rules about where logins may come from, in the order in which they are asked."""
        home = await self._pick(hub)
        return [_source_row(home, one) for one in await self._storage.read(rules.sources, home)]

    async def source_put(self, network: str, deny: bool, hub: str = "", priority: int = 1000) -> list[Row]:
        """Add a rule. It holds from the next login on."""
        home = await self._pick(hub)
        whole = _network(network)
        _check_range("priority", priority, 1, MAX_PRIORITY)

        def put(db: Database) -> rules.SourceRule:
            _check_room(0, len(rules.sources(db, home)))
            return rules.add_source(db, home, priority=priority, network=whole, deny=deny)

        made = await self._storage.change(put)
        _log.info("sources_changed", hub=home.name, rule=made.id, by=asker.get())
        return [_source_row(home, made)]

    async def source_remove(self, number: int, hub: str = "") -> list[Row]:
        """Remove a rule."""
        home = await self._pick(hub)
        if not await self._storage.change(rules.remove_source, home, number):
            raise _no_number(home, number)
        _log.info("sources_changed", hub=home.name, rule=number, by=asker.get())
        return [{"hub": home.name, "number": number}]

    # -- certificates ---------------------------------------------------------------------------------------------

    async def authorities(self, hub: str = "") -> list[Row]:
        """Whose certificates are taken as proof."""
        home = await self._pick(hub)
        known = await self._storage.read(authorities.all_authorities, home)
        return [{"hub": home.name, "number": one.id, **certificate.described(one.certificate)} for one in known]

    async def authority_add(self, certificate_text: str, hub: str = "") -> list[Row]:
        """Trust the authority whose certificate this is (PEM, or base64 of DER)."""
        home = await self._pick(hub)
        der = certificate.read(certificate_text, authority=True)

        def add(db: Database) -> authorities.Authority:
            _check_room(0, len(authorities.all_authorities(db, home)), MAX_AUTHORITIES)
            return authorities.add(db, home, der)

        made = await self._storage.change(add)
        row = {"hub": home.name, "number": made.id, **certificate.described(der)}
        _log.info("authority_added", by=asker.get(), **row)
        return [row]

    async def authority_remove(self, number: int, hub: str = "") -> list[Row]:
        """Trust it no more; sessions that run go on."""
        home = await self._pick(hub)
        if not await self._storage.change(authorities.remove, home, number):
            raise _no_number(home, number)
        _log.info("authority_removed", hub=home.name, number=number, by=asker.get())
        return [{"hub": home.name, "number": number}]

    async def revoked(self, hub: str = "") -> list[Row]:
        """Serial numbers of certificates that are no proof any more."""
        home = await self._pick(hub)
        known = await self._storage.read(authorities.all_revoked, home)
        return [{"hub": home.name, "number": one.id, "serial": one.serial.hex()} for one in known]

    async def revoke_add(self, serial: str, hub: str = "") -> list[Row]:
        """Take no certificate with this serial number any more; sessions that run go on."""
        home = await self._pick(hub)
        number = certificate.read_serial(serial)

        def add(db: Database) -> authorities.Revoked:
            _check_room(0, len(authorities.all_revoked(db, home)))
            return authorities.revoke(db, home, number)

        made = await self._storage.change(add)
        _log.info("certificate_revoked", hub=home.name, serial=made.serial.hex(), by=asker.get())
        return [{"hub": home.name, "number": made.id, "serial": made.serial.hex()}]

    async def revoke_remove(self, number: int, hub: str = "") -> list[Row]:
        """Take it again."""
        home = await self._pick(hub)
        if not await self._storage.change(authorities.unrevoke, home, number):
            raise _no_number(home, number)
        _log.info("certificate_unrevoked", hub=home.name, number=number, by=asker.get())
        return [{"hub": home.name, "number": number}]

    async def _pick(self, name: str) -> Hub:
        return await pick_hub(self._storage, name)


def checked_rule(rule: Rule) -> Rule:
    """The rule in its one spelling. Raises UsageError for what no frame could match or what is out of range."""
    _check_range("priority", rule.priority, 1, MAX_PRIORITY)
    _check_range("protocol", rule.protocol, 0, MAX_PROTOCOL)
    for first, last in (rule.source_ports, rule.destination_ports):
        _check_range("port", first, 0, MAX_PORT)
        _check_range("port", last, first, MAX_PORT)
    return msgspec.structs.replace(
        rule,
        source=_network(rule.source, ipv6=rule.ipv6) if rule.source else "",
        destination=_network(rule.destination, ipv6=rule.ipv6) if rule.destination else "",
        source_mac=_mac(rule.source_mac),
        destination_mac=_mac(rule.destination_mac),
    )


def _network(text: str, *, ipv6: bool | None = None) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(N_("“{text}” is no network; write it as 192.0.2.0/24 or 2001:db8::/32"), text=text) from None
    if ipv6 is not None and (network.version == 6) is not ipv6:
        raise UsageError(N_("a rule is about IPv4 or about IPv6; “{text}” is of the other kind"), text=text)
    return str(network)


def _mac(text: str) -> str:
    """`address` or `address/mask`, with colons, in lower case."""
    parts = [part.strip().lower().replace("-", ":") for part in text.split("/")] if text else []
    if len(parts) > 2 or not all(map(_MAC.fullmatch, parts)):
        raise UsageError(
            N_("“{text}” is no MAC address; write it as 02:00:5e:00:00:01, a mask behind a slash"), text=text
        )
    return "/".join(parts)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(
            N_("{name}: {value} is out of range; use {least} to {most}"), name=name, value=value, least=least, most=most
        )


def _check_room(number: int, present: int, most: int = MAX_RULES) -> None:
    if not number and present >= most:
        raise UsageError(N_("a hub has at most {most} entries of this kind; remove one first"), most=most)


def _no_number(hub: Hub, number: int) -> UsageError:
    return UsageError(N_("hub {hub} has no such entry with number {number}"), hub=hub.name, number=number)


def _access_row(hub: Hub, number: int, rule: Rule) -> Row:
    return {"hub": hub.name, "number": number, **msgspec.structs.asdict(rule)}


def _source_row(hub: Hub, rule: rules.SourceRule) -> Row:
    return {
        "hub": hub.name,
        "number": rule.id,
        "priority": rule.priority,
        "network": rule.network,
        "deny": rule.deny,
    }
