"""The commands about cascades, before a hub that only notes what it is asked."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.card.keys import make

from ukihashi.cli import cascade as module
from ukihashi.cli.cascade import remark
from ukihashi.cli.main import build, run
from ukihashi.locale import set_language

ROW: dict[str, Any] = {
    "hub": "LAN",
    "name": "hq",
    "online": True,
    "state": "online",
    "since": 1.0,
    "reason": None,
    "server": "hub.example:443",
    "remote_hub": "HQ",
    "user": "branch",
    "session": "SID-BRANCH-1",
    "tls": "TLSv1.3",
    "cipher": "X",
    "connections": 8,
    "frames_in": 3,
    "bytes_in": 2048,
    "frames_out": 4,
    "bytes_out": 4096,
    "drops": {},
    "loop": "open",
    "loop_with": "",
    "loop_s": 0.0,
    "options": {"standard.max_connections": 8},
    "policy": {"max_mac": 5},
}


class Hub:
    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        self.asked.append({"do": do, **arguments})
        return [ROW]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(module, "client", lambda: made)
    monkeypatch.setenv("LANGUAGE", "en")
    set_language("en")
    return made


def call(*words: str) -> int:
    return run(build(), ["hub", "cascade", *words])


BY_HAND = ("--server", "hub.example", "--remote-hub", "HQ", "--user", "branch")


def test_a_join_link_is_enough_and_may_come_from_standard_input(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("create", "hq", "--to", "ukihashi://x", "--hub", "LAN") == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("ukihashi://y\n"))
    assert call("create", "hq", "--to", "-", "--offline", "--max-connections", "8", "--policy", "max_mac=5") == 0
    rest = {"do": "cascade_create", "name": "hq", "hub": "LAN", "offline": False, "options": {}}
    assert hub.asked[0] == rest | {"link": "ukihashi://x"}
    more = {"options": {"standard.max_connections": 8}, "policy": {"max_mac": 5}, "offline": True, "hub": ""}
    assert hub.asked[1] == rest | more | {"link": "ukihashi://y"}


def test_another_hub_may_be_reached_over_a_proxy(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("s3cr3t\n")
    with_password = ("--via", "http://taro@proxy.example:3128", "--via-password-file", str(tmp_path / "password"))
    assert call("create", "hq", "--to", "ukihashi://x", *with_password) == 0
    assert call("set", "hq", *with_password) == 0
    for request in hub.asked:
        assert request["options"] == {"path.via": "http://taro@proxy.example:3128", "path.password": "s3cr3t"}
    assert call("set", "hq", "--via", "direct:") == 0
    assert hub.asked[-1]["options"] == {"path.via": "direct:", "path.password": None}
    capsys.readouterr()
    asked = len(hub.asked)
    for words in (
        ("set", "hq", "path.password", "s3cr3t"),
        ("set", "hq", "--via", "http://taro:s3cr3t@proxy.example:3128"),
        ("create", "hq", "--to", "-", "--via", "http://taro@proxy.example:3128", "--via-password-file", "-"),
    ):
        assert call(*words) == 2
    assert len(hub.asked) == asked
    assert "s3cr3t" not in capsys.readouterr().err


def test_a_standard_server_by_hand_with_each_kind_of_login(hub: Hub, tmp_path: Path) -> None:
    keys = make(tmp_path)
    (tmp_path / "password").write_text("secret\n")
    secret = str(tmp_path / "password")
    assert call("create", "a", *BY_HAND, "--password-file", secret, "--pin", "ab") == 0
    assert call("create", "b", *BY_HAND, "--password-file", secret, "--plain") == 0
    assert call("create", "c", *BY_HAND, "--anonymous") == 0
    files = ("--certificate", str(keys.certificate_file), "--key", str(keys.key_file))
    assert call("create", "d", *BY_HAND, *files) == 0
    told = [(row["method"], row.get("password"), row["options"]) for row in hub.asked]
    assert told == [
        ("password", "secret", {}),
        ("plain", "secret", {}),
        ("anonymous", None, {}),
        (
            "certificate",
            None,
            {"login.certificate": keys.certificate_file.read_text(), "login.key": keys.key_file.read_text()},
        ),
    ]
    assert (hub.asked[0]["server"], hub.asked[0]["remote_hub"], hub.asked[0]["pin"]) == ("hub.example", "HQ", "ab")


@pytest.mark.parametrize(
    "words",
    [
        ("create", "a", *BY_HAND, "--certificate", "c.pem"),
        ("create", "a", *BY_HAND, "--certificate", "/dev/null", "--key", "/dev/null"),
        ("create", "a", *BY_HAND, "--password-file", "/dev/null"),
        ("set", "a"),
        ("set", "a", "standard.max_connections"),
        ("set", "a", "login.password", "x"),
        ("set", "a", "login.key", "/nonexistent"),
    ],
)
def test_what_can_not_be_is_not_asked(hub: Hub, words: tuple[str, ...]) -> None:
    assert call(*words) == 2
    assert hub.asked == []


def test_options_policy_and_password_are_set(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("new\n")
    (tmp_path / "k").write_text("KEY")
    words = ("standard.max_connections", "4", "login.key", str(tmp_path / "k"))
    assert call("set", "hq", *words, "--policy", "no_server=yes", "--password-file", str(tmp_path / "p")) == 0
    options = {"standard.max_connections": "4", "login.key": "KEY", "login.password": "new"}
    assert hub.asked == [{"do": "cascade_set", "name": "hq", "hub": "", "options": options, "policy": {"no_server": 1}}]


def test_online_offline_delete(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("online", "hq"), ("offline", "hq"), ("delete", "hq")):
        assert call(*words) == 0
    assert [row.get("online") for row in hub.asked] == [True, False, None]
    assert "was deleted" in capsys.readouterr().err


def test_the_list_shows_how_each_stands(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    out = capsys.readouterr().out
    for word in ("hq", "online", "hub.example:443", "SID-BRANCH-1", "2.00 KiB"):
        assert word in out
    assert call("list", "--json", "--hub", "LAN") == 0
    assert json.loads(capsys.readouterr().out) == ROW
    assert call("show", "hq") == 0
    out = capsys.readouterr().out
    for word in ("standard.max_connections = 8", "max_mac = 5", "TLSv1.3 X"):
        assert word in out


def test_loops_reasons_and_drops_are_told_in_words(hub: Hub) -> None:
    reason = {"template": "{address} refused", "values": {"address": "h:1"}, "text": "h:1 refused"}
    trouble = ROW | {"loop": "blocked", "loop_with": "b", "loop_s": 12.0, "reason": reason, "resumes": 2}
    said = remark(trouble | {"drops": {"loop": 5, "queue_full": 0, "cascade_down": 1}})
    assert said == (
        "blocked for 0 min 12 s: a loop with b; h:1 refused; 2 times back after a cut;"
        " dropped: blocked for a loop 5, not joined at the time 1"
    )
    assert remark(ROW | {"blocked": {"with": "SID-X-1", "since": time.time() - 65}}) == (
        "the hub there: blocked for 1 min 5 s: a loop with SID-X-1"
    )
    assert remark(ROW | {"loop": "blocked", "loop_with": "hq", "loop_s": 1.0}) == (
        "blocked for 0 min 1 s: frames come back on this port"
    )
    assert remark(ROW) == ""
    assert remark(ROW | {"reason": {"text": "odd", "template": "{x}", "values": {}}}) == "odd"
