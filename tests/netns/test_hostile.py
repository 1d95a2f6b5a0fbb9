"""Strangers who send junk at every stage, hold connections open or guess passwords keep no real client out."""

import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, Self

import pytest

from lab import peers
from lab.net import Host, LabError, Net
from lab.plain import Opening, Plain
from lab.ukihashi import HUB, Hub
from lab.wait import TimeOver, until
from ukihashi.errors import Refused, UkihashiError
from ukihashi.wire.constants import MAX_BLOCK, MAX_KEEPALIVE, MAX_REQUEST_PACK, Code
from ukihashi.wire.http import pack_request, read_pack, signature_request
from ukihashi.wire.messages import AdditionalConnect, Login
from ukihashi.wire.pack import Pack

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnclient", "vpncmd")]

HALF_OPEN: Final = 300
JOIN_S: Final = 20.0
BROKEN: Final = ("Traceback (most recent call last)", "internal_error")
CLIENT_HELLO: Final = bytes.fromhex("16030102000100") + bytes(40)  # the beginning of one
SEED: Final = 4

Stage = Callable[["Target", random.Random], None]


class Target:
    """The hub as a stranger on `host` sees it."""

    def __init__(self, host: Host, address: str) -> None:
        self.host, self.address = host, address

    def dial(self, *, tls: bool = True) -> Opening:
        return Opening(self.host, self.address, 443, tls=tls)

    def member(self) -> Plain:
        return Plain(self.host, self.address, hub=HUB, user="visitor")


# -- junk, a function for each stage ----------------------------------------------------------------------------------


def junk_instead_of_tls(target: Target, chance: random.Random) -> None:
    with target.dial(tls=False) as link:
        link.raw(chance.choice([chance.randbytes(300), b"SSH-2.0-x\r\n", b"GET / HTTP/1.0\r\n\r\n", CLIENT_HELLO]))


def junk_instead_of_http(target: Target, chance: random.Random) -> None:
    with target.dial() as link:
        link.write(
            chance.choice([chance.randbytes(3000), b"\r\n" * 3000, b"GET " + b"a" * 20_000, b"POST / HTTP/9.9\r\n\r\n"])
        )


def junk_instead_of_the_signature(target: Target, chance: random.Random) -> None:
    with target.dial() as link:
        body = chance.choice(
            [b"VPNCONNECX", chance.randbytes(10), b"GIF89a" + chance.randbytes(2000), b"", bytes(5000)]
        )
        headers = [("Content-Type", "image/jpeg")]
        with suppress(LabError, UkihashiError):
            link.exchange(link.http.request("POST", "/vpnsvc/connect.cgi", headers, body))


def junk_instead_of_a_pack(target: Target, chance: random.Random) -> None:
    with target.dial() as link:
        link.hello()
        good = Login(HUB, "visitor", 0).to_pack(b"").encode()
        cut = good[: chance.randrange(1, len(good))]
        twice = good[4:]  # each element once more: duplicates spoil a PACK
        body = chance.choice([chance.randbytes(400), cut, b"\xff" * 200, b"\0\0\0\x40" + twice + twice])
        headers = [("Content-Type", "application/octet-stream")]
        with suppress(LabError, UkihashiError):
            link.exchange(link.http.request("POST", "/vpnsvc/vpn.cgi", headers, body))


def a_pack_above_the_limit(target: Target, chance: random.Random) -> None:
    pack = Login(HUB, "visitor", 0).to_pack(b"")
    pack.add_data("more", bytes(chance.choice([MAX_REQUEST_PACK, 4 * MAX_REQUEST_PACK])))
    with target.dial() as link:
        link.hello()
        try:
            answer = read_pack(link.exchange(pack_request(link.http, pack)))
        except (LabError, UkihashiError):
            return
        assert answer is None or answer.get_int("error") == Code.DISCONNECTED


def a_method_that_is_none(target: Target, chance: random.Random) -> None:
    pack = Pack()
    pack.add_str("method", chance.choice(["dance", "farm_connect", "x" * 200]))
    with target.dial() as link:
        link.hello()
        assert link.pack(pack).get_int("error") == Code.PROTOCOL_ERROR


def refusal(target: Target, login: Login) -> int:
    """The code that the hub answers; 0: it lets in."""
    with target.dial() as link:
        link.hello()
        try:
            link.login(login)
        except Refused as refused:
            return refused.code
    return 0


def a_login_of_the_servers_own_kind(target: Target, chance: random.Random) -> None:
    login = Login(HUB, chance.choice(["visitor", "taro", "nobody"]), chance.choice([96, 97, 98]))
    assert refusal(target, login) == Code.AUTHTYPE_NOT_SUPPORTED


def a_certificate_that_is_none(target: Target, chance: random.Random) -> None:
    login = Login(HUB, "taro", 3, certificate=chance.randbytes(900), signature=chance.randbytes(256))
    assert refusal(target, login) == Code.AUTH_FAILED


