"""The names of a virtual hub: what its DNS says of them. Plain values in and out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ukihashi.auth.names import name_key
from ukihashi.ether import dns, ndp
from ukihashi.hub.addresses import HOST_PORT_NUMBER
from ukihashi.hub.lan_plan import SERVICE_NAME, TOP, LanService, label
from ukihashi.store.leases import Lease

TTL_S: Final = 60
NO_TTL_S: Final = 30
NOBODYS: Final = frozenset(("wpad", "isatap", "localhost", "ns", SERVICE_NAME))  # no station may call itself so


@dataclass(frozen=True, slots=True)
class Named:
    """Who has a name."""

    number: int
    mac: bytes = b""  # b"": not known
    is_static: bool = False  # has the IPv6 address of that number, too


class Zone:
    """The names of one virtual hub at one moment."""

    def __init__(
        self, plan: LanService, users: Iterable[tuple[str, int]], leases: Sequence[Lease], *, host_port: bool
    ) -> None:
        """`users`: name and own number (0 = none) of each; `leases`: those that hold."""
        self._plan = plan
        own = HOST_PORT_NUMBER if host_port else plan.number
        self._names: dict[str, list[Named]] = {SERVICE_NAME: [Named(own, is_static=True)]}
        self._back: dict[int, str] = {plan.number: SERVICE_NAME, own: SERVICE_NAME}
        self._add_users(users, leases)
        self._add_hosts(leases)
        self._stations = {ndp.interface_address(plan.network6, lease.mac): lease.number for lease in leases}

    def _add_users(self, users: Iterable[tuple[str, int]], leases: Sequence[Lease]) -> None:
        by_user: dict[str, list[Lease]] = {}
        for lease in leases:
            by_user.setdefault(lease.user_key, []).append(lease)
        for user, number in users:
            name = label(user)
            if not name or name in self._names:
                continue
            theirs = by_user.get(name_key(user), [])
            if number:
                held = next((one for one in theirs if one.number == number), None)
                by_dhcp = held is not None and held.kind == "leased"
                found = [Named(number, held.mac if held else b"", is_static=not by_dhcp)]
            else:
                found = [Named(one.number, one.mac) for one in theirs]
            if found:
                self._names[name] = found
                for one in found:
                    self._back.setdefault(one.number, name)

    def _add_hosts(self, leases: Sequence[Lease]) -> None:
        for lease in sorted(leases, key=lambda one: one.began_at):  # who had a name first keeps it
            if lease.host and lease.host not in self._names and lease.host not in NOBODYS:
                self._names[lease.host] = [Named(lease.number, lease.mac, is_static=lease.kind == "told")]
                self._back.setdefault(lease.number, lease.host)

    def names(self) -> Mapping[int, str]:
        """The whole name of each number that has one."""
        return {number: f"{name}.{self._plan.domain}" for number, name in self._back.items()}

    def answer(self, query: dns.Query, seen: Iterable[bytes] = ()) -> bytes | None:
        """The answer; None: the name is not the hub's to know.

        Args:
            seen: IPv6 addresses in use; one that a station may have made itself is told only if it is among them.
        """
        plan = self._plan
        if not query.is_plain:
            return dns.answer(query, dns.NOT_IMPLEMENTED)
        if dns.is_inside(query.name, plan.domain):
            return self._inside(query, frozenset(seen))
        address = dns.reverse(query.name)
        if address is not None and (address in plan.network4 or address in plan.network6):
            return self._reverse(query, address)
        if dns.is_inside(query.name, TOP) or dns.is_inside(query.name, "localhost"):
            return dns.answer(query, dns.NO_SUCH_NAME)
        return None

    def _inside(self, query: dns.Query, seen: frozenset[bytes]) -> bytes:
        plan, zone = self._plan, self._plan.domain
        if query.name == zone:
            server = f"{SERVICE_NAME}.{zone}"
            records = []
            if query.kind in (dns.SOA, dns.ANY):
                records.append(self._soa())
            if query.kind in (dns.NS, dns.ANY):
                records.append(dns.Record(zone, dns.NS, TTL_S, dns.write_name(server)))
            return self._said(query, records)
        found = self._names.get(query.name[: -len(zone) - 1])
        if found is None:
            return dns.answer(query, dns.NO_SUCH_NAME, authority=[self._soa()])
        addresses: list[IPv4Address | IPv6Address] = []
        if query.kind in (dns.A, dns.ANY):
            addresses += [plan.network4.network_address + one.number for one in found]
        if query.kind in (dns.AAAA, dns.ANY):
            addresses += [address for one in found for address in self._addresses6(one, seen)]
        return self._said(query, [dns.address(address, query.name, TTL_S) for address in addresses])

    def _addresses6(self, one: Named, seen: frozenset[bytes]) -> list[IPv6Address]:
        network = self._plan.network6
        by_number = network.network_address + one.number
        by_station = [ndp.interface_address(network, one.mac)] if one.mac else []
        found = [address for address in (by_number, *by_station) if address.packed in seen]
        return found or ([by_number] if one.is_static else [])

    def _reverse(self, query: dns.Query, address: IPv4Address | IPv6Address) -> bytes:
        if isinstance(address, IPv4Address):
            number = int(address) - int(self._plan.network4.network_address)
        else:
            number = self._stations.get(address, int(address) - int(self._plan.network6.network_address))
        name = self._back.get(number)
        if name is None:
            return dns.answer(query, dns.NO_SUCH_NAME, authority=[self._soa()])
        records = [dns.pointer(address, f"{name}.{self._plan.domain}", TTL_S)]
        return self._said(query, records if query.kind in (dns.PTR, dns.ANY) else [])

    def _said(self, query: dns.Query, records: Sequence[dns.Record]) -> bytes:
        return dns.answer(query, records=records, authority=() if records else [self._soa()])

    def _soa(self) -> dns.Record:
        zone = self._plan.domain
        return dns.authority(zone, f"{SERVICE_NAME}.{zone}", NO_TTL_S)
