"""Host ports, the supervisor's side: TAPs with the hub machine's own addresses, made at control's wish.

Control is not trusted with the machine: a wish can make an interface whose name begins with "uk", with addresses that
belong to no one else, and nothing more.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, EnvironmentLacks, UsageError
from ukihashi.ether.offload import MAX_SEGMENTS
from ukihashi.hub.addresses import host_port_mac
from ukihashi.hub.messages import HostPort, HostPortWanted
from ukihashi.hub.upgrade import InheritedPort
from ukihashi.hub.uplink import Place
from ukihashi.net.privileges import is_root
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, adopt_tap, open_tap

NAME: Final = re.compile(r"uk[A-Za-z0-9_-]{1,13}")
MAX_HOST_PORTS: Final = 256
MAX_ADDRESSES: Final = 8
RING: Final = 500  # frames that wait in the kernel for us; more would only be delay (D12)
CONF: Final = Path("/proc/sys/net/ipv6/conf")


class Made(NamedTuple):
    """What to send to the worker."""

    message: HostPort
    fds: list[int]  # stay ours


class _Entry(NamedTuple):
    tap: Tap
    addresses: tuple[str, ...]


class HostPorts:
    """The TAPs that exist. They end with us, whatever happens: none is persistent."""

    def __init__(self, on_change: Callable[[Sequence[Place]], object] = lambda _places: None) -> None:
        """`on_change`: told where this machine stands in virtual hubs, when that may be another."""
        self._taps: dict[str, _Entry] = {}  # by virtual hub, casefolded
        self._on_change = on_change

    def want(self, wish: HostPortWanted, *, super_frames: bool = False) -> Made | None:
        """Make it, or bring one that exists to these addresses (then None: the worker has it).

        Args:
            super_frames: one that is made can give and take them, if this kernel can.
        Raises:
            EnvironmentLacks, UsageError: it can't be made. One that was half made is gone again.
        """
        if not is_root():
            raise EnvironmentLacks(
                N_("virtual hub {hub} gets no host port: making one needs root; try again with sudo"), hub=wish.hub
            )
        addresses = tuple(str(_allowed(address)) for address in wish.addresses)
        if not NAME.fullmatch(wish.interface) or len(addresses) > MAX_ADDRESSES or len(self._taps) >= MAX_HOST_PORTS:
            raise UsageError(
                N_("virtual hub {hub} gets no host port: {interface} with {count} addresses is not allowed"),
                hub=wish.hub,
                interface=wish.interface,
                count=len(addresses),
            )
        known = self._taps.get(wish.hub.casefold())
        if known is not None and known.tap.name == wish.interface:
            self._readdress(known, addresses)
            self._taps[wish.hub.casefold()] = _Entry(known.tap, addresses)
            self._on_change(self.places())
            return None
        if known is not None:
            self.remove(wish.hub)
        tap = open_tap(wish.interface, offload=super_frames)
        try:
            _refuse_advertisements(wish.interface)
            netlink.set_mac(wish.interface, host_port_mac(wish.hub, wish.addresses))
            for address in addresses:
                netlink.add_address(wish.interface, address)
            netlink.set_up(wish.interface, 1500, RING, MAX_SEGMENTS)
        except BaseException:
            tap.close()
            raise
        self._taps[wish.hub.casefold()] = _Entry(tap, addresses)
        self._on_change(self.places())
        return Made(HostPort(wish.hub, wish.interface), [tap.fileno()])

    def remove(self, hub: str) -> bool:
        """Let go of it; it disappears when the worker does too. False if there is none."""
        entry = self._taps.pop(hub.casefold(), None)
        if entry is not None:
            self._on_change(self.places())
            entry.tap.close()
        return entry is not None

    def all(self) -> list[Made]:
        """Every one, for a new worker."""
        return [Made(HostPort(hub, entry.tap.name), [entry.tap.fileno()]) for hub, entry in self._taps.items()]

    def places(self) -> list[Place]:
        """Where this machine stands in virtual hubs."""
        return [Place(name_key(hub), entry.tap.name, entry.addresses) for hub, entry in self._taps.items()]

    def leave(self) -> list[InheritedPort]:
        """For the program that takes our place."""
        return [
            InheritedPort(hub, entry.tap.name, entry.addresses, entry.tap.fileno()) for hub, entry in self._taps.items()
        ]

    def adopt(self, ports: Sequence[InheritedPort]) -> None:
        """Take them over as they are: up, with their addresses."""
        for port in ports:
            self._taps[port.hub] = _Entry(adopt_tap(port.fd, port.interface), port.addresses)
        self._on_change(self.places())

    def close(self) -> None:
        """Remove all."""
        for hub in list(self._taps):
            self.remove(hub)

    def forget(self) -> None:
        """In a child: the descriptors are the parent's business."""
        for entry in self._taps.values():
            os.close(entry.tap.fileno())
        self._taps = {}

    @staticmethod
    def _readdress(entry: _Entry, addresses: tuple[str, ...]) -> None:
        for address in entry.addresses:
            if address not in addresses:
                netlink.remove_address(entry.tap.name, address)
        for address in addresses:
            netlink.add_address(entry.tap.name, address)


def _allowed(address: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        parsed = ipaddress.ip_interface(address)
    except ValueError:
        parsed = None
    if parsed is None or parsed.ip.is_loopback or parsed.ip.is_multicast or parsed.ip.is_unspecified:
        raise UsageError(N_("{address} can't be the address of a host port"), address=address)
    return parsed


def _refuse_advertisements(interface: str) -> None:
    """Members must not be able to give this machine routes or addresses (RFC 4861 router advertisements)."""
    for name in ("accept_ra", "autoconf", "accept_redirects"):
        try:
            (CONF / interface / name).write_text("0")
        except OSError:  # no IPv6 here, or /proc/sys is read-only: then nothing can be set at all
            return
