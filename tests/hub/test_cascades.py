"""Control's side of cascades: the verbs, and what goes to the process of each."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ukihashi.auth.link import Link
from ukihashi.config.cascade import Begin, Standing, decode_begin, encode
from ukihashi.errors import UsageError
from ukihashi.hub.cascades import Cascades
from ukihashi.hub.messages import CascadeGone, CascadeUp, CascadeWanted, Message
from ukihashi.hub.storage import Storage
from ukihashi.store import cascades as kept
from ukihashi.store import hubs
from ukihashi.store.db import Database
from ukihashi.wire.policy import DEFAULT, Policy

BY_HAND: dict[str, Any] = {"server": "hub.example:992", "remote_hub": "HQ", "user": "branch"}
PIN = bytes(range(32))


class Live:
    """Worker and supervisor that only listen."""

    def __init__(self) -> None:
        self.to_worker: list[Message] = []
        self.to_supervisor: list[Message] = []
        self.rows: list[dict[str, Any]] = []

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[dict[str, Any]]:
        assert what == "cascades"
        return self.rows

    async def tell_worker(self, message: Message) -> None:
        self.to_worker.append(message)

    async def tell_supervisor(self, message: Message) -> None:
        self.to_supervisor.append(message)

    async def wish(self, what: str, *, key: str = "", value: str = "") -> list[dict[str, Any]]:
        raise AssertionError(what)

    def took(self) -> list[Message]:
        told, self.to_supervisor = self.to_supervisor, []
        return told


class Scene:
    def __init__(self, folder: Path) -> None:
        self.db = Database(folder / "hub.db")
        self.lan = hubs.create(self.db, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", now=1.0)
        self.storage = Storage(self.db)
        self.live = Live()
        self.desk = Cascades(self.storage, self.live, clock=lambda: 5.0)
        self.ends: list[socket.socket] = []

    def start(self, number: int) -> socket.socket:
        """As the supervisor does."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.desk.linked(number, ours)
        theirs.settimeout(5)
        self.ends.append(theirs)
        return theirs

    def close(self) -> None:
        self.desk.close()
        for end in self.ends:
            end.close()
        self.storage.close()


