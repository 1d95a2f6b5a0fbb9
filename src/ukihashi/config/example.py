"""The commented files of `packaging/config/`: every setting with its default, its meaning and when it takes effect."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import tomlkit
from msgspec import inspect

from ukihashi.config.option_texts import ROUTE, SECTIONS
from ukihashi.config.options import Kind, Option, allowed, effect_words, options

WIDTH: Final = 120

_HEADS: Final[Mapping[Kind, str]] = {
    "card": (
        "/etc/ukihashi/card.d/ACCOUNT.toml: one virtual LAN card. `ukihashi card join` and `card create` write it; it"
        " holds a secret and is readable for root only. Settings with a default are here with it."
        " `ukihashi card set` changes one and keeps your comments; after a change by hand: `ukihashi card reload`."
    ),
    "hub": (
        "/etc/ukihashi/hub.toml: the hub machine's settings. Every one is here with its default; a missing file means"
        " all of them. Virtual hubs and users are not here: `ukihashi hub create`, `ukihashi hub user ...`."
        " `ukihashi hub set` changes one and keeps your comments; after a change by hand: `ukihashi hub reload`."
    ),
    "alert": (
        "/etc/ukihashi/alert.toml: the detector's settings. Every one is here with its default; a missing file means"
        " all of them."
    ),
}
_BRACKETS: Final = "In brackets: what is allowed, and when a change takes effect."

# What stands where there is no default to show, so that the file is a whole account.
_SAMPLES: Final[Mapping[str, Any]] = {
    "hub.host": "hub.example.jp",
    "hub.hub": "LAN",
    "hub.user": "ann",
    "login.password": "generated, at least 96 bits",
    "interface.name": "uklan",
    "interface.mac": "5e:10:20:30:40:50",
    "interface.addresses": ["10.64.7.2/24", "fd3c:1:2::2/64"],
    "interface.routes": [{"to": "10.8.0.0/16", "via": "10.64.7.1", "metric": 0}],
}


def toml(kind: Kind) -> str:
    """The whole file."""
    lines = [*_comment(_HEADS[kind]), *_comment(_BRACKETS)]
    section, tables = "", list[Option]()
    for one in options(kind):
        if one.section != section:
            lines += _tables(kind, tables)
            section, tables = one.section, []
            lines += ["", *_comment(SECTIONS[kind][section]), f"[{section}]"]
        if one.is_table:
            tables.append(one)  # after the values of its section, or they would belong to it
            continue
        value = _SAMPLES.get(one.key, one.default) if kind == "card" else one.default
        lines += ["", *_comment(f"{one.meaning} [{_brackets(one)}]"), _line(one.key.rpartition(".")[2], value)]
    lines += _tables(kind, tables)
    return "\n".join(lines) + "\n"


def _tables(kind: Kind, tables: list[Option]) -> Iterator[str]:
    for one in tables:
        yield from ("", *_comment(f"{SECTIONS[kind][one.key]} [{_brackets(one)}]"))
        for entry in _SAMPLES[one.key]:
            yield f"[[{one.key}]]"
            yield from (f"{_line(name, value)} # {ROUTE[name]}" for name, value in entry.items())


def _brackets(one: Option) -> str:
    worth_saying = isinstance(one.type, inspect.BoolType | inspect.LiteralType | inspect.IntType | inspect.FloatType)
    return "; ".join([*([allowed(one, str)] if worth_saying else []), effect_words(one.effect, str)])


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _line(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{name} = {tomlkit.inline_table().as_string()}"  # none has a default that is not empty
    return f"{name} = {tomlkit.item(list(value) if isinstance(value, tuple) else value).as_string()}"
