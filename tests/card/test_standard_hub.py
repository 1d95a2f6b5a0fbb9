"""A whole card against a fake official hub: further connections, certificates, clusters, ends."""

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from tests.card.keys import Keys
from tests.card.whole import FRAME, arrived, config_for, kernel_side, online, received, run, until

from lab.standard_hub import StandardHub
from ukihashi.card import account, dialler
from ukihashi.card.dialler import Card
from ukihashi.config.card import Login, Standard, Times, Trust
from ukihashi.errors import NotTrusted, Refused, UsageError
from ukihashi.pki import ca
from ukihashi.wire.constants import Code
from ukihashi.wire.messages import ErrorAnswer, Redirect

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network", "own_places")]

PASSWORD = Login(password="wonderland")


@pytest.fixture
def hub(identity: ca.Identity) -> Iterator[StandardHub]:
    with StandardHub(identity.certificate, identity.key) as made:
        yield made


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "STANDARD_PAUSE_S", 0.5)


def with_connections(count: int) -> Any:
    return lambda row: online(row) and row["connections"] == count


async def crosses(hub: StandardHub, number: int) -> None:
    """Frames go both ways."""
    async with kernel_side("uklan") as raw:
        raw.send(FRAME + bytes([number]))
        while await arrived(hub) != FRAME + bytes([number]):
            pass
        await asyncio.to_thread(hub.send, [FRAME + b"back" + bytes([number])])
        while await received(raw) != FRAME + b"back" + bytes([number]):
            pass


def test_connections_are_added_lost_and_replaced(hub: StandardHub) -> None:
    hub.banner = "Welcome 仮想 HUB"

    async def scenario(card: Card) -> None:
        row = await until(with_connections(3), card)
        assert (row["max_connections"], row["directions"], row["logins"]) == (3, ["both"] * 3, 1)
        assert (row["banner"], row["product"], row["extension"]) == ("Welcome 仮想 HUB", "fake hub", 0)
        await crosses(hub, 1)
        hub.end(0, 1)
        await until(with_connections(1), card)
        await crosses(hub, 2)
        row = await until(with_connections(3), card)
        assert (row["logins"], row["reconnects"], row["state"]) == (1, 0, "online")
        resumes = len(hub.resumes)
        hub.end(reset=True)
        row = await until(lambda row: len(hub.resumes) >= resumes + 3 and row["connections"] == 3, card)
        assert row["logins"] == 1
        await crosses(hub, 3)

    run(config_for(hub, login=PASSWORD, standard=Standard(max_connections=3)), scenario)
    assert hub.goodbyes >= 3
    assert len(hub.logins) == 1


@pytest.mark.parametrize("compression", [False, True])
def test_half_duplex(hub: StandardHub, compression: bool) -> None:
    async def scenario(card: Card) -> None:
        row = await until(with_connections(4), card)
        assert row["directions"] == ["out", "in", "in", "out"]
        assert (row["half_duplex"], row["compression"]) == (True, compression)
        hub.end(0, 3)  # all that may send
        row = await until(lambda row: row["directions"] == ["in", "in", "out", "out"], card)
        async with kernel_side("uklan") as raw:
            raw.send(FRAME)
            assert await arrived(hub) == FRAME
            await asyncio.to_thread(hub.send, [FRAME + b"back"], 0)
            while await received(raw) != FRAME + b"back":
                pass
        assert row["logins"] == 1

    wanted = Standard(max_connections=4, half_duplex=True, compression=compression)
    run(config_for(hub, login=PASSWORD, standard=wanted), scenario)


def test_when_the_hub_no_longer_knows_the_session_it_is_left_for_a_new_one(hub: StandardHub) -> None:
    async def scenario(card: Card) -> None:
        await until(with_connections(2), card)
        hub.forgetful = True
        hub.end(1)
        row = await until(lambda row: row["logins"] == 2 and online(row), card)
        assert row["session"] == "SID-ALICE-2"
        hub.forgetful = False
        await until(with_connections(2), card)
        await crosses(hub, 1)

    run(config_for(hub, login=PASSWORD, standard=Standard(max_connections=2)), scenario)


