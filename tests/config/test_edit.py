"""Changes to a file that people write too."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from ukihashi.config.card import CardConfig, Route
from ukihashi.config.edit import edit, put
from ukihashi.config.hub import HubConfig, load_hub
from ukihashi.config.options import Kind, options
from ukihashi.errors import ConfigError, EnvironmentLacks, InputUnreadable, UsageError

CARD = """# mine
[hub]
host = "h" # the office
hub = "LAN"
user = "ann"

[login]
method = "anonymous"

[interface]
name = "uklan"
mac = "02:00:00:00:00:01"

[[interface.routes]]
to = "10.8.0.0/16" # the other office
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it.toml"


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {"listen": ("8443",), "times.dead_s": 12.0}),
        (
            "# mine\n\n[tls]\nciphers = [] # all\n",
            {"public_address": "h.example", "tls.ciphers": ["AES128-SHA", "AES256-SHA"]},
        ),
        ("times = {dead_s = 20.0} # mine\n", {"times.keepalive_s": 2.0}),
        ("times.dead_s = 20.0 # mine\n", {"times.keepalive_s": 2.0, "mac_ageing_s": 60}),
        ("[times]\ndead_s = 20.0\n[limits]\nhalf_open = 5\n# mine\n", {"times.dead_s": None, "limits.half_open": 6}),
        ('bridges = {LAN = ["eth1"]} # mine\nworkers = 2\n', {"bridges": {"LAN": ("eth1", "eth2"), "Büro": ("br0",)}}),
        (
            'workers = 2 # mine\n[bridges]\nLAN = ["eth1"]\n[web]\n',
            {"bridges": {"B": ("eth2",)}, "bridge_addresses": ("x",)},
        ),
        ("# mine\n[web]\nupstream = ''\n", {"bridges": {"LAN": ("eth1",)}}),
        ('log_format = "json"\r\n# mine\r\n[times]\r\ndead_s = 20.0\r\n', {"times.dead_s": 30.0}),
    ],
)
def test_what_was_asked_for_is_changed_and_nothing_else(path: Path, text: str, changes: dict[str, Any]) -> None:
    path.write_bytes(text.encode())
    before = load_hub(path)
    after = edit(path, HubConfig, changes)
    assert after == load_hub(path)
    assert ("# mine" in text) == ("# mine" in path.read_text())
    if "times.dead_s" not in changes:
        assert after.times.dead_s == before.times.dead_s
    for key, value in changes.items():
        found: Any = after
        for name in key.split("."):
            found = getattr(found, name)
        if value is not None:
            assert (list(found) if isinstance(value, list) else found) == value


def test_routes_come_and_go_and_comments_stay(path: Path) -> None:
    path.write_text(CARD)
    routes = [Route(to="10.8.0.0/16"), Route(to="10.9.0.0/16", via="10.0.0.1", metric=5)]
    assert edit(path, CardConfig, {"interface.routes": routes, "interface.mtu": 1400}).interface.routes == routes
    after = edit(path, CardConfig, {"interface.routes": None, "echo_guard.period": 5})
    assert (after.interface.routes, after.interface.mtu, after.echo_guard.period) == ([], 1400, 5.0)
    assert "# the office" in path.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"times.dead": 4.0}, "times.keepalive"),
        ({"times.dead": 4000.0}, "from 0.3 to 600"),
        ({"times.ded": 4.0}, "did you mean times.dead"),
        ({"hub.host": None}, "hub.host has no default"),
        ({"interface.addresses": ["10.0.0.300/8"]}, "no address"),
    ],
)
def test_what_cannot_be_is_refused_and_the_file_stays(path: Path, changes: dict[str, Any], said: str) -> None:
    path.write_text(CARD)
    with pytest.raises(UsageError, match=said):
        edit(path, CardConfig, changes)
    assert path.read_text() == CARD
    assert list(path.parent.iterdir()) == [path]


def test_a_wrong_file_can_be_mended_if_it_can_be_read(path: Path) -> None:
    path.write_text("[times]\ndead_s = 1.0\n")  # below the keep-alives' period
    with pytest.raises(ConfigError):
        load_hub(path)
    assert edit(path, HubConfig, {"times.dead_s": 20.0}).times.dead_s == 20.0
    path.write_text("nonsense\n")
    with pytest.raises(ConfigError, match="line 1"):
        edit(path, HubConfig, {"times.dead_s": 20.0})
    path.write_bytes(b"\xff")
    with pytest.raises(InputUnreadable):
        edit(path, HubConfig, {"times.dead_s": 20.0})


def test_mode_and_owner_stay_unless_asked_for(path: Path) -> None:
    edit(path, HubConfig, {"times.dead_s": 20.0})
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
    edit(path, HubConfig, {"times.dead_s": 30.0})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.geteuid() != 0 or (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
    put(path, "", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")
    with pytest.raises(EnvironmentLacks, match="can't be written"):
        put(tmp_path / "in-the-way" / "it.toml", "")


@pytest.mark.parametrize("name", ["hub", "card"])
def test_an_edit_of_the_commented_example_changes_one_line(repository: Path, path: Path, name: Kind) -> None:
    example = (repository / "packaging" / "config" / f"{name}.toml").read_text()
    for one in options(name):
        if isinstance(one.type, inspect.IntType | inspect.FloatType) and one.default:
            value = type(one.default)(one.default * 0.99) or one.default + 1
            path.write_text(example)
            if name == "hub":
                edit(path, HubConfig, {one.key: value})
            else:
                edit(path, CardConfig, {one.key: value})
            pairs = zip(example.splitlines(), path.read_text().splitlines(), strict=True)
            assert [new for old, new in pairs if old != new] == [f"{one.key.rpartition('.')[2]} = {value}"]
