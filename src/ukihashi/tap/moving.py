"""Addresses and routes of one interface, in the kernel's own words, so that another one gets them just as they are.

rtnetlink(7) in plain bytes: what the kernel tells of an address or a route is kept whole and said again with another
interface, so attributes that we know nothing of move along. Left out is what belongs to an interface and comes by
itself: IPv6 link-local and temporary addresses, and the routes that the kernel makes for each address.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

import msgspec

from ukihashi.errors import N_, EnvironmentLacks

# linux/netlink.h
NLM_REQUEST: Final = 0x1
NLM_ACK: Final = 0x4
NLM_DUMP: Final = 0x300
NLM_CREATE: Final = 0x400
NLM_APPEND: Final = 0x800
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

# linux/rtnetlink.h, linux/if_addr.h
NEW_ADDRESS: Final = 20
NEW_ROUTE: Final = 24
DELETE: Final = 1  # what the number of a message that deletes is above that of one that adds
GET: Final = 2  # the same of one that asks
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_LABEL: Final = 3
IFA_FLAGS: Final = 8
IFA_F_TEMPORARY: Final = 0x01  # of IPv6; of IPv4 it is `secondary`
IFA_F_NODAD: Final = 0x02
IFA_F_PERMANENT: Final = 0x80
IFA_F_MANAGED: Final = 0x100  # the kernel made it of a router advertisement, and may make temporary ones of it
IFA_F_KEPT: Final = IFA_F_NODAD | 0x10 | IFA_F_MANAGED | 0x200 | 0x400  # home, without prefix route, multicast join
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PRIORITY: Final = 6
RTA_MULTIPATH: Final = 9
RTA_CACHEINFO: Final = 12
RTA_TABLE: Final = 15
RTA_VIA: Final = 18
RTA_EXPIRES: Final = 23
RTA_NH_ID: Final = 30
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253
RTPROT_KERNEL: Final = 2
RTPROT_RA: Final = 9
RTM_F_CLONED: Final = 0x200
RTNH_F_KEPT: Final = 0x02 | 0x04  # pervasive, onlink
LOCAL_TABLE: Final = 255
USER_HZ: Final = 100  # of times in `rta_cacheinfo`

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # nlattr: length, type
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_HOP: Final = struct.Struct("=HBBi")  # rtnexthop: length, flags, hops, index
_CACHE: Final = struct.Struct("=IIiIIIII")  # rta_cacheinfo; the third is the time left
_U32: Final = struct.Struct("=I")
_BUFFER: Final = 1 << 18  # bytes; the kernel's messages of a dump are smaller


class Item(msgspec.Struct, frozen=True):
    """One address or route, as the kernel told it."""

    kind: int  # NEW_ADDRESS, NEW_ROUTE
    index: int  # of the interface that it was told of
    body: bytes

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.body[0]

    @property
    def is_address(self) -> bool:
        """Else a route."""
        return self.kind == NEW_ADDRESS

    @property
    def key(self) -> bytes:
        """The same for the same address or route on another interface, whatever its age."""
        named = self.attributes
        if self.is_address:
            return self.body[:2] + named.get(IFA_LOCAL, b"") + named.get(IFA_ADDRESS, b"")
        return self.body[:8] + b"|".join(
            named.get(one, b"") for one in (RTA_DST, RTA_GATEWAY, RTA_VIA, RTA_PRIORITY, RTA_TABLE)
        )

    @property
    def attributes(self) -> dict[int, bytes]:
        """By type."""
        return _attributes(self.body[_ADDRESS.size if self.is_address else _ROUTE.size :])

    @property
    def flags(self) -> int:
        """Of an address."""
        found: int = _U32.unpack(self.attributes.get(IFA_FLAGS, bytes(4)))[0]
        return found

    @property
    def is_advertised(self) -> bool:
        """It comes by itself, of router advertisements (RFC 4862), and again when one is heard."""
        if self.is_address:
            return self.family == socket.AF_INET6 and bool(self.flags & IFA_F_MANAGED)
        return self.body[5] == RTPROT_RA

    def __str__(self) -> str:
        named = self.attributes
        if self.is_address:
            return f"{ip_address(named.get(IFA_LOCAL) or named[IFA_ADDRESS])}/{self.body[1]}"
        shown = f"{ip_address(named.get(RTA_DST) or bytes(4 if self.family == socket.AF_INET else 16))}/{self.body[1]}"
        return f"{shown} via {ip_address(named[RTA_GATEWAY])}" if RTA_GATEWAY in named else shown


def items(interface: str) -> list[Item]:
    """Its addresses, then its routes, in an order in which they can be set elsewhere. Raises: EnvironmentLacks."""
    index = _index(interface)
    with _Kernel() as kernel:
        addresses = [
            Item(NEW_ADDRESS, index, body)
            for family in (socket.AF_INET, socket.AF_INET6)
            # of IPv6 the last one set stands first
            for body in list(kernel.dump(NEW_ADDRESS, family))[:: 1 if family == socket.AF_INET else -1]
            if _is_own_address(body, index)
        ]
        routes = [
            Item(NEW_ROUTE, index, body)
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in kernel.dump(NEW_ROUTE, family)
            if _is_own_route(body, index)
        ]
    return addresses + sorted(routes, key=lambda route: not {RTA_GATEWAY, RTA_VIA}.isdisjoint(route.attributes))


def elsewhere(interface: str) -> set[str]:
    """Other interfaces that have an address with which one gets anywhere."""
    index, found = _index(interface), set[int]()
    with _Kernel() as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in kernel.dump(NEW_ADDRESS, family):
                _family, _length, _flags, scope, its = _ADDRESS.unpack_from(body)
                if its != index and scope == RT_SCOPE_UNIVERSE:
                    found.add(its)
    names = set()
    for one in found:
        with contextlib.suppress(OSError):  # gone meanwhile
            names.add(socket.if_indextoname(one))
    return names


def put(found: Iterable[Item], interface: str, *, before: str, checked: bool) -> list[EnvironmentLacks]:
    """Set them on `interface`; what was there already counts as done. Gives what the kernel refused.

    Args:
        before: whose they were; an address labelled after it is labelled after `interface`.
        checked: IPv6 addresses are known to be nobody else's: no time is spent to look (RFC 4862, 5.4).
    """
    index, refused = _index(interface), []
    with _Kernel() as kernel:
        for item in found:
            if item.is_address:
                code = kernel.ask(NEW_ADDRESS, NLM_CREATE, _address_for(item, index, before, checked=checked))
            else:
                code = kernel.ask(NEW_ROUTE, NLM_CREATE | NLM_APPEND, _route_for(item, index))
            if code not in (0, errno.EEXIST):
                refused.append(_refused(item, interface, code))
    return refused


def remove(found: Iterable[Item], interface: str) -> None:
    """Take them off; what is not there counts as done."""
    index = _index(interface)
    with _Kernel() as kernel:
        for item in found:
            body = _address_for(item, index, "", checked=False) if item.is_address else _route_for(item, index)
            kernel.ask(item.kind + DELETE, 0, body)


def as_once(found: Iterable[Item], once: Iterable[Item]) -> list[Item]:
    """`found`, but addresses with the flags that they had `once`; how long they hold is as it is now."""
    flags = {item.key: item.flags for item in once if item.is_address}
    return [_with_flags(item, flags[item.key]) if item.key in flags else item for item in found]


# -- what to move -----------------------------------------------------------------------------------------------------


def _is_own_address(body: bytes, index: int) -> bool:
    family, _length, flags, scope, its = _ADDRESS.unpack_from(body)
    if family == socket.AF_INET6 and (scope == RT_SCOPE_LINK or flags & IFA_F_TEMPORARY):
        return False
    return bool(its == index)


def _is_own_route(body: bytes, index: int) -> bool:
    _family, _to, _from, _tos, table, protocol, _scope, _kind, flags = _ROUTE.unpack_from(body)
    if flags & RTM_F_CLONED or table == LOCAL_TABLE or protocol == RTPROT_KERNEL:
        return False
    named = _attributes(body[_ROUTE.size :])
    return named.get(RTA_OIF) == _U32.pack(index) or any(
        _HOP.unpack_from(hop)[3] == index for hop in _hops(named.get(RTA_MULTIPATH, b""))
    )


# -- messages ---------------------------------------------------------------------------------------------------------


def _address_for(item: Item, index: int, before: str, *, checked: bool) -> bytes:
    family, length, _flags, scope, _index = _ADDRESS.unpack_from(item.body)
    named = item.attributes
    flags = item.flags & IFA_F_KEPT
    if checked and family == socket.AF_INET6:
        flags |= IFA_F_NODAD
    named[IFA_FLAGS] = _U32.pack(flags)
    if named.get(IFA_LABEL, b"").rstrip(b"\0") == before.encode():
        named.pop(IFA_LABEL, None)
    return _ADDRESS.pack(family, length, 0, scope, index) + _packed(named)


def _with_flags(item: Item, flags: int) -> Item:
    head, named = item.body[: _ADDRESS.size], item.attributes
    return Item(item.kind, item.index, head + _packed({**named, IFA_FLAGS: _U32.pack(flags)}))


def _route_for(item: Item, index: int) -> bytes:
    *head, flags = _ROUTE.unpack_from(item.body)
    named = item.attributes
    named.pop(RTA_NH_ID, None)
    age = named.pop(RTA_CACHEINFO, b"")
    if len(age) >= _CACHE.size and (ticks := _CACHE.unpack_from(age)[2]) > 0:
        named[RTA_EXPIRES] = _U32.pack(max(1, ticks // USER_HZ))
    if RTA_OIF in named:
        named[RTA_OIF] = _U32.pack(index)
    if RTA_MULTIPATH in named:
        named[RTA_MULTIPATH] = b"".join(_hop_for(hop, item.index, index) for hop in _hops(named[RTA_MULTIPATH]))
    return _ROUTE.pack(*head, flags & RTNH_F_KEPT) + _packed(named)


def _hop_for(hop: bytes, old: int, new: int) -> bytes:
    length, flags, weight, index = _HOP.unpack_from(hop)
    made = _HOP.pack(length, flags & RTNH_F_KEPT, weight, new if index == old else index) + hop[_HOP.size :]
    return made + bytes(-len(made) % 4)


def _hops(data: bytes) -> Iterator[bytes]:
    while len(data) >= _HOP.size and (length := _HOP.unpack_from(data)[0]) >= _HOP.size:
        yield data[:length]
        data = data[length + 3 & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size : length]
        data = data[length + 3 & ~3 :]
    return found


def _packed(attributes: Mapping[int, bytes]) -> bytes:
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in attributes.items()
    )


class _Kernel:
    """A netlink socket."""

    def __enter__(self) -> Self:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def dump(self, kind: int, family: int) -> Iterator[bytes]:
        """The bodies of all messages of that kind."""
        head = _ADDRESS.pack(family, 0, 0, 0, 0) if kind == NEW_ADDRESS else _ROUTE.pack(family, *[0] * 8)
        self._send(kind + GET, NLM_REQUEST | NLM_DUMP, head)
        while True:
            for answer, body in self._receive():
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return
                yield body

    def ask(self, kind: int, flags: int, body: bytes) -> int:
        """0, or the number of the error."""
        self._send(kind, NLM_REQUEST | NLM_ACK | flags, body)
        for answer, said in self._receive():
            if answer == NLMSG_ERROR:
                return -int(struct.unpack_from("=i", said)[0])
        return 0

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        data = self._sock.recv(_BUFFER)
        while len(data) >= _HEADER.size:
            length, kind, *_rest = _HEADER.unpack_from(data)
            yield kind, data[_HEADER.size : length]
            data = data[length + 3 & ~3 :]


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise EnvironmentLacks(N_("there is no network interface {interface}"), interface=interface) from error


def _refused(item: Item, interface: str, code: int) -> EnvironmentLacks:
    return EnvironmentLacks(
        N_("the kernel refused {subject} on {interface}: {reason}"),
        subject=str(item),
        interface=interface,
        reason=os.strerror(code),
    )
