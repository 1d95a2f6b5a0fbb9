"""Calls of administration tools: any PACK or JSON is read into values or refused; values survive both forms."""

import json
from contextlib import suppress
from typing import Any

from fuzz.targets import vectors
from ukihashi.errors import PeerViolation, Refused, UsageError
from ukihashi.hub.rpc.access_list import read_rule, rule_row
from ukihashi.wire import rpc_structs
from ukihashi.wire.pack import Pack
from ukihashi.wire.policy import DEFAULT
from ukihashi.wire.rpc import Struct

ALLOWED = (PeerViolation, UsageError)
STRUCTS = [value for name, value in sorted(vars(rpc_structs).items()) if isinstance(value, Struct)]
ACCESS = STRUCTS.index(rpc_structs.ACCESS_LIST)
TOKENS = [
    b"HubName_str",
    b"policy:Access",
    b"AccessList",
    b"function_name",
    b"\0\0\0\4",
    b"\0\0\0\3",
    b'{"',
    b'":',
    b"[{",
]


def seeds() -> list[bytes]:
    """Every structure, empty and with two rows, as PACK and as JSON. The first byte names the structure."""
    found = [bytes([number]) + bytes.fromhex(one["request_hex"])[4:] for number, one in enumerate(_proven())]
    for number, struct in enumerate(STRUCTS):
        values = struct.from_pack(Pack()) | {"policy": DEFAULT}
        if struct.rows:
            values[struct.rows] = [{}, {}]
        found.append(bytes([number]) + struct.to_pack(values).encode())
        found.append(bytes([number]) + json.dumps(struct.to_json(values)).encode())
    return found


def _as_json(struct: Struct, shown: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(struct.to_json(struct.from_json(shown))))  # type: ignore[no-any-return]


def run(data: bytes) -> object:
    """One request for one structure."""
    number, body = (data[0] % len(STRUCTS), data[1:]) if data else (0, b"")
    struct = STRUCTS[number]
    values = struct.from_json(_object(body)) if body.lstrip()[:1] == b"{" else struct.from_pack(Pack.decode(body))
    again = struct.from_pack(Pack.decode(struct.to_pack(values).encode()))
    assert again == struct.from_pack(Pack.decode(struct.to_pack(again).encode()))
    shown = _as_json(struct, json.loads(json.dumps(struct.to_json(again))))  # words lose blanks around them once
    assert _as_json(struct, shown) == shown
    rules = 0
    if number == ACCESS:
        for row in again["AccessList"][:8]:
            with suppress(Refused, UsageError):
                rule = read_rule(row)
                told = struct.from_pack(struct.to_pack({struct.rows: [rule_row(1, rule)]}))
                assert read_rule(told[struct.rows][0]) == rule
                rules += 1
    return number, len(again), len(again.get(struct.rows, ())) if struct.rows else 0, rules


def _proven() -> list[dict[str, str]]:
    return [one for one in vectors() if one["id"] == "rpc-test"]


def _object(body: bytes) -> dict[str, object]:
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("no JSON") from None
    return read if isinstance(read, dict) else {}
