"""An Ethernet of this machine joined to a TAP by the kernel's bridge (Linux, `Documentation/networking/bridge.rst`).

    eth1 --- ukbr-eth1 --- TAP        a bridge of ours; this machine itself takes no part in it
    eth1, vnet0 --- br0 --- TAP       a bridge that was there gets the TAP as one more member

What outlives us is told to `note` before it is done (`Joined`), so that `part` undoes it, in this process or in the
next. Addresses stop working on a member of a bridge: an interface that has some is refused, unless they shall move to
the bridge, and back in the end (`moving`). What it has by router advertisements alone is no reason: any interface that
is up gets that. It is set aside, unless this machine has no other address.
"""

import contextlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from ukihashi.errors import N_, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.ether.offload import MAX_SEGMENTS
from ukihashi.tap import moving, netlink
from ukihashi.tap.device import NAME_MAX, check_interface_name
from ukihashi.tap.moving import Item
from ukihashi.tap.netlink import Link

MTU: Final = 1500  # of bridge and TAP, whatever the interface has: what every hub passes on
BRIDGE: Final = "ukbr-"  # beginning of the names of our bridges
TAP: Final = "ukt-"  # of the TAPs of hubs
ETHERNET: Final = 1  # linux/if_arp.h, ARPHRD_ETHER
UP: Final = 0x1  # linux/if.h
LOOPBACK: Final = 0x8
LAST_MAC: Final = 0xFE  # first byte: a bridge without an address of its own takes the lowest of its members'

_SYSCTL: Final = Path("/proc/sys/net")
_SYSFS: Final = Path("/sys/class/net")
_KEPT_OUT: Final = {  # settings of a bridge of ours that this machine takes no part in
    "ipv6/conf/{}/disable_ipv6": "1",
    "ipv4/conf/{}/arp_ignore": "1",
    "ipv4/conf/{}/forwarding": "0",
}
_LIKE: Final = (  # settings that move along with addresses
    *("ipv4/conf/{}/" + name for name in ("rp_filter", "arp_ignore", "arp_announce", "accept_redirects", "forwarding")),
    *("ipv6/conf/{}/" + name for name in ("disable_ipv6", "accept_ra", "autoconf", "accept_redirects", "forwarding")),
)


class Joined(msgspec.Struct, kw_only=True):
    """One Ethernet that is joined, or shall be; what of it outlives us, for a journal."""

    interface: str
    tap: str
    bridge: str
    made: bool  # the bridge is ours
    takes: bool = False  # addresses and routes move
    index: int = 0  # of the interface that we made a member; 0: none
    was_down: bool = False
    settled: bool = False  # all that shall move has moved; `items` is what was there before
    items: list[Item] = []
    aside: list[Item] = []  # what router advertisements gave the interface: of no use to a member, put back in the end


Note = Callable[[Joined], None]


def copy(joined: Joined) -> Joined:
    """As it is now."""
    return msgspec.structs.replace(joined)


def bridge_name(interface: str) -> str:
    """Of the bridge that we make for it."""
    return _short(BRIDGE, interface)


def tap_name(interface: str) -> str:
    """Of the TAP that a hub joins to it."""
    return _short(TAP, interface)


def _short(start: str, interface: str) -> str:
    name = start + interface
    fits = len(name.encode()) <= NAME_MAX
    return name if fits else f"{start}{zlib.crc32(interface.encode()):08x}"


def plan(interface: str, tap: str, *, takes: bool = False) -> Joined:
    """What joining it to `tap` will be. Nothing is done yet; an interface that is not there (yet) is no error.

    Raises: UsageError, EnvironmentLacks: why it can't be.
    """
    check_interface_name(interface)
    if interface == tap:
        raise _is_ours(interface)
    if not netlink.exists(interface):
        return Joined(interface=interface, tap=tap, bridge=bridge_name(interface), made=True, takes=takes)
    link = netlink.link(interface)
    if link.kind == "bridge":
        if interface.startswith(BRIDGE):
            raise _is_ours(interface)
        return Joined(interface=interface, tap=tap, bridge=interface, made=False)
    joined = Joined(interface=interface, tap=tap, bridge=bridge_name(interface), made=True, takes=takes)
    _check(link, joined)
    return joined


