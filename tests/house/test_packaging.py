"""Units start what exists, with rights that were thought about."""

import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = sorted((ROOT / "packaging/systemd").glob("*.service"))


def unit(path: Path) -> dict[str, str]:
    """The last value of each key of [Service]."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # systemd's keys have capitals
    parser.read_string(path.read_text())
    return dict(parser["Service"])


def help_of(words: list[str]) -> str:
    from click.testing import CliRunner

    from ukihashi.cli.main import build

    result = CliRunner().invoke(build(), [*words, "--help"])
    assert result.exit_code == 0, result.output
    return result.output


def test_there_is_a_unit_for_each_program() -> None:
    assert [path.name for path in UNITS] == [
        "ukihashi-alert@.service",
        "ukihashi-card@.service",
        "ukihashi-hub.service",
    ]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_with_options_that_exist(path: Path) -> None:
    program, *words = shlex.split(unit(path)["ExecStart"])
    assert Path(program).name == "ukihashi"
    command = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    text = help_of(command)
    for option in (word for word in words if word.startswith("-") and word != "--"):
        assert re.search(rf"(^|[\s,]){re.escape(option)}\b", text), option


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_bounds_capabilities_folders_and_families(path: Path) -> None:
    values = unit(path)
    assert values["NoNewPrivileges"] == "yes"
    assert values["ProtectSystem"] == "strict"
    assert "CAP_SYS_ADMIN" not in values["CapabilityBoundingSet"]
    assert "~" not in values["CapabilityBoundingSet"]
    assert values["RestrictAddressFamilies"]
