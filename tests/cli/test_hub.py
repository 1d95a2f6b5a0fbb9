"""The hub's commands against a daemon that is only a table of answers."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.hub.rows import hub_row
from ukihashi.locale import set_language
from ukihashi.net.control_socket import Verbs as RealVerbs
from ukihashi.net.control_socket import answer
from ukihashi.store.hubs import Hub

HUB = hub_row(Hub(1, "LAN", True, "10.64.0.0/24", "fd00::/64", "uklan", 0.0))
USER = {"hub": "LAN", "name": "hanako", "login": "standard", "addresses": [], "note": ""}
LINK = {
    "id": 3,
    "hub": "LAN",
    "user": "hanako",
    "link": "ukihashi://h:1/x",
    "command": "ukihashi card join ukihashi://h:1/x",
    "addresses": ["10.64.0.2/24"],
    "expires_at": 0.0,
}
ANSWERS: dict[str, dict[str, Any]] = {
    "status": {
        "version": "1",
        "uptime_s": 61.0,
        "listen": ["0.0.0.0:443"],
        "pin": "ab",
        "hubs": 1,
        "sessions": 2,
        "worker": {
            "connections": 3,
            "loops": [{"hub": "LAN", "port": "SID-B-2", "with": "bridge eth1", "seconds": 9.0}],
        },
    },
    "sessions": {"session": "SID-1", "hub": "LAN", "user": "hanako", "drops": {"full": 2, "bad": 1}, "bytes_in": 2048},
    "mac_table": {"mac": "02:00:5e:10:00:01", "vlan": 0, "session": "SID-1", "age_s": 3.2},
    "disconnect": {"session": "SID-1"},
    "list": HUB | {"users": 2, "sessions": 0},
    "create": HUB,
    "hub_set": HUB,
    "delete": HUB,
    "users": USER,
    "user_create": USER | {"password": "k7m2q"},
    "user_password": USER,
    "user_delete": USER,
    "invite": LINK,
    "invites": {"id": 3, "hub": "LAN", "user": "hanako", "state": "open", "created_at": 0.0, "expires_at": 0.0},
    "invite_revoke": {"id": 3, "state": "revoked"},
    "admin_reset": {"secret": "s3cr3t"},
    "tools": {"hub": "", "on": False},
    "tools_on": {"hub": "LAN", "on": True, "password": "k7m2q-x9a4d"},
    "tools_off": {"hub": "", "on": False},
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the commands asked the daemon."""
    monkeypatch.setenv(places.RUNTIME, str(tmp_path))
    monkeypatch.setenv("LANGUAGE", "en")
    set_language("en")
    noted: list[dict[str, Any]] = []

    class Verbs(RealVerbs):
        def __init__(self) -> None:
            super().__init__({})

        async def ask(self, do: str, **given: Any) -> list[dict[str, Any]]:
            noted.append({"do": do, **given})
            return [ANSWERS[do]]

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "hub.sock"))
    listening.listen()

    def live() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listening.accept()[0] as connection:
                    line = connection.makefile("rb").readline()
                    connection.sendall(asyncio.run(answer(Verbs(), line)) + b"\n")

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    yield noted
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


