"""Names and messages of the DNS (RFC 1035, RFC 6891 for larger answers), as far as a small server of one zone needs.

Read are questions of strangers: one question, no trust in any length. Names are text in lower case without the last
dot; the root is "".
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from ukihashi.errors import N_, PeerViolation

PORT: Final = 53

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
AAAA: Final = 28
OPT: Final = 41
ANY: Final = 255
INTERNET: Final = 1  # the class

NO_ERROR: Final = 0
FORMAT_ERROR: Final = 1
SERVER_FAILURE: Final = 2
NO_SUCH_NAME: Final = 3
NOT_IMPLEMENTED: Final = 4
REFUSED: Final = 5

PLAIN_LIMIT: Final = 512  # bytes of an answer to somebody without EDNS
EDNS_LIMIT: Final = 1232  # what we send and take at most: no fragments on any link (DNS flag day 2020)
MAX_NAME: Final = 255  # bytes as on the wire
MAX_LABEL: Final = 63

_HEADER: Final = struct.Struct("!HHHHHH")
_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_AUTHORITATIVE: Final = 0x0400
_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_POINTER: Final = 0xC0


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    number: int  # 16 bits, comes back in the answer
    flags: int
    name: str
    kind: int
    klass: int = INTERNET
    size: int = 0  # bytes that the asker takes by EDNS; 0 = without EDNS
    question: bytes = b""  # as it was asked, in its own upper and lower case; b"": made of the name

    @property
    def is_plain(self) -> bool:
        """A standard query of the Internet class."""
        return not self.flags & _OPCODE and self.klass == INTERNET

    @property
    def limit(self) -> int:
        """Bytes that an answer may have."""
        return min(max(self.size, PLAIN_LIMIT), EDNS_LIMIT)


class Record(NamedTuple):
    """One resource record."""

    name: str
    kind: int
    ttl: int  # seconds
    data: bytes


def parse(payload: bytes) -> Query:
    """The question in a datagram to a server.

    Raises: PeerViolation: no question, more than one, or cut short; also for an answer.
    """
    if len(payload) < _HEADER.size:
        raise PeerViolation(N_("a DNS message that is cut short"))
    number, flags, questions, answers, authority, more = _HEADER.unpack_from(payload)
    if flags & _RESPONSE or questions != 1 or answers or authority:
        raise PeerViolation(N_("a DNS message that asks nothing"))
    name, at = read_name(payload, _HEADER.size)
    if at + 4 > len(payload):
        raise PeerViolation(N_("a DNS message that is cut short"))
    kind, klass = struct.unpack_from("!HH", payload, at)
    return Query(number, flags, name, kind, klass, _edns(payload, at + 4, more), payload[_HEADER.size : at + 4])


def _edns(payload: bytes, at: int, records: int) -> int:
    """Bytes that the OPT record says the asker takes; 0 without one."""
    for _ in range(min(records, 8)):
        _name, at = read_name(payload, at)
        if at + 10 > len(payload):
            raise PeerViolation(N_("a DNS message that is cut short"))
        kind, size, _ttl, length = struct.unpack_from("!HHIH", payload, at)
        if kind == OPT:
            return max(int(size), PLAIN_LIMIT)
        at += 10 + length
    return 0


def query(number: int, name: str, kind: int, *, size: int = EDNS_LIMIT) -> bytes:
    """A question that wants recursion; with EDNS unless `size` is 0."""
    question = write_name(name) + struct.pack("!HH", kind, INTERNET)
    more = b"\0" + struct.pack("!HHIH", OPT, size, 0, 0) if size else b""
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 1 if more else 0) + question + more


def answer(
    asked: Query,
    code: int = NO_ERROR,
    records: Sequence[Record] = (),
    *,
    authority: Sequence[Record] = (),
    authoritative: bool = True,
    recursive: bool = False,
) -> bytes:
    """The answer to `asked`; records that don't fit are left out, and TC says so."""
    flags = _RESPONSE | asked.flags & (_OPCODE | _RECURSION_DESIRED) | code
    flags |= (_AUTHORITATIVE if authoritative else 0) | (_RECURSION_AVAILABLE if recursive else 0)
    question = asked.question or write_name(asked.name) + struct.pack("!HH", asked.kind, asked.klass)
    opt = b"\0" + struct.pack("!HHIH", OPT, EDNS_LIMIT, 0, 0) if asked.size else b""
    room = asked.limit - _HEADER.size - len(question) - len(opt)
    body, counts = b"", [0, 0]
    for section, group in enumerate((records, authority)):
        for record in group:
            one = _record(record)
            if len(body) + len(one) > room:
                flags |= 0 if section else _TRUNCATED  # a missing authority hurts nobody
                break
            body += one
            counts[section] += 1
    return _HEADER.pack(asked.number, flags, 1, *counts, 1 if opt else 0) + question + body + opt


def _record(record: Record) -> bytes:
    head = struct.pack("!HHIH", record.kind, INTERNET, record.ttl, len(record.data))
    return write_name(record.name) + head + record.data


class Answer(NamedTuple):
    """What came back."""

    number: int
    code: int
    truncated: bool
    records: list[Record]  # of the answer section; names inside their data are as sent, maybe compressed


