"""`ukihashi card` as a person runs it: real processes, a fake hub, a network of the test's own."""

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.card.keys import make as make_keys

from lab import ready
from lab.fake_hub import FakeHub
from lab.own_network import own_network
from lab.wait import until
from ukihashi.auth.link import Link
from ukihashi.card import account
from ukihashi.config import places
from ukihashi.pki import ca
from ukihashi.tap import netlink

pytestmark = pytest.mark.netns
TOKEN = "t" * 22


class Person:
    """Types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(
        self, *words: str, stdin: str = "", before: tuple[str, ...] = (), lang: str = "en"
    ) -> subprocess.CompletedProcess[str]:
        command = [*before, sys.executable, "-m", "ukihashi.cli.main", f"--lang={lang}", "card", *words]
        if ready.can(command, os.environ):  # those without a link in their words
            return ready.ask(command, env=os.environ, namespace=ready.here(), stdin=stdin, timeout_s=60)
        return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=60, check=False)

    def status(self, name: str = "lan") -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.card("status", name, "--json").stdout)
        return row

    def leave_all(self) -> None:
        self.card("leave", "--all")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    return ca.load_or_make(tmp_path_factory.mktemp("hub"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    with own_network():
        made = Person(tmp_path)
        try:
            yield made
        finally:
            made.leave_all()


@pytest.fixture
def hub(person: Person, identity: ca.Identity) -> Iterator[FakeHub]:
    del person  # its network comes first
    with FakeHub(identity.certificate, identity.key) as made:
        made.invites[TOKEN] = b""
        yield made


def link_to(hub: FakeHub, token: str = TOKEN) -> str:
    return Link(hub.address, hub.port, "LAN", "alice", token, hub.pin, ("10.9.0.2/24",)).text()


def ended(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_join_look_leave_and_come_back(person: Person, hub: FakeHub) -> None:
    joined = person.card("join", link_to(hub))
    assert (joined.returncode, joined.stderr) == (0, "")
    assert "online: uklan 10.9.0.2/24" in joined.stdout
    row = person.status()
    assert row["state"] == "online"
    for pid in (row["pid"], row["data_pid"]):
        assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
        assert "ukihashi://" not in Path(f"/proc/{pid}/cmdline").read_text()
    assert os.getsid(row["pid"]) != os.getsid(0)
    assert "lan" in person.card("list").stdout
    assert "SID-ALICE-1" in person.card("status").stdout

    left = person.card("leave", "lan")
    assert (left.returncode, left.stderr) == (0, "")
    assert not netlink.exists("uklan")
    until(lambda: ended(row["pid"]), seconds=5, what="the end of the card's process")
    down = person.card("status", "lan")
    assert down.returncode == 4
    assert "lan: down" in down.stdout

    assert person.card("up", "lan").returncode == 0
    assert hub.logins[-1].invite_token == ""
    assert person.card("up", "lan").returncode == 2
    deleted = person.card("delete", "lan")
    assert deleted.returncode == 0
    assert not netlink.exists("uklan")
    assert person.card("up", "lan").returncode == 2


def test_a_link_from_standard_input_and_a_name_of_ones_own(person: Person, hub: FakeHub) -> None:
    assert person.card("join", "-", "--name", "office", "--interface", "ukx", stdin=link_to(hub) + "\n").returncode == 0
    assert netlink.exists("ukx")
    assert person.status("office")["interface"] == "ukx"


def test_a_spent_link_is_told_and_leaves_no_account(person: Person, hub: FakeHub) -> None:
    hub.invites[TOKEN] = bytes(20)
    refused = person.card("join", link_to(hub))
    assert refused.returncode == 5
    assert "used already or has expired; ask the hub's admin for a new one" in refused.stderr
    assert person.card("list", "--json").stdout == ""
    assert not netlink.exists("uklan")


def test_a_lost_answer_can_be_repeated_with_the_same_link(person: Person, hub: FakeHub) -> None:
    hub.deaf = True
    text = link_to(hub)
    path = places.card_config("lan")
    first = subprocess.Popen([sys.executable, "-m", "ukihashi.cli.main", "card", "join", text, "--foreground"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until(path.exists, seconds=20, what="the account file")
    password = path.read_text()
    first.terminate()
    first.wait(20)
    hub.deaf = False
    assert person.card("join", text).returncode == 0
    assert next(line for line in password.splitlines() if line.startswith("password")) in path.read_text()


def test_joining_twice_under_one_name_is_refused(person: Person, hub: FakeHub) -> None:
    assert person.card("join", link_to(hub)).returncode == 0
    hub.invites["u" * 22] = b""
    again = person.card("join", link_to(hub, "u" * 22))
    assert again.returncode == 2
    assert "account “lan” already" in again.stderr


def test_a_changed_key(person: Person, hub: FakeHub, tmp_path: Path) -> None:
    other = ca.load_or_make(tmp_path / "other", name="hub.example", now=dt.datetime.now(dt.UTC))
    hub.close()
    with FakeHub(other.certificate, other.key, port=hub.port) as impostor:
        refused = person.card("join", link_to(hub))
        assert impostor.logins == []
    assert refused.returncode == 6
    for pin in (hub.pin, other.pin):
        assert pin.hex(":").upper() in refused.stderr


def test_accounts_by_hand(person: Person, hub: FakeHub) -> None:
    server = f"{hub.address}:{hub.port}"
    words = ("--server", server, "--hub", "LAN", "--user", "alice", "--password-file", "-")
    assert person.card("create", "lan", *words, stdin="wrong\n").returncode == 0
    refused = person.card("up", "lan")
    assert refused.returncode == 5
    assert "user “alice”" in refused.stderr
    assert person.card("create", "lan", *words, stdin="wonderland\n").returncode == 2
    assert person.card("create", "two", *words, "--address", "10.9.0.7/24", "--route", "10.8.0.0/16,10.9.0.1",
                       "--no-offload", stdin="wonderland\n").returncode == 0  # fmt: skip
    up = person.card("up", "two")
    assert up.returncode == 0
    assert hub.pin.hex(":").upper() in up.stdout  # trusted on first use, and shown
    assert (
        "10.8.0.0/16 via 10.9.0.1" in subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    )
    assert (person.status("two")["hub"], person.status("two")["offload"]) == ("LAN", "off: option")


def test_an_account_with_a_certificate(person: Person, hub: FakeHub, tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    words = ("create", "lan", "--server", f"{hub.address}:{hub.port}", "--hub", "LAN", "--user", "alice")
    certificate, key = ("--certificate", str(keys.certificate_file)), ("--key", str(keys.key_file))
    for wrong in (certificate, key, (*certificate, *key, "--plain"), ("--certificate", str(tmp_path / "none"), *key)):
        assert person.card(*words, *wrong).returncode == 2
    assert person.card(*words, *certificate, *key).returncode == 0
    login = account.read("lan").login
    assert (login.method, login.key, login.password) == ("certificate", str(keys.key_file), "")
    refused = person.card("up", "lan")
    assert (refused.returncode, "the certificate is not that user's" in refused.stderr) == (5, True), refused.stderr


def test_nobody_listens(person: Person, hub: FakeHub) -> None:
    hub.close()
    refused = person.card("join", link_to(hub))
    assert refused.returncode == 7
    assert "refused the connection" in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout


def test_options_change_while_the_card_is_up(person: Person, hub: FakeHub) -> None:
    assert person.card("join", link_to(hub)).returncode == 0
    changes = ("echo_guard.period", "5", "times.dead", "120", "interface.addresses", "10.9.0.9/24")
    done = person.card("set", "lan", *changes)
    assert (done.returncode, done.stderr) == (0, "")
    assert "echo_guard.period: 30 → 5 (at once)" in done.stdout
    assert "times.dead: 15 → 120 (at once)" in done.stdout
    addresses = ("ip", "-o", "addr", "show", "uklan")
    assert "10.9.0.9/24" in subprocess.run(addresses, capture_output=True, text=True, check=True).stdout
    assert "10.9.0.2/24" not in subprocess.run(addresses, capture_output=True, text=True, check=True).stdout
    assert "(at the next start)" in person.card("set", "lan", "interface.name", "ukx").stdout
    assert "(with the next connection)" in person.card("set", "lan", "hub.port", "8443").stdout
    refused = person.card("set", "lan", "times.dead", "1")
    assert (refused.returncode, "must be below" in refused.stderr) == (2, True)
    assert person.card("route", "add", "lan", "10.77.0.0/16").returncode == 0
    routes = subprocess.run(("ip", "route"), capture_output=True, text=True, check=True).stdout
    assert "10.77.0.0/16 dev uklan" in routes
    assert person.status()["state"] == "online"
    path = places.card_config("lan")
    path.write_text(path.read_text().replace("period = 5.0", "period = 0.1"))
    wrong = person.card("reload", "lan")
    assert (wrong.returncode, "echo_guard.period" in wrong.stderr) == (2, True)
    assert person.status()["state"] == "online"


def test_at_boot_a_card_may_wait_for_its_hub(person: Person, hub: FakeHub, identity: ca.Identity) -> None:
    assert person.card("join", link_to(hub)).returncode == 0
    person.leave_all()
    hub.close()
    up = person.card("up", "lan", "--keep-trying")
    assert up.returncode == 0
    assert "not online yet" in up.stderr
    with FakeHub(identity.certificate, identity.key, port=hub.port) as again:
        again.hashes = hub.hashes
        until(lambda: person.status()["state"] == "online", seconds=30, what="the card online", step_s=0.2)
        person.leave_all()


def test_without_the_right_to_make_interfaces(person: Person, hub: FakeHub) -> None:
    refused = person.card("join", link_to(hub), before=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"))
    assert refused.returncode == 3
    assert "sudo" in refused.stderr
    assert hub.logins == []


def test_without_the_tun_driver(person: Person, hub: FakeHub) -> None:
    hide = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
    refused = person.card("join", link_to(hub), before=hide)
    assert refused.returncode == 3
    assert "modprobe tun" in refused.stderr


def test_a_taken_interface(person: Person, hub: FakeHub) -> None:
    refused = person.card("join", link_to(hub), "--interface", "lo")
    assert refused.returncode == 3
    assert "lo exists already" in refused.stderr


def test_an_account_that_others_can_read_is_warned_about(person: Person, hub: FakeHub) -> None:
    assert person.card("join", link_to(hub)).returncode == 0
    person.leave_all()
    places.card_config("lan").chmod(0o644)
    assert "chmod 600" in person.card("up", "lan").stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("join", "ukihashi://hub.example:443/AAAA"), 2, "damaged"),
        (("join", "https://hub.example/"), 2, "begins with ukihashi://"),
        (("join", "-"), 2, "empty"),
        (("up", "nothing"), 2, "no account “nothing”"),
        (("up", "../etc/passwd"), 2, "can't name an account"),
        (("leave", "nothing"), 2, "no account “nothing”"),
        (("leave",), 2, "--all"),
        (("status", "nothing"), 2, "no account “nothing”"),
        (("delete", "nothing"), 2, "no account “nothing”"),
        (("create", "x", "--server", "h:99999", "--hub", "LAN", "--user", "u", "--anonymous"), 2, "99999"),
        (("create", "x", "--server", "h", "--hub", "LAN", "--user", "u", "--password-file", "-"), 2, "empty"),
        (("create", "x", "--server", "h", "--hub", "LAN", "--user", "u", "--anonymous", "--address", "10.0.0.999/8"),
         2, "10.0.0.999"),
        (("create", "x", "--server", "h", "--hub", "LAN", "--user", "u", "--anonymous", "--route", "ten"), 2, "ten"),
        (("create", "x", "--server", "h", "--hub", "LAN", "--user", "u", "--anonymous", "--pin", "12"), 2, "64"),
    ],
)  # fmt: skip
def test_wrong_words(person: Person, words: tuple[str, ...], status: int, said: str) -> None:
    result = person.card(*words)
    assert (result.returncode, said in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.stderr


def test_a_damaged_account_file_is_named_with_the_place(person: Person) -> None:
    path = places.card_config("lan")
    path.parent.mkdir(parents=True)
    path.write_text("[hub]\nhost = 3\n")
    for words in (("up", "lan"), ("status", "lan")):
        result = person.card(*words)
        assert str(path) in result.stderr + result.stdout
        assert "hub.host" in result.stderr + result.stdout


def test_japanese(person: Person, hub: FakeHub) -> None:
    hub.invites[TOKEN] = bytes(20)
    refused = person.card("join", link_to(hub), lang="ja")
    assert refused.returncode == 5
    assert "参加リンク" in refused.stderr
    assert "仮想 LAN カード" in person.card("--help", lang="ja").stdout
