"""What is asked of a login besides its password: where it comes from, certificates, what the user and the hub allow."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from tests.auth.certificates import HANAKO, NOW, certify, der, key, shown

from ukihashi.auth.password import hash_password, secure_password
from ukihashi.auth.token import token_digest
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.logins import Logins
from ukihashi.hub.messages import LoginAnswered, LoginAsked, PasswordAsked
from ukihashi.hub.storage import Storage
from ukihashi.hub.throttle import FAILURES
from ukihashi.store import authorities, groups, hubs, invites, rules, users
from ukihashi.store.db import Database
from ukihashi.store.users import User
from ukihashi.wire.constants import Code
from ukihashi.wire.policy import ADMINISTRATOR, DEFAULT, Policy

CHALLENGE = bytes(range(20))
TOKEN = "0123456789abcdefABCDEF"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


class Door:
    """A hub with a few users, and the logins in front of it; time stands still until moved."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path / "hub.db")
        self.now = NOW.timestamp()
        self.slept: list[float] = []
        self.hub = hubs.create(self.database, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", now=1.0)
        self.user("hanako", sha0=hash_password("hanako", "secret"))
        self.user("taro", argon2=QUICK.hash("chosen"))
        self.user("open", anonymous=True)

    def user(self, name: str, **more: Any) -> User:
        return users.create(self.database, self.hub, name, now=1.0, **more)

    def put(self, name: str, **fields: Any) -> None:
        user = users.get(self.database, self.hub, name)
        users.put(self.database, replace(user, **fields), self.now)

    def set_hub(self, **fields: Any) -> None:
        hubs.put_settings(self.database, replace(hubs.get(self.database, "LAN"), **fields))

    def ask(self, *asked: LoginAsked | PasswordAsked) -> list[LoginAnswered]:
        async def run() -> list[LoginAnswered]:
            hasher = Hasher(hasher=QUICK)
            logins = Logins(
                Storage(self.database), hasher, clock=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep
            )
            try:
                return [
                    await (logins.answer(one) if isinstance(one, LoginAsked) else logins.change_password(one))
                    for one in asked
                ]
            finally:
                hasher.close()

        return asyncio.run(run())

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def code(self, asked: LoginAsked | PasswordAsked) -> int:
        return self.ask(asked)[0].error


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.database.close()


def by_hash(user: str = "hanako", password: str = "secret", **more: Any) -> LoginAsked:
    answer = secure_password(hash_password(user, password), CHALLENGE)
    asked = {"hub": "LAN", "peer": "192.0.2.9:5555", **more}
    return LoginAsked(ask=7, user=user, authtype=1, challenge=CHALLENGE, secure_password=answer, **asked)


def by_plain(user: str, password: str) -> LoginAsked:
    return LoginAsked(7, "LAN", user, 2, CHALLENGE, plain_password=password)


def by_nothing(user: str, **more: Any) -> LoginAsked:
    return LoginAsked(7, "LAN", user, 0, CHALLENGE, **more)


def by_certificate(user: str, certificate: Any = HANAKO, by: Any = None) -> LoginAsked:
    proof = shown(certificate, by or key("Hanako"), CHALLENGE)
    return LoginAsked(7, "LAN", user, 3, CHALLENGE, certificate=proof.certificate, signature=proof.signature)


# -- what the answer carries --------------------------------------------------------------------------------------


def test_a_login_gets_group_policy_and_the_hubs_limit(door: Door) -> None:
    group = groups.create(door.database, door.hub, "Sales", policy=Policy(max_mac=9))
    door.put("hanako", group_id=group.id)
    door.set_hub(max_sessions=7)
    answer = door.ask(by_hash())[0]
    assert (answer.error, answer.group, answer.policy, answer.max_sessions) == (0, "Sales", Policy(max_mac=9), 7)
    door.put("hanako", policy=Policy(no_server=True))
    assert door.ask(by_hash())[0].policy == Policy(no_server=True)
    assert door.ask(by_nothing("open"))[0].policy == DEFAULT


# -- every code of section 8.3, in its order ----------------------------------------------------------------------


def rule(door: Door, network: str, *, deny: bool, priority: int = 10) -> None:
    rules.add_source(door.database, door.hub, priority=priority, network=network, deny=deny)


@pytest.mark.parametrize(
    ("peer", "code"),
    [
        ("192.0.2.9:5555", Code.NONE),
        ("198.51.100.1:1", Code.IP_ADDRESS_DENIED),
        ("[::ffff:192.0.2.9]:5", Code.NONE),
        ("[::ffff:198.51.100.1]:5", Code.IP_ADDRESS_DENIED),
        ("2001:db8::7:5555", Code.IP_ADDRESS_DENIED),
        ("[2001:db8::7]:5555", Code.IP_ADDRESS_DENIED),
        ("[fe80::1%eth0]:5", Code.NONE),
        ("", Code.IP_ADDRESS_DENIED),
    ],
)
def test_source_rules_come_before_any_password(door: Door, peer: str, code: int) -> None:
    rule(door, "192.0.2.0/24", deny=False, priority=1)
    rule(door, "0.0.0.0/0", deny=True)
    rule(door, "2001:db8::/32", deny=True)
    assert door.code(by_hash(peer=peer)) == code
    assert door.code(by_nothing("open", peer=peer)) == code
    wrong = door.code(by_hash(password="wrong", peer=peer))
    assert wrong == (Code.AUTH_FAILED if code == Code.NONE else code)


def test_an_anonymous_user_is_let_in_whatever_is_shown_but_not_whatever_the_policy(door: Door) -> None:
    for asked in (by_nothing("open"), by_hash("open", "x"), by_plain("open", "x"), by_certificate("open")):
        assert door.code(asked) == Code.NONE
    door.put("open", policy=Policy(access=False))
    assert door.code(by_nothing("open")) == Code.ACCESS_DENIED


def test_who_is_denied_expired_or_over_the_quota_is_told_so_only_after_the_proof(door: Door) -> None:
    for fields in (
        {"policy": Policy(access=False)},
        {"policy": None, "expires_at": door.now},
        {"expires_at": 0.0, "quota_bytes": 10, "period_began_at": door.now, "period_bytes": 10},
    ):
        door.put("hanako", **fields)
        assert door.code(by_hash()) == Code.ACCESS_DENIED
        assert door.code(by_hash(password="wrong")) == Code.AUTH_FAILED
    door.put("hanako", expires_at=door.now + 1, period_bytes=9)
    assert door.code(by_hash()) == Code.NONE
    door.put("hanako", period_bytes=10)
    door.now += 30 * users.DAY_S  # the next period
    door.put("hanako", expires_at=0.0)
    assert door.code(by_hash()) == Code.NONE


def test_a_group_that_may_not_enter(door: Door) -> None:
    group = groups.create(door.database, door.hub, "Out", policy=Policy(access=False))
    door.put("hanako", group_id=group.id)
    assert door.code(by_hash()) == Code.ACCESS_DENIED


def test_an_empty_password_lets_nobody_in(door: Door) -> None:
    door.user("blank", sha0=hash_password("blank", ""))
    assert door.code(by_hash("blank", "")) == Code.NULL_PASSWORD_LOCAL_ONLY
    assert door.code(by_plain("blank", "")) == Code.NULL_PASSWORD_LOCAL_ONLY
    assert door.code(by_hash("blank", "x")) == Code.AUTH_FAILED


def test_the_hubs_own_administrator(door: Door) -> None:
    name = "Administrator"
    assert door.code(by_hash(name, "secret")) == Code.AUTH_FAILED
    hubs.put_administrator(
        door.database, door.hub, admin_hash=b"a" * 20, login_hash=hash_password("administrator", "of the hub")
    )
    answer = door.ask(by_hash(name, "of the hub"))[0]
    assert (answer.error, answer.user, answer.policy) == (0, "administrator", ADMINISTRATOR)
    assert door.code(by_plain(name, "of the hub")) == Code.NONE
    for wrong in (by_hash(name, "x"), by_plain(name, "x"), by_nothing(name), by_certificate(name)):
        assert door.code(wrong) == Code.AUTH_FAILED


# -- certificates -------------------------------------------------------------------------------------------------


def test_a_user_with_a_certificate(door: Door) -> None:
    door.put("hanako", kind="certificate", sha0=b"", certificate=der(HANAKO))
    assert door.code(by_certificate("hanako")) == Code.NONE
    assert door.code(by_certificate("hanako", certify(serial=7))) == Code.AUTH_FAILED
    assert door.code(by_certificate("hanako", by=key("CA"))) == Code.AUTH_FAILED
    for other in (by_hash(), by_plain("hanako", "secret"), by_nothing("hanako")):
        assert door.code(other) == Code.AUTH_FAILED
    authorities.revoke(door.database, door.hub, b"\x01\x02")
    assert door.code(by_certificate("hanako")) == Code.AUTH_FAILED


def test_a_user_with_any_certificate_of_an_authority(door: Door) -> None:
    door.put("hanako", kind="issued", sha0=b"", common_name="Hanako", serial=b"\x01\x02")
    assert door.code(by_certificate("hanako")) == Code.AUTH_FAILED
    authorities.add(door.database, door.hub, der(certify("CA", serial=1)))
    assert door.code(by_certificate("hanako")) == Code.NONE
    assert door.code(by_certificate("hanako", certify(serial=7))) == Code.AUTH_FAILED
    other = hubs.create(door.database, "other", subnet4="4", subnet6="6", now=1.0)
    elsewhere = users.create(door.database, other, "hanako", now=1.0)
    users.put(door.database, replace(elsewhere, kind="issued"), 1.0)
    asked = by_certificate("hanako")
    there = LoginAsked(7, "other", "hanako", 3, CHALLENGE, certificate=asked.certificate, signature=asked.signature)
    assert door.code(there) == Code.AUTH_FAILED  # another hub trusts nobody


def test_a_certificate_is_nothing_for_who_has_a_password(door: Door) -> None:
    authorities.add(door.database, door.hub, der(certify("CA", serial=1)))
    assert door.code(by_certificate("hanako")) == Code.AUTH_FAILED


# -- refusals say nothing -----------------------------------------------------------------------------------------


def test_a_wrong_proof_and_an_unknown_user_look_the_same(door: Door) -> None:
    door.put("hanako", policy=Policy(no_save_password=True))
    door.put("taro", policy=Policy(no_save_password=True))
    door.user("cert")
    door.put("cert", kind="certificate", certificate=der(HANAKO), policy=Policy(no_save_password=True))
    mallory = key("CA")
    pairs = [
        (by_hash("hanako", "x"), by_hash("nobody", "x")),
        (by_hash("cert", "x"), by_hash("nobody", "x")),
        (by_plain("taro", "x"), by_plain("nobody", "x")),
        (by_nothing("hanako"), by_nothing("nobody")),
        (by_certificate("cert", by=mallory), by_certificate("nobody", by=mallory)),
        (by_hash("hanako", "x", invite_token=TOKEN, invite_hash=b"h" * 20), None),
    ]
    for wrong, unknown in pairs:
        assert door.ask(wrong) == [LoginAnswered(7, error=Code.AUTH_FAILED)]
        if unknown is not None:
            assert door.ask(unknown) == [LoginAnswered(7, error=Code.AUTH_FAILED)]


@pytest.mark.parametrize("kind", ["hash", "plain", "certificate"])
def test_they_cost_the_same(door: Door, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work that takes time is done as often for a user who does not exist."""
    work: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*given: Any) -> Any:
            work.append(name)
            return function(*given)

        return call

    monkeypatch.setattr("ukihashi.auth.password.sha0", counted("sha0", hash_password.__globals__["sha0"]))
    monkeypatch.setattr(Hasher, "_check", counted("argon2", Hasher._check))
    from ukihashi.auth import certificate

    monkeypatch.setattr(certificate, "_vouches", counted("rsa", certificate._vouches))
    monkeypatch.setattr(certificate, "_is_signed", counted("rsa", certificate._is_signed))
    authorities.add(door.database, door.hub, der(certify("CA", serial=1)))
    door.user("cert")
    door.put("cert", kind="issued", common_name="x")
    asked: dict[str, Callable[[str], LoginAsked]] = {
        "hash": lambda name: by_hash(name, "x"),
        "plain": lambda name: by_plain(name, "x"),
        "certificate": by_certificate,
    }
    spent = []
    for name in ("hanako", "taro", "cert", "nobody"):
        question = asked[kind](name)
        work.clear()
        assert door.code(question) == Code.AUTH_FAILED
        spent.append(sorted(work))
    assert spent[0]
    assert spent == [spent[0]] * 4


def test_the_word_about_keeping_the_password_is_for_members(door: Door) -> None:
    door.put("hanako", policy=Policy(no_save_password=True, access=False))
    assert door.ask(by_hash())[0].no_save_password
    assert not door.ask(by_hash(password="wrong"))[0].no_save_password


# -- join links and what a user has become ------------------------------------------------------------------------


def test_a_join_link_of_one_who_has_a_certificate_now_is_refused(door: Door) -> None:
    guest = door.user("guest")
    invites.create(door.database, guest, token_digest(TOKEN), now=1.0, expires_at=door.now + 100)
    door.put("guest", kind="certificate", certificate=der(HANAKO))
    asked = by_hash("guest", "card", invite_token=TOKEN, invite_hash=hash_password("guest", "card"))
    assert door.code(asked) == Code.AUTH_FAILED
    assert users.get(door.database, door.hub, "guest").sha0 == b""


# -- a member's own new password ----------------------------------------------------------------------------------


def change(user: str = "hanako", old: str = "secret", new: str = "newer", **more: Any) -> PasswordAsked:
    return PasswordAsked(
        **{
            "ask": 8,
            "hub": "LAN",
            "user": user,
            "challenge": CHALLENGE,
            "secure_old": secure_password(hash_password(user, old), CHALLENGE),
            "new_hash": hash_password(user, new),
            "peer": "192.0.2.9:5555",
            **more,
        }
    )


def test_a_member_changes_the_password(door: Door) -> None:
    assert door.ask(change()) == [LoginAnswered(8)]
    assert door.code(by_hash()) == Code.AUTH_FAILED
    assert door.code(by_hash(password="newer")) == Code.NONE


def test_of_a_chosen_password_that_is_changed_nothing_is_left(door: Door) -> None:
    door.put("taro", sha0=hash_password("taro", "chosen"))
    assert door.code(change("taro", "chosen")) == Code.NONE
    assert door.code(by_plain("taro", "chosen")) == Code.AUTH_FAILED
    assert door.code(by_plain("taro", "newer")) == Code.NONE


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (change(hub="WAN"), Code.HUB_NOT_FOUND),
        (change(old="wrong"), Code.OLD_PASSWORD_WRONG),
        (change("nobody"), Code.OLD_PASSWORD_WRONG),
        (change("open"), Code.NOT_A_PASSWORD_USER),
        (change("taro", "chosen"), Code.NOT_ENOUGH_RIGHT),  # no standard hash is kept, none is taken (D10)
        (change("fixed"), Code.NOT_ENOUGH_RIGHT),
        (change("fixed", "wrong"), Code.OLD_PASSWORD_WRONG),
        (change(new=""), Code.NOT_ENOUGH_RIGHT),
        (change(new_hash=b"short"), Code.PROTOCOL_ERROR),
        (change(peer="198.51.100.1:1"), Code.IP_ADDRESS_DENIED),
    ],
)
def test_a_password_that_may_not_be_changed(
    door: Door, asked: PasswordAsked, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    door.user("fixed", sha0=hash_password("fixed", "secret"))
    door.put("fixed", policy=Policy(fix_password=True))
    rule(door, "198.51.100.0/24", deny=True)
    before = users.all_users(door.database, door.hub)
    assert door.code(asked) == code
    assert users.all_users(door.database, door.hub) == before
    assert "password_refused" in capsys.readouterr().out


def test_guessing_the_old_password_is_slowed_down(door: Door) -> None:
    door.ask(*[change(old="wrong")] * (FAILURES + 1))
    assert door.slept == [1.0]


def test_a_refusal_for_another_reason_is_no_guess(door: Door) -> None:
    door.set_hub(online=False)
    assert {answer.error for answer in door.ask(*[by_hash()] * (FAILURES + 1))} == {Code.HUB_STOPPING}
    assert door.slept == []
