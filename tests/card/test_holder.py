"""A whole card in a session that can be resumed exactly, against a fake hub; times divided by ten where they count."""

import asyncio
import os
import signal
import subprocess
from typing import Any

import msgspec
import pytest
from tests.card.whole import FRAME, arrived, config_for, kernel_side, online, received, run, until

from lab.fake_hub import FakeHub
from ukihashi.card import account
from ukihashi.card.control import client
from ukihashi.card.dialler import Card
from ukihashi.config.card import Login, Times
from ukihashi.pki import ca
from ukihashi.wire.extension import PeerOptions, Reason

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network", "own_places")]

CALM = Times(suspect=60.0, dead=60.0, redial=0.2)
QUICK = Times(keepalive=0.5, suspect=1.0, dead=60.0, redial=0.2)


@pytest.fixture
def hub(hub: FakeHub) -> FakeHub:
    hub.grace_s = 300
    return hub


def resumed(times: int) -> Any:
    return lambda row: online(row) and row["resumes"] == times


@pytest.mark.parametrize("reset", [False, True])
def test_frames_of_a_cut_arrive_once_after_it(hub: FakeHub, reset: bool) -> None:
    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert row["grace_s"] == 300
        async with kernel_side("uklan") as raw:
            hub.answers = False  # no resume yet
            await asyncio.to_thread(hub.cut, reset=reset)
            row = await until(lambda row: row["state"] == "reconnecting" and row["cut_s"] > 0, card)
            assert row["last_cut"] is not None
            raw.send(FRAME + b"1")
            raw.send(FRAME + b"2")
            await asyncio.to_thread(hub.send, [FRAME + b"3"])
            hub.answers = True
            row = await until(resumed(1), card)
            assert await arrived(hub) == FRAME + b"1"
            assert await arrived(hub) == FRAME + b"2"
            while (frame := await received(raw)) != FRAME + b"3":
                assert frame in {FRAME + b"1", FRAME + b"2"}  # our own, seen on their way out
        assert (row["logins"], row["reconnects"], row["ledger"]["cuts"]) == (1, 1, 1)
        assert row["gap_s"] > 0.0 == row["cut_s"]
        assert row["session"] == "SID-ALICE-1"

    run(config_for(hub, times=CALM), scenario)
    assert len(hub.byes) == 1


