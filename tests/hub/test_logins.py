import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from ukihashi.auth.password import hash_password, secure_password
from ukihashi.auth.token import token_digest
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.logins import Logins
from ukihashi.hub.messages import LoginAnswered, LoginAsked
from ukihashi.hub.storage import Storage
from ukihashi.hub.throttle import FAILURES
from ukihashi.store import hubs, invites, users
from ukihashi.store.db import Database
from ukihashi.wire.constants import Code

CHALLENGE = b"c" * 20
TOKEN = "0123456789abcdefABCDEF"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


class Desk:
    """A database with one user of each kind, and the logins in front of it; time stands still until moved."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path / "hub.db")
        self.now = 1000.0
        self.slept: list[float] = []
        hub = hubs.create(self.database, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", now=1.0)
        users.create(self.database, hub, "Hanako", sha0=hash_password("Hanako", "generated"), now=1.0)
        users.create(self.database, hub, "taro", argon2=QUICK.hash("chosen"), now=1.0)
        users.create(
            self.database, hub, "both", argon2=QUICK.hash("chosen"), sha0=hash_password("both", "chosen"), now=1.0
        )
        users.create(self.database, hub, "open", anonymous=True, now=1.0)
        guest = users.create(self.database, hub, "guest", now=1.0)
        invites.create(self.database, guest, token_digest(TOKEN), now=1.0, expires_at=2000.0)
        away = hubs.create(
            self.database, "away", subnet4="10.81.8.0/24", subnet6="fd3c:1:3::/64", online=False, now=1.0
        )
        users.create(self.database, away, "open", anonymous=True, now=1.0)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def ask(self, *asked: LoginAsked) -> list[LoginAnswered]:
        async def run() -> list[LoginAnswered]:
            hasher = Hasher(hasher=QUICK)
            logins = Logins(
                Storage(self.database), hasher, clock=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep
            )
            try:
                return [await logins.answer(one) for one in asked]
            finally:
                hasher.close()

        return asyncio.run(run())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.database.close()


def by_hash(user: str, password: str, hub: str = "LAN", **more: Any) -> LoginAsked:
    answer = secure_password(hash_password(user, password), CHALLENGE)
    return LoginAsked(7, hub, user, 1, CHALLENGE, secure_password=answer, peer="192.0.2.9:5555", **more)


def by_plain(user: str, password: str, hub: str = "LAN") -> LoginAsked:
    return LoginAsked(7, hub, user, 2, CHALLENGE, plain_password=password, peer="192.0.2.9:5555")


def by_nothing(user: str, hub: str = "LAN") -> LoginAsked:
    return LoginAsked(7, hub, user, 0, CHALLENGE, peer="192.0.2.9:5555")


def by_link(password: str, token: str = TOKEN, user: str = "guest") -> LoginAsked:
    return by_hash(user, password, invite_token=token, invite_hash=hash_password(user, password))


def test_who_is_let_in(desk: Desk) -> None:
    rightful = [
        by_hash("Hanako", "generated"),
        by_hash("HANAKO", "generated", hub="lan"),
        by_plain("hanako", "generated"),
        by_plain("taro", "chosen"),
        by_hash("both", "chosen"),
        by_plain("both", "chosen"),
        by_nothing("open"),
        by_hash("open", "whatever"),
    ]
    answers = desk.ask(*rightful)
    assert [answer.error for answer in answers] == [0] * len(rightful)
    assert (answers[1].hub, answers[1].user, answers[1].ask) == ("LAN", "Hanako", 7)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (by_hash("hanako", "generated", hub="WAN"), Code.HUB_NOT_FOUND),
        (by_nothing("open", hub="away"), Code.HUB_STOPPING),
        (by_hash("hanako", "wrong"), Code.AUTH_FAILED),
        (by_hash("nobody", "generated"), Code.AUTH_FAILED),
        (by_hash("taro", "chosen"), Code.AUTH_FAILED),
        (by_hash("guest", ""), Code.AUTH_FAILED),
        (by_plain("guest", ""), Code.AUTH_FAILED),
        (by_plain("taro", "wrong"), Code.AUTH_FAILED),
        (by_plain("nobody", "no user has this"), Code.AUTH_FAILED),
        (by_nothing("hanako"), Code.AUTH_FAILED),
        (LoginAsked(7, "LAN", "hanako", 3, CHALLENGE), Code.AUTH_FAILED),
        (LoginAsked(7, "LAN", "hanako", 98, CHALLENGE), Code.AUTHTYPE_NOT_SUPPORTED),
        (LoginAsked(7, "LAN", "hanako", 1, CHALLENGE, secure_password=b"short"), Code.AUTH_FAILED),
    ],
)
def test_who_is_not(desk: Desk, asked: LoginAsked, code: int) -> None:
    assert [answer.error for answer in desk.ask(asked)] == [code]


def test_a_link_sets_the_password_once_and_answers_the_same_card_again(desk: Desk) -> None:
    answers = desk.ask(
        by_link("of-the-card"),
        by_link("of-the-card"),
        by_hash("guest", "of-the-card"),
        by_link("of-somebody-else"),
        by_hash("guest", "of-somebody-else"),
    )
    assert [answer.error for answer in answers] == [0, 0, 0, Code.AUTH_FAILED, Code.AUTH_FAILED]


def test_a_link_keeps_a_chosen_password_working(desk: Desk) -> None:
    hub = hubs.get(desk.database, "LAN")
    invites.create(
        desk.database, users.get(desk.database, hub, "taro"), token_digest("t" * 22), now=1.0, expires_at=2000.0
    )
    answers = desk.ask(by_link("card", "t" * 22, "taro"), by_plain("taro", "chosen"), by_hash("taro", "card"))
    assert [answer.error for answer in answers] == [0, 0, 0]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (by_link("card", "x" * 22), Code.AUTH_FAILED),
        (by_link("card", TOKEN, "hanako"), Code.AUTH_FAILED),
        (by_link("card", TOKEN, "nobody"), Code.AUTH_FAILED),
        (by_hash("guest", "card", invite_token=TOKEN), Code.PROTOCOL_ERROR),
        (by_hash("guest", "card", invite_token=TOKEN, invite_hash=b"z" * 20), Code.AUTH_FAILED),
    ],
)
def test_a_wrong_link_changes_nothing(desk: Desk, asked: LoginAsked, code: int) -> None:
    answers = desk.ask(asked, by_hash("guest", "card"), by_link("right"))
    assert [answer.error for answer in answers] == [code, Code.AUTH_FAILED, 0]


def test_an_expired_or_revoked_link_is_refused(desk: Desk) -> None:
    desk.now = 2000.0
    assert desk.ask(by_link("card"))[0].error == Code.AUTH_FAILED
    desk.now = 1000.0
    invites.revoke(desk.database, 1, 1.0)
    assert desk.ask(by_link("card"))[0].error == Code.AUTH_FAILED


def test_a_guesser_waits_from_the_eleventh_try_on(desk: Desk) -> None:
    desk.ask(*[by_hash("hanako", "wrong")] * FAILURES, by_hash("hanako", "generated"), by_hash("hanako", "generated"))
    assert desk.slept == [1.0]  # the right password ended it


def test_the_log_has_the_reason_and_no_secret(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.ask(by_plain("taro", "hunter2hunter2"), by_link("card", "y" * 22))
    logged = capsys.readouterr().out
    assert "wrong password" in logged
    assert "hunter2" not in logged
    assert "y" * 22 not in logged
