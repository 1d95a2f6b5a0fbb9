"""Commands about accounts and rules, through the hub's real verbs into a real database."""

import asyncio
import contextlib
import datetime as dt
import json
import re
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.serialization import Encoding
from tests.auth.certificates import HANAKO, certify

from ukihashi.cli.main import build, run
from ukihashi.cli.values import POLICIES, data_size, number, quota, when
from ukihashi.config import places
from ukihashi.config.hub import Endpoint
from ukihashi.errors import UkihashiError, UsageError
from ukihashi.hub.backstage import Facts
from ukihashi.hub.desk import Desk
from ukihashi.hub.filters import Filters
from ukihashi.hub.groups import Groups
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.messages import HubPut, Message
from ukihashi.hub.people import People
from ukihashi.hub.storage import Storage
from ukihashi.locale import set_language
from ukihashi.net.control_socket import Row, Verbs, answer
from ukihashi.store import hubs, rules, users
from ukihashi.store.db import Database
from ukihashi.store.users import User
from ukihashi.wire.policy import DEFAULT, WIRE

PAGE = Path(__file__).parent.parent.parent / "docs" / "accounts.md"
PEM = HANAKO.public_bytes(Encoding.PEM)


class Live:
    """A worker that is only a note of what it was told."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.sessions: list[Row] = []
        self.ended: list[tuple[str, str]] = []

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[Row]:
        if what == "disconnect":
            self.ended.append((name, reason))
            return [{"session": name, "hub": hub}]
        return self.sessions

    async def tell_worker(self, message: Message) -> None:
        self.told.append(message)

    async def tell_supervisor(self, message: Message) -> None:
        self.told.append(message)

    async def wish(self, what: str, *, key: str = "", value: str = "") -> list[Row]:
        raise NotImplementedError


class Person:
    """Types commands; looks into the database."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.database = Database(path / "hub.db")
        self.live = Live()
        self.hub = hubs.create(self.database, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", now=1.0)
        self._capsys = capsys
        storage = Storage(self.database)
        facts = Facts("9.9", (Endpoint("127.0.0.1", 8443),), b"p" * 32)
        hasher = Hasher(hasher=PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        desk = Desk(facts, storage, self.live)
        self.verbs = Verbs(
            {
                **desk.verbs(),
                **People(facts, storage, hasher, self.live).verbs(),
                **Groups(storage, self.live).verbs(),
                **Filters(storage, desk.tell_worker).verbs(),
            }
        )
        self._to_close = (hasher, storage)

    def close(self) -> None:
        for one in self._to_close:
            one.close()

    def types(self, words: str, *more: str) -> str:
        """Standard output of a command that succeeds."""
        status = run(build(), ["hub", *words.split(), *more])
        told = self._capsys.readouterr()
        assert status == 0, told.err
        return told.out

    def asks(self, words: str, *more: str) -> list[dict[str, Any]]:
        """The same, as the objects of --json."""
        return [json.loads(line) for line in self.types(words, *more, "--json").splitlines()]

    def fails(self, words: str, *more: str) -> str:
        """The sentence of a command that is refused."""
        assert run(build(), ["hub", *words.split(), *more]) == 2
        return self._capsys.readouterr().err

    def user(self, name: str) -> User:
        return users.get(self.database, self.hub, name)

    def put(self) -> HubPut:
        """How the worker was told that the hub is set."""
        return next(one for one in reversed(self.live.told) if isinstance(one, HubPut))


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Person]:
    monkeypatch.setenv(places.RUNTIME, str(tmp_path))
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.setenv("TZ", "UTC")
    set_language("en")
    made = Person(tmp_path, capsys)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "hub.sock"))
    listening.listen()

    def live() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listening.accept()[0] as connection, connection.makefile("rb") as reader:
                    connection.sendall(asyncio.run(answer(made.verbs, reader.readline())) + b"\n")

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    with structlog.testing.capture_logs():
        yield made
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)
    made.close()


# -- users --------------------------------------------------------------------------------------------------------


