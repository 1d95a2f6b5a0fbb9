"""What this machine's network looks like: networks in use, interface names, the address others reach it by.

Read from /proc and by one ioctl; nothing is sent.
"""

import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

PROC_NET: Final = Path("/proc/net")
SIOCGIFADDR: Final = 0x8915  # linux/sockios.h

# Documentation addresses (RFC 5737, RFC 3849): the kernel says by which source it would reach the Internet.
FAR: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def used_networks(proc: Path = PROC_NET) -> list[IPv4Network | IPv6Network]:
    """Every network that this machine has a route or an address in, the default routes left out."""
    return [*_ipv4_routes(proc / "route"), *(network for network, _, _ in _ipv6_addresses(proc / "if_inet6"))]


def interfaces() -> set[str]:
    """Names of all interfaces."""
    return {name for _, name in socket.if_nameindex()}


def own_address(skip: Collection[str], family: socket.AddressFamily | None = None, proc: Path = PROC_NET) -> str:
    """The address that others most likely reach this machine by.

    The source address of the default route (IPv4, then IPv6); else the first global one of an interface not in `skip`;
    else 127.0.0.1 or ::1. With `family`: of that family only.
    """
    families = [family] if family else [socket.AF_INET, socket.AF_INET6]
    for kind in families:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect((FAR[kind], 9))
            return str(probe.getsockname()[0])
    names = [name for _, name in socket.if_nameindex() if name not in skip]
    for kind in families:
        for address in _addresses(kind, names, proc):
            found = ipaddress.ip_address(address)
            if not (found.is_loopback or found.is_link_local):
                return address
    return "127.0.0.1" if socket.AF_INET in families else "::1"


def _addresses(family: socket.AddressFamily, names: list[str], proc: Path) -> Iterator[str]:
    if family == socket.AF_INET:
        yield from filter(None, map(_ipv4_address, names))
    else:
        for _, address, name in _ipv6_addresses(proc / "if_inet6"):
            if name in names:
                yield address


def _ipv4_routes(path: Path) -> Iterator[IPv4Network]:
    """Columns: interface, destination, gateway, flags, 3 numbers, mask, ...; addresses as hex in host byte order."""
    for fields in _table(path):
        with contextlib.suppress(ValueError, IndexError):
            destination = socket.inet_ntoa(struct.pack("=I", int(fields[1], 16)))
            mask = socket.inet_ntoa(struct.pack("=I", int(fields[7], 16)))
            network = IPv4Network((destination, mask), strict=False)
            if network.prefixlen:
                yield network


def _ipv6_addresses(path: Path) -> Iterator[tuple[IPv6Network, str, str]]:
    """Columns: address, interface index, prefix length, scope, flags, name; numbers as hex."""
    for fields in _table(path):
        with contextlib.suppress(ValueError, IndexError):
            address = ipaddress.IPv6Address(bytes.fromhex(fields[0]))
            yield IPv6Network((address, int(fields[2], 16)), strict=False), str(address), fields[5]


def _table(path: Path) -> Iterator[list[str]]:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:  # no /proc, or IPv6 is off
        return
    yield from (line.split() for line in text.splitlines())


def _ipv4_address(interface: str) -> str:
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24])
        except OSError:  # has none
            return ""
