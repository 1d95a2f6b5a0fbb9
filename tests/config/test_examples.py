"""The commented examples of `packaging/config/` name every setting, with its default."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ukihashi.config.alert import AlertConfig, load_alert
from ukihashi.config.card import CardConfig, load_card
from ukihashi.config.example import toml
from ukihashi.config.hub import HubConfig, load_hub
from ukihashi.config.options import KINDS, Kind


def missing(kind: Any, table: dict[str, Any], place: str = "") -> list[str]:
    """Settings of the structure `kind` that the TOML `table` doesn't name."""
    gone = []
    for field in msgspec.structs.fields(kind):
        name = f"{place}{field.name}"
        if field.name not in table:
            gone.append(name)
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            gone += missing(field.type, table[field.name], f"{name}.")
    return gone


@pytest.mark.parametrize(("name", "kind"), [("hub", HubConfig), ("alert", AlertConfig), ("card", CardConfig)])
def test_every_setting_is_named(repository: Path, name: str, kind: type) -> None:
    text = (repository / "packaging" / "config" / f"{name}.toml").read_text()
    assert missing(kind, tomllib.loads(text)) == []


def test_the_values_are_the_defaults(repository: Path) -> None:
    folder = repository / "packaging" / "config"
    assert load_hub(folder / "hub.toml") == HubConfig()
    assert load_alert(folder / "alert.toml") == AlertConfig()
    card = load_card(folder / "card.toml")
    assert card.times == msgspec.convert({}, type(card.times))
    assert (card.interface.mtu, card.interface.queue, card.hub.port, card.trust.mode) == (1500, 500, 443, "first-use")


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_those_that_the_table_makes(repository: Path, kind: Kind) -> None:
    """After a change: `python packaging/examples.py`."""
    assert (repository / "packaging" / "config" / f"{kind}.toml").read_text() == toml(kind)
