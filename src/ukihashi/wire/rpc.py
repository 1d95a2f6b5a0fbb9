"""Structures of the administration calls (protocol section 19): one table of fields serves PACK and JSON.

A structure is written as the protocol's page writes it, `"HubName s, Online b, Ports i[]"`:

    letter  PACK                    JSON suffix  value in Python
    b       INT 0 or 1              _bool        bool
    i       INT                     _u32         int
    q       INT64                   _u64         int
    t       INT64, ms (`BEHIND_S`)  _dt          float, s since 1970; 0 = never
    s       STR                     _str         str
    u       UNISTR                  _utf         str
    d       DATA                    _bin         bytes
    a       composite IP (5.3)      _ip          address, or None

`[]` after the letter: any number of values, a list. `?`: left out unless given. A list of rows is one column a field in
PACK and an array of objects in JSON. Policies travel as `policy:NAME`.
"""

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, NamedTuple

from ukihashi.errors import N_, UsageError
from ukihashi.wire.pack import Address, Pack
from ukihashi.wire.policy import FLAGS, WIRE, Policy

POLICY: Final = "policy"  # the key of a structure's `Policy`, None = none
POLICY_PREFIX: Final = "policy:"
MAX_U32: Final = 0xFFFFFFFF
MAX_U64: Final = 0xFFFFFFFFFFFFFFFF
MAX_DIGITS: Final = 20  # of a number written as text
MAX_TIME_S: Final = 253_402_300_799.0  # the last second of the year 9999
BEHIND_S: Final = 32_400.0  # a time in a PACK is so many seconds less than since 1970 (UTC), as vpncmd 5.01 shows it
_BEHIND_MS: Final = round(BEHIND_S * 1000)
NOWHERE: Final = IPv4Address(0)

Values = dict[str, Any]


class Kind(Enum):
    """What a field's values are; the value is the JSON suffix."""

    BOOL = "bool"
    INT = "u32"
    INT64 = "u64"
    TIME = "dt"
    STR = "str"
    UNISTR = "utf"
    DATA = "bin"
    IP = "ip"


LETTERS: Final = {
    "b": Kind.BOOL,
    "i": Kind.INT,
    "q": Kind.INT64,
    "t": Kind.TIME,
    "s": Kind.STR,
    "u": Kind.UNISTR,
    "d": Kind.DATA,
    "a": Kind.IP,
}
NOTHING: Final[dict[Kind, Any]] = {  # a missing element is that (5.1)
    Kind.BOOL: False,
    Kind.INT: 0,
    Kind.INT64: 0,
    Kind.TIME: 0.0,
    Kind.STR: "",
    Kind.UNISTR: "",
    Kind.DATA: b"",
    Kind.IP: None,
}


class Field(NamedTuple):
    """One element, or one column."""

    name: str
    kind: Kind
    many: bool = False
    optional: bool = False

    @property
    def json_name(self) -> str:
        """`HubName_str`."""
        return f"{self.name}_{self.kind.value}"


def fields(spec: str) -> tuple[Field, ...]:
    """Read a line of the module's notation."""
    found = []
    for part in spec.split(","):
        name, letters = part.split()
        found.append(Field(name, LETTERS[letters[0]], many="[]" in letters, optional="?" in letters))
    return tuple(found)


