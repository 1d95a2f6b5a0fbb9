"""Every setting of card, hub and detector as one table: its place, type, range, default, meaning, and when it takes
effect (A11, A32, A36).

What is typed is read from the structures of `card.py`, `hub.py` and `alert.py`; the words are in `option_texts.py`.
A setting is named as in the file: `times.dead`.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo

from ukihashi.config import alert, card, hub
from ukihashi.config.option_texts import EFFECTS, TEXTS, UNITS, Effect
from ukihashi.errors import N_, Translate, UsageError
from ukihashi.locale import catalogue

Kind = Literal["card", "hub", "alert"]
Config = TypeVar("Config", card.CardConfig, hub.HubConfig, alert.AlertConfig)

KINDS: Final[Mapping[Kind, type[msgspec.Struct]]] = {
    "card": card.CardConfig,
    "hub": hub.HubConfig,
    "alert": alert.AlertConfig,
}
YES: Final = ("true", "yes", "on", "1")
NO: Final = ("false", "no", "off", "0")

Number = inspect.IntType | inspect.FloatType
_List = inspect.ListType | inspect.VarTupleType


@dataclass(frozen=True, slots=True)
class Option:
    """One setting."""

    key: str  # "times.dead"; without a point for one at the top of the file
    annotation: Any  # as in the structure
    required: bool  # has no default
    default: Any  # None if required
    meaning: str  # English; to be translated
    effect: Effect
    unit: str
    secret: bool

    @property
    def type(self) -> inspect.Type:
        """What it takes."""
        return inspect.type_info(self.annotation)

    @property
    def section(self) -> str:
        """The table of the file that it stands in, "" for none."""
        return self.key.rpartition(".")[0]

    @property
    def is_table(self) -> bool:
        """A list of tables: not one value to set, but entries to add and remove."""
        return isinstance(self.type, _List) and isinstance(self.type.item_type, inspect.StructType)


class Change(NamedTuple):
    """A setting that differs between two configurations."""

    key: str
    old: Any
    new: Any
    effect: Effect


@cache
def options(kind: Kind) -> tuple[Option, ...]:
    """Every setting, in the order of the file."""
    found = []
    for key, field in _leaves(KINDS[kind]):
        about = TEXTS[kind][key]
        default = None if field.required else _default(field)
        found.append(
            Option(key, field.type, field.required, default, about.meaning, about.effect, about.unit, about.secret)
        )
    return tuple(found)


def option(kind: Kind, key: str) -> Option:
    """The setting of that name. Raises: UsageError, with the nearest one that exists."""
    for one in options(kind):
        if one.key == key:
            return one
    keys = [one.key for one in options(kind)]
    near = difflib.get_close_matches(key, keys, 1) or [one for one in keys if key and key == one.rpartition(".")[2]]
    if near:
        raise UsageError(N_("there is no option “{key}”; did you mean {near}?"), key=key, near=near[0])
    raise UsageError(
        N_("there is no option “{key}”; `ukihashi {kind} options` lists them"),
        key=key,
        kind=kind,
    )


def parse(kind: Kind, key: str, text: str) -> Any:
    """The value that `text` says, checked by itself (`applied` checks it beside the others).

    Lists are separated by commas, or written as in TOML. Raises: UsageError: what was given, what is allowed.
    """
    one = option(kind, key)
    if one.is_table:
        raise UsageError(N_("{key} is a list of tables; use `ukihashi card route add` and `route remove`"), key=key)
    text = text.strip()
    value: Any = text
    match one.type:
        case inspect.BoolType():
            value = text.lower() in YES
            if not value and text.lower() not in NO:
                raise UsageError(N_("{key} is true or false, not “{given}”"), key=key, given=text)
        case inspect.IntType() | inspect.FloatType():
            value = _number(text)
        case inspect.ListType() | inspect.VarTupleType():
            value = _list(text)
        case inspect.DictType():
            value = _toml(text) if text else {}
    return _checked(one, value, text)


def changed(old: Config, new: Config) -> list[Change]:
    """What differs, in the order of the file."""
    kind = kind_of(old)
    before, after = values(old), values(new)
    return [
        Change(one.key, before[one.key], after[one.key], one.effect)
        for one in options(kind)
        if before[one.key] != after[one.key]
    ]


def applied(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with some settings changed; None puts one back to its default.

    Raises: UsageError: an unknown name, a wrong value, or values that don't go together.
    """
    kind = kind_of(config)
    whole: dict[str, Any] = msgspec.to_builtins(config)
    for key, value in changes.items():
        one = option(kind, key)
        section, _point, name = key.rpartition(".")
        table = whole[section] if section else whole
        if value is None and one.required:
            raise UsageError(N_("{key} has no default; give it a value"), key=key)
        table[name] = msgspec.to_builtins(one.default if value is None else value)
        if value is not None:
            _checked(one, table[name], value_text(value))
    new = msgspec.convert(whole, type(config))
    if isinstance(new, card.CardConfig):
        card.check(new)
    elif isinstance(new, hub.HubConfig):
        hub.check(new)
    return new


