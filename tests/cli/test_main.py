import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ukihashi.cli.main import FAULT, INTERRUPTED, PROGRAMS, build, run, wanted_language
from ukihashi.errors import Refused
from ukihashi.locale import set_language


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "en")
    set_language("en")


def ukihashi(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ukihashi.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lang", "ja", "hub"], "ja"),
        (["--lang=ja"], "ja"),
        (["--lang", "xx", "hub"], "en"),
        (["hub", "--lang", "ja"], "en"),
        (["--lang"], "en"),
        ([], "en"),
        (["--version", "--lang", "ja"], "ja"),
    ],
)
def test_the_language_is_known_before_anything_is_imported(words: list[str], expected: str) -> None:
    assert wanted_language(words) == expected


def test_help_names_every_program_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(build(), ["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in PROGRAMS)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Refused("the hub {hub} says no", hub="LAN"), 5, "ukihashi: the hub LAN says no\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 3, "ukihashi: /x: No such file or directory\n"),
        (click.UsageError("wrong"), 2, "Error: wrong\n"),
        (KeyboardInterrupt(), INTERRUPTED, ""),
    ],
)
def test_every_error_is_a_sentence_and_a_status(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command
    def command() -> None:
        raise error

    assert run(command, []) == status
    assert capsys.readouterr().err.endswith(words)


def test_a_fault_of_ours_is_one_sentence_and_a_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("UKIHASHI_DEBUG", raising=False)

    @click.command
    def command() -> None:
        raise ZeroDivisionError

    assert run(command, []) == FAULT
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "our fault" in told
    report = next(tmp_path.iterdir())
    assert str(report) in told
    assert "ZeroDivisionError" in report.read_text()
    monkeypatch.setenv("UKIHASHI_DEBUG", "1")
    assert run(command, []) == FAULT
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_fault() -> None:
    command = f"{sys.executable} -m ukihashi.cli.main hub user --help | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert "fault" not in done.stderr


def test_where_no_hub_runs_the_sentence_says_how_to_start_one(tmp_path: Path) -> None:
    done = ukihashi("hub", "status", UKIHASHI_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.startswith("ukihashi: no hub is running here")
    assert "ukihashi hub serve" in done.stderr
    done = ukihashi("--lang", "ja", "hub", "--runtime-dir", str(tmp_path), "list")
    assert done.returncode == 4
    assert "HUB が動いていません" in done.stderr


def test_an_unknown_word_is_answered_with_the_nearest() -> None:
    done = ukihashi("hub", "statsu")
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr
