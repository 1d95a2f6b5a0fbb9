"""`card doctor` as a person runs it, against a fake hub. Of proxies see tests/card/test_doctor.py."""

import datetime as dt
import io
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from lab.fake_hub import FakeHub
from ukihashi.auth.link import Link
from ukihashi.card import account, path_secrets, path_sources
from ukihashi.card import doctor as card_doctor
from ukihashi.cli import doctor as doctor_module
from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.config.options import applied
from ukihashi.locale import set_language
from ukihashi.net.dial.failures import Failure
from ukihashi.net.dial.via import parse, split
from ukihashi.pki import ca

TOKEN = "t" * 22
SECRET = "s3cr3t-w0rd"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    return ca.load_or_make(tmp_path_factory.mktemp("hub"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture
def hub(identity: ca.Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """On a machine that has no proxy set anywhere."""
    set_language("en")
    for name in (places.STATE, places.CONFIG, places.RUNTIME):
        monkeypatch.setenv(name, str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(path_sources, "ENVIRONMENT_FILE", tmp_path / "environment")
    monkeypatch.setattr(path_sources, "desktop_settings", dict)
    monkeypatch.setattr(path_secrets, "from_keyring", lambda _via: None)
    with FakeHub(identity.certificate, identity.key) as made:
        made.invites[TOKEN] = b""
        yield made
        assert made.logins == []
        assert made.invites[TOKEN] == b""


def link_to(hub: FakeHub, *via: str, pin: bytes = b"", port: int = 0) -> str:
    return Link(hub.address, port or hub.port, "LAN", "alice", TOKEN, pin or hub.pin, (), via).text()


def doctor(*words: str) -> int:
    return run(build(), ["card", "doctor", *words])


def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_a_link_is_tried_and_not_spent(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden: list[str] = []
    monkeypatch.setattr(doctor_module, "hide_argument", hidden.append)
    link, proxy = link_to(hub, f"http://127.0.0.1:{(nobody := closed())}"), f"http://127.0.0.1:{nobody}"
    assert doctor(link) == 0
    told = capsys.readouterr()
    direct, proxied = told.out.splitlines()
    assert direct.startswith(f"{'direct:':<{len(proxy)}}  works: the hub answers, with the right key [always tried, 0.")
    assert proxied.startswith(f"{proxy}  fails: the way to {proxy} itself failed")
    assert "[the account's path.known, " in proxied
    assert told.err == ""
    assert hidden == [link]
    assert account.names() == []


def test_the_only_account_need_not_be_named(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor() == 2
    assert "accounts here: -" in capsys.readouterr().err
    account.write("lan", account.from_link(Link.parse(link_to(hub)), "lan"))
    assert doctor() == 0
    assert doctor("lan") == 0
    account.write("office", account.from_link(Link.parse(link_to(hub)), "office"))
    capsys.readouterr()
    assert doctor() == 2
    assert "accounts here: lan, office" in capsys.readouterr().err
    assert doctor("other") == 2


def test_programs_get_an_object_a_line(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(link_to(hub, f"socks5://127.0.0.1:{closed()}"), "--json") == 0
    rows: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["via"][:7], row["source"], row["works"], row["kind"]) for row in rows] == [
        ("direct:", "direct", True, "works"),
        ("socks5:", "link", False, "proxy-unreachable"),
    ]
    assert (rows[0]["pin"], rows[0]["reason"]) == (hub.pin.hex(), "")
    assert "is it on" in rows[1]["reason"]


def test_a_link_from_standard_input_to_somebody_else(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(link_to(hub, pin=bytes(32)) + "\n"))
    assert doctor("-") == 6
    assert "fails: " in (told := capsys.readouterr().out)
    assert "another key" in told


def test_where_nothing_is_known_it_says_what_to_ask_for(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    port = closed()
    assert doctor(link_to(hub, port=port), "--seconds", "2") == 7
    told = capsys.readouterr()
    assert "fails: " in told.out
    assert f"allow connections to 127.0.0.1, TCP port {port}" in told.err
    assert doctor(link_to(hub, port=port), "--via", f"http://127.0.0.1:{port}") == 7
    assert "no proxy is known" not in capsys.readouterr().err


def test_an_account_that_takes_one_path_alone_is_told_so(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    proxy = f"http://127.0.0.1:{closed()}"
    config = applied(account.from_link(Link.parse(link_to(hub)), "lan"), {"path.via": proxy})
    account.write("lan", config)
    assert doctor("lan") == 7
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    assert "ukihashi card set lan path.via auto" in told.err
    assert doctor("lan", "--via", "direct:") == 0
    told = capsys.readouterr()
    assert "[--via, " in told.out
    assert "name it: ukihashi card set lan path.via direct:" in told.err


def test_what_is_left_out_is_said_without_its_password(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://taro:{SECRET}@proxy.example")
    monkeypatch.setenv("ALL_PROXY", f"socks://taro:{SECRET}@127.0.0.1:{closed()}")
    assert doctor(link_to(hub)) == 0
    told = capsys.readouterr()
    assert told.err.startswith("HTTPS_PROXY is left out: ")
    assert "[the environment, " in told.out
    assert SECRET not in told.out + told.err
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert doctor(link_to(hub)) == 0
    told = capsys.readouterr()
    assert (len(told.out.splitlines()), told.err) == (1, "")


def test_a_desktops_proxy_is_tried_too(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(path_sources, "desktop_settings", lambda: {"https_proxy": f"127.0.0.1:{closed()}"})
    assert doctor(link_to(hub)) == 0
    assert "[the desktop's settings, " in capsys.readouterr().out


def test_a_file_of_passwords_that_others_can_read_is_told(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "paths.secret").write_text(f"http://taro@127.0.0.1:1 {SECRET}\n")
    (tmp_path / "paths.secret").chmod(0o644)
    assert doctor(link_to(hub, "http://127.0.0.1:1")) == 2
    assert "chmod 600" in (told := capsys.readouterr().err)
    assert SECRET not in told


def test_it_speaks_japanese(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    set_language("ja")
    try:
        assert doctor(link_to(hub)) == 0
    finally:
        set_language("en")
    assert "使えます: HUB が正しい鍵で応答しました" in capsys.readouterr().out


# -- the guide -----------------------------------------------------------------------------------------------------

PAGES = [Path(__file__).parent.parent.parent / "docs" / f"paths.{language}.md" for language in ("en", "ja")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_guide_explains_every_word_once(page: Path) -> None:
    explained = re.findall(
        r"`([a-z-]+)`", "".join(re.findall(r"^\| (`[a-z-]+`[^|]*) \|", page.read_text(), re.MULTILINE))
    )
    ours = [getattr(card_doctor, name) for name in vars(card_doctor) if name.isupper()]
    words = [str(kind) for kind in Failure] + [word for word in ours if isinstance(word, str)]
    assert sorted(explained) == sorted(["kind", *words])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_guide_are_understood(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proxy.password").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    commands = [line.split() for block in blocks for line in block.splitlines()]
    assert commands
    assert all(words[0] == "ukihashi" for words in commands)
    for words in commands:
        command, context = build(), None
        rest = words[1:]
        while isinstance(command, click.Group):
            context = click.Context(command, parent=context)
            found = command.get_command(context, rest[0])
            assert found is not None, words
            command, rest = found, rest[1:]
        with command.make_context(words[-1], rest, parent=context) as made:
            for url in [made.params.get("via"), *made.params.get("urls", ())]:
                assert not url or str(parse(url)) == url


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_guides_file_of_passwords_and_paths_are_read(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(places.CONFIG, str(tmp_path))
    (text,) = re.findall(r"```text\n(# /etc.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "paths.secret").touch(0o600)
    (tmp_path / "paths.secret").write_text(text)
    assert [str(entry.via) for entry in path_secrets.read("")] == [
        "http://taro@proxy.example:3128",
        "socks5h://taro@gate.example:1080",
    ]
    urls = re.findall(r"`((?:direct:|(?:https?|socks[45][ah]?|ssh)://[^`])[^`]*)`", page.read_text())
    assert len(urls) > 12
    for url in urls:
        split(url)