def parse_answer(payload: bytes) -> Answer:
    """An answer of another server. Raises: PeerViolation."""
    if len(payload) < _HEADER.size:
        raise PeerViolation(N_("a DNS message that is cut short"))
    number, flags, questions, answers, _authority, _more = _HEADER.unpack_from(payload)
    if not flags & _RESPONSE:
        raise PeerViolation(N_("a DNS message that answers nothing"))
    at, records = _HEADER.size, list[Record]()
    for _ in range(questions):
        _name, at = read_name(payload, at)
        at += 4
    for _ in range(answers):
        name, at = read_name(payload, at)
        if at + 10 > len(payload):
            raise PeerViolation(N_("a DNS message that is cut short"))
        kind, _klass, ttl, length = struct.unpack_from("!HHIH", payload, at)
        at += 10
        if at + length > len(payload):
            raise PeerViolation(N_("a DNS message that is cut short"))
        records.append(Record(name, kind, ttl, payload[at : at + length]))
        at += length
    return Answer(number, flags & 0x0F, bool(flags & _TRUNCATED), records)


def read_name(data: bytes, at: int, start: int = 0) -> tuple[str, int]:
    """The name at `at`, and where what follows it begins. Pointers count from `start`, and go back only.

    Raises: PeerViolation: cut short, too long, or pointers that lead nowhere.
    """
    labels, size, end, least = list[str](), 1, 0, at
    while True:
        if at >= len(data):
            raise PeerViolation(N_("a DNS name that is cut short"))
        length = data[at]
        if length & _POINTER == _POINTER:
            if at + 2 > len(data):
                raise PeerViolation(N_("a DNS name that is cut short"))
            end = end or at + 2
            at = start + ((length & 0x3F) << 8 | data[at + 1])
            if at >= least:  # so that it must end
                raise PeerViolation(N_("a DNS name that points to itself"))
            least = at
            continue
        if length & _POINTER or at + 1 + length > len(data):
            raise PeerViolation(N_("a DNS name that is cut short"))
        if not length:
            return ".".join(labels), end or at + 1
        size += 1 + length
        if size > MAX_NAME:
            raise PeerViolation(N_("a DNS name of more than {most} bytes"), most=MAX_NAME)
        labels.append(_text(data[at + 1 : at + 1 + length]))
        at += 1 + length


def _text(label: bytes) -> str:
    """A label as text, one character a byte; a dot in it becomes something that no name of ours has."""
    return label.lower().decode("latin-1").replace(".", "\0")


def write_name(name: str) -> bytes:
    """As on the wire, not compressed. Raises: ValueError: no name: a label empty or too long, or too long at all."""
    written = b""
    for label in name.rstrip(".").split(".") if name.rstrip(".") else []:
        data = label.encode("latin-1").replace(b"\0", b".")
        if not 0 < len(data) <= MAX_LABEL:
            raise ValueError(f"a label of {len(data)} bytes")
        written += bytes([len(data)]) + data
    if len(written) + 1 > MAX_NAME:
        raise ValueError(f"a name of {len(written) + 1} bytes")
    return written + b"\0"


def read_names(data: bytes) -> list[str]:
    """Names one after another: DHCP's search list (RFC 3397, compressed) or an advertisement's (RFC 8106, padded).

    Raises: PeerViolation.
    """
    names, at = list[str](), 0
    while at < len(data):
        name, at = read_name(data, at)
        if name:
            names.append(name)
    return names


def write_names(names: Iterable[str]) -> bytes:
    """As `read_names` reads it, not compressed."""
    return b"".join(map(write_name, names))


def address(ip: IPv4Address | IPv6Address, name: str, ttl: int) -> Record:
    """An A or AAAA record."""
    return Record(name, A if ip.version == 4 else AAAA, ttl, ip.packed)


def pointer(ip: IPv4Address | IPv6Address, name: str, ttl: int) -> Record:
    """A PTR record."""
    return Record(ip.reverse_pointer, PTR, ttl, write_name(name))


def authority(zone: str, server: str, ttl: int) -> Record:
    """The SOA record that a negative answer carries; `ttl` is how long the no may be kept (RFC 2308)."""
    data = write_name(server) + write_name(f"hostmaster.{zone}") + struct.pack("!IIIII", 1, 3600, 600, 86_400, ttl)
    return Record(zone, SOA, ttl, data)


def reverse(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for; None for any other, or a part of one."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34 and all(len(one) == 1 for one in labels[:32]):
            digits = "".join(reversed(labels[:32]))
            return IPv6Address(int(digits, 16)) if digits.isalnum() and digits.isascii() else None
    except ValueError:
        return None
    return None


def address_of(record: Record) -> IPv4Address | IPv6Address | None:
    """What an A or AAAA record says; None for any other."""
    if (record.kind, len(record.data)) in ((A, 4), (AAAA, 16)):
        return ip_address(record.data)
    return None


def is_inside(name: str, zone: str) -> bool:
    """Whether `name` is `zone` or below it; both in lower case."""
    return name == zone or name.endswith("." + zone)