def test_a_hub_with_another_certificate_in_the_midst_of_a_session_is_logged_in_to_afresh(
    hub: StandardHub, identity: ca.Identity, other_identity: ca.Identity
) -> None:
    """First a stranger, which the account's own trust refuses; then the right one."""

    async def scenario(card: Card) -> None:
        await until(online, card)
        await asyncio.to_thread(hub.close)
        with StandardHub(other_identity.certificate, other_identity.key, port=hub.port) as impostor:
            row = await until(lambda row: row["state"] == "refused", card)
            assert "fingerprint" in row["reason"]["text"]
            assert impostor.logins == []
            assert impostor.resumes == []
        with StandardHub(identity.certificate, identity.key, port=hub.port):
            row = await until(lambda row: online(row) and row["logins"] == 2, card)
            await card.leave()

    times = Times(refused=0.5, retry_most=0.5)
    run(config_for(hub, login=PASSWORD, times=times), scenario)


def test_a_certificate_logs_in_and_the_key_stays_with_the_dialler(hub: StandardHub, keys: Keys) -> None:
    hub.certificates["alice"] = keys.certificate

    async def scenario(card: Card) -> None:
        await until(online, card)
        await crosses(hub, 1)

    own = Login(method="certificate", certificate=str(keys.certificate_file), key=str(keys.key_file))
    run(config_for(hub, login=own), scenario)
    assert hub.logins[0].certificate == keys.certificate


def test_a_key_that_is_not_there_is_told_before_anybody_is_called(hub: StandardHub, keys: Keys) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)

    own = Login(method="certificate", certificate=str(keys.certificate_file), key=str(keys.certificate_file))
    with pytest.raises(UsageError, match="is no key"):
        run(config_for(hub, login=own), scenario)
    assert hub.logins == []


@pytest.fixture
def member(hub: StandardHub, other_identity: ca.Identity) -> Iterator[StandardHub]:
    """Of a cluster whose controller is `hub`."""
    with StandardHub(other_identity.certificate, other_identity.key, address="127.0.0.2") as made:
        made.tickets.add(bytes(range(20)))
        hub.redirect = Redirect(IPv4Address("127.0.0.2"), (made.port,), bytes(range(20)), made.certificate)
        yield made


@pytest.mark.parametrize("trust", ["pin", "first-use"])
def test_a_cluster(hub: StandardHub, member: StandardHub, trust: str) -> None:
    async def scenario(card: Card) -> None:
        row = await until(with_connections(2), card)
        assert row["peer"] == f"127.0.0.2:{member.port}"
        await crosses(member, 1)
        member.end()
        row = await until(lambda row: row["reconnects"] == 1 and row["connections"] == 2, card)
        assert (row["logins"], len(hub.logins)) == (1, 1)  # resumed at the member
        await crosses(member, 2)

    changes: dict[str, Any] = {} if trust == "pin" else {"trust": Trust()}
    run(config_for(hub, login=PASSWORD, standard=Standard(max_connections=2), **changes), scenario)
    assert hub.thanks == 1
    assert member.logins[0].secure_password == b""
    assert account.read("lan").pin == hub.pin


def test_an_impostor_in_a_members_place_gets_no_ticket(
    hub: StandardHub, member: StandardHub, identity: ca.Identity
) -> None:
    member.close()

    async def scenario(card: Card) -> None:
        await until(online, card)

    with (
        StandardHub(identity.certificate, identity.key, address="127.0.0.2", port=member.port) as impostor,
        pytest.raises(NotTrusted, match="another certificate than it must"),
    ):
        run(config_for(hub, login=PASSWORD), scenario)
    assert impostor.logins == []


