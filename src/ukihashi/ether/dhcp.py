"""DHCP for IPv4: messages and whole frames (RFC 2131, 2132; long options RFC 3396; routes RFC 3442; search RFC 3397).

A message is read as a stranger wrote it: whatever a length says is checked, options that come in pieces or stand in the
fields of file and server name are joined.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from ukihashi.errors import N_, PeerViolation
from ukihashi.ether import datagram
from ukihashi.ether.datagram import Datagram
from ukihashi.ether.frame import BROADCAST

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67

BOOT_REQUEST: Final = 1
BOOT_REPLY: Final = 2
BROADCAST_FLAG: Final = 0x8000

# message types (option 53)
DISCOVER: Final = 1
OFFER: Final = 2
REQUEST: Final = 3
DECLINE: Final = 4
ACK: Final = 5
NAK: Final = 6
RELEASE: Final = 7
INFORM: Final = 8

# options
PAD: Final = 0
MASK: Final = 1
ROUTER: Final = 3
DNS: Final = 6
HOST_NAME: Final = 12
DOMAIN: Final = 15
MTU: Final = 26
BROADCAST_ADDRESS: Final = 28
REQUESTED: Final = 50
LEASE_TIME: Final = 51
OVERLOAD: Final = 52
MESSAGE_TYPE: Final = 53
SERVER_ID: Final = 54
WANTED: Final = 55
TEXT: Final = 56
MAX_SIZE: Final = 57
RENEWAL_TIME: Final = 58
REBINDING_TIME: Final = 59
CLIENT_ID: Final = 61
FULL_NAME: Final = 81
SEARCH: Final = 119
ROUTES: Final = 121
END: Final = 255

NOWHERE: Final = IPv4Address(0)
EVERYBODY: Final = IPv4Address("255.255.255.255")
MIN_SIZE: Final = 300  # bytes: what BOOTP relays and old clients want at least (RFC 1542, 2.1)
DEFAULT_MAX: Final = 548  # bytes of a message: an IP packet of 576 (RFC 2131, section 2)
MOST_OPTIONS: Final = 128  # different ones in a message; nobody needs more

_FIXED: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE: Final = b"\x63\x82\x53\x63"
_PIECE: Final = 255


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Addresses are 0.0.0.0 where there is none."""

    op: int  # BOOT_REQUEST or BOOT_REPLY
    xid: int  # 32 bits, chosen by the client
    mac: bytes  # 6 bytes, the client's
    seconds: int = 0  # since the client began
    flags: int = 0
    client: IPv4Address = NOWHERE  # that the client has and answers for
    your: IPv4Address = NOWHERE  # that the server gives
    server: IPv4Address = NOWHERE  # of the next step of booting
    relay: IPv4Address = NOWHERE
    options: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def kind(self) -> int:
        """DISCOVER .. INFORM; 0 if there is none (BOOTP)."""
        value = self.options.get(MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else 0

    @property
    def wants_broadcast(self) -> bool:
        """The client can't take unicast yet."""
        return bool(self.flags & BROADCAST_FLAG)

    @property
    def identity(self) -> bytes:
        """What a server knows the client by: its identifier, else hardware type and address (RFC 2131, 4.2)."""
        return self.options.get(CLIENT_ID, b"") or b"\1" + self.mac

    def address(self, option: int) -> IPv4Address | None:
        """The (first) address in an option; None without it."""
        value = self.options.get(option, b"")
        return IPv4Address(value[:4]) if len(value) >= 4 else None

    def addresses(self, option: int) -> list[IPv4Address]:
        """All addresses in an option."""
        value = self.options.get(option, b"")
        return [IPv4Address(value[at : at + 4]) for at in range(0, len(value) - 3, 4)]

    def number(self, option: int) -> int | None:
        """The number in an option of 1, 2 or 4 bytes; None without it."""
        value = self.options.get(option, b"")
        return int.from_bytes(value, "big") if len(value) in (1, 2, 4) else None

    def text(self, option: int) -> str:
        """The text in an option without zero bytes at its end; "" without it."""
        return self.options.get(option, b"").rstrip(b"\0").decode("utf-8", "replace")

    def encode(self) -> bytes:
        """The payload of the datagram, at least `MIN_SIZE` bytes."""
        fixed = _FIXED.pack(
            self.op,
            1,
            6,
            0,
            self.xid,
            self.seconds,
            self.flags,
            self.client.packed,
            self.your.packed,
            self.server.packed,
            self.relay.packed,
            self.mac,
            b"",
            b"",
        )
        return (fixed + _COOKIE + encode_options(self.options)).ljust(MIN_SIZE, b"\0")


def parse(payload: bytes) -> Message:
    """Read the payload of a datagram.

    Raises: PeerViolation: no DHCP message over Ethernet, or one that contradicts itself.
    """
    start = _FIXED.size + len(_COOKIE)
    if len(payload) < start or payload[_FIXED.size : start] != _COOKIE:
        raise PeerViolation(N_("a DHCP message that is cut short"))
    op, kind, size, _hops, xid, seconds, flags, client, your, server, relay, mac, name, file = _FIXED.unpack_from(
        payload
    )
    if op not in (BOOT_REQUEST, BOOT_REPLY) or (kind, size) != (1, 6):
        raise PeerViolation(N_("a DHCP message that is not of Ethernet"))
    options: dict[int, bytes] = {}
    _read_options(payload[start:], options)
    overload = options.pop(OVERLOAD, b"\0")
    if len(overload) == 1:
        for bit, more in ((1, file), (2, name)):
            if overload[0] & bit:
                _read_options(more, options)
    ours, yours, next_server, by = map(IPv4Address, (client, your, server, relay))
    return Message(op, xid, mac[:6], seconds, flags, ours, yours, next_server, by, options)


def _read_options(data: bytes, options: dict[int, bytes]) -> None:
    at = 0
    while at < len(data) and data[at] != END:
        code = data[at]
        if code == PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise PeerViolation(N_("a DHCP option that is cut short"))
        if code not in options and len(options) >= MOST_OPTIONS:
            raise PeerViolation(N_("a DHCP message with too many options"))
        options[code] = options.get(code, b"") + data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]


