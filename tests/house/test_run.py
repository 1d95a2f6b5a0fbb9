"""`./run`: helps, refuses in a sentence, starts at once, and keeps the caller's working directory."""

import os
import subprocess
from pathlib import Path

import pytest

from lab.wait import until


def call(
    run: Path, *words: str, cwd: Path, env: dict[str, str] | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    argv = [str(run), *words]
    environment = {**os.environ, "LANG": "C.UTF-8", "TMPDIR": str(cwd), **(env or {})}
    for name in ("LC_ALL", "LC_MESSAGES", "LANGUAGE"):
        environment.pop(name, None)
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=cwd, timeout=timeout_s, env=environment
    )


@pytest.fixture
def ready(repository: Path, tmp_path: Path) -> Path:
    """A copy of `run` in a folder that is already set up, as far as `run` can tell; what it starts is written down."""
    copy = tmp_path / "clone with blanks"
    for folder in ("requirements", "packaging", "src/ukihashi/locale/ja", ".venv/bin"):
        (copy / folder).mkdir(parents=True)
    locks = [f"requirements/{level}.lock" for level in ("run", "alert", "dev")]
    for name in ("run", "pyproject.toml", "packaging/catalogue.py", *locks):
        (copy / name).write_bytes((repository / name).read_bytes())
    (copy / "run").chmod(0o755)
    spy = f"""#!/bin/sh
printf '%s\\n' "$0|$PWD|$(umask)|$*" >>'{tmp_path}/seen'
"""
    for name in ("python", "ukihashi", "sealert"):
        (copy / ".venv/bin" / name).write_text(spy)
        (copy / ".venv/bin" / name).chmod(0o755)
    first = call(copy / "run", "setup", cwd=tmp_path)  # through the spy: no package is really installed
    assert first.returncode == 0, first.stderr
    assert "setting up" in first.stderr
    (tmp_path / "seen").unlink()
    return copy / "run"


def seen(tmp_path: Path) -> list[list[str]]:
    """What the spies wrote: program, working directory, umask, words."""
    return [line.split("|") for line in (tmp_path / "seen").read_text().splitlines()]


def test_help_is_there_in_both_languages(repository: Path, tmp_path: Path) -> None:
    english = call(repository / "run", "help", cwd=tmp_path)
    japanese = call(repository / "run", "--help", cwd=tmp_path, env={"LANG": "ja_JP.UTF-8"})
    assert (english.returncode, japanese.returncode) == (0, 0)
    for command in ("hub", "card", "alert", "sealert", "demo", "test", "bench", "fuzz", "soak", "setup"):
        assert f"  {command} " in english.stdout
        assert f"{command} " in japanese.stdout
    assert "仮想 HUB" in japanese.stdout


def test_an_unknown_command_is_refused_in_a_sentence(repository: Path, tmp_path: Path) -> None:
    done = call(repository / "run", "dance", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such command: dance" in done.stderr


def test_once_set_up_it_is_silent_and_starts_what_was_named_where_the_caller_is(ready: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    for words in (["hub"], ["hub", "status", "--json"], ["card", "up", "x"], ["alert", "-r", "f"], ["sealert", "4"]):
        done = call(ready, *words, cwd=elsewhere)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    programs = [Path(line[0]).name + " " + line[3] for line in seen(tmp_path)]
    assert programs == [
        "ukihashi hub serve --first",
        "ukihashi hub status --json",
        "ukihashi card up x",
        "ukihashi alert -r f",
        "sealert 4",
    ]
    assert {line[1] for line in seen(tmp_path)} == {str(elsewhere)}


def test_the_callers_umask_reaches_what_is_started(ready: Path, tmp_path: Path) -> None:
    argv = ["sh", "-c", 'umask 077; exec "$0" card list', str(ready)]
    subprocess.run(argv, check=True, cwd=tmp_path, timeout=60)
    assert seen(tmp_path)[0][2] == "0077"


def test_a_changed_translation_is_compiled_and_a_changed_lock_is_installed(ready: Path, tmp_path: Path) -> None:
    folder = ready.parent
    (folder / "src/ukihashi/locale/ja/new.po").write_text("# new\n")
    assert call(ready, "setup", cwd=tmp_path).stderr == ""
    assert [line[3] for line in seen(tmp_path)] == [f"{folder}/packaging/catalogue.py"]
    with (folder / "requirements/alert.lock").open("a") as lock:
        lock.write("\n")
    done = call(ready, "setup", cwd=tmp_path)
    assert "Python packages" in done.stderr
    installs = [line[3] for line in seen(tmp_path)[1:] if "install" in line[3]]
    assert len(installs) == 2
    assert f"--require-hashes -r {folder}/requirements/alert.lock" in installs[0]
    assert "--no-deps --no-build-isolation -e" in installs[1]


def test_hub_and_card_install_no_compiler_and_the_detector_does(ready: Path, tmp_path: Path) -> None:
    for words, lock in ((["hub", "status"], "run"), (["alert", "-r", "f"], "alert")):
        for file in (ready.parent / ".venv").glob("ukihashi-*"):
            file.unlink()
        assert call(ready, *words, cwd=tmp_path).returncode == 0
        done = [line[3] for line in seen(tmp_path)]
        assert [line for line in done if "--require-hashes" in line][-1].endswith(f"requirements/{lock}.lock")
        assert any("capture.warm" in line for line in done) == (lock == "alert")


def test_a_machine_for_which_the_compiler_is_not_made_gets_the_slower_detector(ready: Path, tmp_path: Path) -> None:
    python = ready.parent / ".venv/bin/python"
    (ready.parent / ".venv/ukihashi-alert").unlink()
    python.write_text('#!/bin/sh\ncase "$*" in *alert.lock*|*numba*) exit 1;; esac\n' + python.read_text())
    done = call(ready, "alert", "-r", "f", cwd=tmp_path)
    assert done.returncode == 0
    assert "numba could not be installed" in done.stderr
    assert any("requirements/run.lock" in line[3] for line in seen(tmp_path))


def test_starts_at_the_same_moment_set_up_once(ready: Path, tmp_path: Path) -> None:
    (ready.parent / ".venv/ukihashi-run").unlink()
    starts = [subprocess.Popen([str(ready), "card", "list"], cwd=tmp_path, stderr=subprocess.DEVNULL) for _ in range(6)]
    until(lambda: all(start.poll() is not None for start in starts), seconds=60, what="all six having started")
    assert [start.returncode for start in starts] == [0] * 6
    lines = [line[3] for line in seen(tmp_path)]
    assert sum("--require-hashes" in line for line in lines) == 1
    assert lines.count("card list") == 6


def test_set_up_that_fails_says_so_and_is_tried_again(ready: Path, tmp_path: Path) -> None:
    python = ready.parent / ".venv/bin/python"
    (ready.parent / ".venv/ukihashi-run").unlink()
    good = python.read_text()
    python.write_text('#!/bin/sh\ncase "$*" in *install*) echo no route to the index >&2; exit 1;; esac\n')
    done = call(ready, "hub", cwd=tmp_path)
    assert done.returncode == 3
    assert "no route to the index" in done.stderr
    assert "set-up failed" in done.stderr
    python.write_text(good)
    assert call(ready, "hub", cwd=tmp_path).returncode == 0


def test_continuous_integration_runs_the_same_checks(repository: Path) -> None:
    assert '/../run" test' in (repository / ".ci/run").read_text()