def join(joined: Joined, note: Note) -> None:
    """Do what was planned; `note` is called with the journal's entry before each step that outlives us.

    Where the interface is missing the bridge waits for it: call `take_in` when it comes.
    Raises: EnvironmentLacks, UsageError: then call `part`.
    """
    if joined.made:
        if netlink.exists(joined.bridge):
            raise EnvironmentLacks(
                N_("the network interface {interface} exists already; remove it: ip link del {interface}"),
                interface=joined.bridge,
            )
        note(joined)
        present = netlink.exists(joined.interface)
        netlink.add_bridge(joined.bridge, netlink.mac_of(joined.interface) if present else b"")
        _set(joined.bridge, {} if joined.takes else _KEPT_OUT)
        for mtu in (MTU - 1, MTU):  # said by somebody, it does not follow that of the members any more
            netlink.set_up(joined.bridge, mtu)
    _set(joined.tap, _KEPT_OUT)
    mac = netlink.mac_of(joined.tap)
    netlink.set_mac(joined.tap, bytes([LAST_MAC]) + mac[1:])
    if joined.made:
        netlink.set_master(joined.tap, joined.bridge)
    take_in(joined, note)


def take_in(joined: Joined, note: Note) -> bool:
    """Make the interface a member of our bridge if it has come (again); was anything done?

    Of a bridge that was there: the TAP becomes its member. What somebody has taken out of a bridge stays out.
    Raises: EnvironmentLacks, UsageError: it can't be; nothing has changed.
    """
    if not netlink.exists(joined.interface) or not netlink.exists(joined.bridge):
        return False
    link = netlink.link(joined.interface)
    if not joined.made:
        return link.number != joined.index and _take_tap(joined, link)
    bridge = netlink.link(joined.bridge)
    if link.master == bridge.number or link.number == joined.index:
        return False
    _check(link, joined)
    found = moving.items(joined.interface) if joined.takes else []
    joined.items, joined.settled = _united(found, joined.items), False
    if not joined.takes:
        joined.aside = [item for item in moving.items(joined.interface) if item.is_advertised]
    joined.index, joined.was_down = link.number, not link.flags & UP
    note(joined)
    try:
        netlink.set_master(joined.interface, joined.bridge)
    except EnvironmentLacks as error:
        joined.index = 0
        note(joined)
        raise _refused(joined.interface, error) from error
    if joined.was_down:
        netlink.set_up(joined.interface, link.mtu)
    moving.remove(joined.aside, joined.interface)
    if joined.takes:
        _move(joined, found)
        joined.settled = True
        note(joined)
    return True


def _take_tap(joined: Joined, bridge: Link) -> bool:
    if bridge.kind != "bridge":
        raise UsageError(N_("{interface} is no bridge any more"), interface=bridge.name)
    netlink.set_master(joined.tap, bridge.name)
    joined.index = bridge.number
    return True


def _united(some: list[Item], more: list[Item]) -> list[Item]:
    known = {item.key for item in some}
    return some + [item for item in more if item.key not in known]


def _move(joined: Joined, items: list[Item]) -> None:
    """To the bridge: first there, then away here, so that this machine has its addresses at every moment."""
    for pattern in _LIKE:
        with contextlib.suppress(OSError):
            _write(pattern.format(joined.bridge), (_SYSCTL / pattern.format(joined.interface)).read_text())
    addresses = [item for item in items if item.is_address]
    routes = [item for item in items if not item.is_address]
    moving.put(addresses, joined.bridge, before=joined.interface, checked=True)
    moving.remove(items, joined.interface)
    moving.put(routes, joined.bridge, before=joined.interface, checked=True)