def encode_options(options: Mapping[int, bytes]) -> bytes:
    """Options and the end mark; the message type first, long ones in pieces."""
    parts = []
    for code in sorted(options, key=lambda one: (one != MESSAGE_TYPE, one)):
        value = options[code]
        for at in range(0, len(value) or 1, _PIECE):
            piece = value[at : at + _PIECE]
            parts.append(bytes((code, len(piece))) + piece)
    return b"".join(parts) + bytes([END])


def client_frame(
    message: Message,
    *,
    source: IPv4Address = NOWHERE,
    destination: IPv4Address = EVERYBODY,
    destination_mac: bytes = BROADCAST,
) -> bytes:
    """The whole frame of a client whose station is `message.mac`."""
    return datagram.encode(
        Datagram(message.mac, destination_mac, source, destination, CLIENT_PORT, SERVER_PORT, message.encode())
    )


def server_frame(
    message: Message, *, mac: bytes, source: IPv4Address, destination: IPv4Address, destination_mac: bytes
) -> bytes:
    """The whole frame of a server whose station is `mac`."""
    return datagram.encode(
        Datagram(mac, destination_mac, source, destination, SERVER_PORT, CLIENT_PORT, message.encode())
    )


def write_addresses(addresses: Iterable[IPv4Address]) -> bytes:
    """The value of an option that lists addresses."""
    return b"".join(one.packed for one in addresses)


def write_routes(routes: Iterable[tuple[IPv4Network, IPv4Address]]) -> bytes:
    """Classless routes (option 121): each network with its gateway; 0.0.0.0 as gateway means on the link."""
    return b"".join(
        bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8] + gateway.packed
        for network, gateway in routes
    )


def read_routes(value: bytes) -> list[tuple[IPv4Network, IPv4Address]]:
    """What `write_routes` wrote. Raises: PeerViolation."""
    routes, at = list[tuple[IPv4Network, IPv4Address]](), 0
    while at < len(value):
        length = value[at]
        size = (length + 7) // 8
        if length > 32 or at + 1 + size + 4 > len(value):
            raise PeerViolation(N_("a list of DHCP routes that is cut short"))
        base = IPv4Address(value[at + 1 : at + 1 + size].ljust(4, b"\0"))
        network = IPv4Network((base, length), strict=False)
        at += 1 + size
        routes.append((network, IPv4Address(value[at : at + 4])))
        at += 4
    return routes