def play(folder: Path, scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def life() -> None:
        scene = Scene(folder)
        try:
            async with asyncio.timeout(20):
                await scenario(scene)
        finally:
            scene.close()

    asyncio.run(life())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(look: Callable[[], object]) -> None:
    while not look():
        await asyncio.sleep(0.005)


def begun(end: socket.socket) -> Begin:
    return decode_begin(end.recv(1 << 17))


def test_a_cascade_made_by_hand_is_wanted_and_its_process_is_told_all(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        options = {"standard.max_connections": 8, "times.redial": "1.5"}
        [row] = await scene.desk.cascade_create(
            "HQ-Link", password="secret", options=options, policy={"MaxMac": 50}, **BY_HAND
        )
        assert (row["hub"], row["name"], row["state"]) == ("LAN", "HQ-Link", "starting")
        assert (row["server"], row["remote_hub"], row["user"]) == ("hub.example:992", "HQ", "branch")
        assert scene.live.took() == [CascadeWanted(1, "LAN", "HQ-Link", Policy(max_mac=50))]
        begin = begun(scene.start(1))
        account = begin.account
        assert (begin.name, account.login.password, account.login.method) == ("LAN/HQ-Link", "secret", "password")
        assert (account.standard.max_connections, account.times.redial) == (8, 1.5)
        assert len(begin.ids) == 36
        assert begun(scene.start(1)).ids == begin.ids

    play(tmp_path, scenario)


def test_no_secret_stands_with_the_account_or_is_shown(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        files = {"login.certificate": "CERTIFICATE", "login.key": "PRIVATE"}
        path = {"path.via": "http://taro@proxy.lab:3128", "path.password": "looking glass"}
        await scene.desk.cascade_create("a", password="wonderland", options=path, **BY_HAND)
        await scene.desk.cascade_create("b", method="certificate", options=files, **BY_HAND)
        shown = [await scene.desk.cascade_show(name) for name in "ab"] + [await scene.desk.cascades()]
        stored = [one.account for one in await scene.storage.read(kept.all_cascades)]
        for text in ("wonderland", "looking glass", "PRIVATE", "CERTIFICATE"):
            assert text not in str(shown) + str(stored)
        begin = begun(scene.start(2))
        assert begin.files == files
        assert begin.account.login.method == "certificate"

    play(tmp_path, scenario)


def test_a_join_link_makes_an_account_whose_token_is_spent_once(tmp_path: Path) -> None:
    link = Link("192.0.2.7", 443, "HQ", "branch", "t" * 22, PIN)

    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("hq", link=link.text())
        end = scene.start(1)
        account = begun(end).account
        assert (account.hub.host, account.hub.hub, account.hub.user) == ("192.0.2.7", "HQ", "branch")
        assert (account.login.invite, account.pin) == ("t" * 22, PIN)
        assert len(account.login.password) == 48
        end.send(encode(Standing(up=True, row={"state": "online", "pin": PIN.hex()})))
        while (await scene.storage.read(kept.get, scene.lan, "hq")).secrets["login.invite"]:
            await asyncio.sleep(0.005)
        await turns()
        await scene.desk.refresh()
        assert [type(one) for one in scene.live.took()] == [CascadeWanted]  # what it learned makes no new start
        again = begun(scene.start(1)).account
        assert (again.login.invite, again.login.password) == ("", account.login.password)

    play(tmp_path, scenario)


def test_a_key_that_was_trusted_on_first_use_is_held_to(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("hq", method="anonymous", **BY_HAND)
        end = scene.start(1)
        assert begun(end).account.pin == b""
        end.send(encode(Standing(up=True, row={"state": "online", "pin": PIN.hex()})))
        await until(lambda: scene.desk._joined[1].cascade.account["trust"]["pin"])
        assert begun(scene.start(1)).account.pin == PIN

    play(tmp_path, scenario)


def test_the_worker_learns_when_a_session_carries_frames(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("hq", password="x", **BY_HAND)
        end = scene.start(1)
        begun(end)
        for up in (False, True, True, False, True):
            end.send(encode(Standing(up=up, row={"state": "online" if up else "connecting", "session": "SID-1"})))
        await until(lambda: len(scene.live.to_worker) == 3)
        assert scene.live.to_worker == [CascadeUp(1, up=True), CascadeUp(1, up=False), CascadeUp(1, up=True)]
        scene.live.rows = [{"cascade": 1, "frames_in": 7, "loop": "blocked"}]
        [row] = await scene.desk.cascades()
        assert (row["state"], row["session"], row["frames_in"], row["loop"]) == ("online", "SID-1", 7, "blocked")
        await scene.desk.tell_worker()
        assert scene.live.to_worker[3:] == [CascadeUp(1, up=True)]
        end.close()
        await until(lambda: len(scene.live.to_worker) == 5)
        assert scene.live.to_worker[4] == CascadeUp(1, up=False)
        assert (await scene.desk.cascades())[0]["state"] == "starting"

    play(tmp_path, scenario)


def test_a_change_joins_anew_and_offline_leaves(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        desk, live = scene.desk, scene.live
        await desk.cascade_create("hq", password="x", **BY_HAND)
        begun(scene.start(1))
        live.took()
        [row] = await desk.cascade_set("HQ", options={"standard.max_connections": "8"}, policy={"no_server": True})
        assert live.took() == [CascadeGone(1), CascadeWanted(1, "LAN", "hq", Policy(no_server=True))]
        account = begun(scene.start(1)).account
        assert (account.standard.max_connections, account.login.password) == (8, "x")
        await desk.cascade_set("hq", options={"login.password": "y"})
        assert begun(scene.start(1)).account.login.password == "y"
        live.took()
        [row] = await desk.cascade_set("hq", online=False)
        assert (live.took(), row["state"]) == ([CascadeGone(1)], "offline")
        [row] = await desk.cascade_set("hq", online=True)
        assert [type(one) for one in live.took()] == [CascadeWanted]
        await desk.cascade_delete("hq")
        assert live.took() == [CascadeGone(1)]
        assert await desk.cascades() == []

    play(tmp_path, scenario)


def test_a_certificate_stays_when_something_else_changes(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        files = {"login.certificate": "CERTIFICATE", "login.key": "PRIVATE"}
        await scene.desk.cascade_create("b", method="certificate", options=files, **BY_HAND)
        await scene.desk.cascade_set("b", options={"standard.max_connections": 2})
        assert begun(scene.start(1)).files == files
        await scene.desk.cascade_set("b", options={"login.key": "OTHER"})
        assert begun(scene.start(1)).files == files | {"login.key": "OTHER"}

    play(tmp_path, scenario)


def test_a_standard_hash_serves_in_place_of_the_password(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("b", password_hash="ab" * 20, **BY_HAND)
        assert begun(scene.start(1)).password_hash == b"\xab" * 20
        await scene.desk.cascade_set("b", options={"standard.compression": True})
        assert begun(scene.start(1)).password_hash == b"\xab" * 20
        await scene.desk.cascade_set("b", options={"login.password": "new"})
        begin = begun(scene.start(1))
        assert (begin.password_hash, begin.account.login.password) == (b"", "new")

    play(tmp_path, scenario)


def test_a_hub_that_is_offline_or_gone_has_no_cascades_joined(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("hq", password="x", **BY_HAND)
        scene.live.took()
        await scene.storage.change(hubs.put_settings, replace(scene.lan, online=False))
        await scene.desk.refresh()
        assert scene.live.took() == [CascadeGone(1)]
        assert (await scene.desk.cascades())[0]["state"] == "hub_offline"
        await scene.storage.change(hubs.put_settings, replace(scene.lan, online=True))
        await scene.desk.refresh()
        assert scene.live.took() == [CascadeWanted(1, "LAN", "hq", DEFAULT)]
        await scene.storage.change(hubs.delete, scene.lan)
        await scene.desk.refresh()
        assert scene.live.took() == [CascadeGone(1)]

    play(tmp_path, scenario)


def test_what_the_process_says_wrongly_ends_its_link_and_nothing_else(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("hq", password="x", **BY_HAND)
        end = scene.start(1)
        begun(end)
        end.send(b"nonsense")
        await until(lambda: scene.desk._joined[1].sock is None)
        assert end.recv(10) == b""
        assert begun(scene.start(1)).name == "LAN/hq"
        stray = scene.start(9)  # of a cascade that is gone
        assert stray.recv(10) == b""

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say where to join"),
        ({**BY_HAND, "remote_hub": ""}, "say where to join"),
        ({**BY_HAND}, "login.password is missing"),
        ({**BY_HAND, "link": "ukihashi://x"}, "leave the other options out"),
        ({"link": "ukihashi://x"}, "link"),
        ({**BY_HAND, "password": "x", "options": {"interface.name": "uk0"}}, "has no interface"),
        ({**BY_HAND, "password": "x", "options": {"standard.max_connections": "99"}}, "from 1 to 32"),
        ({**BY_HAND, "password": "x", "options": {"trust.ca_file": "x" * 40_000}}, "at most"),
        ({**BY_HAND, "password": "x", "policy": {"max_mac": -1}}, "out of range"),
        ({**BY_HAND, "password_hash": "abc"}, "40 hexadecimal digits"),
        ({**BY_HAND, "password": "x", "pin": "12"}, "no key fingerprint"),
        ({**BY_HAND, "server": "a b", "password": "x"}, "a b"),
    ],
)
def test_what_can_not_be_is_refused_and_nothing_is_kept(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    async def scenario(scene: Scene) -> None:
        with pytest.raises(UsageError, match=said):
            await scene.desk.cascade_create("a", **given)
        assert await scene.desk.cascades() == []
        assert scene.live.took() == []

    play(tmp_path, scenario)


def test_names_are_checked_and_found(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.desk.cascade_create("a", password="x", offline=True, **BY_HAND)
        asks: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: scene.desk.cascade_create("A", password="x", **BY_HAND),
            lambda: scene.desk.cascade_create("a/b", password="x", **BY_HAND),
            lambda: scene.desk.cascade_show("b"),
            lambda: scene.desk.cascade_set("b", online=True),
            lambda: scene.desk.cascade_delete("b"),
            lambda: scene.desk.cascades(hub="OTHER"),
        )
        for ask in asks:
            with pytest.raises(UsageError):
                await ask()
        assert scene.live.took() == []

    play(tmp_path, scenario)
