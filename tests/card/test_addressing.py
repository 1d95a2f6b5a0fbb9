"""DHCP on a real TAP: a server at its other end, what wakes the card, and the lease that it remembers."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from tests.card.test_dhcp_client import MAC, Server

from ukihashi.card import addressing
from ukihashi.card.addressing import Addressing, Wish, wish_of
from ukihashi.card.dhcp_client import Lease
from ukihashi.config.card import CardConfig, Hub, Interface, Standard
from ukihashi.ether import arp, dhcp
from ukihashi.tap import netlink
from ukihashi.tap.device import Tap, open_tap

FAST = 3.0  # seconds that anything here may take


def config(**changes: Any) -> CardConfig:
    interface = Interface(name="uklan", mac="02:11:22:33:44:55", **changes)
    return CardConfig(hub=Hub(host="hub.example", hub="LAN", user="alice"), interface=interface)


def test_what_an_account_wants() -> None:
    own = ["fd00::2/64", "10.1.0.2/24"]
    assert wish_of(config()).mode == "ask"
    assert wish_of(config(addresses=own)) == Wish("inform", IPv4Address("10.1.0.2"))
    assert wish_of(config(addresses=own[:1])).mode == "off"  # nothing to inform with
    assert wish_of(config(addresses=own, dhcp="on")).mode == "ask"
    assert wish_of(config(dhcp="off")).mode == "off"
    bridge = CardConfig(hub=config().hub, interface=config().interface, standard=Standard(bridge=True))
    assert wish_of(bridge).mode == "off"


def packet_sockets() -> int:
    return len(Path("/proc/self/net/packet").read_text().splitlines()) - 1


class Line:
    """An addressing on a TAP, and a server that answers at the TAP's other end."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.server = Server()
        self.heard: list[Lease | None] = []
        self.objects = False
        self.own = Addressing("lan", self._changed, clock=time.monotonic, random=lambda: 0.5, host_name="taro")

    async def _changed(self, lease: Lease | None) -> None:
        self.heard.append(lease)

    def answer(self) -> None:
        for frame in self.tap.read_frames():
            probe = arp.parse(frame)
            if probe is not None and self.objects and probe.sender == dhcp.NOWHERE:
                self.tap.write_frames([arp.reply(probe, bytes.fromhex("02bbbbbbbbbb"))])
            elif probe is None and frame[12:14] == b"\x08\x00" and frame[6:12] == MAC:
                self.tap.write_frames(self.server.answer(frame, 0.0))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(FAST):
            while not condition():
                self.answer()
                await asyncio.sleep(0.01)

    def run(self, act: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            task = asyncio.create_task(self.own.run())
            try:
                await act()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(whole())


@pytest.fixture
def line(own_network: None, own_places: None) -> Iterator[Line]:
    tap = open_tap("uklan")
    netlink.set_mac("uklan", MAC)
    netlink.set_up("uklan")
    yield Line(tap)
    tap.close()


@pytest.mark.netns
class TestOnATap:
    def test_a_lease_is_got_told_and_remembered(self, line: Line) -> None:
        async def act() -> None:
            line.own.begin("uklan", MAC, Wish("ask"))
            await line.until(line.own.settled.is_set)

        line.run(act)
        assert [lease.address if lease else None for lease in line.heard] == ["10.5.0.9/24"]
        assert line.own.status()["state"] == "bound"
        path = addressing._path("lan")
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())["address"] == "10.5.0.9/24"

        line.own = Addressing("lan", line._changed, clock=time.monotonic, random=lambda: 0.5)
        line.server.heard.clear()
        line.run(act)
        assert line.server.kinds() == [dhcp.REQUEST]  # the remembered one, at once
        addressing.forget("lan")
        assert not path.exists()

    @pytest.mark.parametrize("content", ["", "{", '{"address": 5}', '{"address": "nonsense", "lasts_s": 1e12}'])
    def test_a_damaged_memory_is_none(self, line: Line, content: str) -> None:
        path = addressing._path("lan")
        path.parent.mkdir(parents=True)
        path.write_text(content)

        async def act() -> None:
            line.own.begin("uklan", MAC, Wish("ask"))
            await line.until(line.own.settled.is_set)

        line.run(act)
        assert line.server.kinds()[0] == dhcp.DISCOVER

    def test_what_is_offered_is_asked_for_an_address_of_ones_own(self, line: Line) -> None:
        async def act() -> None:
            line.own.begin("uklan", MAC, Wish("inform", IPv4Address("10.5.0.77")))
            await line.until(line.own.settled.is_set)
            line.own.want(Wish("off"))
            await line.until(lambda: len(line.heard) == 2)

        line.run(act)
        assert line.heard[0] is not None
        assert line.heard[0].address == ""
        assert line.heard[1] is None

    def test_an_address_in_use_is_not_taken(self, line: Line) -> None:
        line.objects = True

        async def act() -> None:
            line.own.begin("uklan", MAC, Wish("ask"))
            await line.until(lambda: dhcp.DECLINE in line.server.kinds())

        line.run(act)
        assert line.heard == []
        assert line.own.status()["declined"] == "10.5.0.9"

    def test_nothing_but_its_answers_wakes_the_card(self, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
        woken: list[bytes] = []
        read = Addressing._readable

        def count(self: Addressing, sock: Any) -> None:
            woken.append(b"")
            read(self, sock)

        monkeypatch.setattr(Addressing, "_readable", count)

        async def act() -> None:
            line.server.silent = True
            line.own.begin("uklan", MAC, Wish("ask"))
            await line.until(lambda: bool(line.server.heard))
            before = len(woken)
            asked = line.server.heard[-1][2]
            others = dhcp.Message(dhcp.BOOT_REQUEST, asked.xid, bytes.fromhex("02cccccccccc"))
            head = MAC + line.server.mac + b"\x08\x00"
            bulk = head + bytes.fromhex("4500002800000000401100000a0500010a050009") + bytes(80)
            line.tap.write_frames([bulk] * 200)
            line.tap.write_frames([line.server.frame(others, dhcp.OFFER)] * 20)  # of a crowd that asks just now
            line.tap.write_frames([arp.announcement(line.server.mac, line.server.ip)] * 20)
            await asyncio.sleep(0.1)
            assert len(woken) == before
            line.server.silent = False
            line.tap.write_frames([line.server.frame(asked, dhcp.OFFER)])  # so the filter lets something pass
            await line.until(line.own.settled.is_set)
            assert packet_sockets() == 0  # nothing is awaited, nothing looks at what passes

        line.run(act)

    def test_where_there_is_no_interface_it_is_said(self, line: Line) -> None:
        async def act() -> None:
            line.own.begin("uknone", MAC, Wish("ask"))
            await line.until(line.own.settled.is_set)

        line.run(act)
        assert line.heard == []


def test_a_clock_that_was_set_back_makes_no_lease_longer(own_places: None) -> None:
    path = addressing._path("lan")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"address": "10.5.0.9/24", "begins": time.time() + 5000, "lasts_s": 3600}))
    assert addressing._remembered("lan", 0.0) is None


def test_a_checksum_left_to_hardware_is_no_flaw() -> None:
    server = Server()
    asked = dhcp.Message(dhcp.BOOT_REQUEST, 7, MAC)
    frame = bytearray(server.frame(asked, dhcp.OFFER))
    frame[40:42] = b"\x12\x34"
    status = addressing._AUXDATA.pack(addressing.CHECKSUM_NOT_READY, 0, 0, 0, 0, 0, 0)
    extra = [(addressing.SOL_PACKET, addressing.PACKET_AUXDATA, status)]
    assert addressing._as_sent(bytes(frame), extra)[40:42] == b"\0\0"
    assert addressing._as_sent(bytes(frame), []) == bytes(frame)
    tagged = addressing._AUXDATA.pack(addressing.VLAN_TAG, 0, 0, 0, 0, 0, 0)
    assert addressing._as_sent(bytes(frame), [(addressing.SOL_PACKET, addressing.PACKET_AUXDATA, tagged)]) == b""
