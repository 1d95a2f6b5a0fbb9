import contextlib
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ukihashi.card import path_secrets
from ukihashi.card.path_secrets import FILE_MAX, PathSecrets, file_of, read
from ukihashi.config import places
from ukihashi.config.card import PathToHub
from ukihashi.errors import ConfigError
from ukihashi.net.dial.via import DIRECT, parse

SECRET = "s3cr3t-w0rd"


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual file, which isn't there; no keyring."""
    monkeypatch.setenv(places.CONFIG, str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setattr(path_secrets, "_SILENT", threading.Event())
    return tmp_path / "paths.secret"


def write(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)


def known(url: str, **path: Any) -> tuple[str, str | None]:
    via, secret = PathSecrets(PathToHub(**path)).complete(parse(url))
    return str(via), secret


# -- the file ------------------------------------------------------------------------------------------------------

LINES = """\
# who we are at the proxies
http://taro@proxy.example:3128   first word  and more

http://hanako@proxy.example:3128\tsecond
http://PROXY.example:8080 any's
  http://jiro@proxy.example:8080 # not a comment
socks5h://taro@gate.example:1080 socks
ssh://gate.example ssh's
ssh://gate.example:2222 other
"""


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://taro@proxy.example:3128", ("http://taro@proxy.example:3128", "first word  and more")),
        ("http://hanako@proxy.example:3128", ("http://hanako@proxy.example:3128", "second")),
        ("http://saburo@proxy.example:3128", ("http://saburo@proxy.example:3128", None)),
        ("http://proxy.example:3128", ("http://taro@proxy.example:3128", "first word  and more")),
        ("http://taro@proxy.example:8080", ("http://taro@proxy.example:8080", "any's")),
        ("http://jiro@proxy.example:8080", ("http://jiro@proxy.example:8080", "# not a comment")),
        ("http://proxy.example:8080", ("http://proxy.example:8080", "any's")),
        ("https://taro@proxy.example:3128", ("https://taro@proxy.example:3128", None)),
        ("http://taro@proxy.example:3129", ("http://taro@proxy.example:3129", None)),
        ("http://taro@other.example:3128", ("http://taro@other.example:3128", None)),
        ("socks5://gate.example", ("socks5://taro@gate.example:1080", "socks")),
        ("socks5h://taro@gate.example", ("socks5h://taro@gate.example:1080", "socks")),
        ("socks4://taro@gate.example", ("socks4://taro@gate.example:1080", None)),
        ("ssh://gate.example", ("ssh://gate.example", "ssh's")),
        ("ssh://taro@gate.example:2222", ("ssh://taro@gate.example:2222", "other")),
        ("direct:", ("direct:", None)),
    ],
)
def test_the_line_of_a_path(own_place: Path, url: str, found: tuple[str, str | None]) -> None:
    write(own_place, LINES)
    assert known(url) == found


def test_another_file_can_be_named_and_must_exist_then(own_place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(own_place, "http://taro@p:1 usual\n")
    write(other, "http://taro@p:1 other\n")
    assert known("http://taro@p:1", secrets=str(other)) == ("http://taro@p:1", "other")
    other.unlink()
    with pytest.raises(ConfigError, match="other does not exist"):
        known("http://taro@p:1", secrets=str(other))
    own_place.unlink()
    assert known("http://taro@p:1") == ("http://taro@p:1", None)
    assert file_of("") == own_place


def test_a_file_that_is_not_ours_to_read_is_none_of_ours_unless_it_was_chosen(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object) -> int:
        raise PermissionError(13, "Permission denied")

    write(own_place, "http://taro@p:1 usual\n")
    monkeypatch.setattr(os, "open", refuse)
    assert known("http://taro@p:1") == ("http://taro@p:1", None)
    with pytest.raises(ConfigError, match="can't be read: Permission denied"):
        known("http://taro@p:1", secrets=str(own_place))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o777])
def test_a_file_that_others_can_read_is_refused(own_place: Path, mode: int) -> None:
    write(own_place, f"http://taro@p:1 {SECRET}\n", mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {own_place}") as refused:
        known("http://taro@p:1")
    assert SECRET not in str(refused.value) + repr(refused.value)
    assert known("direct:") == ("direct:", None)  # nothing is looked for


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SECRET, 1),
        ("\n# x\nhttp://taro@p:1\n", 3),
        (f"http://taro:{SECRET}@p:1\n", 1),
        (f"http://taro:{SECRET}@p:1 {SECRET}\n", 1),
        (f"{SECRET} http://taro@p:1\n", 1),
        (f"http://taro@p {SECRET}\n", 1),
        (f"taro@p:1 {SECRET}\n", 1),
        (f"direct: {SECRET}\n", 1),
        (f"http://taro@p:1 ok\nhttp://taro@p:2 {SECRET}".encode() + b"\xff\n", 2),
    ],
)
def test_a_wrong_line_is_named_and_never_repeated(own_place: Path, text: str | bytes, line: int) -> None:
    write(own_place, text)
    with pytest.raises(ConfigError, match=f"line {line}:") as refused:
        known("http://taro@p:1")
    assert SECRET not in str(refused.value) + repr(refused.value)
    assert SECRET not in repr(refused.value.__cause__)


