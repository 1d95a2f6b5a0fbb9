"""What gets installed is fixed to the byte, and says nothing about where it was fetched."""

import re
import tomllib
from pathlib import Path

import pytest

PIN = re.compile(r"^([a-z0-9.\-]+(?:\[[a-z,]+\])?)==(\S+?)(?: ; .+?)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")
LOCKS = ("run", "alert", "dev")


def pins(repository: Path, lock: str) -> dict[str, str]:
    """Version by package of one lock."""
    lines = (repository / "requirements" / f"{lock}.lock").read_text().splitlines()
    return {found[1]: found[2] for found in map(PIN.match, lines) if found}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_pin_or_a_hash_and_every_pin_has_hashes(repository: Path, lock: str) -> None:
    lines = (repository / "requirements" / f"{lock}.lock").read_text().splitlines()
    assert lines
    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if PIN.match(line) or line.endswith("\\"):
            assert HASH.match(following), line


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_stands_in_a_lock(repository: Path, lock: str) -> None:
    text = (repository / "requirements" / f"{lock}.lock").read_text()
    assert not re.search(r"://|--index|--find-links|@ ", text)


@pytest.mark.parametrize(("smaller", "larger"), [("run", "alert"), ("alert", "dev")])
def test_all_locks_hold_one_version_of_each_package(repository: Path, smaller: str, larger: str) -> None:
    fewer, more = pins(repository, smaller), pins(repository, larger)
    assert {name: more.get(name) for name in fewer} == fewer


def test_hub_and_card_fetch_no_compiler(repository: Path) -> None:
    assert "numba" in pins(repository, "alert")
    assert {"numba", "llvmlite"} & pins(repository, "run").keys() == set()


def test_every_dependency_of_the_project_is_locked(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["setup"]]
    names = {re.split(r"[\s\[<>=~;]", text)[0].lower() for text in asked}
    assert names - pins(repository, "run").keys() == set()
    tools = {text for text in project["dependency-groups"]["dev"] if isinstance(text, str)}
    assert tools - pins(repository, "dev").keys() == set()