def test_the_ledger_names_every_kind_of_drop(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        row = await until(online, card)
        assert {"kernel", "refused", "oversized"} <= set(row["ledger"]["dropped"])

    run(config_for(hub, times=CALM), scenario)


def test_silence_is_shown_and_another_link_takes_over(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        hub.answers = False
        row = await until(lambda row: row["state"] in {"suspect", "reconnecting"} and row["attempts"] >= 2, card)
        hub.answers = True
        row = await until(resumed(1), card)
        assert row["logins"] == 1

    run(config_for(hub, times=QUICK), scenario)


def test_a_link_that_speaks_again_is_kept(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        hub.heeded.clear()  # nobody greets a new link
        await until(lambda row: row["state"] == "suspect" and row["attempts"] >= 4, card)
        for _ in range(20):
            await asyncio.to_thread(hub.speak)
            if online((await card.status())[0]):
                break
            await asyncio.sleep(0.05)
        hub.heeded.set()
        row = await until(online, card)
        assert (row["resumes"], row["ledger"]["cuts"]) == (0, 0)

    run(config_for(hub, times=QUICK), scenario)


def test_cuts_during_resumes_are_tried_again(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        hub.resumes_to_cut = 4
        await asyncio.to_thread(hub.cut, reset=True)
        row = await until(resumed(1), card)
        assert row["attempts"] == 6
        assert row["ledger"]["cuts"] == 1

    run(config_for(hub, times=CALM), scenario)


def test_a_hub_that_forgot_gets_a_fresh_login_and_the_loss_is_told(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        async with kernel_side("uklan") as raw:
            hub.heeded.clear()
            raw.send(FRAME + b"1")
            await until(lambda row: row["ledger"]["waiting"] >= 1, card)
            hub.forgetful = True
            await asyncio.to_thread(hub.cut, reset=True)
            await until(lambda row: row["state"] == "reconnecting", card)
            before = (await card.status())[0]["ledger"]["waiting"]
            raw.send(FRAME + b"2")
            await until(lambda row: row["ledger"]["waiting"] > before, card)
            hub.heeded.set()
            row = await until(lambda row: row["logins"] == 2 and online(row), card)
            assert await arrived(hub) == FRAME + b"2"
        loss = row["last_loss"]
        assert loss["lost"] >= 1
        assert loss["carried"] >= 1
        assert row["ledger"]["lost"] == loss["lost"]
        assert row["session"] == "SID-ALICE-2"

    run(config_for(hub, times=CALM), scenario)


def test_when_the_hubs_time_is_over_the_card_logs_in_afresh(hub: FakeHub) -> None:
    hub.grace_s = 1

    async def scenario(card: Card) -> None:
        await until(online, card)
        hub.answers = False
        await asyncio.to_thread(hub.cut)
        row = await until(lambda row: row["logins"] == 2 and online(row), card)
        assert row["resumes"] == 0

    run(config_for(hub, times=CALM), scenario)


def test_a_hub_that_comes_back_within_its_time_is_resumed(hub: FakeHub, identity: ca.Identity) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        await asyncio.to_thread(hub.close)
        row = await until(lambda row: row["state"] == "reconnecting" and row["attempts"] >= 4, card)
        assert "refused the connection" in row["reason"]["text"]
        with FakeHub(identity.certificate, identity.key, port=hub.port) as again:
            again.take_over(hub)
            await until(resumed(1), card)
            await card.leave()

    run(config_for(hub, times=CALM), scenario)


def test_a_goodbye_is_no_cut(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        await until(online, card)
        await asyncio.to_thread(hub.say_bye, Reason.STOPPING)
        row = await until(lambda row: row["logins"] == 2 and online(row), card)
        assert "program ends" in row["last_cut"]["text"]
        await asyncio.to_thread(hub.say_bye, Reason.OFFLINE)
        row = await until(lambda row: row["state"] == "refused", card)
        assert "offline" in row["reason"]["text"]

    run(config_for(hub, times=CALM), scenario)
    assert hub.resumes == []


def test_a_dead_data_process_takes_its_numbers_with_it_and_that_is_said(hub: FakeHub) -> None:
    async def scenario(card: Card) -> None:
        first = await until(online, card)
        os.kill(first["data_pid"], signal.SIGKILL)
        row = await until(lambda row: row["data_pid"] not in (0, first["data_pid"]) and online(row), card)
        assert row["logins"] == 2
        assert row["last_loss"]["lost"] is None

    run(config_for(hub, times=CALM), scenario)


def test_a_changed_path_starts_the_reconnection_at_once(identity: ca.Identity) -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("address", "add", "10.99.0.1/32", "dev", "lo")
    with FakeHub(identity.certificate, identity.key, address="10.99.0.1") as hub:
        hub.grace_s = 300

        async def scenario(card: Card) -> None:
            await until(online, card)
            await asyncio.sleep(0.5)  # the first look at the way
            await asyncio.to_thread(ip, "address", "del", "10.99.0.1/32", "dev", "lo")
            row = await until(lambda row: row["state"] == "reconnecting", card)
            assert "no longer has the address 10.99.0.1" in row["last_cut"]["text"]
            await asyncio.to_thread(ip, "address", "add", "10.99.0.1/32", "dev", "lo")
            row = await until(resumed(1), card)
            assert row["logins"] == 1

        run(config_for(hub, times=CALM), scenario)


# -- reload -------------------------------------------------------------------------------------------------------


def test_a_reload_heeds_what_can_be_heeded_now_and_names_the_rest(hub: FakeHub) -> None:
    config = config_for(hub, times=CALM)

    async def scenario(card: Card) -> None:
        await until(online, card)
        account.edit("lan", {("times", "keepalive"): 0.7, ("interface", "name"): "other", ("interface", "mtu"): 1400})
        rows = {row["option"]: row for row in await asyncio.to_thread(client("lan").ask, "reload")}
        assert rows["times.keepalive"] == {
            "option": "times.keepalive", "old": 5.0, "new": 0.7, "effect": "now",
        }  # fmt: skip
        assert rows["interface.name"]["effect"] == "next start"
        while PeerOptions(700) not in hub.peer_options:
            await asyncio.sleep(0.02)
        row = (await card.status())[0]
        assert (row["interface"], row["mtu"], row["resumes"]) == ("uklan", 1400, 0)

    run(config, scenario)


def test_a_broken_file_changes_nothing_and_is_told(hub: FakeHub) -> None:
    config = config_for(hub, times=CALM)

    async def scenario(card: Card) -> None:
        await until(online, card)
        path = account.path_of("lan")
        good = path.read_text()
        path.write_text(good.replace('host = "127.0.0.1"', "host = 7"))
        with pytest.raises(Exception, match="host"):
            await card.reload()
        path.write_text(good)
        assert await card.reload() == []
        assert online((await card.status())[0])

    run(config, scenario)


def test_who_joins_is_heeded_with_the_next_connection_which_logs_in_afresh(hub: FakeHub) -> None:
    hub.passwords["bob"] = "builder"
    config = config_for(hub, times=CALM)

    async def scenario(card: Card) -> None:
        await until(online, card)
        account.edit("lan", {("hub", "user"): "bob", ("login", "password"): "builder"})
        rows = {row["option"]: row for row in await card.reload()}
        assert (rows["login.password"]["old"], rows["login.password"]["new"]) == (None, None)
        assert rows["hub.user"]["effect"] == "next connection"
        assert (await card.status())[0]["session"] == "SID-ALICE-1"
        await asyncio.to_thread(hub.cut)
        row = await until(lambda row: row["logins"] == 2 and online(row), card)
        assert row["session"] == "SID-BOB-2"

    run(config, scenario)
    assert hub.resumes == []


def test_a_mended_account_is_tried_at_once(hub: FakeHub) -> None:
    made = config_for(hub, times=CALM)
    config = msgspec.structs.replace(made, login=Login(password="wrong"))
    account.write("lan", config)

    async def scenario(card: Card) -> None:
        await until(lambda row: row["state"] == "refused", card)
        account.edit("lan", {("login", "password"): "wonderland"})
        await card.reload()
        await until(online, card)

    run(config, scenario, keep_trying=True)
