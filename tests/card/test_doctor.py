"""Every path explained, against a fake hub and small fakes of proxies on loopback."""

import asyncio
import contextlib
import datetime as dt
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.card.proxy import Proxy
from tests.net.dial.fakes import SECRET, USER, Fake, nothing_leaks, standing

from lab.fake_hub import FakeHub
from ukihashi.card.doctor import Finding, examine, exit_status
from ukihashi.card.path_sources import Candidate
from ukihashi.config.card import CardConfig, Hub, Interface, Login, PathToHub, Route, Trust
from ukihashi.errors import DialError, EnvironmentLacks, NotTrusted, UkihashiError, UsageError
from ukihashi.net.dial.via import DIRECT, Kind, Via, parse
from ukihashi.pki import ca

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin"
PASSWORD = "wonderland"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    return ca.load_or_make(tmp_path_factory.mktemp("hub"), name="hub.example", now=dt.datetime.now(dt.UTC))


@pytest.fixture
def hub(identity: ca.Identity) -> Iterator[FakeHub]:
    with FakeHub(identity.certificate, identity.key) as made:
        yield made
        assert made.logins == []
        assert made.resumes == []


def account(hub: FakeHub, pin: bytes | None = None) -> CardConfig:
    return CardConfig(
        hub=Hub(host=hub.address, port=hub.port, hub="LAN", user="alice"),
        trust=Trust(mode="pin", pin=(hub.pin if pin is None else pin).hex()),
        login=Login(method="plain", password=PASSWORD, invite="t" * 22),
        interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
    )


def candidate(via: Via | str, secret: str | None = None, source: str = "link") -> Candidate:
    return Candidate(parse(via) if isinstance(via, str) else via, secret, source)


def look(config: CardConfig, *found: Candidate, seconds: float = 10.0) -> list[Finding]:
    return asyncio.run(examine(config, found, deadline=seconds))


@contextlib.asynccontextmanager
async def proxies(*fakes: Fake) -> AsyncIterator[list[str]]:
    """Their URLs."""
    async with contextlib.AsyncExitStack() as stack:
        yield [f"{fake.kind.value}://127.0.0.1:{await stack.enter_async_context(standing(fake))}" for fake in fakes]


def look_over(
    config: CardConfig, fakes: Sequence[Fake], *, user: str = "", secret: str | None = None, direct: bool = False
) -> list[Finding]:
    async def work() -> list[Finding]:
        async with proxies(*fakes) as urls:
            found = [candidate(url.replace("//", f"//{user}@") if user else url, secret) for url in urls]
            if direct:
                found.insert(0, candidate(DIRECT, source="direct"))
            return await examine(config, found, deadline=2.0)

    return asyncio.run(work())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# -- what works ----------------------------------------------------------------------------------------------------


def test_a_path_works_when_the_right_key_has_said_hello_and_nothing_else_is_said(hub: FakeHub) -> None:
    with nothing_leaks():
        (finding,) = look(account(hub), candidate(DIRECT, source="direct"))
    assert (finding.works, finding.kind, finding.error) == (True, "works", None)
    assert finding.pin == hub.pin
    assert finding.peer == f"127.0.0.1:{hub.port}"
    assert 0 <= finding.seconds < 10
    assert exit_status([finding]) == 0


@pytest.mark.parametrize("kind", [Kind.HTTP, Kind.SOCKS5, Kind.SOCKS5H, Kind.SOCKS4])
def test_proxies_that_lead_there(hub: FakeHub, kind: Kind) -> None:
    proxy = Proxy(kind)
    (finding,) = look_over(account(hub), [proxy])
    assert (finding.works, finding.pin) == (True, hub.pin)
    assert proxy.asked == [("127.0.0.1", hub.port)]
    assert finding.peer == f"127.0.0.1:{finding.candidate.via.port}"


def test_a_hub_whose_key_nobody_knows_yet_shows_it(hub: FakeHub) -> None:
    config = msgspec.structs.replace(account(hub), trust=Trust())
    (finding,) = look(config, candidate(DIRECT))
    assert (finding.works, finding.pin) == (True, hub.pin)


def test_an_account_that_logs_in_by_certificate_needs_no_key_file_here(hub: FakeHub) -> None:
    login = Login(method="certificate", certificate="/nowhere.pem", key="/nowhere.key")
    assert look(msgspec.structs.replace(account(hub), login=login), candidate(DIRECT))[0].works


def test_the_mark_of_a_card_that_is_up_is_used_where_it_may_be(hub: FakeHub) -> None:
    interface = Interface(name="uklan", mac="02:00:00:00:00:01", routes=[Route(to="default")])
    assert look(msgspec.structs.replace(account(hub), interface=interface), candidate(DIRECT))[0].works


