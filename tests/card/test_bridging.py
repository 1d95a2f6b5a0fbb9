"""A card that is a bridge, on a real TAP in a network of the test's own."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ukihashi.card import bridging
from ukihashi.card.bridging import CardBridge, effective
from ukihashi.config.card import CardConfig, Hub, Interface, Route
from ukihashi.errors import UsageError
from ukihashi.tap.device import Tap, open_tap

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network", "own_places")]


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout


def config(bridge: str = "eth1", *, takes: bool = False) -> CardConfig:
    interface = Interface(
        name="uklan", mac="02:00:00:00:00:02", addresses=["10.9.0.2/24"], routes=[Route(to="0.0.0.0/0")], mtu=1400,
        bridge=bridge, bridge_addresses=takes, accept=["default"],
    )  # fmt: skip
    return CardConfig(hub=Hub(host="hub.example", hub="LAN", user="alice"), interface=interface)


@pytest.fixture(autouse=True)
def ethernet(own_network: None) -> None:
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")
    ip("link add eth1 type veth peer name far")
    ip("link set far up")
    ip("link set eth1 up")
    ip("-6 addr flush scope link")


@pytest.fixture
def tap(ethernet: None) -> Iterator[Tap]:
    opened = open_tap("uklan")
    yield opened
    opened.close()


def row(card: CardBridge) -> dict[str, object]:
    found = asyncio.run(card.row())
    assert found is not None
    return found


def test_of_a_bridges_account_nothing_is_left_for_this_machine() -> None:
    left = effective(config())
    assert (left.interface.addresses, left.interface.routes, left.interface.accept) == ([], [], [])
    assert (left.interface.dhcp, left.interface.mtu, left.echo_guard.enabled) == ("off", 1500, False)
    assert effective(config("")) == config("")


def test_without_a_bridge_nothing_happens(tap: Tap) -> None:
    before = ip("link")
    card = CardBridge("lan", config(""))
    card.clean()
    card.set_up("uklan")
    assert asyncio.run(card.row()) is None
    assert card.undo() == []
    assert ip("link") == before


def test_from_the_first_login_until_it_leaves(tap: Tap) -> None:
    card = CardBridge("lan", config())
    card.clean()
    assert row(card)["state"] == "waiting"
    card.set_up("uklan")
    assert (row(card)["state"], row(card)["members"]) == ("joined", ["eth1", "uklan"])
    assert bridging.accounts() == ["lan"]
    assert bridging.in_use("lan")
    card.granted(no_bridge=False)
    assert row(card)["warnings"] == []
    card.granted(no_bridge=True)
    assert "forbids bridging" in str(row(card)["warnings"])
    assert card.undo() == []
    assert bridging.accounts() == []
    assert "ukbr-eth1" not in ip("link")


def test_what_a_killed_card_left_behind_is_undone(ethernet: None) -> None:
    ip("addr add 10.1.0.2/24 dev eth1")
    before = ip("addr")
    made = open_tap("uklan")
    CardBridge("lan", config(takes=True)).set_up("uklan")
    assert "10.1.0.2" in ip("addr show dev ukbr-eth1")
    made.close()
    assert not bridging.in_use("lan")
    assert bridging.clean("lan") == ["ukbr-eth1", "10.1.0.2/24 dev ukbr-eth1"]
    assert ip("addr") == before
    assert bridging.clean("lan") == []


def test_what_cannot_be_is_said_before_any_login(tap: Tap) -> None:
    ip("addr add 10.1.0.2/24 dev eth1")
    with pytest.raises(UsageError, match="eth1 has addresses of its own"):
        CardBridge("lan", config()).clean()


def test_an_ethernet_that_comes_later_goes_and_comes_again(tap: Tap) -> None:
    card = CardBridge("lan", config("usb0"))
    card.clean()

    async def scene() -> None:
        async def becomes(state: str) -> None:
            async with asyncio.timeout(10):
                while (await card.row() or {})["state"] != state:
                    await asyncio.sleep(0.02)

        await asyncio.to_thread(card.set_up, "uklan")
        watching = asyncio.create_task(card.keep())
        for _ in range(2):
            await becomes("apart")
            ip("link add usb0 type veth peer name usb0-far")
            await becomes("joined")
            ip("link del usb0")
        await becomes("apart")
        watching.cancel()

    with capture_logs() as logs:
        asyncio.run(scene())
    events = [entry["event"] for entry in logs]
    assert events == ["bridge_apart", "bridge_joined", "bridge_apart", "bridge_joined", "bridge_apart"]
    assert card.undo() == []
    assert "ukbr" not in ip("link")


def test_new_settings_while_the_card_is_up(tap: Tap) -> None:
    card = CardBridge("lan", config())
    card.set_up("uklan")
    ip("link add eth2 type veth peer name far2")
    ip("addr add 10.1.0.2/24 dev eth2")

    async def apply(new: CardConfig) -> bool:
        changed = await card.let_go(new)
        await card.settle()
        return changed

    assert not asyncio.run(apply(config()))
    with pytest.raises(UsageError, match="eth2 has addresses"):
        asyncio.run(apply(config("eth2")))
    assert row(card)["members"] == ["eth1", "uklan"]  # as before
    assert asyncio.run(apply(config("eth2", takes=True)))
    assert row(card)["members"] == ["eth2", "uklan"]
    assert "ukbr-eth1" not in ip("link")
    assert asyncio.run(apply(config("")))
    assert "ukbr" not in ip("link")
    assert "02:00:00:00:00:02" in ip("link show uklan")
    assert "10.1.0.2" in ip("addr show dev eth2")
