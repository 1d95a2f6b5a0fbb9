"""Paths on the command line: in an account, in a join link; and the password, which never stands there."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.wait import until
from ukihashi.auth.link import Link
from ukihashi.card import account
from ukihashi.cli import card as card_module
from ukihashi.cli import path_options
from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.config.card import CardConfig
from ukihashi.locale import set_language

SECRET = "s3cr3t-w0rd"
PROXY = "http://taro@proxy.example:3128"
LINK = Link(
    "hub.example", 443, "LAN", "alice", "t" * 22, bytes(32), (), ("http://p.example:3128", "quic://x", "direct:")
)
CREATE = ("create", "office", "--server", "hub.example", "--hub", "LAN", "--user", "alice", "--anonymous")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[CardConfig]:
    """A machine of its own; gives the accounts that were brought up."""
    set_language("en")
    for name in (places.STATE, places.CONFIG, places.RUNTIME):
        monkeypatch.setenv(name, str(tmp_path))
    up: list[CardConfig] = []
    monkeypatch.setattr(card_module, "bring_up", lambda _name, config, **_options: up.append(config))
    return up


def card(*words: str) -> int:
    return run(build(), ["card", *words])


def path(name: str) -> tuple[str, list[str], str]:
    found = account.read(name).path
    return found.via, found.known, found.password


# -- joining -------------------------------------------------------------------------------------------------------


def test_a_link_brings_paths_and_the_card_finds_out_which_is_right(machine: list[CardConfig]) -> None:
    assert card("join", LINK.text()) == 0
    assert path("lan") == ("auto", ["http://p.example:3128"], "")
    assert machine == [account.read("lan")]


def test_join_over_a_path_of_ones_own_with_a_password_from_a_file(tmp_path: Path, machine: list[CardConfig]) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\nmore\n")
    assert card("join", LINK.text(), "--via", PROXY, "--via-password-file", str(tmp_path / "password")) == 0
    assert path("lan") == (PROXY, ["http://p.example:3128"], SECRET)
    assert account.path_of("lan").stat().st_mode & 0o777 == 0o600
    assert machine == [account.read("lan")]


def test_a_join_that_broke_off_can_be_repeated_over_another_path(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    assert card("join", LINK.text(), "--via", PROXY, "--via-password-file", str(tmp_path / "password")) == 0
    first = account.read("lan").login.password
    assert card("join", LINK.text(), "--via", "socks5h://other.example") == 0
    assert path("lan") == ("socks5h://other.example:1080", ["http://p.example:3128"], "")
    assert card("join", LINK.text(), "--via", "auto") == 0
    assert path("lan")[0] == "auto"
    assert account.read("lan").login.password == first


def test_create_takes_a_path_too() -> None:
    assert card(*CREATE, "--via", "HTTPS://Proxy.example:3129") == 0
    assert path("office") == ("https://proxy.example:3129", [], "")


def test_the_password_comes_from_standard_input_unless_the_link_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Input(io.TextIOWrapper):
        name = "<stdin>"

    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(f"{SECRET}\n".encode())))
    assert card(*CREATE, "--via", PROXY, "--via-password-file", "-") == 0
    assert path("office")[2] == SECRET
    account.remove("office")
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(f"{LINK.text()}\n{SECRET}\n".encode())))
    assert card("join", "-", "--via", PROXY, "--via-password-file", "-") == 2
    assert "only one of them" in capsys.readouterr().err
    words = [word for word in CREATE if word != "--anonymous"]
    assert card(*words, "--password-file", "-", "--via", PROXY, "--via-password-file", "-") == 2
    assert "only one of them" in capsys.readouterr().err


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [("create", *CREATE[1:], "--via"), ("join", LINK.text(), "--via"), ("doctor", LINK.text(), "--via")],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("url", [f"http://taro:{SECRET}@proxy.example:3128", f"http://taro:{SECRET}@proxy.example"])
def test_a_password_in_the_url_is_refused_hidden_and_not_repeated(
    words: tuple[str, ...], url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden: list[str] = []
    monkeypatch.setattr(path_options, "hide_argument", hidden.append)
    assert card(*words, url) == 2
    assert hidden == [url]
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert account.names() == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--via", "proxy.example:3128"), "is no path to a hub"),
        (("--via", "http://proxy.example"), "port is missing"),
        (("--via-password-file", "FILE"), "goes with --via"),
        (("--via", "http://proxy.example:3128", "--via-password-file", "FILE"), "names no user"),
        (("--via", "auto", "--via-password-file", "FILE"), "names no user"),
        (("--via", "direct:", "--via-password-file", "FILE"), "names no user"),
        (("--via", "socks4://taro@p.example", "--via-password-file", "FILE"), "names no user"),
        (("--via", PROXY, "--via-password-file", "EMPTY"), "first line of"),
        (("--via", PROXY, "--via-password-file", "ABSENT"), "No such file"),
        (("--via", PROXY, "--via-password-file", "BINARY"), "can't be read"),
    ],
)
def test_wrong_use_writes_nothing(
    words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").write_text(SECRET)
    (tmp_path / "EMPTY").write_text("\nx\n")
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\n")
    places_of = [str(tmp_path / word) if word.isupper() else word for word in words]
    assert card(*CREATE, *places_of) == 2
    assert told in capsys.readouterr().err
    assert account.names() == []


# -- being asked ---------------------------------------------------------------------------------------------------


def on_a_terminal(words: list[str], typed: bytes) -> tuple[int, str]:
    """Exit status, and what the terminal showed."""
    here, there = os.openpty()
    command = [sys.executable, "-m", "ukihashi.cli.main", "--lang=en", "card", *words]
    shown = b""
    with subprocess.Popen(command, stdin=there, stdout=there, stderr=there, start_new_session=True) as child:
        os.close(there)
        os.set_blocking(here, False)

        def asked() -> bool:
            nonlocal shown
            try:
                shown += os.read(here, 10_000)
            except BlockingIOError:
                pass
            except OSError:
                return True
            return b"Enter): " in shown or child.poll() is not None

        until(asked, seconds=30.0, what="the question")
        os.write(here, typed)
        status = child.wait(30)
        with contextlib.suppress(OSError):
            shown += os.read(here, 10_000)
    os.close(here)
    return status, shown.decode()


@pytest.mark.parametrize("typed", [SECRET, ""])
def test_on_a_terminal_the_password_is_asked_for_and_not_shown(typed: str) -> None:
    status, shown = on_a_terminal([*CREATE, "--via", PROXY], f"{typed}\n".encode())
    assert (status, path("office")) == (0, (PROXY, [], typed))
    assert f"Password for {PROXY}" in shown
    assert SECRET not in shown


def test_nobody_is_asked_for_what_is_known_or_where_nobody_can_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_words: object, **_options: object) -> str:
        raise AssertionError

    monkeypatch.setattr("click.prompt", ask)
    assert card(*CREATE, "--via", PROXY) == 0  # standard input is no terminal
    account.remove("office")
    monkeypatch.setattr(sys, "stdin", Terminal())
    for url in ("http://proxy.example:3128", "socks4://taro@p.example", "direct:", "auto"):
        assert card(*CREATE, "--via", url) == 0
        account.remove("office")
    (tmp_path / "paths.secret").touch(0o600)
    (tmp_path / "paths.secret").write_text(f"{PROXY} {SECRET}\n")
    assert card(*CREATE, "--via", PROXY) == 0
    assert path("office")[2] == ""  # it stays in its file
    account.remove("office")
    (tmp_path / "paths.secret").chmod(0o644)
    assert card(*CREATE, "--via", PROXY) == 2
    assert account.names() == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