class Struct:
    """A structure: its fields, at most one list of rows, perhaps a policy."""

    def __init__(self, spec: str = "", *, rows: str = "", columns: str = "", policy: bool = False) -> None:
        """`rows`: key of the list, which is its name in JSON; `columns`: its fields."""
        self.fields: Final = fields(spec) if spec else ()
        self.rows: Final = rows
        self.columns: Final = fields(columns) if columns else ()
        self.policy: Final = policy

    # -- PACK -----------------------------------------------------------------------------------------------------

    def to_pack(self, values: Mapping[str, Any], pack: Pack | None = None) -> Pack:
        """The elements; what `values` lacks is written as nothing, 0 or empty."""
        pack = Pack() if pack is None else pack
        for field in self.fields:
            if field.many:
                _add(pack, field, values.get(field.name, ()))
            elif not field.optional or field.name in values:
                _add(pack, field, [values.get(field.name, NOTHING[field.kind])])
        rows: Sequence[Mapping[str, Any]] = values.get(self.rows, ()) if self.rows else ()
        for field in self.columns:
            _add(pack, field, [row.get(field.name, NOTHING[field.kind]) for row in rows])
        policy = values.get(POLICY) if self.policy else None
        if isinstance(policy, Policy):
            for name, value in policy.to_wire().items():
                pack.add_int(POLICY_PREFIX + name, value)
        return pack

    def from_pack(self, pack: Pack) -> Values:
        """The values. A wrong type is as good as missing (5.1). Raises: UsageError: a policy out of range."""
        values: Values = {}
        for field in self.fields:
            if field.many:
                values[field.name] = [_get(pack, field, index) for index in range(pack.count(field.name))]
            elif not field.optional or field.name in pack:
                values[field.name] = _get(pack, field, 0)
        if self.rows:
            count = max((pack.count(field.name) for field in self.columns), default=0)
            values[self.rows] = [
                {field.name: _get(pack, field, index) for field in self.columns} for index in range(count)
            ]
        if self.policy:
            values[POLICY] = _policy_of({name: pack.get_int(name) for name in pack.names()})
        return values

    # -- JSON -----------------------------------------------------------------------------------------------------

    def to_json(self, values: Mapping[str, Any]) -> Values:
        """An object for JSON; the same completeness as `to_pack`."""
        shown: Values = {}
        for field in self.fields:
            if field.many:
                shown[field.json_name] = [_TO_JSON[field.kind](value) for value in values.get(field.name, ())]
            elif not field.optional or field.name in values:
                shown[field.json_name] = _TO_JSON[field.kind](values.get(field.name, NOTHING[field.kind]))
        if self.rows:
            shown[self.rows] = [
                {
                    field.json_name: _TO_JSON[field.kind](row.get(field.name, NOTHING[field.kind]))
                    for field in self.columns
                }
                for row in values.get(self.rows, ())
            ]
        policy = values.get(POLICY) if self.policy else None
        if isinstance(policy, Policy):
            for name, value in policy.to_wire().items():
                suffix, shape = ("bool", bool) if name in _POLICY_FLAGS else ("u32", int)
                shown[f"{POLICY_PREFIX}{name}_{suffix}"] = shape(value)
        return shown

    def from_json(self, given: Mapping[str, Any]) -> Values:
        """The values; names in any case. Raises: UsageError: a value that can't be what its suffix says."""
        folded = {name.casefold(): value for name, value in given.items()}
        values: Values = {}
        for field in self.fields:
            key = field.json_name.casefold()
            if field.many:
                values[field.name] = [_from_json(field, value) for value in _array(field.json_name, folded.get(key))]
            elif key in folded:
                values[field.name] = _from_json(field, folded[key])
            elif not field.optional:
                values[field.name] = NOTHING[field.kind]
        if self.rows:
            values[self.rows] = [
                self._row(row) for row in _array(self.rows, folded.get(self.rows.casefold())) or self._single(folded)
            ]
        if self.policy:
            named = {name.rpartition("_")[0]: value for name, value in folded.items() if name.startswith(POLICY_PREFIX)}
            values[POLICY] = _policy_of({name: _number(name, value, MAX_U32) for name, value in named.items()})
        return values

    def _row(self, row: object) -> Values:
        if not isinstance(row, Mapping):
            raise _wrong(self.rows, row)
        folded = {str(name).casefold(): value for name, value in row.items()}
        return {
            field.name: _from_json(field, folded[field.json_name.casefold()])
            if field.json_name.casefold() in folded
            else NOTHING[field.kind]
            for field in self.columns
        }

    def _single(self, folded: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """A list of one row may be written without the list, as a PACK can't tell the two apart."""
        return [folded] if any(field.json_name.casefold() in folded for field in self.columns) else []


def error_pack(code: int) -> Pack:
    """The answer of a call that failed."""
    pack = Pack()
    pack.add_int("error", code)
    return pack


# -- one value, PACK ----------------------------------------------------------------------------------------------


def _add(pack: Pack, field: Field, values: Sequence[Any]) -> None:
    name, kind = field.name, field.kind
    if kind is Kind.IP:
        addresses: list[Address] = [NOWHERE if value is None else value for value in values]
        six = [isinstance(one, IPv6Address) for one in addresses]
        pack.add_int(name, *(0 if is6 else _swapped(one) for one, is6 in zip(addresses, six, strict=True)))
        pack.add_int(f"{name}@ipv6_bool", *six)
        packed = (one.packed if is6 else bytes(16) for one, is6 in zip(addresses, six, strict=True))
        pack.add_data(f"{name}@ipv6_array", *packed)
        pack.add_int(f"{name}@ipv6_scope_id", *(0 for _ in addresses))
    elif kind is Kind.STR:
        pack.add_str(name, *values)
    elif kind is Kind.UNISTR:
        pack.add_unistr(name, *values)
    elif kind is Kind.DATA:
        pack.add_data(name, *values)
    elif kind is Kind.TIME:
        pack.add_int64(name, *(_clamp(round(value * 1000) - _BEHIND_MS, MAX_U64) for value in values))
    elif kind is Kind.INT64:
        pack.add_int64(name, *(_clamp(value, MAX_U64) for value in values))
    else:
        pack.add_int(name, *(_clamp(value, MAX_U32) for value in values))


def _get(pack: Pack, field: Field, index: int) -> Any:
    return _GET[field.kind](pack, field.name, index)


def _get_time(pack: Pack, name: str, index: int) -> float:
    found = pack.get_int64(name, 0, index)
    return min((found + _BEHIND_MS) / 1000, MAX_TIME_S) if found else 0.0


_GET: Final[dict[Kind, Callable[[Pack, str, int], Any]]] = {
    Kind.BOOL: lambda pack, name, index: pack.get_int(name, 0, index) != 0,
    Kind.INT: lambda pack, name, index: pack.get_int(name, 0, index),
    Kind.INT64: lambda pack, name, index: pack.get_int64(name, 0, index),
    Kind.TIME: _get_time,
    Kind.STR: lambda pack, name, index: pack.get_str(name, "", index),
    Kind.UNISTR: lambda pack, name, index: pack.get_unistr(name, "", index),
    Kind.DATA: lambda pack, name, index: pack.get_data(name, b"", index),
    Kind.IP: lambda pack, name, index: pack.get_ip(name, index),
}


def _swapped(address: Address) -> int:
    return int.from_bytes(address.packed, "little")


def _clamp(value: float, most: int) -> int:
    """Counters end at what the field can hold."""
    return min(max(int(value), 0), most)


# -- one value, JSON ----------------------------------------------------------------------------------------------


def _time_text(seconds: float) -> str:
    whole = round(min(max(seconds, 0.0), MAX_TIME_S) * 1000)  # cut off instead, a time would lose one each way
    moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(milliseconds=whole)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_TO_JSON: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.BOOL: bool,
    Kind.INT: lambda value: _clamp(value, MAX_U32),
    Kind.INT64: lambda value: _clamp(value, MAX_U64),
    Kind.TIME: _time_text,
    Kind.STR: str,
    Kind.UNISTR: str,
    Kind.DATA: lambda value: base64.b64encode(value).decode(),
    Kind.IP: lambda value: "" if value is None else str(value),
}


