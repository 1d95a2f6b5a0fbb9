"""Manual pages: made of the program's own words, whole, and such that nroff and mandoc find nothing to complain of."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ukihashi.cli.main import PROGRAMS
from ukihashi.config.options import KINDS, options

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
FILES = {"hub": "ukihashi-hub.toml", "card": "card.toml", "alert": "ukihashi-alert.toml"}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    for language in ("en", "ja"):
        argv: list[str | Path] = [sys.executable, "-P", ROOT / "packaging/man.py", language, folder, "2026-11-22"]
        subprocess.run(argv, check=True)
    return folder


def pages(manual: Path) -> list[Path]:
    return sorted(manual.rglob("*.[15]"))


def shown(page: Path) -> str:
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "1000", "MANROFFOPT": "-c"}
    done = subprocess.run(["man", "-E", "UTF-8", "-l", page], capture_output=True, text=True, check=True, env=env)
    return re.sub(r".\x08", "", done.stdout).replace("\u2010", "-")


def test_there_is_a_page_for_each_program_and_file_in_both_languages(manual: Path) -> None:
    wanted = {f"man1/{name}.1" for name in ("ukihashi", "sealert", *(f"ukihashi-{name}" for name in PROGRAMS))}
    wanted |= {f"man5/{FILES[kind]}.5" for kind in KINDS}
    found = {str(page.relative_to(manual)) for page in pages(manual)}
    assert found == wanted | {f"ja/{name}" for name in wanted}
    for name in wanted:
        english, japanese = (manual / name).read_text(), (manual / "ja" / name).read_text()
        assert ".SH NAME" in english or '.SH "NAME"' in english
        assert ".SH 名前" in japanese
        assert not re.search(r"[\u3041-\u9fff]", english), name


@pytest.mark.peer("man")
def test_every_command_option_and_setting_is_shown(manual: Path) -> None:
    hub = shown(manual / "man1/ukihashi-hub.1")
    for words in ("hub serve [OPTIONS]", "--workers NUMBER", "hub user create [OPTIONS]", "hub upgrade"):
        assert words in hub
    for kind in KINDS:
        text = shown(manual / f"man5/{FILES[kind]}.5")
        for one in options(kind):
            assert one.key.rpartition(".")[2] in text
            assert " ".join(one.meaning.split())[:60].replace("`", "") in text.replace("`", "").replace("‘", "")


@pytest.mark.peer("man", "mandoc")
def test_nothing_is_to_complain_of(manual: Path) -> None:
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    for page in pages(manual):
        argv: list[str | Path] = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", page]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
        assert done.stderr == "", page
        done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", page], capture_output=True, text=True, check=False)
        assert done.stdout == "", page
    broken = manual / "broken.1"
    broken.write_text(".TH X 1\n.SH NAME\n.nosuch\n")
    argv = ["man", "--warnings", "-l", "-Tutf8", broken]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stderr
