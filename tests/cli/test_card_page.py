"""`ukihashi card page` as a person runs it: a real process, a browser of few lines."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from lab.wait import until
from ukihashi.card import account
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Hub, Interface, Login
from ukihashi.net.privileges import identity

pytestmark = pytest.mark.slow
SECRET = "hush-hush-hush"


@dataclass
class Page:
    process: "subprocess.Popen[str]"
    address: str
    cookie: str = ""

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    def ask(self, method: str, path: str, body: str = "", host: str = "127.0.0.1") -> tuple[int, str, str]:
        """Status, Location, body."""
        connection = http.client.HTTPConnection(host, self.port, timeout=10)
        fields = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        self.cookie = answer.headers.get("Set-Cookie", self.cookie).partition(";")[0]
        return answer.status, answer.headers.get("Location", ""), text


@pytest.fixture
def lan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    config = CardConfig(
        hub=Hub(host="h", hub="LAN", user="ann"),
        login=Login(password=SECRET),
        interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
    )
    account.write("lan", config)
    return account.path_of("lan")


@pytest.fixture
def shown(lan: Path) -> Iterator[Page]:
    argv = [sys.executable, "-m", "ukihashi.cli.main", "--lang", "en", "card", "page"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Page(process, process.stdout.readline().strip())
    finally:
        process.terminate()
        process.communicate(timeout=20)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def csrf(text: str) -> str:
    return text.partition('name="csrf" value="')[2].partition('"')[0]


def test_the_printed_address_works_once_and_a_change_reaches_the_file(shown: Page, lan: Path) -> None:
    way_in = shown.address.removeprefix(f"http://127.0.0.1:{shown.port}")
    assert shown.ask("GET", "/")[0] == 403
    assert shown.ask("GET", way_in)[:2] == (303, "/")
    kept, shown.cookie = shown.cookie, ""
    assert shown.ask("GET", way_in)[0] == 403  # it is spent
    shown.cookie = kept
    status, _location, text = shown.ask("GET", "/")
    assert status == 200
    assert "echo_guard.period" in text
    assert "<dd>down</dd>" in text
    assert SECRET not in text
    form = {"csrf": csrf(text), "option": "echo_guard.period", "value": "7"}
    assert shown.ask("POST", "/", urlencode(form))[:2] == (303, "/#echo_guard.period")
    assert account.read("lan").echo_guard.period == 7.0
    form = {"csrf": csrf(text), "option": "times.dead", "value": "1"}
    status, _location, text = shown.ask("POST", "/", urlencode(form))
    assert (status, "must be below" in text) == (422, True)
    form = {"csrf": csrf(text), "option": "login.password", "value": "known"}
    assert shown.ask("POST", "/", urlencode(form))[0] == 403
    assert account.read("lan").login.password == SECRET
    for option in ("hooks.up", "hooks.down", "path.ssh_config"):
        form = {"csrf": csrf(text), "option": option, "value": "/tmp/anything"}
        status, _location, said = shown.ask("POST", "/", urlencode(form))
        assert (status, "names a program to run" in said) == (422, True)
    assert account.read("lan").hooks.up == ""


def test_it_is_on_both_loopback_addresses_and_on_no_other(shown: Page) -> None:
    assert shown.ask("GET", "/", host="::1")[0] == 403
    listening = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    ours = {one[1].partition(":")[0] for one in listening if one[1].endswith(f":{shown.port:04X}") and one[3] == "0A"}
    assert ours == {"0100007F", "00000000000000000000000001000000"}


def test_what_reads_from_the_browser_has_no_rights(shown: Page) -> None:
    (page,) = children(shown.process.pid)
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{page}/status").read_text().splitlines())
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert fields["Uid"].split() == [str(identity("ukihashi-page").uid)] * 4
        assert not fields["Groups"].strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told_with_nothing_left(shown: Page, number: signal.Signals) -> None:
    (page,) = children(shown.process.pid)
    shown.process.send_signal(number)
    assert shown.process.wait(20) == 0
    assert not Path(f"/proc/{page}").exists()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", shown.port), timeout=1)


def test_a_page_that_fails_ends_the_command_with_a_sentence(shown: Page) -> None:
    (page,) = children(shown.process.pid)
    os.kill(page, signal.SIGKILL)
    assert shown.process.wait(20) == 3
    assert shown.process.stderr is not None
    assert "ended by itself" in shown.process.stderr.read()


def test_a_page_whose_keeper_is_killed_ends_too(shown: Page) -> None:
    (page,) = children(shown.process.pid)
    shown.process.kill()
    shown.process.wait(20)
    until(lambda: not _lives(page), seconds=10, what="the page's end")


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ukihashi.cli.main", "--lang", "en", "card", "page", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_wrong_use(lan: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("lan", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, "choose another --port" in done.stderr) == (3, True)
    assert run("other").returncode == 2
    account.write("two", account.read("lan"))
    assert "lan, two" in run().stderr
    account.remove("lan")
    account.remove("two")
    assert "card join LINK" in run().stderr