def test_a_user_gets_limits_and_they_are_shown(person: Person) -> None:
    person.types("group create sales --policy max_mac=9 --policy privacy_filter=yes")
    person.types("user create hanako --group sales --real-name", "Hanako Suzuki")
    person.types("user set HANAKO --expires 2099-03-31 --quota 10G/7d --policy max_upload=10M --policy no_bridge=on")
    user = person.user("hanako")
    assert (user.group, user.real_name, user.quota_bytes, user.quota_days) == ("sales", "Hanako Suzuki", 10 << 30, 7)
    policy = user.effective_policy
    assert (policy.max_mac, policy.privacy_filter) == (9, True)  # the group's, for that was what held
    assert (policy.max_upload, policy.no_bridge) == (10_000_000, True)
    shown = person.types("user show hanako")
    for words in ("Group: sales", "Until: 2099-03-31 ", "0 B of 10.0 GiB used", "Policy: its own", "no_bridge = yes"):
        assert words in shown
    (row,) = person.asks("user show hanako")
    assert (row["policy"]["max_upload"], row["quota_days"], row["barred"]) == (10_000_000, 7, None)
    person.types("user set hanako --no-policy --group", "", "--expires", "never", "--quota", "none")
    user = person.user("hanako")
    assert (user.effective_policy, user.group, user.expires_at, user.quota_bytes) == (DEFAULT, "", 0.0, 0)


def test_what_is_not_named_stays(person: Person) -> None:
    person.types("user create hanako --note kept")
    before = person.user("hanako")
    person.types("user set hanako --real-name X")
    after = person.user("hanako")
    assert (after.note, after.sha0, after.policy, after.real_name) == ("kept", before.sha0, None, "X")


def test_kinds_of_login(person: Person, tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(PEM)
    (tmp_path / "der").write_bytes(HANAKO.public_bytes(Encoding.DER))
    assert "shown only once" not in person.types("user create a --certificate", str(tmp_path / "pem"))
    person.types("user create b --certificate", str(tmp_path / "der"))
    assert person.user("a").certificate == person.user("b").certificate == HANAKO.public_bytes(Encoding.DER)
    assert "CN=Hanako" in person.types("user show a")
    person.types("user set a --issued --common-name Hanako --serial 01:02")
    user = person.user("a")
    assert (user.kind, user.certificate, user.common_name, user.serial) == ("issued", b"", "Hanako", b"\x01\x02")
    person.types("user set a --serial", "")
    assert person.user("a").serial == b""
    person.types("user set a --anonymous")
    assert (person.user("a").kind, person.user("a").common_name) == ("anonymous", "")
    (row,) = person.asks("user password a")
    assert person.user("a").login == "standard"
    assert row["password"]


def test_who_may_no_longer_join_is_put_out(person: Person) -> None:
    person.types("group create sales")
    person.types("user create hanako --group sales")
    person.types("user create taro --group sales")
    person.live.sessions = [{"session": f"SID-{name}", "hub": "LAN", "user": name} for name in ("HANAKO", "TARO")]
    person.types("user set hanako --note harmless")
    assert person.live.ended == []
    person.types("user set hanako --expires 2001-01-01")
    assert person.live.ended == [("SID-HANAKO", "the user may not enter: expired")]
    assert "no: expired" in person.types("user show hanako")
    person.types("user set taro --policy access=yes")
    person.live.ended.clear()
    person.types("group set sales --policy access=no")
    assert person.live.ended == [("SID-HANAKO", "the group's policy forbids logins")]  # taro has a policy of his own


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("user set hanako", "nothing to change"),
        ("user set nobody --note x", "no user “nobody”"),
        ("user set hanako --group x", "no group “x”"),
        ("user set hanako --policy max_uplod=1", "no policy value “max_uplod”"),
        ("user set hanako --policy max_upload", "no assignment"),
        ("user set hanako --policy max_upload=fast", "no value"),
        ("user set hanako --policy no_bridge=7", "use 0 to 1"),
        ("user set hanako --policy MaxConnection=33", "use 1 to 32"),
        ("user set hanako --policy access=yes --no-policy", "not both"),
        ("user set hanako --expires tomorrow", "no date"),
        ("user set hanako --quota lots", "no amount of data"),
        ("user set hanako --quota 1G/week", "no period"),
        ("user set hanako --quota 1G/0", "use 1 to 3660"),
        ("user set hanako --serial seven", "no serial number"),
        ("user set hanako --anonymous --issued", "give one of"),
        ("user set hanako --anonymous --common-name X", "one kind of login"),
        ("user set hanako --certificate /dev/null", "no certificate"),
        ("user set hanako --certificate /absent", "can't be read"),
        ("user create administrator", "hub's own administrator"),
        ("user create Hanako", "has a user “Hanako” already"),
        ("user create x --policy access=2", "use 0 to 1"),
        ("group set nobody --note x", "no group “nobody”"),
        ("group set sales", "nothing to change"),
        ("group create SALES", "has a group “SALES” already"),
        ("set LAN --max-sessions -1", "out of range"),
        ("set LAN --rule storms=1", "a hub has no rule “storms”; there are: storm_threshold"),
        ("set LAN --rule storm_threshold", "no assignment"),
        ("access add pass --from 192.0.2.0/33", "no network"),
        ("access add pass --from 192.0.2.0/24 --to 2001:db8::/32", "of the other kind"),
        ("access add pass --protocol tpc", "no protocol"),
        ("access add pass --protocol 256", "use 0 to 255"),
        ("access add pass --to-port http", "no port"),
        ("access add pass --to-port 9-1", "use 9 to 65535"),
        ("access add pass --from-mac 02:00", "no MAC address"),
        ("access add pass --priority 0", "out of range"),
        ("access remove 9", "number 9"),
        ("source add deny here", "no network"),
        ("source remove 9", "number 9"),
        ("authority add /dev/null", "no certificate"),
        ("authority remove 9", "number 9"),
        ("revoke", "give one of SERIAL"),
        ("revoke xyz", "no serial number"),
        ("revoke --undo 9", "number 9"),
    ],
)
def test_a_wrong_value_is_told_and_changes_nothing(person: Person, words: str, told: str) -> None:
    person.types("group create sales")
    person.types("user create hanako")
    before, known = person.user("hanako"), person.asks("user list")
    assert told in person.fails(words)
    assert person.user("hanako") == before
    assert person.asks("user list") == known
    assert rules.access_list(person.database, person.hub) == []