def rows(kind: Kind, config: Config | None, language: str = "en") -> list[dict[str, Any]]:
    """Every setting as plain values: what `options --json`, the control sockets and the pages give.

    Args:
        config: whose values; without it `value` is the default.
    """
    translate = catalogue(language).gettext
    current = values(config) if config is not None else {}
    found = []
    for one in options(kind):
        value = current.get(one.key, one.default)
        found.append(
            {
                "option": one.key,
                "value": None if one.secret else msgspec.to_builtins(value),
                "default": None if one.secret else msgspec.to_builtins(one.default),
                "is_set": bool(value) if one.secret else config is not None and value != one.default,
                "required": one.required,
                "secret": one.secret,
                "unit": one.unit,
                "allowed": allowed(one, translate),
                "effect": str(one.effect),
                "meaning": translate(one.meaning),
            }
        )
    return found


def change_rows(kind: Kind, changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Changes as plain values, for control sockets; a secret's old and new are left out."""
    return [
        {
            "option": one.key,
            "old": None if option(kind, one.key).secret else msgspec.to_builtins(one.old),
            "new": None if option(kind, one.key).secret else msgspec.to_builtins(one.new),
            "effect": str(one.effect),
        }
        for one in changes
    ]


def said_in(kind: Kind, found: Iterable[Mapping[str, Any]], language: str) -> list[dict[str, Any]]:
    """Rows from a daemon with our words for what we know; of another version's options, with its own."""
    ours = {row["option"]: row for row in rows(kind, None, language)}
    words = ("meaning", "allowed")
    return [
        {**row, **{word: ours[row["option"]][word] for word in words if row.get("option") in ours}} for row in found
    ]


def kind_of(config: msgspec.Struct) -> Kind:
    """Whose configuration this is."""
    return next(kind for kind, struct in KINDS.items() if isinstance(config, struct))


def values(config: msgspec.Struct) -> dict[str, Any]:
    """Setting -> value."""
    found: dict[str, Any] = {}
    for one in options(kind_of(config)):
        value: Any = config
        for name in one.key.split("."):
            value = getattr(value, name)
        found[one.key] = value
    return found


def allowed(one: Option, translate: Translate) -> str:
    """What a setting takes, for people: `0.1 to 60 seconds`, `ca, first-use, pin`; nothing for a text."""
    match one.type:
        case inspect.BoolType():
            return translate(N_("true or false"))
        case inspect.LiteralType():
            return ", ".join(map(str, one.type.values))
        case inspect.IntType() | inspect.FloatType():
            least, most = number_range(one.type)
            shown = translate(N_("{least} to {most}")).format(least=value_text(least), most=value_text(most))
            return f"{shown} {translate(UNITS[one.unit])}" if one.unit else shown
        case inspect.ListType() | inspect.VarTupleType():
            return translate(N_("a list"))
    return ""


def effect_words(effect: str, translate: Translate) -> str:
    """When a change is heeded, for people; `effect` may come from a daemon of another version."""
    return translate(EFFECTS[Effect(effect)]) if effect in set(Effect) else effect


def shown(row: Mapping[str, Any], which: str, translate: Translate) -> str:
    """A row's `value` or `default` for people: with its unit; of a secret only whether there is one."""
    if row.get("secret"):
        return "" if which == "default" else translate(N_("set")) if row.get("is_set") else translate(N_("not set"))
    text, unit = value_text(row.get(which)), str(row.get("unit", ""))
    return f"{text} {translate(UNITS.get(unit, unit))}" if unit and text else text


def value_text(value: Any) -> str:
    """A value as one types it: `15`, `true`, `a, b`, `10.8.0.0/16 via 10.64.7.1`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list | tuple):
        return ", ".join(value_text(part) for part in value)
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict) and "to" not in value:
        return "; ".join(f"{name}: {value_text(one)}" for name, one in value.items())
    if isinstance(value, dict):
        parts = [str(value.get("to", ""))]
        parts += [f"{name} {value_text(value[name])}" for name in ("via", "metric") if value.get(name)]
        return " ".join(parts)
    return "" if value is None else str(value)


def _leaves(struct: type[msgspec.Struct], place: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _leaves(field.type, f"{place}{field.name}.")
        else:
            yield f"{place}{field.name}", field


def _default(field: FieldInfo) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _list(text: str) -> Any:
    if text.startswith("["):
        return _toml(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(f"a = {text}\n")["a"]
    except tomllib.TOMLDecodeError:
        return text


def number_range(number: Number) -> tuple[float, float]:
    """The least and the most that it may be; every number of the structures has both, included."""
    assert number.ge is not None
    assert number.le is not None
    return number.ge, number.le


def _checked(one: Option, value: Any, given: str) -> Any:
    """`value` as the structure holds it. Raises: UsageError."""
    try:
        return msgspec.convert(value, one.annotation)
    except msgspec.ValidationError:
        pass
    match one.type:
        case inspect.IntType():
            template = N_("{key} takes a whole number from {least} to {most}, not “{given}”")
        case inspect.FloatType():
            template = N_("{key} takes a number from {least} to {most}, not “{given}”")
        case inspect.LiteralType():
            choices = ", ".join(map(str, one.type.values))
            raise UsageError(
                N_("{key} takes one of {choices}, not “{given}”"), key=one.key, choices=choices, given=given
            )
        case inspect.ListType() | inspect.VarTupleType():
            raise UsageError(
                N_("{key} takes a list, separated by commas or written as in TOML, not “{given}”"),
                key=one.key,
                given=given,
            )
        case _:
            raise UsageError(N_("{key} can't be “{given}”"), key=one.key, given=given)
    least, most = map(value_text, number_range(one.type))
    raise UsageError(template, key=one.key, least=least, most=most, given=given)
