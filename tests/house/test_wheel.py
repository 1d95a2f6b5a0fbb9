"""What people install: the wheel, in an environment that never saw the source (B39)."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ukihashi import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(argv: Sequence[str | Path], *, cwd: Path, language: str = "en") -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANGUAGE": language, "LC_ALL": "C.UTF-8"}
    env |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT", "HTTP", "http"))}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, timeout=240, env=env)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The wheel, built from a copy that holds only what git would keep."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    argv = ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, capture_output=True, check=True).stdout.decode().split("\0")
    for name in names:
        if name.startswith(("src/", "packaging/", "README", "LICENSE", "pyproject")) and (repository / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, target)
    run([sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy], cwd=copy)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_the_program_its_words_and_its_pages_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"ukihashi-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert "ukihashi/locale/ja/LC_MESSAGES/ukihashi.mo" in names
    assert "ukihashi/py.typed" in names
    assert any(name.startswith("ukihashi/store/migrations/") and name.endswith(".sql") for name in names)
    assert any(name.startswith("ukihashi/web/templates/") for name in names)
    assert {name.partition("/")[0] for name in names} == {"ukihashi", f"ukihashi-{__version__}.dist-info"}


def test_the_installed_wheel_puts_both_commands_on_the_path_and_they_run_from_anywhere(
    wheel: Path, repository: Path, tmp_path: Path
) -> None:
    environment, elsewhere = tmp_path / "env", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run([sys.executable, "-m", "venv", "--without-pip", environment], cwd=tmp_path)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "--no-input"]
    install: list[str | Path] = [*pip, "install", "--quiet", "--no-compile"]
    run([*install, "--require-hashes", "-r", repository / "requirements" / "run.lock"], cwd=tmp_path)
    run([*install, "--no-deps", wheel], cwd=tmp_path)
    said = run([environment / "bin" / "ukihashi", "--version"], cwd=elsewhere)
    assert said.split()[-1] == __version__
    for language, word in (("en", "Usage"), ("ja", "使い方")):
        for command in ("ukihashi", "sealert"):
            assert word in run([environment / "bin" / command, "--help"], cwd=elsewhere, language=language)
    run([*pip, "check"], cwd=elsewhere)
    assert list(elsewhere.iterdir()) == []
