"""The PROXY protocol, versions 1 and 2: what a load balancer says of a connection before the client's first byte.

    version 1   "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\\r\\n", at most 107 bytes
    version 2   12 bytes of signature, version and command, family, length; addresses; TLVs, which are skipped

Source: haproxy.org, doc/proxy-protocol.txt (2020/03/05), sections 2.1 and 2.2. Whoever sends such a header can claim
any address: it is read only where the peer is trusted to say the truth.
"""

import ipaddress
import struct
from typing import Final, NamedTuple

from ukihashi.errors import N_, PeerViolation

MAX_LINE: Final = 107  # bytes of version 1, "\r\n" included
MAX_HEADER: Final = 4096  # bytes of version 2, with all TLVs; the format would allow 65551
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED: Final = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length of the rest
LINE: Final = b"PROXY "
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6 = 0x11, 0x21
NO_ADDRESS: Final = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})  # unspecified, UDP, Unix: valid, but no TCP client
PORTS: Final = struct.Struct("!HH")


class Header(NamedTuple):
    """What one header said."""

    source: tuple[str, int] | None  # the client's address and port; None: the connection's own are meant
    length: int  # bytes of the header; what is behind it is the client's


def read_header(data: bytes) -> Header | None:
    """The header at the start of `data`; None while it is not whole.

    Raises:
        PeerViolation: these bytes don't begin a header, or one that can't be used. Never for a part of a good one.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _version_2(data) if len(data) >= FIXED.size else None
    if data[: len(LINE)] == LINE[: len(data)]:
        return _version_1(data)
    raise PeerViolation(N_("no PROXY protocol header came, though the peer is one of front.proxies"))


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise _unreadable(f"no end of the line in {MAX_LINE} bytes")
        return None
    words = data[:end].split(b" ")
    length = end + 2
    if words[1] == b"UNKNOWN":
        return Header(None, length)
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"}:
        raise _unreadable("not the six words of a line for TCP4 or TCP6")
    source, destination, *ports = (word.decode("latin-1") for word in words[2:])
    kind = ipaddress.IPv4Address if words[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        address, _ = kind(source), kind(destination)
    except ValueError as error:
        raise _unreadable(error) from None
    if "%" in source + destination or not all(map(_is_port, ports)):
        raise _unreadable("not an address and a port")
    return Header((_text(address), int(ports[0])), length)


def _is_port(digits: str) -> bool:
    return digits.isascii() and digits.isdecimal() and len(digits) <= 5 and int(digits) <= 65535


def _version_2(data: bytes) -> Header | None:
    _signature, command, family, rest = FIXED.unpack_from(data)
    length = FIXED.size + rest
    if command not in {LOCAL, PROXY}:
        raise _unreadable(f"version and command {command:#04x}")
    if length > MAX_HEADER:
        raise _unreadable(f"{length} bytes, at most {MAX_HEADER} are taken")
    size = {TCP4: 4, TCP6: 16}.get(family, 0)
    if command == PROXY and not size and family not in NO_ADDRESS:
        raise _unreadable(f"family {family:#04x}")
    if command == PROXY and rest < (2 * size + PORTS.size if size else 0):
        raise _unreadable(f"{rest} bytes for addresses of family {family:#04x}")
    if len(data) < length:
        return None
    if command == LOCAL or not size:
        return Header(None, length)
    at = FIXED.size
    port, _ = PORTS.unpack_from(data, at + 2 * size)
    return Header((_text(ipaddress.ip_address(data[at : at + size])), port), length)


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4 client of a balancer's socket for both families is told as an IPv6 one."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _unreadable(reason: object) -> PeerViolation:
    return PeerViolation(N_("a PROXY protocol header that can't be read: {reason}"), reason=reason)
