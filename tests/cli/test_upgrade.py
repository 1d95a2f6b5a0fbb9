"""`hub upgrade` and `hub serve --check` as a person meets them."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ukihashi import __version__
from ukihashi.cli import upgrade
from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.errors import EnvironmentLacks
from ukihashi.locale import set_language
from ukihashi.net.control_socket import Verbs, answer

Row = dict[str, Any]


class Daemon:
    """Answers `upgrade` once, then `status` from a list, the last of them for ever."""

    def __init__(self, path: Path) -> None:
        self.begun: Row | None = {"from": "1", "to": "2", "number": 3}
        self.statuses: list[Row] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    async def upgrade(self) -> list[Row]:
        if self.begun is None:
            raise EnvironmentLacks("the new program can't take over: {reason}", reason="no such file")
        return [self.begun]

    async def status(self) -> list[Row]:
        return [self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]]

    def _live(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._listening.accept()[0] as connection:
                    line = connection.makefile("rb").readline()
                    verbs = Verbs({"upgrade": self.upgrade, "status": self.status})
                    connection.sendall(asyncio.run(answer(verbs, line)) + b"\n")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv(places.RUNTIME, str(tmp_path))
    set_language("en")
    made = Daemon(tmp_path / "hub.sock")
    yield made
    made.close()


OLD: Row = {"version": "1", "upgrade": None}
EARLIER: Row = {"version": "1", "upgrade": {"number": 2, "from": "0", "sessions": 9, "pause_s": 0.5}}


def done(sessions: int | None) -> Row:
    return {"version": "2", "upgrade": {"number": 3, "from": "1", "sessions": sessions, "pause_s": 0.02}}


@pytest.mark.parametrize(
    ("sessions", "told"),
    [(7, "; 7 sessions go on, they paused for 0.02 s\n"), (None, "; the sessions did not come along")],
)
def test_it_waits_until_the_new_hub_answers(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], sessions: int | None, told: str
) -> None:
    daemon.statuses = [OLD, EARLIER, done(sessions)]
    assert run(build(), ["hub", "upgrade"]) == 0
    said = capsys.readouterr()
    assert "upgrading from version 1 to 2" in said.err
    assert said.out.startswith("version 2 serves after ")
    assert told in said.out


def test_programs_get_one_object(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.statuses = [done(7)]
    assert run(build(), ["hub", "upgrade", "--json"]) == 0
    said = capsys.readouterr()
    row = json.loads(said.out)
    assert (row["from"], row["to"], row["number"], row["sessions"], row["pause_s"]) == ("1", "2", 3, 7, 0.02)
    assert said.err == ""


def test_a_refusal_is_told(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.begun = None
    assert run(build(), ["hub", "upgrade"]) == 3
    assert "can't take over: no such file" in capsys.readouterr().err


def test_a_hub_that_does_not_come_back_is_told(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "PATIENCE_S", 0.3)
    daemon.statuses = [EARLIER]
    assert run(build(), ["hub", "upgrade"]) == 3
    assert "did not answer within 0.3 s" in capsys.readouterr().err


def test_without_a_hub_nothing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(places.RUNTIME, str(tmp_path))
    set_language("en")
    assert run(build(), ["hub", "upgrade"]) == 4
    assert "no hub is running here" in capsys.readouterr().err


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders for a hub that nobody starts."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp())  # open to the hub's own accounts
    folder.chmod(0o755)
    for name in (places.STATE, places.RUNTIME, places.CONFIG):
        monkeypatch.setenv(name, str(folder))
    set_language("en")
    yield folder
    shutil.rmtree(folder)


def test_a_check_says_what_the_hub_would_be_and_opens_nothing(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run(build(), ["hub", "serve", "--listen", where, "--check"]) == 0
        assert capsys.readouterr().out == f"version {__version__} could serve on {where}\n"
        assert run(build(), ["hub", "serve", "--listen", where, "--check", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["version"], row["listen"], len(row["pin"])) == (__version__, [where], 64)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[times]\ndead_s = 1\n", "times.keepalive_s must be below times.dead_s"),
        ('[tls]\nciphers = ["RC4-MD5"]\n', "RC4-MD5"),
        ('[tls]\ncertificate = "/nonexistent/a"\nkey = "/nonexistent/b"\n', "/nonexistent/a"),
    ],
)
def test_a_check_finds_what_a_start_would(
    machine: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    (machine / "hub.toml").write_text(text)
    assert run(build(), ["hub", "serve", "--check"]) == 2
    assert told in capsys.readouterr().err


def test_a_database_of_a_newer_version_is_found_too(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sqlite3

    (machine / "hub").mkdir()
    with contextlib.closing(sqlite3.connect(machine / "hub" / "hub.db")) as database:
        database.execute("PRAGMA user_version = 99")
    before = list((machine / "hub").iterdir())
    assert run(build(), ["hub", "serve", "--check"]) == 3
    assert "has form 99" in capsys.readouterr().err
    assert list((machine / "hub").iterdir()) == before