def part(joined: Joined, note: Note) -> list[str]:
    """Undo all of it, as far as it was done and is still so; what was done. The TAP is its owner's to close.

    Raises: EnvironmentLacks: the kernel refused; call it again.
    """
    done: list[str] = []
    bridge = netlink.link(joined.bridge) if netlink.exists(joined.bridge) else None
    if not joined.made:
        return done
    if joined.takes and bridge is not None:
        there = _lasting(joined)
        joined.items = moving.as_once(there, joined.items) if joined.settled else _united(joined.items, there)
        joined.settled = False  # from here on they may be in either place, or in none
        note(joined)
    link = netlink.link(joined.interface) if netlink.exists(joined.interface) else None
    member = link is not None and bridge is not None and link.master == bridge.number
    if member:
        netlink.set_master(joined.interface, "")
    if bridge is not None:
        done += _dissolve(joined, bridge)
    if link is not None and joined.index:
        done += _give_back(joined)
        if member and joined.index == link.number:
            moving.put(joined.aside, joined.interface, before=joined.interface, checked=False)
            if joined.was_down:
                netlink.set_down(joined.interface)
    return done


def _lasting(joined: Joined) -> list[Item]:
    """What the bridge has now, whoever set it; but what came by itself from the virtual LAN goes with the bridge."""
    once = {item.key for item in joined.items}
    return [item for item in moving.items(joined.bridge) if not item.is_advertised or item.key in once]


def release(joined: Joined, mac: bytes) -> None:
    """Let go of the TAP, which is to be an interface of this machine again, with the address `mac`."""
    if netlink.exists(joined.tap):
        netlink.set_master(joined.tap, "")
        _set(joined.tap, {pattern: _read(pattern.format("default")) for pattern in _KEPT_OUT})
        netlink.set_mac(joined.tap, mac)


def _dissolve(joined: Joined, bridge: Link) -> list[str]:
    """Remove our bridge, unless somebody has made something else a member of it."""
    others = [one.name for one in netlink.links().values() if one.master == bridge.number and one.name != joined.tap]
    if not others:
        netlink.remove_interface(joined.bridge)
        return [joined.bridge]
    if joined.takes:
        moving.remove(joined.items, joined.bridge)
    return []


def _give_back(joined: Joined) -> list[str]:
    """The addresses and routes; after somebody has removed the bridge only to an interface that has none."""
    if not joined.takes or (joined.settled and moving.items(joined.interface)):
        return []
    refused = moving.put(joined.items, joined.interface, before=joined.bridge, checked=False)
    if refused:
        raise refused[0]
    return [f"{item} dev {joined.bridge}" for item in joined.items]


# -- looking ----------------------------------------------------------------------------------------------------------


def is_member(joined: Joined) -> bool:
    """Is the interface where it belongs?"""
    with contextlib.suppress(EnvironmentLacks):
        member = joined.interface if joined.made else joined.tap
        return netlink.link(member).master == netlink.link(joined.bridge).number
    return False


def row(joined: Joined) -> dict[str, Any]:
    """For `status`: the bridge, its members, what the kernel has counted on the interface and on the TAP."""
    links = netlink.links()
    by_name = {link.name: link for link in links.values()}
    bridge, here = by_name.get(joined.bridge), by_name.get(joined.interface)
    members = sorted(link.name for link in links.values() if bridge is not None and link.master == bridge.number)
    found: dict[str, Any] = {
        "interface": joined.interface,
        "bridge": joined.bridge,
        "made": joined.made,
        "tap": joined.tap,
        "members": members,
        "mtu": bridge.mtu if bridge is not None else 0,
        "interface_mtu": here.mtu if here is not None else 0,
        "takes_addresses": joined.takes,
        "addresses": [str(item) for item in joined.items if item.is_address] if joined.takes else [],
        "counters": {},
    }
    for name in (joined.interface, joined.tap):
        with contextlib.suppress(EnvironmentLacks):
            found["counters"][name] = netlink.counters(name)._asdict()
    return found


