"""As much of JSON Schema (draft 2020-12) as `eve.schema.json` uses; a word it does not know is an error."""

import json
import re
from pathlib import Path
from typing import Any

import ukihashi.alert

SCHEMA: dict[str, Any] = json.loads((Path(ukihashi.alert.__file__).parent / "eve.schema.json").read_text())
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KNOWN = {"$schema", "$defs", "title", "$ref", "oneOf", "type", "const", "enum", "pattern", "minLength", "minimum"}
KNOWN |= {"maximum", "items", "required", "properties", "additionalProperties"}


def problems(value: Any, schema: dict[str, Any] = SCHEMA, place: str = "$") -> list[str]:
    """What is wrong with `value`; nothing if it is valid."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema:
        return problems(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], place)
    found: list[str] = []
    if "oneOf" in schema:
        results = [problems(value, one, place) for one in schema["oneOf"]]
        if sum(not result for result in results) != 1:
            found += [f"{place}: fits not exactly one", *min(results, key=len)]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{place}: {value!r} is no {kinds}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{place}: {value!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: {value!r}")
    if isinstance(value, str):
        found += _text(value, schema, place)
    if _is(value, "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{place}: {value}")
    if isinstance(value, list) and "items" in schema:
        found += [line for n, item in enumerate(value) for line in problems(item, schema["items"], f"{place}[{n}]")]
    if isinstance(value, dict):
        found += _object(value, schema, place)
    return found


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _text(value: str, schema: dict[str, Any], place: str) -> list[str]:
    if len(value) < schema.get("minLength", 0) or not re.search(schema.get("pattern", ""), value):
        return [f"{place}: {value!r}"]
    return []


def _object(value: dict[str, Any], schema: dict[str, Any], place: str) -> list[str]:
    found = [f"{place}: no {name}" for name in schema.get("required", []) if name not in value]
    more = schema.get("additionalProperties", {})
    for name, item in value.items():
        one = schema.get("properties", {}).get(name, more)
        if one is False:
            found.append(f"{place}: {name} is not known")
        else:
            found += problems(item, one, f"{place}.{name}")
    return found