@pytest.mark.parametrize(
    ("words", "request_", "shown"),
    [
        ("status", {"do": "status"}, "Running for: 1 min 1 s"),
        ("status", {"do": "status"}, "Loop: LAN, SID-B-2: blocked for 0 min 9 s: a loop with bridge eth1"),
        ("sessions", {"do": "sessions", "hub": ""}, "2.00 KiB"),
        ("sessions lan", {"do": "sessions", "hub": "lan"}, "SID-1"),
        ("mac-table LAN", {"do": "mac_table", "hub": "LAN"}, "02:00:5e:10:00:01"),
        ("disconnect SID-1", {"do": "disconnect", "session": "SID-1"}, "session SID-1 was ended"),
        ("list", {"do": "list"}, "10.64.0.0/24"),
        ("create x --offline", {"do": "create", "name": "x", "host_port": False, "offline": True}, "fd00::/64"),
        ("set LAN --offline", {"do": "hub_set", "name": "LAN", "online": False}, "LAN"),
        ("delete LAN --yes", {"do": "delete", "name": "LAN"}, "virtual hub LAN was deleted"),
        ("user list --hub LAN", {"do": "users", "hub": "LAN"}, "password, standard hash kept"),
        (
            "user create hanako --note x",
            {
                "do": "user_create",
                "name": "hanako",
                "hub": "",
                "note": "x",
                "password": "",
                "standard_hash": False,
            },
            "k7m2q",
        ),
        (
            "user password hanako",
            {"do": "user_password", "name": "hanako", "hub": "", "password": "", "standard_hash": False},
            "was set",
        ),
        ("user delete hanako", {"do": "user_delete", "name": "hanako", "hub": ""}, "was deleted"),
        (
            "invite LAN --user hanako --host h --days 2",
            {"do": "invite", "user": "hanako", "hub": "LAN", "host_name": "h", "days": 2.0},
            "ukihashi card join ukihashi://h:1/x",
        ),
        (
            "invite LAN --user hanako --via HTTP://Proxy.example:3128 --via ssh://gate.example",
            {
                "do": "invite",
                "user": "hanako",
                "hub": "LAN",
                "host_name": "",
                "days": 7.0,
                "via": ["http://proxy.example:3128", "ssh://gate.example"],
            },
            "ukihashi card join ukihashi://h:1/x",
        ),
        ("invite --list", {"do": "invites", "hub": ""}, "open"),
        ("invite --revoke 3", {"do": "invite_revoke", "invite": 3}, "join link 3 is useless now"),
        ("admin-secret --reset", {"do": "admin_reset"}, "s3cr3t"),
        ("admin tools", {"do": "tools"}, "(all)"),
        ("admin tools --on --hub LAN", {"do": "tools_on", "hub": "LAN"}, "k7m2q-x9a4d"),
        ("admin tools --off", {"do": "tools_off", "hub": ""}, "no tool of others is let in any more"),
    ],
)
def test_a_command_asks_one_thing_and_shows_the_answer(
    asked: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    words: str,
    request_: dict[str, Any],
    shown: str,
) -> None:
    assert run(build(), ["hub", *words.split()]) == 0
    assert asked == [request_]
    told = capsys.readouterr()
    assert shown in told.out + told.err
    assert run(build(), ["hub", *words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWERS[request_["do"]]


def test_only_the_link_is_on_standard_output(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    run(build(), ["hub", "invite", "--user", "hanako"])
    assert capsys.readouterr().out == "ukihashi://h:1/x\n"


def test_a_password_comes_from_a_file_never_from_the_command_line(
    asked: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("a sentence\nsecond line\n")
    run(build(), ["hub", "user", "create", "taro", "--password-file", str(tmp_path / "secret"), "--standard-hash"])
    assert (asked[0]["password"], asked[0]["standard_hash"]) == ("a sentence", True)
    (tmp_path / "secret").write_text("\n")
    assert run(build(), ["hub", "user", "password", "taro", "--password-file", str(tmp_path / "secret")]) == 2
    assert run(build(), ["hub", "user", "password", "taro", "--password-file", str(tmp_path / "absent")]) == 2
    assert "first line" in capsys.readouterr().err
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("invite", "give one of --user NAME, --list and --revoke NUMBER"),
        ("invite --list --user x", "give one of"),
        ("set LAN", "nothing to change"),
        ("set LAN x --online", "nothing to change"),
        ("admin-secret", "--reset makes a new one"),
        ("user create x --standard-hash", "goes with --password-prompt"),
        ("user create x --password-prompt --password-file y", "not both"),
        ("serve --listen x", "no TCP port"),
        ("serve --listen 1.2.3:443", "is no address"),
        ("invite --user x --days soon", "not a valid float"),
        ("invite --user x --via proxy.example", "is no path to a hub"),
        ("invite --user x --via http://taro:s3cr3t@proxy.example:3128", "a password in a URL is seen by everybody"),
    ],
)
def test_wrong_use_is_told_before_anything_is_asked(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    assert run(build(), ["hub", *words.split()]) == 2
    assert told in capsys.readouterr().err
    assert asked == []


def test_deleting_a_hub_asks_first(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(build(), ["hub", "delete", "LAN"]) == 130
    assert "with its 2 users" in capsys.readouterr().err
    assert [one["do"] for one in asked] == ["list"]
