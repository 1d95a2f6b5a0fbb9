"""Read a TOML file into a typed value; every error names the file and the place in it.

The first error is reported, as most daemons do. Nothing is guessed: an unknown name is an error, with the nearest known
one beside it.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from ukihashi.errors import N_, ConfigError

T = TypeVar("T")

MAX_FILE: Final = 1024 * 1024  # bytes

_TOML_PLACE: Final = re.compile(r"^(?P<reason>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)
_PLACE: Final = re.compile(r"^(?P<problem>.*) - at `(?P<place>[^`]*)`$", re.DOTALL)
_WRONG_TYPE: Final = re.compile(r"^Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`$")
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_WORD: Final = re.compile(r"^Invalid enum value '?(?P<value>.*?)'?$", re.DOTALL)


def load(path: Path, kind: type[T], *, missing_ok: bool = False) -> T:
    """Read `path` into `kind`, a `msgspec.Struct` class.

    Args:
        missing_ok: an absent file means all defaults.
    Raises:
        ConfigError: unreadable, not TOML, an unknown name, a wrong value.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if missing_ok:
            return convert(path, {}, kind)
        raise ConfigError(N_("{path} does not exist"), path=path) from None
    except OSError as error:
        raise ConfigError(N_("{path} can't be read: {reason}"), path=path, reason=error.strerror) from None
    return parse(path, raw, kind)


def parse(path: Path, raw: bytes, kind: type[T]) -> T:
    """As `load`, for bytes already read; `path` is for the error's words only."""
    if len(raw) > MAX_FILE:
        raise ConfigError(
            N_("{path} is larger than {limit} bytes; that is no configuration"), path=path, limit=MAX_FILE
        )
    try:
        return convert(path, tomllib.loads(raw.decode()), kind)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(N_("{path}, line {line}: the text is not UTF-8"), path=path, line=line) from None
    except tomllib.TOMLDecodeError as error:
        parts = _TOML_PLACE.match(str(error))
        if parts is None:  # "at end of document"
            raise ConfigError(N_("{path}: not TOML: {reason}"), path=path, reason=error) from None
        raise ConfigError(
            N_("{path}, line {line}, column {column}: not TOML: {reason}"), path=path, **parts.groupdict()
        ) from None


def convert(path: Path, value: Any, kind: type[T]) -> T:
    """Check a plain value against `kind`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explain(path, str(error), kind) from None


def _explain(path: Path, text: str, kind: type) -> ConfigError:
    """msgspec's words about the first problem, as a sentence that can be translated."""
    located = _PLACE.match(text)
    problem, place = (located["problem"], located["place"]) if located else (text, "$")
    place = place.removeprefix("$").removeprefix(".")
    if found := _UNKNOWN.match(problem):
        name = found["name"]
        whole = f"{place}.{name}" if place else name
        if near := difflib.get_close_matches(name, list(_field_names(kind)), 1):
            return ConfigError(
                N_("{path}: {place} is not a setting; did you mean {near}?"), path=path, place=whole, near=near[0]
            )
        return ConfigError(N_("{path}: {place} is not a setting"), path=path, place=whole)
    if found := _MISSING.match(problem):
        whole = f"{place}.{found['name']}" if place else found["name"]
        return ConfigError(N_("{path}: {place} is missing"), path=path, place=whole)
    if found := _WRONG_TYPE.match(problem):
        return ConfigError(
            N_("{path}: {place} must be {wanted}, not {got}"),
            path=path,
            place=place or "$",
            wanted=found["wanted"],
            got=found["got"],
        )
    if found := _WORD.match(problem):
        return ConfigError(
            N_("{path}: {place} can't be “{value}”"), path=path, place=place or "$", value=found["value"]
        )
    return ConfigError(N_("{path}: {place}: {problem}"), path=path, place=place or "$", problem=problem)


def _field_names(kind: object) -> Iterator[str]:
    """Names of all settings in a struct class and those inside it."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield field.encode_name
            yield from _field_names(field.type)
    else:
        for inner in get_args(kind):
            yield from _field_names(inner)