def another_connection_for_nobody(target: Target, chance: random.Random) -> None:
    with target.dial() as link:
        link.hello()
        answer = link.pack(AdditionalConnect(chance.randbytes(20)).to_pack(b""))
        assert answer.get_int("error") == Code.SESSION_TIMEOUT


def junk_instead_of_frames(target: Target, chance: random.Random) -> None:
    with target.member() as member:
        member.say(
            chance.choice(
                [
                    chance.randbytes(5000),
                    b"\0\0\0\x01" + (MAX_BLOCK + 1).to_bytes(4, "big"),
                    b"\xff\xff\xff\xff" + (MAX_KEEPALIVE + 1).to_bytes(4, "big"),
                    b"\xff\xff\xff\xfe" + bytes(4000),
                    b"\0\0\0\x02" + b"\0\0\0\x0d" + bytes(13) + b"\0\0\x06\x41" + bytes(1601),
                ]
            )
        )
        member.pump()


STAGES: Final[tuple[Stage, ...]] = (
    junk_instead_of_tls,
    junk_instead_of_http,
    junk_instead_of_the_signature,
    junk_instead_of_a_pack,
    a_pack_above_the_limit,
    a_method_that_is_none,
    a_login_of_the_servers_own_kind,
    a_certificate_that_is_none,
    another_connection_for_nobody,
    junk_instead_of_frames,
)


# -- the others -------------------------------------------------------------------------------------------------------


def guess(target: Target, chance: random.Random) -> None:
    """A wrong password: as hash for a generated one, in the clear for a chosen one (which costs the hub argon2)."""
    if chance.random() < 0.5:
        login = Login(HUB, "taro", 1, secure_password=chance.randbytes(20))
    else:
        login = Login(HUB, "chosen", 2, plain_password=secrets.token_hex(8))
    assert refusal(target, login) == Code.AUTH_FAILED


@contextmanager
def half_open(target: Target) -> Iterator[None]:
    """Connections that stand still: before TLS, in the middle of its hello, in the middle of a request."""
    with ExitStack() as stack:
        for number in range(HALF_OPEN):
            kind = number % 3
            link = stack.enter_context(target.dial(tls=kind == 2))
            if kind == 1:
                link.raw(CLIENT_HELLO)
            elif kind == 2:
                link.write(signature_request(link.http)[:40])
        yield


class Attack:
    """Work done again and again in a thread, from the beginning of the block to its end."""

    def __init__(self, target: Target, works: tuple[Stage, ...], seed: int) -> None:
        self.done = dict.fromkeys((work.__name__ for work in works), 0)
        self.failed: list[str] = []
        self._target, self._works, self._chance = target, works, random.Random(seed)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        while not self._end.is_set():
            for work in self._works:
                try:
                    work(self._target, self._chance)
                    self.done[work.__name__] += 1
                except Exception as error:  # noqa: BLE001 - told at the end, whatever it is
                    self.failed.append(f"{work.__name__}: {type(error).__name__} {error}")


def test_real_clients_get_in_whatever_strangers_do(net: Net) -> None:
    machine, person, stranger = net.lan("hub", "person", "stranger")
    hub = Hub(machine)
    hub.configure({"session_timeout_s": 5.0})
    hub.start()
    password = hub.tell("user_create", name="taro", hub=HUB)[0]["password"]
    hub.tell("user_create", name="chosen", hub=HUB, password="correct horse battery staple")
    hub.tell("user_create", name="visitor", hub=HUB, anonymous=True)
    inside = ".".join([*hub.tell("list")[0]["subnet4"].split(".")[:3], "{}"])
    client = peers.Client(person)
    client.start()
    login = {"server": machine.ipv4, "port": 443, "hub": HUB, "user": "taro", "password": password}
    client.create_account("v", cidrs=[inside.format("200/24")], **login)
    target = Target(stranger, machine.ipv4)
    before = hub.tell("status")[0]["worker"]["pid"]

    def gets_in() -> None:
        client.connect("v", seconds=JOIN_S)
        person.pings(inside.format(1), seconds=10)
        client.disconnect("v")

    with Attack(target, STAGES, SEED) as junk:
        gets_in()
        until(lambda: min(junk.done.values()) >= 3 or junk.failed, seconds=30, what="junk at every stage")
    print(junk.done)
    assert junk.failed == []
    with half_open(target):
        gets_in()
    with Attack(target, (guess,), SEED) as first, Attack(target, (guess,), SEED + 1) as second:
        gets_in()
    print(first.done, second.done)
    assert first.failed == second.failed == []
    assert first.done["guess"] + second.done["guess"] > 0
    assert hub.tell("status")[0]["worker"]["pid"] == before
    with suppress(TimeOver):
        until(lambda: not hub.sessions(), seconds=25, what="no session being left", step_s=0.5)
    assert hub.sessions() == []
    assert [line for line in hub.log().splitlines() if any(words in line for words in BROKEN)] == []