def _from_json(field: Field, value: Any) -> Any:
    name, kind = field.json_name, field.kind
    if kind is Kind.BOOL:
        return bool(_number(name, value, MAX_U32))
    if kind is Kind.INT:
        return _number(name, value, MAX_U32)
    if kind is Kind.INT64:
        return _number(name, value, MAX_U64)
    if not isinstance(value, str):
        raise _wrong(name, value)
    try:
        if kind is Kind.TIME:
            moment = dt.datetime.fromisoformat(value) if value else dt.datetime.fromtimestamp(0, dt.UTC)
            return max((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp(), 0.0)
        if kind is Kind.DATA:
            return base64.b64decode(value, validate=True)
        if kind is Kind.IP:
            return ip_address(value) if value else None
        value.encode()  # half a character can be written in JSON
    except (ValueError, OverflowError, binascii.Error) as error:
        raise _wrong(name, value) from error
    return value.partition("\0")[0].strip()


_TRUTH: Final = {"true": 1, "false": 0, "": 0}


def _number(name: str, value: object, most: int) -> int:
    """Numbers and truth values; as text, too, since the GET form knows nothing else."""
    if isinstance(value, str):
        text = value.strip().casefold()
        if text in _TRUTH:
            value = _TRUTH[text]
        elif text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS:
            value = int(text)
    if isinstance(value, bool | int) and 0 <= value <= most:
        return int(value)
    raise _wrong(name, value)


def _array(name: str, value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(name, value)
    return value


def _wrong(name: str, value: object) -> UsageError:
    return UsageError(N_("call: “{name}” can't be {value}"), name=name, value=ascii(value)[:80])


# -- policies -----------------------------------------------------------------------------------------------------

_POLICY_FLAGS: Final = frozenset({WIRE[field] for field in FLAGS} | {"Ver3"})


def _policy_of(values: Mapping[str, int]) -> Policy | None:
    """From elements by name; those that are no policy are passed over. None: there are none."""
    given = {
        name[len(POLICY_PREFIX) :]: value for name, value in values.items() if name.casefold().startswith(POLICY_PREFIX)
    }
    return Policy.from_wire(given) if given else None