# -- groups -------------------------------------------------------------------------------------------------------


def test_groups_are_listed_with_their_members_and_go_without_them(person: Person) -> None:
    person.types("group create sales --note", "third floor")
    person.types("user create hanako --group SALES")
    assert "third floor" in person.types("group list")
    (row,) = person.asks("group show Sales")
    assert (row["users"], row["policy_of"]) == (1, "new user")
    person.types("group set sales --policy NoServer=yes")
    assert "no_server = yes" in person.types("group show sales")
    person.types("group set sales --no-policy")
    assert person.asks("group show sales")[0]["policy_of"] == "new user"
    person.types("group delete sales")
    assert person.asks("group list") == []
    assert person.user("hanako").group == ""


def test_every_policy_value_is_explained(person: Person) -> None:
    assert POLICIES.keys() == WIRE.keys()
    assert [row["name"] for row in person.asks("policies")] == list(POLICIES)
    assert "bit/s toward the hub" in person.types("policies")


# -- the hub itself -----------------------------------------------------------------------------------------------


def test_the_hubs_settings_reach_the_worker(person: Person) -> None:
    person.types(
        "set LAN --max-sessions 7 --unlisted --banner ようこそ --rule storm_threshold=64 --rule vlans_apart=no"
    )
    put = person.put()
    assert (put.listed, put.banner, put.rules.storm_threshold, put.rules.vlans_apart) == (False, "ようこそ", 64, False)
    assert hubs.get(person.database, "LAN").max_sessions == 7
    shown = person.types("show")
    for words in ("Sessions at most: 7", "Listed: no", "Banner: ようこそ", "storm_threshold = 64"):
        assert words in shown


# -- rules --------------------------------------------------------------------------------------------------------


