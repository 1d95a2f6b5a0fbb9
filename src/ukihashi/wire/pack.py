"""PACK: an ordered list of named, typed, multi-valued elements (protocol section 5).

    PACK    := u32 element_count, ELEMENT*
    ELEMENT := u32 name_length + 1, name, u32 type, u32 value_count, VALUE*        all integers big-endian

Names are ASCII in practice; foreign bytes map to U+0080..U+00FF one to one, so that nothing is lost or refused.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from ukihashi.errors import N_, PeerViolation
from ukihashi.wire.constants import MAX_NAME

_U32: Final = struct.Struct("!I")
_U64: Final = struct.Struct("!Q")
_SPACE: Final = " \t\r\n"  # receivers strip these from both ends of every text (5.1)
_MIN_VALUE: Final = 4  # bytes of the shortest value of any type
MAX_PACK: Final = 1 << 20  # bytes; ours for answers, the protocol's own limit is far above what we need

Value = int | bytes | str
Address = IPv4Address | IPv6Address


class Type(IntEnum):
    """What an element's values are (5.1)."""

    INT = 0
    DATA = 1
    STR = 2
    UNISTR = 3
    INT64 = 4


class Element(NamedTuple):
    """One named list of values, all of one type; never empty."""

    name: str
    type: Type
    values: tuple[Value, ...]


class Pack:
    """The elements of one message, in order. Names are looked up without regard to (ASCII) case.

    A getter that meets another type than its own acts as if the element were missing (5.1).
    """

    __slots__ = ("_elements",)

    def __init__(self) -> None:
        self._elements: dict[bytes, Element] = {}

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._elements

    def __iter__(self) -> Iterator[Element]:
        return iter(self._elements.values())

    def __len__(self) -> int:
        return len(self._elements)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pack) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it can be added to

    def __repr__(self) -> str:
        return f"<Pack {', '.join(self.names())}>"  # names only: values may be secrets

    def names(self) -> list[str]:
        """Every element's name as spelled, in order."""
        return [element.name for element in self._elements.values()]

    def count(self, name: str) -> int:
        """How many values `name` has; 0 if it is missing."""
        element = self._elements.get(_key(name))
        return len(element.values) if element else 0

    # -- adding: our own values, so a wrong one is our bug (ValueError) ----------------------------------------

    def add_int(self, name: str, *values: int) -> None:
        """Add unsigned 32-bit numbers; booleans are 0 and 1. No values: no element, as an empty list must be (5.1)."""
        _check_range(name, values, 1 << 32)
        self._add(name, Type.INT, tuple(int(value) for value in values))

    def add_int64(self, name: str, *values: int) -> None:
        """Add unsigned 64-bit numbers; times are milliseconds since 1970 (UTC)."""
        _check_range(name, values, 1 << 64)
        self._add(name, Type.INT64, tuple(int(value) for value in values))

    def add_str(self, name: str, *values: str) -> None:
        """Add text of the older kind. The reader will strip white space at both ends and stop at a NUL."""
        self._add(name, Type.STR, values)

    def add_unistr(self, name: str, *values: str) -> None:
        """Add text of the newer kind; same remarks as `add_str`."""
        self._add(name, Type.UNISTR, values)

    def add_data(self, name: str, *values: bytes) -> None:
        """Add byte strings."""
        self._add(name, Type.DATA, tuple(bytes(value) for value in values))

    def add_ip(self, name: str, ip: Address) -> None:
        """Add an address as the four parallel elements of section 5.3."""
        six = isinstance(ip, IPv6Address)
        self.add_int(name, 0 if six else int.from_bytes(ip.packed, "little"))
        self.add_int(f"{name}@ipv6_bool", six)
        self.add_data(f"{name}@ipv6_array", ip.packed if six else bytes(16))
        self.add_int(f"{name}@ipv6_scope_id", 0)

    def _add(self, name: str, kind: Type, values: tuple[Value, ...]) -> None:
        key = _key(name)
        if key in self._elements or len(key) > MAX_NAME:
            raise ValueError(f"element {name!r} is there already or its name is too long")
        if values:
            self._elements[key] = Element(name, kind, values)

    # -- getting ----------------------------------------------------------------------------------------------

    def _get(self, name: str, kind: Type, index: int) -> Value | None:
        element = self._elements.get(_key(name))
        if element is None or element.type is not kind or not 0 <= index < len(element.values):
            return None
        return element.values[index]

    def get_int(self, name: str, default: int = 0, index: int = 0) -> int:
        """The number, or `default`."""
        value = self._get(name, Type.INT, index)
        return value if isinstance(value, int) else default

    def get_bool(self, name: str) -> bool:
        """True if the INT is there and not 0."""
        return self.get_int(name) != 0

    def get_int64(self, name: str, default: int = 0, index: int = 0) -> int:
        """The number, or `default`."""
        value = self._get(name, Type.INT64, index)
        return value if isinstance(value, int) else default

    def get_str(self, name: str, default: str = "", index: int = 0) -> str:
        """The text of the older kind, or `default`."""
        value = self._get(name, Type.STR, index)
        return value if isinstance(value, str) else default

    def get_unistr(self, name: str, default: str = "", index: int = 0) -> str:
        """The text of the newer kind, or `default`."""
        value = self._get(name, Type.UNISTR, index)
        return value if isinstance(value, str) else default

    def get_data(self, name: str, default: bytes = b"", index: int = 0) -> bytes:
        """The bytes, or `default`."""
        value = self._get(name, Type.DATA, index)
        return value if isinstance(value, bytes) else default

    def get_ip(self, name: str, index: int = 0) -> Address | None:
        """The address of section 5.3; a bare INT is enough for IPv4. None if it is missing or malformed."""
        if self.get_int(f"{name}@ipv6_bool", 0, index):
            packed = self.get_data(f"{name}@ipv6_array", b"", index)
            return IPv6Address(packed) if len(packed) == 16 else None
        number = self._get(name, Type.INT, index)
        return IPv4Address(number.to_bytes(4, "little")) if isinstance(number, int) else None

    # -- the wire ---------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The bytes of the whole PACK; elements in the order they were added."""
        parts = [_U32.pack(len(self._elements))]
        for element in self._elements.values():
            name = element.name.encode("latin-1")
            parts += (_U32.pack(len(name) + 1), name, _U32.pack(element.type), _U32.pack(len(element.values)))
            parts += (_encode_value(element.type, value) for value in element.values)
        return b"".join(parts)

    @classmethod
    def decode(
        cls, data: bytes, *, max_elements: int = 4096, max_values: int = 65536, max_bytes: int = MAX_PACK
    ) -> "Pack":
        """Read a PACK; bytes after it are ignored (5.1).

        Args:
            max_elements: elements. max_values: values of all elements together. max_bytes: length of `data`.
        Raises:
            PeerViolation: cut short, above a limit, unknown type, or one of the faults of 5.1 that make a PACK void.
        Cost: O(len(data)); memory at most a few tens of bytes per byte of `data`.
        """
        if len(data) > max_bytes:
            raise PeerViolation(
                N_("a PACK of {size} bytes, at most {limit} are taken"), size=len(data), limit=max_bytes
            )
        reader = _Reader(data)
        elements = reader.u32()
        if elements > max_elements:
            raise PeerViolation(
                N_("a PACK of {elements} elements, at most {limit} are taken"), elements=elements, limit=max_elements
            )
        pack, room = cls(), max_values
        for _ in range(elements):
            element = reader.element(room)
            room -= len(element.values)
            key = _key(element.name)
            if key in pack._elements:
                raise PeerViolation(N_("a PACK names {name} twice"), name=ascii(element.name))
            pack._elements[key] = element
        return pack


