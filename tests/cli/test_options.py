"""Options on the command line: files on disk are real, a daemon is a table of answers behind a real control socket."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ukihashi.card import account
from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, Login
from ukihashi.config.hub import HubConfig, load_hub
from ukihashi.config.options import options, rows
from ukihashi.errors import UsageError
from ukihashi.locale import set_language
from ukihashi.net.control_socket import Verbs, answer

SECRET = "hush-hush-hush"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("LANGUAGE", "en")
    (tmp_path / "r").mkdir()
    set_language("en")


@pytest.fixture
def lan() -> Path:
    """An account."""
    config = CardConfig(
        hub=Hub(host="h", hub="LAN", user="ann"),
        login=Login(password=SECRET),
        interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
    )
    account.write("lan", config)
    path = account.path_of("lan")
    path.write_text(path.read_text() + "# mine\n")
    return path


Serve = Callable[[Path, Verbs], None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer on a control socket until the test ends."""
    ends: list[tuple[socket.socket, threading.Thread]] = []

    def start(path: Path, verbs: Verbs) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()

        def live() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listening.accept()[0] as connection:
                        line = connection.makefile("rb").readline()
                        connection.sendall(asyncio.run(answer(verbs, line)) + b"\n")

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        ends.append((listening, thread))

    yield start
    for listening, thread in ends:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


class Said:
    def __init__(self, status: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.status = status
        self.out, self.err = capsys.readouterr()

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["option"]: row for row in map(json.loads, self.out.splitlines())}


Do = Callable[..., Said]


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]) -> Do:
    return lambda *words: Said(run(build(), list(words)), capsys)


class Daemon:
    """Verbs of a card or hub that notes what it is asked."""

    def __init__(self, answers: list[dict[str, Any]] | None = None) -> None:
        self.answers = answers or []
        self.asked: list[tuple[str, ...]] = []

    def verbs(self) -> Verbs:
        return Verbs({"reload": self.reload, "options": self.options, "set_option": self.set_option})

    async def reload(self) -> list[dict[str, Any]]:
        self.asked.append(("reload",))
        return self.answers

    async def options(self) -> list[dict[str, Any]]:
        return rows("hub", HubConfig(log_format="json"))

    async def set_option(self, key: str, value: str) -> list[dict[str, Any]]:
        self.asked.append(("set_option", key, value))
        if key == "page_dir":
            raise UsageError("page_dir: {folder} is not a folder", folder=value)
        return [{"option": key, "old": 15.0, "new": float(value), "effect": "now"}]


# -- the card -----------------------------------------------------------------------------------------------------


def test_every_option_is_listed_with_default_and_effect(do: Do) -> None:
    said = do("card", "options")
    assert said.status == 0
    for one in options("card"):
        assert one.key in said.out
        assert one.meaning in said.out
    assert "30 seconds" in said.out
    assert "at once" in said.out
    assert set(do("card", "options", "--json").rows) == {one.key for one in options("card")}


def test_an_accounts_values_are_listed_and_its_secrets_are_not(do: Do, lan: Path) -> None:
    do("card", "set", "lan", "times.dead", "20")
    said = do("card", "options", "lan")
    assert "20 seconds" in said.out
    assert SECRET not in said.out
    row = do("card", "options", "lan", "--json").rows
    assert (row["times.dead"]["value"], row["times.dead"]["default"]) == (20.0, 15.0)
    assert (row["login.password"]["value"], row["login.password"]["is_set"]) == (None, True)


def test_setting_keeps_comments_and_says_that_the_card_is_not_up(do: Do, lan: Path) -> None:
    said = do("card", "set", "lan", "echo_guard.target", "10.0.0.1", "echo_guard.period", "5")
    assert (said.status, said.out.splitlines()) == (
        0,
        ["echo_guard.target: auto → 10.0.0.1 (at once)", "echo_guard.period: 30 → 5 (at once)"],
    )
    assert "not up" in said.err
    assert "# mine" in lan.read_text()
    assert account.read("lan").echo_guard.period == 5.0
    assert do("card", "unset", "lan", "echo_guard.target").out == "echo_guard.target: 10.0.0.1 → auto (at once)\n"
    assert "nothing has changed" in do("card", "unset", "lan", "echo_guard.target").err


def test_a_card_that_is_up_is_asked_to_heed_it(do: Do, lan: Path, serve: Serve) -> None:
    daemon = Daemon([{"option": "hub.port", "old": 443, "new": 8443, "effect": "next connection"}])
    serve(places.card_socket("lan"), daemon.verbs())
    said = do("card", "set", "lan", "hub.port", "8443")
    assert (said.out, said.err) == ("hub.port: 443 → 8443 (with the next connection)\n", "")
    assert daemon.asked == [("reload",)]
    assert do("card", "reload", "lan", "--json").rows["hub.port"] == daemon.answers[0]


def test_a_card_that_cannot_take_it_is_told(do: Do, lan: Path, serve: Serve) -> None:
    serve(places.card_socket("lan"), Verbs({}))  # of an older version
    said = do("card", "set", "lan", "hub.port", "8443")
    assert said.status == 0
    assert "could not take it: this daemon does not know the request “reload”" in said.err
    assert do("card", "reload", "lan").status == 2