# -- what does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fake", "secret", "kind", "words"),
    [
        (Proxy(Kind.HTTP, answer=PAGE), None, "captive-portal", "open any http:// page in a browser"),
        (
            Proxy(Kind.HTTP, answer=b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
            None,
            "forbidden",
            "ask its administrator to allow that port",
        ),
        (Proxy(Kind.HTTP, scheme="basic"), None, "credentials-wanted", "ask its administrator for them"),
        (Proxy(Kind.HTTP, scheme="basic"), "wrong", "credentials-refused", "did not take the user's name"),
        (Proxy(Kind.SOCKS5, scheme="password"), "wrong", "credentials-refused", "password"),
        (Proxy(Kind.HTTP, silent=True), None, "proxy-silent", "within 2 s"),
        (Proxy(Kind.HTTP, answer=b"SSH-2.0-x\r\n"), None, "not-a-proxy", ""),
        (Proxy(Kind.SOCKS5, answer=b"HTTP/1.1 400 Bad\r\n\r\n"), None, "not-a-proxy", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_path_refuses_and_what_to_ask_for(
    hub: FakeHub, fake: Proxy, secret: str | None, kind: str, words: str
) -> None:
    with nothing_leaks():
        (finding,) = look_over(account(hub), [fake], user=USER, secret=secret)
    assert (finding.works, finding.kind) == (False, kind)
    assert words in str(finding.error)
    assert exit_status([finding]) == DialError.exit_status
    assert PASSWORD not in str(finding)


def test_a_password_opens_the_way_and_is_shown_nowhere(hub: FakeHub) -> None:
    (finding,) = look_over(account(hub), [Proxy(Kind.HTTP, scheme="basic")], user=USER, secret=SECRET)
    assert finding.works
    assert SECRET not in repr(finding)


def test_nobody_at_the_proxy_and_nobody_at_the_hub(hub: FakeHub) -> None:
    nobody = free_port()
    (gone,) = look(account(hub), candidate(f"http://127.0.0.1:{nobody}"))
    assert gone.kind == "proxy-unreachable"
    assert "itself failed: Connection refused;" in str(gone.error)
    config = msgspec.structs.replace(account(hub), hub=Hub(host="127.0.0.1", port=nobody, hub="LAN", user="alice"))
    direct, proxied = look_over(config, [Proxy(Kind.SOCKS5)], direct=True)
    assert direct.kind == "no-connection"
    assert "no hub listens there" in str(direct.error)
    assert proxied.kind == "target-refused"


def test_somebody_else_s_key_outweighs_everything(hub: FakeHub) -> None:
    wrong = look_over(account(hub, bytes(32)), [Proxy(Kind.HTTP), Proxy(Kind.HTTP, answer=PAGE)])
    assert [finding.kind for finding in wrong] == ["other-key", "captive-portal"]
    assert "another key" in str(wrong[0].error)
    assert exit_status(wrong) == NotTrusted.exit_status


@pytest.mark.parametrize("what", ["page", "deaf", "plain"])
def test_what_answers_there_is_no_hub(hub: FakeHub, what: str) -> None:
    config = account(hub)
    if what == "page":
        hub.page = (200, b"hello")
    hub.deaf = what == "deaf"
    if what != "plain":
        (finding,) = look(config, candidate(DIRECT), seconds=1.0)
    else:

        async def work() -> list[Finding]:
            async with standing(Fake(Kind.HTTP, answer=PAGE)) as port:
                elsewhere = msgspec.structs.replace(config, hub=Hub(host="127.0.0.1", port=port, hub="LAN", user="a"))
                return await examine(elsewhere, [candidate(DIRECT)], deadline=5.0)

        (finding,) = asyncio.run(work())
    assert finding.kind == "no-hub"
    assert {"page": "not a hub", "deaf": "did not speak TLS within 1 s", "plain": "plain HTTP"}[what] in str(
        finding.error
    )


def test_who_closed_a_tunnel_is_told_if_another_path_gets_there(hub: FakeHub) -> None:
    closing = Proxy(Kind.HTTP)
    closing.hangs_up = True
    (alone,) = look_over(account(hub), [closing])
    assert alone.kind == "tunnel-closed"
    assert "whether anything listens there" in str(alone.error)
    direct, beside = look_over(account(hub), [closing], direct=True)
    assert direct.works
    assert beside.kind == "tunnel-closed"
    assert "though the hub answers over direct:" in str(beside.error)
    assert exit_status([direct, beside]) == 0


def test_all_are_tried_at_once(hub: FakeHub) -> None:
    silent = [Proxy(Kind.HTTP, silent=True) for _ in range(8)]
    findings = look_over(account(hub), silent, direct=True)
    assert [finding.works for finding in findings] == [True] + [False] * 8
    assert all(fake.connections == 1 for fake in silent)
    assert max(finding.seconds for finding in findings) < 2 * 8  # one after another it would be that at least


def test_what_this_machine_lacks_is_told_of_the_path_that_needs_it(hub: FakeHub, tmp_path: Path) -> None:
    config = msgspec.structs.replace(account(hub), path=PathToHub(authorities=str(tmp_path / "none.pem")))

    async def work() -> list[Finding]:
        async with proxies(Proxy(Kind.HTTP)) as (url,):
            return await examine(config, [candidate(url.replace("http:", "https:")), candidate(DIRECT)])

    lacking, direct = asyncio.run(work())
    assert (lacking.kind, direct.works) == ("lacking", True)
    assert exit_status([lacking]) == EnvironmentLacks.exit_status


def test_an_account_that_can_t_be_used_at_all_is_an_error(hub: FakeHub) -> None:
    trust = Trust(mode="ca", ca_file="/nowhere.pem")
    with pytest.raises(EnvironmentLacks):
        look(msgspec.structs.replace(account(hub), trust=trust), candidate(DIRECT))


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ([None, NotTrusted("x")], 0),
        ([DialError("x"), NotTrusted("x")], 6),
        ([DialError("x"), EnvironmentLacks("x")], 7),
        ([EnvironmentLacks("x"), EnvironmentLacks("x")], 3),
        ([UsageError("x")], 2),
    ],
)
def test_what_a_command_ends_with(errors: list[UkihashiError | None], status: int) -> None:
    assert exit_status([Finding(candidate(DIRECT), "", 0.0, error) for error in errors]) == status
