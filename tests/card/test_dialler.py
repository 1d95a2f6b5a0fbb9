"""A whole card (both processes, a real TAP) against a fake hub, in a network of the test's own."""

import asyncio
import os
import random
import signal
import socket
from pathlib import Path

import msgspec
import pytest
from tests.card.whole import FRAME, arrived, config_for, kernel_side, online, received, run, until
from tests.ether.super_frames import Packet

from lab.fake_hub import FakeHub
from ukihashi.auth.password import hash_password
from ukihashi.card import account
from ukihashi.card.control import client, is_up, listener
from ukihashi.card.dialler import Card
from ukihashi.card.link import fingerprint
from ukihashi.config import places
from ukihashi.config.card import CardConfig, Connection, Route, Times, Trust
from ukihashi.errors import DialError, EnvironmentLacks, NotTrusted, Refused, UsageError
from ukihashi.ether.offload import ALL, Kind, SuperFrame, flaw
from ukihashi.net import congestion
from ukihashi.pki import ca
from ukihashi.tap import device, netlink
from ukihashi.wire.constants import Code
from ukihashi.wire.messages import ErrorAnswer

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network", "own_places")]


def test_a_card_joins_carries_frames_and_leaves_nothing_behind(hub: FakeHub) -> None:
    config = config_for(hub)

    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert row["session"] == "SID-ALICE-1"
        assert row["extension"] == 1
        assert sorted(await asyncio.to_thread(netlink.addresses, "uklan")) == ["10.9.0.2/24", "fd09::2/64"]
        assert await asyncio.to_thread(netlink.mac_of, "uklan") == config.mac
        async with kernel_side("uklan") as raw:
            raw.send(FRAME)
            assert await arrived(hub) == FRAME
            await asyncio.to_thread(hub.send, [FRAME + b"back"])
            while True:
                if (frame := await received(raw)) == FRAME + b"back":
                    break
                assert frame == FRAME  # our own, seen on its way out
        row = (await card.status())[0]
        assert row["frames_in"] >= 1
        assert row["frames_out"] >= 1
        assert row["frames_per_tls_write"] >= 1
        assert row["dropped_toward_kernel"] == 0

    assert run(config, scenario) == [None]
    assert not netlink.exists("uklan")
    assert not places.card_socket("lan").exists()
    assert hub.goodbyes == 1


def test_the_congestion_control_of_the_account_is_used_and_shown_and_one_that_is_not_there_named(hub: FakeHub) -> None:
    config = config_for(hub, connection=Connection(congestion="reno"))

    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert (row["congestion"], row["congestion_lacks"]) == ("reno", None)
        own = congestion.SETTINGS.joinpath("tcp_congestion_control").read_text().strip()
        account.edit("lan", {("connection", "congestion"): "nosuch"})
        assert (await card.reload())[0]["effect"] == "next connection"
        await asyncio.to_thread(hub.cut)
        row = await until(lambda row: online(row) and row["reconnects"] == 1, card)
        assert row["congestion"] == own  # it goes on without
        assert "“nosuch” now; it has" in row["congestion_lacks"]["text"]

    assert run(config, scenario) == [None]


def test_super_frames_are_offered_and_an_account_without_them_logs_in_afresh(hub: FakeHub) -> None:
    hub.grace_s, hub.super_frames = 300, Kind.CHECKSUM | Kind.TSO4

    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert (row["offload"], row["super_frames_out"], row["super_frames_in"]) == ("checksum, TSO4", 0, 0)
        assert row["ledger"]["dropped"]["offload_header"] == 0
        account.edit("lan", {("interface", "offload"): False})
        assert (await card.reload())[0]["effect"] == "next connection"
        assert (await card.status())[0]["offload"] == "checksum, TSO4"
        await asyncio.to_thread(hub.cut)
        row = await until(lambda row: online(row) and row["logins"] == 2, card)
        assert row["offload"] == "off: option"

    assert run(config_for(hub), scenario) == [None]
    offered = [login.super_frames for login in hub.logins]
    assert offered[0] & (Kind.CHECKSUM | Kind.TSO4 | Kind.TSO6) == Kind.CHECKSUM | Kind.TSO4 | Kind.TSO6
    assert offered[1:] == [0]