def test_a_secret_comes_from_a_file_and_is_not_shown(do: Do, lan: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("still hush\nsecond\n")
    said = do("card", "set", "lan", "login.password", "--file", str(tmp_path / "new"))
    assert said.out == "login.password: changed (with the next connection)\n"
    assert account.read("lan").login.password == "still hush"


def test_a_secret_without_a_file_is_asked_for(do: Do, lan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def answer_it(text: str, **how: object) -> str:
        asked.append((text, how["hide_input"]))
        return "typed in the dark"

    monkeypatch.setattr("click.prompt", answer_it)
    assert "typed" not in do("card", "set", "lan", "login.password").out
    assert asked == [("login.password", True)]
    assert account.read("lan").login.password == "typed in the dark"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("set lan times.dead", "pairs of KEY and VALUE"),
        ("set lan times.dead 1 x", "pairs of KEY and VALUE"),
        ("set lan times.dead 1", "times.keepalive (5) must be below"),
        ("set lan times.dead 9999", "from 0.3 to 600"),
        ("set lan times.ded 9", "did you mean times.dead?"),
        ("set lan login.password x", "others can see a command line"),
        ("set lan login.password --file nowhere", "nowhere"),
        ("set other times.dead 9", "no account “other”"),
        ("set lan interface.routes 10.0.0.0/8", "card route add"),
        ("unset lan hub.host", "has no default"),
        ("unset lan nothing", "no option “nothing”"),
        ("options other", "no account “other”"),
        ("route add lan ten", "is no route"),
        ("route add lan 10.0.0.0/8 --via fd00::1", "is no route"),
        ("route remove lan 10.0.0.0/8", "there are: -"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(do: Do, lan: Path, words: str, told: str) -> None:
    before = lan.read_text()
    said = do("card", *words.split())
    assert said.status == 2
    assert told in said.err
    assert lan.read_text() == before


def test_routes_come_and_go(do: Do, lan: Path) -> None:
    said = do("card", "route", "add", "lan", "10.8.0.0/16", "--via", "10.0.0.1", "--metric", "7")
    assert said.out == "interface.routes: - → 10.8.0.0/16 via 10.0.0.1 metric 7 (at once)\n"
    assert do("card", "route", "add", "lan", "fd00:8::/48").status == 0
    assert [one.to for one in account.read("lan").interface.routes] == ["10.8.0.0/16", "fd00:8::/48"]
    assert do("card", "route", "add", "lan", "10.8.0.0/16").status == 2
    assert do("card", "route", "remove", "lan", "10.8.0.0/16").status == 0
    assert do("card", "route", "remove", "lan", "fd00:8::/48").status == 0
    assert account.read("lan").interface.routes == []
    assert "# mine" in lan.read_text()


# -- the hub ------------------------------------------------------------------------------------------------------


def test_the_running_hubs_options(do: Do, serve: Serve) -> None:
    serve(places.hub_socket(), Daemon().verbs())
    said = do("hub", "options")
    assert (said.status, said.err) == (0, "")
    for one in options("hub"):
        assert one.key in said.out
    assert do("hub", "options", "--json").rows["log_format"]["value"] == "json"
    set_language("ja")
    assert "カードからこの時間だけ何も届かなければ" in do("hub", "options").out


def test_without_a_hub_the_files_values_are_shown_and_changed(do: Do) -> None:
    places.hub_config().parent.mkdir()
    places.hub_config().write_text("# mine\n[times]\ndead_s = 20.0\n")
    said = do("hub", "options")
    assert "20 seconds" in said.out
    assert str(places.hub_config()) in said.err
    said = do("hub", "set", "listen", "443, 8443", "times.dead_s", "30")
    assert said.out.splitlines() == ["listen: 443 → 443, 8443 (at the next start)", "times.dead_s: 20 → 30 (at once)"]
    assert "no hub is running" in said.err
    assert load_hub(places.hub_config()).listen == ("443", "8443")
    assert "# mine" in places.hub_config().read_text()
    assert do("hub", "reload").status == 4


def test_the_running_hub_is_asked_to_change(do: Do, serve: Serve) -> None:
    daemon = Daemon()
    serve(places.hub_socket(), daemon.verbs())
    assert do("hub", "set", "times.dead_s", "20").out == "times.dead_s: 15 → 20 (at once)\n"
    assert daemon.asked == [("set_option", "times.dead_s", "20")]
    assert "nothing has changed" in do("hub", "reload").err
    assert "/nowhere is not a folder" in do("hub", "set", "page_dir", "/nowhere").err
    assert do("hub", "set", "times.dead_s", "soon").status == 2
    assert len(daemon.asked) == 2
    assert not places.hub_config().exists()


def test_what_waits_for_a_new_start_goes_into_the_file_and_the_hub_reads_it(do: Do, serve: Serve) -> None:
    daemon = Daemon([{"option": "listen", "old": ["443"], "new": ["8443"], "effect": "next start"}])
    serve(places.hub_socket(), daemon.verbs())
    assert do("hub", "set", "listen", "8443").out == "listen: 443 → 8443 (at the next start)\n"
    assert daemon.asked == [("reload",)]
    assert load_hub(places.hub_config()).listen == ("8443",)
