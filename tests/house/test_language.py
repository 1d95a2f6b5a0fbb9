"""One installation speaks Japanese and English; an option, then the environment, decides (A2, D15)."""

import os
import re
import subprocess
import sys

import pytest

KANA = re.compile(r"[\u3040-\u30ff]")
LANGUAGE_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
COMMANDS: list[list[str]] = [[], ["hub"], ["card"], ["alert"], ["hub", "serve"], ["hub", "user"], ["card", "join"]]


def ukihashi(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in LANGUAGE_VARIABLES} | environment
    argv = [sys.executable, "-P", "-m", "ukihashi.cli.main", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env, encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_option_chooses_the_language_of_every_help(command: list[str]) -> None:
    japanese = ukihashi("--lang", "ja", *command, "--help")
    english = ukihashi("--lang", "en", *command, "--help", LANG="ja_JP.UTF-8")
    assert (japanese.returncode, english.returncode) == (0, 0), japanese.stderr + english.stderr
    assert not KANA.search(english.stdout)
    described = [line for line in japanese.stdout.splitlines() if re.match(r"  \S", line)]
    silent = [line for line in described if not KANA.search(line) and not re.search(r"[\u4e00-\u9fff]", line)]
    # a long option stands alone on its line, its words on the next
    assert [line for line in silent if not line.strip().startswith("-") and "  " in line.strip()] == []
    assert KANA.search(japanese.stdout)


@pytest.mark.parametrize(("name", "value"), [("LANG", "ja_JP.UTF-8"), ("LC_ALL", "ja_JP.utf8"), ("LANGUAGE", "ja:en")])
def test_the_environment_chooses_without_the_option(name: str, value: str) -> None:
    assert KANA.search(ukihashi("--help", **{name: value}).stdout)


def test_english_is_spoken_where_nothing_is_said() -> None:
    assert not KANA.search(ukihashi("--help").stdout)
    assert not KANA.search(ukihashi("--help", LANG="de_DE.UTF-8").stdout)


def test_an_error_is_told_in_the_language_and_without_a_stack_trace() -> None:
    for words in (["--lang", "ja", "no-such-command"], ["--lang", "ja", "hub", "no-such-command"]):
        done = ukihashi(*words)
        assert done.returncode == 2
        assert KANA.search(done.stderr)
        assert "Traceback" not in done.stderr