def test_a_hubs_unfit_offload_headers_never_reach_the_kernel(hub: FakeHub) -> None:
    hub.grace_s, hub.super_frames = 300, ALL
    rng = random.Random(1)
    long, short = Packet(data=bytes(30_000), each=1000).unfinished(), Packet().unfinished()
    unfit: list[bytes] = []
    while len(unfit) < 300:
        frame = bytearray(rng.choice((long, short)))
        for _ in range(rng.randint(1, 4)):
            frame[-rng.randint(1, 10)] = rng.randrange(256)
        if flaw(SuperFrame(frame), ALL):
            unfit.append(SuperFrame(frame))

    async def scenario(card: Card) -> None:
        await until(online, card)
        async with kernel_side("uklan") as raw:
            await asyncio.to_thread(hub.send, [*unfit, FRAME, *unfit])
            assert await received(raw) == FRAME
            row = await until(lambda row: row["dropped_offload_header"] == 2 * len(unfit), card)
        assert row["ledger"]["dropped"]["offload_header"] == 2 * len(unfit)
        assert (row["dropped_toward_kernel"], row["frames_in"], row["state"]) == (0, 1, "online")

    assert run(config_for(hub), scenario) == [None]


def test_a_kernel_that_can_give_no_super_frames_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.grace_s, hub.super_frames = 300, ALL
    monkeypatch.setattr(device, "_has_offload", lambda _fd: False)

    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert row["offload"] == "off: kernel"
        async with kernel_side("uklan") as raw:
            raw.send(FRAME)
            assert await arrived(hub) == FRAME

    assert run(config_for(hub), scenario) == [None]
    assert hub.logins[-1].super_frames == 0


