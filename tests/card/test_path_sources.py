import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ukihashi.card import path_secrets, path_sources
from ukihashi.card.path_sources import (
    Candidate,
    candidates,
    desktop_settings,
    from_variable,
    is_spared,
    survey,
)
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, PathToHub
from ukihashi.errors import UsageError

SECRET = "s3cr3t-w0rd"
PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is set on this machine; gives the file that would set something."""
    monkeypatch.setenv(places.CONFIG, str(tmp_path / "config"))
    monkeypatch.setattr(path_sources, "ENVIRONMENT_FILE", tmp_path / "environment")
    monkeypatch.setattr(path_secrets, "from_keyring", lambda _via: None)
    path_sources._log_once.cache_clear()
    return tmp_path / "environment"


def account(via: str = "auto", *known: str, host: str = "hub.example", **path: str) -> CardConfig:
    return CardConfig(
        hub=Hub(host=host, port=443, hub="LAN", user="alice"),
        interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
        path=PathToHub(via=via, known=list(known), **path),
    )


def told(config: CardConfig, environ: Mapping[str, str] | None = None) -> list[tuple[str, str | None, str]]:
    return [(str(one.via), one.secret, one.source) for one in candidates(config, environ or {})]


# -- which, in which order -----------------------------------------------------------------------------------------


def test_a_path_that_was_chosen_is_the_only_one() -> None:
    environ = {"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks5://other.example"}
    config = account("socks5h://taro@gate.example", PROXY, password=SECRET)
    assert told(config, environ) == [("socks5h://taro@gate.example:1080", SECRET, "account")]
    assert told(account("direct:", PROXY), environ) == [("direct:", None, "account")]


def test_directly_first_then_the_links_the_environments_the_systems(quiet_machine: Path) -> None:
    quiet_machine.write_text('PATH="/bin"\nHTTPS_PROXY="http://system.example:8080/"\n')
    found = told(account("auto", PROXY, "ssh://gate.example"), {"https_proxy": "http://own.example:3128"})
    assert found == [
        ("direct:", None, "direct"),
        (PROXY, None, "link"),
        ("ssh://gate.example", None, "link"),
        ("http://own.example:3128", None, "environment"),
        ("http://system.example:8080", None, "system"),
    ]


def test_each_is_named_once_where_it_came_first_and_with_a_password_if_anybody_has_one(quiet_machine: Path) -> None:
    quiet_machine.write_text(f"https_proxy={PROXY}\nall_proxy=socks://s.example/\n")
    environ = {"https_proxy": PROXY.replace("//", f"//taro:{SECRET}@"), "ALL_PROXY": "socks5h://S.example:1080"}
    assert told(account("auto", PROXY.replace("//", "//taro@"), "direct:"), environ) == [
        ("direct:", None, "direct"),
        ("http://taro@proxy.example:3128", SECRET, "link"),
        ("socks5h://s.example:1080", None, "environment"),
        (PROXY, None, "system"),
    ]


def test_small_letters_win_nothing_is_as_good_as_absent_and_http_proxy_is_not_for_us() -> None:
    environ = {"https_proxy": "", "HTTPS_PROXY": "big.example:1", "all_proxy": "small.example:2", "ALL_PROXY": PROXY}
    environ |= {"http_proxy": "http://web.example:1", "ftp_proxy": "http://web.example:2"}
    assert [one[0] for one in told(account(), environ)] == [
        "direct:",
        "http://big.example:1",
        "http://small.example:2",
    ]


@pytest.mark.parametrize(
    ("value", "via", "secret"),
    [
        ("proxy:3128", "http://proxy:3128", None),
        (" http://proxy:3128/ ", "http://proxy:3128", None),
        ("taro:p%40ss@proxy:3128", "http://taro@proxy:3128", "p@ss"),
        ("HTTPS://Proxy:3129", "https://proxy:3129", None),
        ("socks://10.0.0.1:1081/", "socks5h://10.0.0.1:1081", None),
        ("SOCKS://taro:x@h", "socks5h://taro@h:1080", "x"),
        ("socks5://h", "socks5://h:1080", None),
        ("[fd00::1]:3128", "http://[fd00::1]:3128", None),
        ("ssh://taro@gate.example", "ssh://taro@gate.example", None),
        ("direct:", "direct:", None),
    ],
)
def test_a_value_as_people_write_it(value: str, via: str, secret: str | None) -> None:
    found = from_variable(value)
    assert (str(found[0]), found[1]) == (via, secret)


# -- what can't be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "http://proxy",
        f"http://taro:{SECRET}@proxy:0",
        f"http://taro:{SECRET}@proxy:3128/x",
        f"http://taro:{SECRET}/x@proxy:3128",
        f"taro:{SECRET}@:3128",
        f"quic://taro:{SECRET}@proxy:3128",
        f"http://:{SECRET}@proxy:3128",
        f"http://taro:{SECRET}%zz@proxy:3128",
        "://",
        "http://a b:1",
        "\x00",
        "http://" + "x" * 5000 + ":1",
    ],
)
def test_what_is_no_path_is_left_out_and_said_once_without_its_password(value: str) -> None:
    environ = {"HTTPS_PROXY": value, "ALL_PROXY": PROXY}
    with capture_logs() as logged:
        for _ in range(3):
            assert told(account(), environ) == [("direct:", None, "direct"), (PROXY, None, "environment")]
    assert [(one["event"], one["where"]) for one in logged] == [("path_skipped", "HTTPS_PROXY")]
    assert SECRET not in str(logged)
    (skipped,) = survey(account(), environ).skipped
    assert skipped.where == "HTTPS_PROXY"
    assert SECRET not in str(skipped.problem) + repr(skipped) + repr(skipped.problem)


@given(st.text(), st.text(), st.text(max_size=60))
def test_no_environment_ends_a_card(proxy: str, spared: str, other: str) -> None:
    environ = {"https_proxy": proxy, "all_proxy": other, "no_proxy": spared}
    found = survey(account(), environ)
    assert str(found.candidates[0].via) == "direct:"
    assert len(found.candidates) + len(found.skipped) <= 3


def test_a_broken_file_of_the_systems_is_nothing(quiet_machine: Path) -> None:
    quiet_machine.write_bytes(b"\xff\xfe https_proxy=\n=x\nHTTPS_PROXY\n# HTTPS_PROXY=no.example:1\nhttps_proxy='x:1\n")
    found = survey(account(), {})
    assert [str(one.via) for one in found.candidates] == ["direct:"]
    assert [one.where for one in found.skipped] == [f"{quiet_machine}: https_proxy"]
    quiet_machine.unlink()
    quiet_machine.mkdir()
    assert told(account()) == [("direct:", None, "direct")]


def test_no_representation_shows_a_password() -> None:
    (one,) = candidates(account("http://taro@proxy.example:3128", password=SECRET), {})
    assert one.secret == SECRET
    assert SECRET not in f"{one!r} {one} {[one]} {survey(account('http://taro@p:1', password=SECRET), {})}"
    assert "secret=None" in repr(Candidate(one.via, None, "link"))


# -- no_proxy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("list_", "host", "spared"),
    [
        ("", "hub.example", False),
        ("*", "hub.example", True),
        ("hub.example", "hub.example", True),
        ("HUB.Example.", "hub.example", True),
        ("hub.example", "Hub.Example.", True),
        ("example", "hub.example", True),
        (".example", "hub.example", True),
        (".hub.example", "hub.example", True),
        ("*.example", "hub.example", True),
        ("ample", "hub.example", False),
        ("x.hub.example", "hub.example", False),
        ("hub.example", "myhub.example", False),
        ("a.example b.example,\t,hub.example", "hub.example", True),
        ("hub.example:443", "hub.example", True),
        ("hub.example:8443", "hub.example", False),
        ("hub.example:", "hub.example", False),
        ("hub.example:443:443", "hub.example", False),
        (".", "hub.example", False),
        (".,:443,*.,**,:", "hub.example", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("2.3", "10.1.2.3", False),
        ("0.1.2.3", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("10.0.0.0/8:443", "10.1.2.3", True),
        ("10.0.0.0/16", "10.1.2.3", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("0.0.0.0/0", "hub.example", False),
        ("0.0.0.0/0", "fd00::1", False),
        ("fd00::1", "FD00:0::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("[fd00::1]:80", "fd00::1", False),
        ("fd00::/8", "fd12::1", True),
        ("[fd00::/8]:443", "fd12::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("::/0", "10.1.2.3", False),
        ("例え.jp", "hub.xn--r8jz45g.jp", True),
        ("xn--r8jz45g.jp", "hub.例え.jp", True),
    ],
)
def test_what_goes_without_a_proxy(list_: str, host: str, spared: bool) -> None:
    assert is_spared(list_, host, 443) is spared


def test_no_proxy_holds_for_the_machines_proxies_not_for_those_of_the_account(quiet_machine: Path) -> None:
    quiet_machine.write_text("https_proxy=system.example:1\n")
    environ = {"HTTPS_PROXY": "own.example:1", "NO_PROXY": "other.example, .example"}
    assert told(account("auto", PROXY), environ) == [("direct:", None, "direct"), (PROXY, None, "link")]
    quiet_machine.write_text("https_proxy=system.example:1\nno_proxy=hub.example\n")
    del environ["NO_PROXY"]
    assert [one[0] for one in told(account(), environ)] == ["direct:", "http://own.example:1"]


# -- a desktop -----------------------------------------------------------------------------------------------------

GNOME = """\
org.gnome.system.proxy autoconfig-url ''
org.gnome.system.proxy ignore-hosts ['localhost', '127.0.0.0/8', '.lan.example']
org.gnome.system.proxy mode 'manual'
org.gnome.system.proxy.http host 'web.example'
org.gnome.system.proxy.http port 8080
org.gnome.system.proxy.https host 'proxy.example'
org.gnome.system.proxy.https port 3128
org.gnome.system.proxy.socks host 'fd00::1'
org.gnome.system.proxy.socks port 1080
"""


def desktop(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    program = folder / "gsettings"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return desktop_settings()


def test_a_desktops_proxies_are_known_to_who_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = desktop(GNOME, tmp_path, monkeypatch)
    assert [(str(one.via), one.source) for one in survey(account(), {}, found).candidates] == [
        ("direct:", "direct"),
        (PROXY, "desktop"),
        ("socks5h://[fd00::1]:1080", "desktop"),
    ]
    assert len(survey(account(host="hub.lan.example"), {}, found).candidates) == 1
    assert told(account()) == [("direct:", None, "direct")]


@pytest.mark.parametrize(
    "text",
    ["", "nonsense\n", GNOME.replace("manual", "none"), GNOME.replace("manual", "auto"), GNOME.split("org", 1)[0]],
)
def test_a_desktop_without_proxies_chosen_by_hand_says_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desktop(text, tmp_path, monkeypatch) == {}


def test_a_desktop_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(words: list[str], *, timeout: float, **_others: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    desktop(GNOME, tmp_path, monkeypatch)
    monkeypatch.setattr(subprocess, "run", hang)
    assert desktop_settings() == {}
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert desktop_settings() == {}


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=200), st.sampled_from(["hub.example", "10.0.0.1", "::1"])
)
def test_any_list_is_read(list_: str, host: str) -> None:
    assert is_spared(list_, host, 443) in {True, False}


@given(st.text(max_size=80))
def test_any_value_gives_a_path_or_a_sentence(value: str) -> None:
    with contextlib.suppress(UsageError):
        via, _secret = from_variable(value)
        assert from_variable(str(via)) == (via, None)
