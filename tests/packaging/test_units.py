"""systemd's own judgement of the units, and that the manual tells its figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.peer("systemd-analyze"), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "packaging/systemd").glob("*.service"))
INSTALLED = "/usr/local/bin/ukihashi"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """All of them, starting a program that exists."""
    for unit in (ROOT / "packaging/systemd").glob("ukihashi*@*"), (ROOT / "packaging/systemd").glob("ukihashi-hub.*"):
        for path in unit:
            text = path.read_text().replace(INSTALLED, str(Path(sys.executable).with_name("ukihashi")))
            (tmp_path / path.name).write_text(text)
    return tmp_path


def analyze(*words: str | Path) -> str:
    argv = ["systemd-analyze", *map(str, words)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    )
    return done.stdout + done.stderr


def exposure(path: Path) -> float:
    found = re.search(r"exposure level for \S+: ([0-9.]+)", analyze("security", "--offline=yes", path))
    assert found, path
    return float(found[1])


def test_systemd_finds_nothing_wrong_in_any_unit(units: Path) -> None:
    paths = sorted(units.iterdir())
    assert len(paths) == 4
    for path in paths:
        assert analyze("verify", "--man=no", path) == ""
    (units / "ukihashi-hub.service").write_text("[Service]\nExecStart=/nowhere\n")
    assert "/nowhere" in analyze("verify", "--man=no", units / "ukihashi-hub.service")  # it would say so


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_manual_tells_how_exposed_each_unit_is(language: str, units: Path) -> None:
    manual = (ROOT / f"docs/install.{language}.md").read_text()
    told = dict(re.findall(r"^\| `(ukihashi-\S+\.service)` \| (\d+\.\d) \|", manual, re.MULTILINE))
    assert told == {path.name: f"{exposure(units / path.name):.1f}" for path in UNITS}
    assert all(float(figure) <= 3.0 for figure in told.values())


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_told_when_it_serves_and_is_watched(path: Path) -> None:
    text = path.read_text()
    assert "\nType=notify\n" in text
    assert re.search(r"^WatchdogSec=\d+$", text, re.MULTILINE)
    assert re.search(r"^Restart=on-failure$", text, re.MULTILINE)  # a watchdog that was not fed is a failure


def test_every_account_that_programs_work_as_is_made() -> None:
    from ukihashi.net.privileges import FALLBACK

    lines = (ROOT / "packaging/systemd/ukihashi.sysusers.conf").read_text().splitlines()
    made = {line.split()[1]: line.split('"')[1] for line in lines if line.startswith("u ")}
    assert set(made) == set(FALLBACK)
    assert not any(":" in words for words in made.values())  # it parts the fields of /etc/passwd
