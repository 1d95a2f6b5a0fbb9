"""Completion in the shells themselves: commands, options, and the names that are known here."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.config import places

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, and `ukihashi` on a path of their own."""
    folder = tmp_path_factory.mktemp("completion")
    subprocess.run([sys.executable, ROOT / "packaging/completion.py", folder], check=True)
    program = folder / "bin" / "ukihashi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m ukihashi.cli.main "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture
def env(scripts: Path, tmp_path: Path) -> dict[str, str]:
    accounts = tmp_path / "card.d"
    accounts.mkdir()
    for name in ("office", "osaka", "home"):
        (accounts / f"{name}.toml").touch(mode=0o600)
    return {
        "PATH": f"{scripts / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), "LANGUAGE": "en", "LC_ALL": "C.UTF-8",
        places.CONFIG: str(tmp_path), places.RUNTIME: str(tmp_path), "TERM": "dumb",
    }  # fmt: skip


def in_bash(scripts: Path, env: dict[str, str], *words: str) -> list[str]:
    """What bash would offer for the last word."""
    text = f"""
        . {scripts}/ukihashi.bash
        compopt() {{ :; }}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
        $(complete -p ukihashi | sed 's/.*-F \\([^ ]*\\) .*/\\1/') ukihashi
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    argv = ["bash", "--norc", "--noprofile", "-c", text]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_bash_offers_commands_options_and_accounts(scripts: Path, env: dict[str, str]) -> None:
    assert {"hub", "card", "alert"} <= set(in_bash(scripts, env, "ukihashi", ""))
    assert in_bash(scripts, env, "ukihashi", "hub", "upg") == ["upgrade"]
    assert "--keep-trying" in in_bash(scripts, env, "ukihashi", "card", "up", "--")
    assert in_bash(scripts, env, "ukihashi", "card", "up", "o") == ["office", "osaka"]
    assert in_bash(scripts, env, "ukihashi", "card", "set", "home", "times.de") == ["times.dead"]


def test_without_a_hub_no_name_of_one_is_offered_and_nothing_is_said(scripts: Path, env: dict[str, str]) -> None:
    asked = {**env, "COMP_WORDS": "ukihashi hub show ", "COMP_CWORD": "3", "_UKIHASHI_COMPLETE": "bash_complete"}
    done = subprocess.run(
        ["ukihashi"], env=asked, executable=scripts / "bin/ukihashi", capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


@pytest.mark.peer("zsh")
def test_zsh_offers_them_at_its_prompt(scripts: Path, env: dict[str, str], terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        type_(
            ours, f"fpath=({scripts} $fpath); autoload -Uz compinit; compinit -u -d {env['HOME']}/dump; echo rea''dy\n"
        )
        read_until(ours, b"ready")
        type_(ours, "ukihashi hub upg\t")
        read_until(ours, b"ukihashi hub upgrade")
        type_(ours, "\x15ukihashi card up h\t")
        read_until(ours, b"ukihashi card up home")
    finally:
        shell.kill()
        shell.wait(10)


@pytest.mark.peer("fish")
def test_fish_offers_them(scripts: Path, env: dict[str, str]) -> None:
    for line, wanted in (("ukihashi hub upg", "upgrade"), ("ukihashi card up h", "home")):
        text = f"source {scripts}/ukihashi.fish; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "-N", "-c", text], env=env, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.split()[:1] == [wanted], done.stderr


def type_(terminal: int, text: str) -> None:
    os.write(terminal, text.encode())


def read_until(terminal: int, wanted: bytes, seconds: float = 30.0) -> None:
    """Read what the shell shows until it holds `wanted`."""
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown:
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 0.5)[0]:
            shown += os.read(terminal, 65536)


def test_the_packages_name_the_places_where_the_shells_look() -> None:
    if shutil.which("zsh"):
        path = subprocess.run(["zsh", "-fc", "print -l $fpath"], capture_output=True, text=True, check=True).stdout
        assert "/usr/share/zsh/vendor-completions" in path.split()