class _Reader:
    """A place in the bytes of a PACK; every step checks that the bytes are there."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise PeerViolation(N_("a PACK ends {missing} bytes too early"), missing=end - len(self._data))
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def u32(self) -> int:
        number: int = _U32.unpack(self.take(4))[0]
        return number

    def element(self, room: int) -> Element:
        length = self.u32()
        if length == 0:
            raise PeerViolation(N_("a PACK has an element without a name length"))
        name = self.take(length - 1)[:MAX_NAME].decode("latin-1")
        kind, count = self.u32(), self.u32()
        if kind > Type.INT64:
            raise PeerViolation(N_("a PACK has an element of unknown type {kind}"), kind=kind)
        if count == 0:
            raise PeerViolation(N_("a PACK has an element without values"))
        if count > room or count * _MIN_VALUE > len(self._data) - self._at:
            raise PeerViolation(N_("a PACK announces {count} values, more than fit"), count=count)
        return Element(name, Type(kind), tuple(self.value(kind) for _ in range(count)))

    def value(self, kind: int) -> Value:
        if kind == Type.INT:
            return self.u32()
        if kind == Type.INT64:
            number: int = _U64.unpack(self.take(8))[0]
            return number
        data = self.take(self.u32())
        if kind == Type.DATA:
            return data
        if kind == Type.UNISTR and not data:
            raise PeerViolation(N_("a PACK has a text without its closing NUL"))
        return _text(data)


def swapped(value: int) -> int:
    """A 32-bit number with its bytes reversed, as node information travels (5.4)."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def _key(name: str) -> bytes:
    return name.encode("latin-1", "replace").lower()  # bytes.lower() knows ASCII only, as the peers do


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace").strip(_SPACE)


def _check_range(name: str, values: tuple[int, ...], end: int) -> None:
    if any(not 0 <= value < end for value in values):
        raise ValueError(f"a value of element {name!r} is not below {end}")


def _encode_value(kind: Type, value: Value) -> bytes:
    if isinstance(value, int):
        return _U64.pack(value) if kind is Type.INT64 else _U32.pack(value)
    if isinstance(value, str):
        value = value.partition("\0")[0].encode("utf-8", "replace")
        if kind is Type.UNISTR:
            value += b"\0"
    return _U32.pack(len(value)) + value