def warnings(joined: Joined) -> list[UkihashiError]:
    """What a person should know of it."""
    found: list[UkihashiError] = []
    for name in {joined.interface, joined.bridge} if netlink.exists(joined.interface) else ():
        mtu = netlink.link(name).mtu if netlink.exists(name) else MTU
        if mtu != MTU:
            found.append(
                EnvironmentLacks(
                    N_(
                        "{interface} has an MTU of {mtu}, the virtual LAN one of {usual}: longer packets are lost"
                        " between them; set {usual} on {interface} and on all hosts there"
                    ),
                    interface=name,
                    mtu=mtu,
                    usual=MTU,
                )
            )
    taken = [item for item in joined.items if joined.takes and item.is_address]
    fleeting = [str(item) for item in taken if not item.flags & moving.IFA_F_PERMANENT]
    if fleeting:
        found.append(
            EnvironmentLacks(
                N_(
                    "{addresses} came from a DHCP server or a router and will end; let the DHCP client work on {bridge}"
                    " instead of {interface}"
                ),
                addresses=", ".join(fleeting),
                bridge=joined.bridge,
                interface=joined.interface,
            )
        )
    return found


# -- what can't be ----------------------------------------------------------------------------------------------------


def _check(link: Link, joined: Joined) -> None:
    """Raise UsageError if the interface can't become a member of our bridge."""
    name = link.name
    if link.flags & LOOPBACK:
        raise UsageError(
            N_("{interface} is this machine's loopback; nothing outside is behind it that could be bridged"),
            interface=name,
        )
    if link.type != ETHERNET:
        raise UsageError(
            N_("{interface} carries no Ethernet frames (it is a tunnel or a line for IP only), so it can't be bridged"),
            interface=name,
        )
    if name.startswith(TAP) or (link.kind == "tun" and name.startswith("uk")):
        raise _is_ours(name)
    if link.master:
        raise _is_part(link)
    if joined.takes:
        return
    found = [item for item in moving.items(name) if item.is_address]
    alone = all(other.startswith("uk") for other in moving.elsewhere(name))  # but for ours
    addresses = [str(item) for item in found if alone or not item.is_advertised]
    if addresses:
        raise UsageError(
            N_(
                "{interface} has addresses of its own ({addresses}), and as a member of a bridge it could not use them:"
                " this machine would be cut off there. With --take-addresses they and their routes move to the bridge"
                " and come back in the end; or take another interface"
            ),
            interface=name,
            addresses=", ".join(addresses),
        )


def _is_ours(interface: str) -> UsageError:
    return UsageError(
        N_(
            "{interface} is an interface of ukihashi itself, another card's or a hub's; two virtual LANs are joined by"
            " `ukihashi hub cascade`"
        ),
        interface=interface,
    )


def _is_part(link: Link) -> UsageError:
    master = netlink.links().get(link.master)
    name = master.name if master is not None else str(link.master)
    if name.startswith(BRIDGE):
        return UsageError(
            N_("{interface} is bridged already by another card or hub of ukihashi ({bridge})"),
            interface=link.name,
            bridge=name,
        )
    if master is not None and master.kind == "bridge":
        return UsageError(
            N_("{interface} is a member of the bridge {bridge} already; name {bridge} instead"),
            interface=link.name,
            bridge=name,
        )
    return UsageError(
        N_("{interface} is a part of {other}; name {other} instead"),
        interface=link.name,
        other=name,
    )


def _refused(interface: str, error: EnvironmentLacks) -> EnvironmentLacks:
    if any((_SYSFS / interface / name).exists() for name in ("wireless", "phy80211")):
        return EnvironmentLacks(
            N_(
                "{interface} is a Wi-Fi card that may send under its own address only, so other hosts can't be bridged"
                " over it. Use a cable, or a card and an access point that both have 4-address mode (WDS): iw dev"
                " {interface} set 4addr on"
            ),
            interface=interface,
        )
    return error


# -- settings of the kernel -------------------------------------------------------------------------------------------


def _set(interface: str, settings: dict[str, str]) -> None:
    for pattern, value in settings.items():
        with contextlib.suppress(OSError):  # no IPv6 here; or /proc/sys is read-only, then nothing can be set at all
            _write(pattern.format(interface), value)


def _write(name: str, value: str) -> None:
    (_SYSCTL / name).write_text(value)


def _read(name: str) -> str:
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return ""


def set_up_tap(tap: str, queue: int) -> None:
    """Switch it on. `queue`: frames that may wait in it."""
    netlink.set_up(tap, MTU, queue, MAX_SEGMENTS)
