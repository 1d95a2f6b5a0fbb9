"""Control's side of addresses and names: decisions are on the disk before they are told; what an administrator sets."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ukihashi.errors import UsageError
from ukihashi.ether import dhcp, dns
from ukihashi.hub.backstage import Facts
from ukihashi.hub.leases import Leases
from ukihashi.hub.messages import LeaseAnswered, LeaseAsked, Message, Names
from ukihashi.hub.name_forward import Forwarder
from ukihashi.hub.storage import Storage
from ukihashi.store import hubs, leases, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub

Work = Callable[["Scene"], Awaitable[None]]


class Live:
    async def ask_worker(self, what: str, **_more: str) -> list[dict[str, Any]]:
        return []

    async def tell_worker(self, message: Message) -> None:
        """It only listens."""

    async def tell_supervisor(self, message: Message) -> None:
        raise AssertionError(message)

    async def wish(self, what: str, **_more: str) -> list[dict[str, Any]]:
        raise AssertionError(what)


class Nobody(Forwarder):
    """In place of the machine's resolvers."""

    async def ask(self, query: dns.Query, data: bytes) -> bytes:
        return b"forwarded " + query.name.encode()


class Scene:
    """One hub, with user ann's own address, and a clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1_000_000.0
        self.facts = Facts("9", (), b"")
        db = Database(path)
        if not hubs.all_hubs(db):
            lan = hubs.create(db, "LAN", subnet4="10.81.7.0/24", subnet6="fd3c:1:2::/64", host_port="uklan", now=1.0)
            leases.service_number(db, lan, first=2, last=254, now=1.0)
            users.assign_number(db, users.create(db, lan, "Ann", now=1.0), first=2, last=254)
        self.db = db
        self.told: list[Hub] = []
        self.answers: list[Message] = []
        self.storage = Storage(db)
        self.leases = Leases(
            self.facts,
            self.storage,
            Live(),
            self.tell_hub,
            answer=self.answer,
            tell_all=Live().tell_worker,
            forwarder=Nobody(),
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now

    async def tell_hub(self, hub: Hub) -> None:
        self.told.append(hub)

    async def answer(self, message: Message, worker: int) -> None:
        assert worker == 0
        if isinstance(message, LeaseAnswered | Names):
            self.answers.append(message)

    async def ask(self, kind: int, station: int, *, wanted: int = 0, user: str = "ann", **more: Any) -> LeaseAnswered:
        mac = b"\x02\0\0\0\0" + bytes([station])
        self.answers.clear()
        self.leases.put(0, LeaseAsked(1, "lan", f"SID-{user}", user, kind, mac, mac, wanted, **more))
        for _ in range(500):
            if self.answers:
                break
            await asyncio.sleep(0.002)
        (answer,) = self.answers
        assert isinstance(answer, LeaseAnswered)
        return answer

    async def lease(self, station: int, **more: Any) -> int:
        offer = await self.ask(dhcp.DISCOVER, station, **more)
        assert (await self.ask(dhcp.REQUEST, station, wanted=offer.number, **more)).kind == dhcp.ACK
        return offer.number

    async def name(self, name: str, kind: int = dns.A) -> tuple[int, int]:
        """Code, and number of records."""
        self.answers.clear()
        await self.leases.name(0, Names(1, dns.query(1, name, kind), "LAN"))
        (answer,) = self.answers
        assert isinstance(answer, Names)
        said = dns.parse_answer(answer.data)
        return said.code, len(said.records)


def play(path: Path, work: Work) -> None:
    async def main() -> None:
        scene = Scene(path)
        task = asyncio.create_task(scene.leases.run())
        try:
            await work(scene)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            scene.storage.close()

    asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


def test_a_lease_is_on_the_disk_when_its_station_hears_of_it_and_outlives_control(path: Path) -> None:
    numbers: list[int] = []

    async def first(scene: Scene) -> None:
        numbers.append(await scene.lease(1, host="nova"))
        numbers.append(await scene.lease(2, user="bob"))
        other = Database(scene.path)
        assert {one.number for one in leases.of_hub(other, hubs.get(other, "LAN"))} == set(numbers)
        other.close()

    async def again(scene: Scene) -> None:
        assert numbers[0] == 2  # the user's own
        for station, user, number in ((1, "ann", numbers[0]), (2, "bob", numbers[1])):
            answer = await scene.ask(dhcp.REQUEST, station, wanted=number, user=user)
            assert (answer.kind, answer.number) == (dhcp.ACK, number)
        (row, _) = await scene.leases.leases()
        assert (row["address"], row["user"], row["host"]) == ("10.81.7.2", "Ann", "nova")
        assert (row["state"], row["fixed"], row["name"]) == ("leased", "user", "ann.lan.internal")

    play(path, first)
    play(path, again)


def test_many_at_once_are_decided_together_and_apart(path: Path) -> None:
    async def work(scene: Scene) -> None:
        for station in range(1, 101):
            mac = b"\x02\0\0\0\1" + bytes([station])
            asked = LeaseAsked(station, "LAN", f"SID-{station}", "crowd", dhcp.DISCOVER, mac, mac)
            scene.leases.put(0, asked)
        for _ in range(500):
            if len(scene.answers) == 100:
                break
            await asyncio.sleep(0.005)
        offers = [one for one in scene.answers if isinstance(one, LeaseAnswered)]
        assert {one.ask for one in offers} == set(range(1, 101))
        assert len({one.number for one in offers}) == 100

    play(path, work)


def test_what_is_set_holds_for_the_next_lease_and_is_told_at_once(path: Path) -> None:
    async def work(scene: Scene) -> None:
        (row,) = await scene.leases.addresses_set(
            "LAN",
            lease_s=600,
            routes=["192.168.7.0/24", "172.16.0.0/12,10.81.7.9"],
            domain="Corp.Example.",
            router="10.81.7.9",
        )
        assert row["routes"] == [["192.168.7.0/24", "10.81.7.1"], ["172.16.0.0/12", "10.81.7.9"]]
        assert (row["domain"], row["router_now"], row["lease_s"]) == ("corp.example", "10.81.7.9", 600)
        assert [hub.addresses.lease_s for hub in scene.told] == [600]
        assert (await scene.ask(dhcp.DISCOVER, 1)).lease_s == 600
        await scene.leases.addresses_set("LAN", dhcp="off")
        scene.answers.clear()
        scene.leases.put(0, LeaseAsked(1, "LAN", "s", "ann", dhcp.DISCOVER, b"\x02" * 6, b"x"))
        await asyncio.sleep(0.05)
        assert scene.answers == []

    play(path, work)


@pytest.mark.parametrize(
    "fields",
    [
        {"dhcp": "maybe"},
        {"forward": "maybe"},
        {"lease_s": 5},
        {"lease_s": 1 << 40},
        {"router": "10.9.9.9"},
        {"router": "nonsense"},
        {"routes": ["nonsense"]},
        {"routes": ["192.168.7.1/24"]},
        {"routes": ["192.168.7.0/24,10.9.9.9"]},
        {"routes": ["192.168.7.0/24"] * 33},
        {"domain": "a..b"},
        {"domain": "spaces are none"},
        {"name_servers": ["nonsense"]},
        {"name_servers": ["10.0.0.1"] * 4},
    ],
)
def test_what_can_not_be_is_refused_with_a_sentence(path: Path, fields: dict[str, Any]) -> None:
    async def work(scene: Scene) -> None:
        before = await scene.leases.addresses()
        with pytest.raises(UsageError) as told:
            await scene.leases.addresses_set("LAN", **fields)
        assert str(told.value)
        assert await scene.leases.addresses() == before
        assert scene.told == []

    play(path, work)


def test_an_address_is_kept_for_a_station_or_a_user_and_taken_back(path: Path) -> None:
    async def work(scene: Scene) -> None:
        number = await scene.lease(2, user="bob")
        mac = "02:00:00:00:00:02"
        (row,) = await scene.leases.lease_fix(mac, "10.81.7.77")
        assert (row["address"], row["fixed"], row["mac"], row["state"]) == ("10.81.7.77", "station", mac, "kept")
        assert (await scene.ask(dhcp.REQUEST, 2, wanted=number, user="bob")).kind == dhcp.NAK  # its lease is over
        assert await scene.lease(2, user="bob") == 77
        for who, address in (("ann", "10.81.7.77"), ("02:00:00:00:00:03", "10.81.7.2"), ("ann", "10.81.7.254")):
            with pytest.raises(UsageError):
                await scene.leases.lease_fix(who, address)
        await scene.leases.lease_fix("ANN", "10.81.7.50")
        assert await scene.lease(1) == 50
        await scene.leases.lease_release("10.81.7.50")
        with pytest.raises(UsageError):
            await scene.leases.lease_release("10.81.7.50")
        await scene.leases.lease_unfix(mac.upper().replace(":", "-"))
        with pytest.raises(UsageError):
            await scene.leases.lease_unfix(mac)
        with pytest.raises(UsageError):
            await scene.leases.lease_fix("nobody", "10.81.7.51")

    play(path, work)


def test_an_own_number_goes_to_the_next_station_when_a_session_has_ended(path: Path) -> None:
    async def work(scene: Scene) -> None:
        assert await scene.lease(1) == 2
        assert await scene.lease(3) != 2
        await scene.leases.session_ended("LAN", "SID-ann")
        await scene.leases.session_ended("nowhere", "SID-ann")
        assert await scene.lease(4) == 2

    play(path, work)


def test_names_follow_leases_and_settings(path: Path) -> None:
    async def work(scene: Scene) -> None:
        await scene.lease(2, user="bob", host="printer")
        assert await scene.name("printer.lan.internal") == (0, 1)
        assert await scene.name("ann.lan.internal") == (0, 1)
        assert await scene.name("nobody.lan.internal") == (dns.NO_SUCH_NAME, 0)
        assert (await scene.name("example.org"))[0] == dns.REFUSED
        await scene.leases.addresses_set("LAN", domain="x.example")
        assert await scene.name("printer.x.example") == (0, 1)
        await scene.leases.addresses_set("LAN", forward="on")
        scene.answers.clear()
        await scene.leases.name(0, Names(1, dns.query(1, "example.org", dns.A), "LAN"))
        assert scene.answers == [Names(1, b"forwarded example.org")]
        scene.answers.clear()
        await scene.leases.name(0, Names(1, b"garbage", "LAN"))
        await scene.leases.name(0, Names(1, dns.query(1, "a.b", dns.A), "no such hub"))
        assert scene.answers == []

    play(path, work)


def test_an_uplink_makes_the_host_port_the_router_and_forwards_names(path: Path) -> None:
    async def work(scene: Scene) -> None:
        (row,) = await scene.leases.addresses()
        assert (row["router_now"], row["forwards"]) == ("", False)
        scene.facts.uplinks = frozenset({"lan"})
        (row,) = await scene.leases.addresses()
        assert (row["router"], row["router_now"], row["forwards"]) == ("auto", "10.81.7.1", True)
        (row,) = await scene.leases.addresses_set("LAN", router="none", forward="off")
        assert (row["router_now"], row["forwards"]) == ("", False)

    play(path, work)


def test_a_damaged_disk_ends_nothing(path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.db.do("ALTER TABLE leases RENAME TO away")
        scene.leases.put(0, LeaseAsked(1, "LAN", "s", "ann", dhcp.DISCOVER, b"\x02" * 6, b"x"))
        await asyncio.sleep(0.05)
        scene.db.do("ALTER TABLE away RENAME TO leases")
        assert await scene.lease(1) == 2

    play(path, work)
