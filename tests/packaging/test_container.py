"""The container's recipe: what it names exists; where a builder is at hand, the whole of it."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from ukihashi.cli.main import build
from ukihashi.config.hub import DEFAULT_PORT

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "packaging/container/Containerfile"


def orders() -> list[tuple[str, str]]:
    """Each order with its words."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", RECIPE.read_text()))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines() if line]


def test_it_copies_and_runs_what_exists() -> None:
    run = " ".join(words for order, words in orders() if order == "RUN")
    for name in re.findall(r"\b(?:requirements|packaging)/[\w./-]+", run):
        assert (ROOT / name).exists(), name
    assert re.findall(r"--only (\S+)", run) == ["ukihashi"]
    ignored = (RECIPE.parent / f"{RECIPE.name}.containerignore").read_text().split()
    assert not [name for name in ("src", "packaging", "requirements", "pyproject.toml") if name in ignored]


def test_it_starts_a_command_that_exists_and_opens_the_hubs_port() -> None:
    found = dict(orders())
    assert json.loads(found["ENTRYPOINT"]) == ["ukihashi"]
    *words, option = json.loads(found["CMD"])
    shown = CliRunner().invoke(build(), [*words, "--help"])
    assert shown.exit_code == 0
    assert option in shown.output
    assert found["EXPOSE"] == f"{DEFAULT_PORT}/tcp"
    assert json.loads(found["VOLUME"]) == ["/var/lib/ukihashi", "/etc/ukihashi"]


def test_the_manuals_tell_the_words_that_the_recipe_tells() -> None:
    told = re.findall(r"^#\s+(podman .*)$", RECIPE.read_text(), re.MULTILINE)
    for language in ("en", "ja"):
        manual = (ROOT / f"docs/install.{language}.md").read_text()
        assert told[0] in manual
        assert set(shlex.split(told[1])) <= set(
            shlex.split(next(re.finditer(r"^podman run -d.*$", manual, re.MULTILINE))[0])
        )


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_it_can_be_built() -> None:
    builder = shutil.which("podman") or shutil.which("docker")
    if builder is None:
        pytest.skip("neither podman nor docker is here: only the recipe's parts were tried")
    subprocess.run([builder, "build", "-f", RECIPE, "-t", "ukihashi-test", ROOT], check=True)
    shown = subprocess.run(
        [builder, "run", "--rm", "ukihashi-test", "--version"], check=True, capture_output=True, text=True
    )
    assert shown.stdout.startswith("ukihashi ")
