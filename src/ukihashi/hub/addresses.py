"""Addresses of a virtual hub: its subnets, its users' numbers in them, its host port's name (D18)."""

import hashlib
import ipaddress
import unicodedata
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.store.hubs import Hub

HOST_PORT_NUMBER: Final = 1  # last part of the host port's own addresses
FIRST_NUMBER: Final = 2  # of a user's
LAST_NUMBER: Final = 254
INTERFACE_PREFIX: Final = "uk"
INTERFACE_MAX: Final = 15  # IFNAMSIZ without its zero byte

# The first is rarely used by home routers and company networks. The others: where a whole 10.0.0.0/8 is routed already.
POOLS: Final = tuple(
    IPv4Network(text) for text in ("10.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)

Below = Callable[[int], int]  # a random number below its argument, as `secrets.randbelow`


def choose_subnets(used: Iterable[IPv4Network | IPv6Network], below: Below) -> tuple[IPv4Network, IPv6Network]:
    """A /24 and a /64 that touch no network in `used`.

    Raises:
        EnvironmentLacks: no private IPv4 network is left.
    """
    used = list(used)
    return _choose_ipv4([one for one in used if isinstance(one, IPv4Network)], below), _choose_ipv6(
        {one for one in used if isinstance(one, IPv6Network)}, below
    )


def _choose_ipv4(used: list[IPv4Network], below: Below) -> IPv4Network:
    for pool in POOLS:
        if any(pool.subnet_of(one) for one in used):
            continue
        count = 1 << (24 - pool.prefixlen)
        start = below(count)
        for step in range(count):
            base = int(pool.network_address) + ((start + step) % count << 8)
            candidate = IPv4Network((base, 24))
            if not any(candidate.overlaps(one) for one in used):
                return candidate
    raise EnvironmentLacks(N_("no private IPv4 network is free on this machine; `ip route` shows what takes them all"))


def _choose_ipv6(used: set[IPv6Network], below: Below) -> IPv6Network:
    while True:  # RFC 4193: fd, 40 random bits, subnet 0; a second round is a matter of one in 10**12
        candidate = IPv6Network(((0xFD << 120) | (below(1 << 40) << 80), 64))
        if not any(candidate.overlaps(one) for one in used):
            return candidate


def addresses(hub: Hub, number: int) -> tuple[str, str]:
    """Both addresses of `number` with their prefix lengths: `10.81.7.2/24`, `fd3c:1:2::2/64`."""
    return _address(hub.subnet4, number), _address(hub.subnet6, number)


def _address(subnet: str, number: int) -> str:
    network = ipaddress.ip_network(subnet)
    return f"{network.network_address + number}/{network.prefixlen}"


def host_port_name(hub: str, taken: Collection[str]) -> str:
    """An interface name for a hub's host port: `uk` and up to 13 letters of the hub's name, not in `taken`."""
    plain = unicodedata.normalize("NFKD", name_key(hub))
    stem = "".join(letter for letter in plain if letter.isascii() and letter.isalnum())
    if not stem:  # a name in other letters
        stem = "hub" + hashlib.sha256(name_key(hub).encode()).hexdigest()[:4]
    room = INTERFACE_MAX - len(INTERFACE_PREFIX)
    name, count = INTERFACE_PREFIX + stem[:room], 1
    while name in taken:
        count += 1
        name = f"{INTERFACE_PREFIX}{stem[: room - len(str(count))]}{count}"
    return name


def host_port_mac(hub: str, addresses: Iterable[str]) -> bytes:
    """The same after every restart, or members' neighbour caches would point into nothing for half a minute.

    Made of what is drawn once per virtual hub: its subnets. Locally administered, of one station (IEEE 802).
    """
    digest = hashlib.sha256("\0".join((hub.casefold(), *sorted(addresses))).encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02]) + digest[1:6]
