from pathlib import Path

import msgspec
import pytest

from ukihashi.config.load import load, parse
from ukihashi.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timeout_s: float = 5.0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    ports: list[int] = []
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "name is missing"),
        ("name = 1", "name must be str, not int"),
        ('name = "x"\nports = [1, "2"]', r"ports\[1\] must be int, not str"),
        ('name = "x"\n[inner]\ntimeout = 3', r"inner.timeout is not a setting; did you mean timeout_s\?"),
        ('name = "x"\nzzz = 1', "zzz is not a setting$"),
        ("name = ", "not TOML: .*end of document"),
        ('name = "x"\nname = "y"\n', "line 2, column [0-9]+: not TOML"),
    ],
)
def test_an_error_names_the_file_and_the_place(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse(Path("/etc/x.toml"), text.encode(), Outer)
    assert str(caught.value).startswith("/etc/x.toml")


def test_text_that_is_not_utf8_is_placed_too() -> None:
    with pytest.raises(ConfigError, match="line 2: the text is not UTF-8"):
        parse(Path("/etc/x.toml"), b"# a\nname = '\xff'", Outer)


def test_an_absent_file_can_mean_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "absent.toml", Inner, missing_ok=True) == Inner()
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "absent.toml", Inner)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path, Inner)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge.toml").write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "huge.toml", Inner)
