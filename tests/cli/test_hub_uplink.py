"""`hub uplink` as a person meets it. What it does to the machine is tried in tests/hub and tests/netns."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.cli.main import build, run
from ukihashi.config import places
from ukihashi.config.hub import load_hub
from ukihashi.locale import set_language
from ukihashi.net.control_socket import Row, Verbs, answer


class Daemon:
    """Answers as a hub would that has read hub.toml again."""

    def __init__(self, path: Path) -> None:
        self.state = "on"
        self.droppers: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(16)
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    async def hub_show(self, name: str) -> list[Row]:
        return [{"name": {"lan": "LAN", "office": "Office"}[name.casefold()]}]

    async def reload(self) -> list[Row]:
        return []

    async def uplinks(self) -> list[Row]:
        problem = {"template": "no {what}", "values": {"what": "luck"}, "text": "no luck"}
        return [
            {
                "hub": {"lan": "LAN"}.get(hub, hub), "to": sorted(to), "interface": f"uk{hub}", "addresses": [],
                "ipv4": sorted(to) or ["eth0"], "ipv6": [], "state": self.state, "connections": 3,
                "droppers": self.droppers, "problem": problem if self.state == "failed" else None,
            }
            for hub, to in load_hub(places.hub_config()).uplinks().items()
        ]  # fmt: skip

    def _live(self) -> None:
        verbs = Verbs({"hub_show": self.hub_show, "reload": self.reload, "uplinks": self.uplinks})
        with contextlib.suppress(OSError):
            while True:
                with self._listening.accept()[0] as connection:
                    line = connection.makefile("rb").readline()
                    connection.sendall(asyncio.run(answer(verbs, line)) + b"\n")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(places.RUNTIME, str(tmp_path))
    monkeypatch.setenv(places.CONFIG, str(tmp_path))
    set_language("en")
    return tmp_path


@pytest.fixture
def daemon(folder: Path) -> Iterator[Daemon]:
    made = Daemon(folder / "hub.sock")
    yield made
    made.close()


def written(folder: Path) -> str:
    return (folder / "hub.toml").read_text()


def test_it_is_written_shown_and_taken_out(daemon: Daemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hub.toml").write_text("# mine\nworkers = 2\n")
    assert run(build(), ["hub", "uplink", "lan"]) == 0
    assert written(folder) == '# mine\nworkers = 2\nuplink = ["LAN"]\n'
    assert "uklan" in (said := capsys.readouterr().out)
    assert "works" in said
    assert run(build(), ["hub", "uplink", "OFFICE", "--to", "lo", "--to", "eth77"]) == 0
    assert 'uplink = ["LAN", "Office:lo", "Office:eth77"]' in written(folder)
    assert "there is no interface eth77 now" in capsys.readouterr().err
    assert run(build(), ["hub", "uplink", "Office", "--json"]) == 0
    assert 'uplink = ["LAN", "Office"]' in written(folder)
    assert json.loads(capsys.readouterr().out)["hub"] == "office"
    assert run(build(), ["hub", "uplink", "lan", "--remove"]) == 0
    assert 'uplink = ["Office"]' in written(folder)
    assert "no way out through this machine any more" in capsys.readouterr().err
    assert run(build(), ["hub", "uplink", "office", "--remove"]) == 0
    assert written(folder) == "# mine\nworkers = 2\n"


def test_what_is_wrong_is_told(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.state, daemon.droppers = "failed", ["ip filter FORWARD"]
    assert run(build(), ["hub", "uplink", "LAN"]) == 0
    said = capsys.readouterr().err
    assert "warning: no luck" in said
    assert "drop what is forwarded (ip filter FORWARD)" in said
    daemon.state, daemon.droppers = "no way out", []
    assert run(build(), ["hub", "uplink"]) == 0
    assert "name an interface with --to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["LAN", "--to", "eth0", "--remove"], "--to or --remove"),
        (["--to", "eth0"], "name the virtual hub"),
        (["LAN", "--to", "sixteenletterslo"], "neither HUB nor HUB:INTERFACE"),
        (["a*b"], "can't contain *"),
    ],
)
def test_what_makes_no_sense_is_refused(
    daemon: Daemon, folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert run(build(), ["hub", "uplink", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (folder / "hub.toml").exists()


def test_without_a_hub_it_holds_from_the_next_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(build(), ["hub", "uplink"]) == 4
    assert run(build(), ["hub", "uplink", "LAN"]) == 0
    said = capsys.readouterr()
    assert "uplink: - → LAN" in said.out
    assert "holds from its next start" in said.err
    assert load_hub(folder / "hub.toml").uplinks() == {"lan": frozenset()}