def test_the_data_process_has_no_rights(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        row = await until(online, card)
        status = Path(f"/proc/{row['data_pid']}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split()
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == int(fields["CapAmb"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        assert fields["Groups"].strip() == ""

    run(config_for(hub), scenario)


def test_after_the_first_login_the_invitation_is_forgotten(hub: FakeHub) -> None:
    config = config_for(hub)
    assert config.login.invite

    async def scenario(card: Card) -> None:
        await until(online, card)

    run(config, scenario)
    assert account.read("lan").login.invite == ""
    assert hub.hashes["alice"] == hash_password("alice", config.login.password)
    run(account.read("lan"), scenario)  # with its own password now
    assert hub.logins[-1].invite_token == ""


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_session_is_resumed_at_once_with_interface_and_routes_untouched(hub: FakeHub, reset: bool) -> None:
    made = config_for(hub)
    interface = msgspec.structs.replace(made.interface, routes=[Route(to="10.10.0.0/16", via="10.9.0.1")])
    config = msgspec.structs.replace(made, interface=interface)

    async def scenario(card: Card) -> None:
        await until(online, card)
        index = socket.if_nametoindex("uklan")
        await asyncio.to_thread(hub.cut, reset=reset)
        row = await until(lambda row: row["reconnects"] == 1 and online(row), card)
        assert row["session"] == "SID-ALICE-1"
        assert row["logins"] == 1
        assert socket.if_nametoindex("uklan") == index
        assert "10.9.0.2/24" in await asyncio.to_thread(netlink.addresses, "uklan")
        assert "00000A0A" in Path("/proc/thread-self/net/route").read_text()  # 10.10.0.0, as this file has it
        async with kernel_side("uklan") as raw:
            raw.send(FRAME)
            assert await arrived(hub) == FRAME

    run(config, scenario)
    assert len(hub.resumes) == 1


def test_a_hub_that_forgot_the_session_gets_a_fresh_login(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        hub.forgetful = True
        await asyncio.to_thread(hub.cut)
        row = await until(lambda row: row["logins"] == 2 and online(row), card)
        assert row["session"] == "SID-ALICE-2"

    run(config_for(hub), scenario)


def test_a_hub_that_comes_back_later_is_found_again(hub: FakeHub, identity: ca.Identity) -> None:
    config = config_for(hub, times=Times(retry_most=1.0))

    async def scenario(card: Card) -> None:
        await until(online, card)
        await asyncio.to_thread(hub.close)
        row = await until(lambda row: row["state"] == "reconnecting" and row["attempts"] >= 3, card)
        assert "refused the connection" in row["reason"]["text"]
        assert netlink.exists("uklan")
        with FakeHub(identity.certificate, identity.key, port=hub.port) as again:
            again.hashes, again.invites = hub.hashes, hub.invites
            await until(online, card)
            await card.leave()

    run(config, scenario)


def test_silence_longer_than_agreed_starts_a_reconnection(hub: FakeHub) -> None:
    config = config_for(hub, times=Times(keepalive=1.0, dead=3.0))

    async def scenario(card: Card) -> None:
        await until(online, card)
        row = await until(lambda row: row["reconnects"] >= 1 and online(row), card)
        assert row["logins"] == 1

    run(config, scenario)


def test_first_use_stores_the_key_and_holds_to_it(hub: FakeHub, other_identity: ca.Identity) -> None:
    config = config_for(hub, trust=Trust())

    async def scenario(card: Card) -> None:
        await until(online, card)

    run(config, scenario)
    known = account.read("lan")
    assert known.pin == hub.pin
    hub.close()
    with (
        FakeHub(other_identity.certificate, other_identity.key, port=hub.port) as impostor,
        pytest.raises(NotTrusted, match=fingerprint(hub.pin)),
    ):
        run(known, scenario)
    assert impostor.logins == []
    assert not netlink.exists("uklan")


def test_the_first_refusal_ends_the_card(hub: FakeHub) -> None:
    hub.error = ErrorAnswer(Code.AUTH_FAILED)

    async def scenario(card: Card) -> None:
        await until(online, card)

    with pytest.raises(Refused, match="used already or has expired"):
        run(config_for(hub), scenario)
    assert not netlink.exists("uklan")
    assert not places.card_socket("lan").exists()


def test_a_card_that_shall_keep_trying_shows_why_it_waits(hub: FakeHub) -> None:
    hub.error = ErrorAnswer(Code.HUB_STOPPING)

    async def scenario(card: Card) -> None:
        row = await until(lambda row: row["state"] == "refused", card)
        assert "offline" in row["reason"]["text"]
        assert row["attempts"] == 1

    told = run(config_for(hub), scenario, keep_trying=True)
    assert isinstance(told[0], Refused)


def test_nobody_there_is_told_with_the_address(hub: FakeHub) -> None:
    config = config_for(hub)
    hub.close()

    async def scenario(card: Card) -> None:
        await until(online, card)

    with pytest.raises(DialError, match=f"127.0.0.1:{hub.port} refused"):
        run(config, scenario)


def test_a_dead_data_process_is_replaced_and_the_session_goes_on(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        first = await until(online, card)
        os.kill(first["data_pid"], signal.SIGKILL)
        row = await until(lambda row: row["data_pid"] not in (0, first["data_pid"]) and online(row), card)
        assert row["session"] == first["session"]

    run(config_for(hub), scenario)


def test_an_interface_removed_by_hand_ends_the_card_with_a_sentence(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        await asyncio.to_thread(netlink.remove_interface, "uklan")
        await asyncio.sleep(30)

    with pytest.raises(EnvironmentLacks, match="can no longer be used"):
        run(config_for(hub), scenario)


def test_one_card_an_account(hub: FakeHub) -> None:
    config = config_for(hub)

    async def scenario(card: Card) -> None:
        await until(online, card)
        assert await asyncio.to_thread(is_up, "lan")
        row = (await asyncio.to_thread(client("lan").ask, "status"))[0]
        assert row["state"] == "online"
        with pytest.raises(UsageError, match="up already"):
            await asyncio.to_thread(_start_another, config)
        await asyncio.to_thread(client("lan").ask, "leave")
        await asyncio.sleep(30)  # the card's end ends the scenario

    run(config, scenario)
    assert not netlink.exists("uklan")


def _start_another(config: CardConfig) -> None:
    with listener(places.card_socket("lan"), "lan"):
        pass


def test_a_taken_interface_is_told(hub: FakeHub) -> None:
    config = config_for(hub)

    async def scenario(card: Card) -> None:
        await until(online, card)

    named = msgspec.structs.replace(config, interface=msgspec.structs.replace(config.interface, name="lo"))
    with pytest.raises(EnvironmentLacks, match="lo exists already"):
        run(named, scenario)


def test_a_stale_socket_of_a_killed_card_is_no_obstacle(hub: FakeHub) -> None:
    path = places.card_socket("lan")
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def scenario(card: Card) -> None:
        await until(online, card)

    run(config_for(hub), scenario)
    assert not path.exists()