def test_what_is_no_file_of_passwords_is_not_read(own_place: Path) -> None:
    os.mkfifo(own_place, 0o600)
    with pytest.raises(ConfigError, match="is no file of passwords"):  # and nobody is waited for
        known("http://taro@p:1")
    own_place.unlink()
    write(own_place, b"# " + b"x" * FILE_MAX)
    with pytest.raises(ConfigError, match="is no file of passwords"):
        known("http://taro@p:1")
    own_place.unlink()
    own_place.mkdir(0o700)
    with pytest.raises(ConfigError):
        known("http://taro@p:1")
    own_place.rmdir()
    own_place.symlink_to(own_place)
    with pytest.raises(ConfigError, match="can't be read"):
        known("http://taro@p:1")


def test_it_is_read_once_and_no_representation_shows_what_it_holds(own_place: Path) -> None:
    write(own_place, f"http://taro@p:1 {SECRET}\n")
    secrets = PathSecrets(PathToHub())
    assert secrets.complete(parse("http://p:1"))[1] == SECRET
    own_place.unlink()
    assert secrets.complete(parse("http://p:1"))[1] == SECRET
    write(own_place, f"http://taro@p:1 {SECRET}\n")
    assert SECRET not in repr(read("")) + repr(secrets)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_file_gives_lines_or_a_sentence(own_place: Path, raw: bytes) -> None:
    write(own_place, raw)
    with contextlib.suppress(ConfigError):
        assert all(entry.via != DIRECT and entry.secret for entry in read(""))


# -- the account ---------------------------------------------------------------------------------------------------


def test_the_accounts_password_is_for_its_own_path_alone(own_place: Path) -> None:
    write(own_place, "http://taro@p:1 file\nhttp://taro@q:1 file\n")
    own = {"via": "http://taro@p:1", "password": SECRET}
    assert known("http://taro@p:1", **own) == ("http://taro@p:1", SECRET)
    assert known("http://taro@q:1", **own) == ("http://taro@q:1", "file")
    assert known("http://taro@p:1", via="auto", password=SECRET) == ("http://taro@p:1", "file")


# -- the keyring ---------------------------------------------------------------------------------------------------


def with_keyring(monkeypatch: pytest.MonkeyPatch, get_password: object) -> None:
    library = types.ModuleType("keyring")
    library.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    library.get_password = get_password  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", library)


def test_the_keyring_is_asked_last_by_the_paths_url(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get_password(service: str, name: str) -> str | None:
        asked.append((service, name))
        return SECRET if "taro" in name or "ssh" in name else None

    with_keyring(monkeypatch, get_password)
    write(own_place, "http://taro@p:1 file\n")
    assert known("http://taro@p:1")[1] == "file"
    assert known("http://taro@p:1", via="http://taro@p:1", password="own")[1] == "own"
    assert known("http://q:1")[1] is None  # nobody to be
    assert asked == []
    assert known("http://taro@q:1")[1] == SECRET
    assert known("ssh://gate.example")[1] == SECRET
    assert known("http://jiro@q:1")[1] is None
    assert asked == [
        ("ukihashi", "http://taro@q:1"),
        ("ukihashi", "ssh://gate.example"),
        ("ukihashi", "http://jiro@q:1"),
    ]


def test_a_keyring_that_fails_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_service: str, _name: str) -> str:
        raise RuntimeError(SECRET)

    with_keyring(monkeypatch, fail)
    assert known("http://taro@q:1") == ("http://taro@q:1", None)
    with_keyring(monkeypatch, None)
    assert known("http://taro@q:1") == ("http://taro@q:1", None)
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert known("http://taro@q:1") == ("http://taro@q:1", None)


def test_a_locked_keyring_is_waited_for_once_and_not_long(monkeypatch: pytest.MonkeyPatch) -> None:
    free, asked = threading.Event(), []

    def wait(_service: str, name: str) -> str:
        asked.append(name)
        free.wait(30)
        return SECRET

    with_keyring(monkeypatch, wait)
    monkeypatch.setattr(path_secrets, "KEYRING_S", 0.05)
    began = time.monotonic()
    try:
        assert known("http://taro@q:1")[1] is None
        assert known("http://taro@r:1")[1] is None
    finally:
        free.set()
    assert time.monotonic() - began < 10
    assert asked == ["http://taro@q:1"]