def test_after_a_members_session_the_controller_is_asked_again(hub: StandardHub, member: StandardHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        member.forgetful = True
        member.tickets.add(bytes(range(20)))
        member.end()
        row = await until(lambda row: online(row) and row["logins"] == 2, card)
        assert row["peer"] == f"127.0.0.2:{member.port}"

    run(config_for(hub, login=PASSWORD), scenario)
    assert len(hub.logins) == 2


def test_a_session_granted_for_a_while_ends_and_stays_ended(hub: StandardHub) -> None:
    hub.policy = {"AutoDisconnect": 1}

    async def scenario(card: Card) -> None:
        await until(online, card)
        row = await until(lambda row: row["state"] == "refused", card)
        assert row["reason"]["code"] == Code.AUTO_DISCONNECTED
        await asyncio.sleep(1.5)
        assert (await card.status())[0]["logins"] == 1
        await card.reload()  # somebody has done something
        await until(lambda row: row["logins"] == 2 and online(row), card)

    run(config_for(hub, login=PASSWORD, times=Times(refused=0.5)), scenario)
    assert hub.goodbyes >= 1


@pytest.mark.parametrize("code", [Code.HUB_STOPPING, Code.HUB_IS_BUSY, Code.TOO_MANY_USER_SESSION, Code.LICENSE_ERROR])
def test_a_hub_that_has_no_room_is_asked_slowly(hub: StandardHub, code: Code) -> None:
    hub.error = ErrorAnswer(code)

    async def scenario(card: Card) -> None:
        row = await until(lambda row: row["state"] == "refused", card)
        assert row["reason"]["code"] == code
        hub.error = None
        row = await until(online, card)
        assert row["attempts"] == 2

    told = run(config_for(hub, login=PASSWORD, times=Times(refused=1.0)), scenario, keep_trying=True)
    assert isinstance(told[0], Refused)


def test_what_is_asked_of_a_hub_changes_with_the_next_connection(hub: StandardHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        account.edit("lan", {("standard", "max_connections"): 2, ("standard", "compression"): True})
        await card.reload()
        assert (await card.status())[0]["max_connections"] == 1
        hub.end()
        row = await until(with_connections(2), card)
        assert (row["logins"], row["compression"]) == (2, True)

    run(config_for(hub, login=PASSWORD), scenario)


def test_a_dead_data_process_costs_the_session_nothing_but_its_connections(hub: StandardHub) -> None:
    import os
    import signal

    async def scenario(card: Card) -> None:
        first = await until(with_connections(2), card)
        os.kill(first["data_pid"], signal.SIGKILL)
        row = await until(lambda row: row["data_pid"] not in {0, first["data_pid"]} and row["connections"] == 2, card)
        assert (row["session"], row["logins"], row["compression"]) == (first["session"], 1, True)
        await crosses(hub, 1)

    wanted = Standard(max_connections=2, compression=True)
    run(config_for(hub, login=PASSWORD, standard=wanted), scenario)


def test_plaintext_is_told(hub: StandardHub) -> None:
    hub.allow_plaintext = True

    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert (row["encrypted"], row["cipher"]) == (False, "")
        await crosses(hub, 1)

    run(config_for(hub, login=PASSWORD, standard=Standard(allow_plaintext=True)), scenario)


def test_bridge_and_monitor_are_asked_for(hub: StandardHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)

    run(config_for(hub, login=PASSWORD, standard=Standard(bridge=True, monitor=True)), scenario)
    assert (hub.logins[0].bridge_mode, hub.logins[0].monitor_mode, hub.logins[0].qos) == (True, True, False)


def test_a_card_may_be_the_administrator(hub: StandardHub) -> None:
    hub.passwords["administrator"] = "queen"

    async def scenario(card: Card) -> None:
        await until(online, card)

    config = config_for(hub, login=Login(password="queen"))
    config = msgspec.structs.replace(config, hub=msgspec.structs.replace(config.hub, user="administrator"))
    account.write("lan", config)
    run(config, scenario)