def test_rules_about_frames_reach_the_worker_in_order(person: Person) -> None:
    person.types("access add discard --note rest")
    person.types(
        "access add pass --from 192.0.2.7/24 --to 198.51.100.0/24 --protocol tcp --to-port 8000-8099 --from-user taro"
        " --to-mac 02-00-5E-00-00-01/ff:ff:ff:00:00:00 --opening --priority 5"
    )
    first, second = person.put().access
    assert (first.source, first.destination_mac) == ("192.0.2.0/24", "02:00:5e:00:00:01/ff:ff:ff:00:00:00")
    assert (first.protocol, first.destination_ports, first.established) == (6, (8000, 8099), False)
    assert (second.discard, second.note) == (True, "rest")
    shown = person.types("access list")
    assert "tcp from 192.0.2.0/24 from-user taro to 198.51.100.0/24 to-port 8000-8099 to-mac" in shown
    assert "every frame" in shown
    person.types("access add pass --from 2001:db8::/32 --protocol icmpv6 --off")
    assert [rule.ipv6 for rule in person.put().access] == [False, False, True]
    person.types("access remove 2")
    assert len(person.put().access) == 2


def test_source_rules_authorities_and_revocations(person: Person, tmp_path: Path) -> None:
    person.types("source add allow 192.0.2.9/24 --priority 10")
    person.types("source add deny 0.0.0.0/0")
    assert [(row["network"], row["deny"]) for row in person.asks("source list")] == [
        ("192.0.2.0/24", False),
        ("0.0.0.0/0", True),
    ]
    person.types("source remove 1")
    assert "deny" in person.types("source list")
    (tmp_path / "ca").write_bytes(certify("CA", serial=1).public_bytes(Encoding.PEM))
    assert "CN=CA" in person.types("authority add", str(tmp_path / "ca"))
    assert "already" in person.fails("authority add", str(tmp_path / "ca"))
    person.types("authority remove 1")
    assert person.asks("authority list") == []
    assert person.asks("revoke 00:01:02") == [{"hub": "LAN", "number": 1, "serial": "0102"}]
    assert "0102" in person.types("revoke --list")
    person.types("revoke --undo 1")
    assert person.asks("revoke --list") == []


def test_every_command_of_the_page_works(person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taro.pem").write_bytes(PEM)
    (tmp_path / "ca.pem").write_bytes(certify("CA", serial=1).public_bytes(Encoding.PEM))
    commands = [
        shlex.split(line)
        for block in re.findall(r"^```sh$(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.strip().splitlines()
    ]
    assert len(commands) > 20
    for program, part, *words in commands:
        assert (program, part) == ("ukihashi", "hub")
        person.types("", *words)
    assert person.user("visitor").effective_policy.max_download == 20_000_000
    assert not person.user("visitor").effective_policy.access


def test_there_is_a_limit_to_what_every_login_or_frame_asks(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ukihashi.hub.filters._check_room.__defaults__", (2,))
    for words in ("access add pass", "source add allow 192.0.2.0/24"):
        person.types(words)
        person.types(words)
        assert "at most 2 entries" in person.fails(words)


# -- what people write --------------------------------------------------------------------------------------------


def test_numbers_amounts_and_moments() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert (number("yes"), number("Off"), number("12"), number("1.5k"), number("10M")) == (1, 0, 12, 1500, 10_000_000)
    assert (data_size("500"), data_size("1k"), data_size("1.5 GiB")) == (500, 1024, 3 << 29)
    assert quota("10G") == {"quota_bytes": 10 << 30}
    assert quota("1T/7") == {"quota_bytes": 1 << 40, "quota_days": 7}
    assert quota("none") == {"quota_bytes": 0}
    assert when("never", now) == 0.0
    assert when("30d", now) == now.timestamp() + 30 * 86_400
    assert when("2027-03-31T18:00+09:00", now) == dt.datetime(2027, 3, 31, 9, tzinfo=dt.UTC).timestamp()
    for wrong in ("10GB", "ten", "-1", ""):
        with pytest.raises(UsageError):
            number(wrong)


def test_a_request_may_name_only_what_the_verb_knows(person: Person) -> None:
    with pytest.raises(UkihashiError, match="unknown field `colour`"):
        asyncio.run(person.verbs.ask("user_set", name="hanako", colour="red"))
    with pytest.raises(UkihashiError, match="Expected `str`"):
        asyncio.run(person.verbs.ask("user_set", name="hanako", note=5))
