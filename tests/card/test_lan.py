"""What a card sets on its machine, on a real TAP in a network of the test's own; `wan` is the physical network."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ukihashi.card import journal
from ukihashi.card.lan import Applied, Lan
from ukihashi.card.routes import MARK
from ukihashi.config.card import CardConfig, EchoGuard, Hub, Interface, Route
from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.tap import netlink, reverse_path
from ukihashi.tap.device import Tap, open_tap

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network", "own_places")]

ADDRESSES = ["10.9.0.2/24", "fd09::2/64"]
DEFAULTS = [Route(to="0.0.0.0/0", via="10.9.0.1"), Route(to="::/0", via="fd09::1")]
NEAR = [Route(to="10.10.0.0/16", via="10.9.0.1"), Route(to="fd0a::/48", via="fd09::1", metric=77)]


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout


def everything() -> dict[str, str]:
    """All that a card might change, as `ip` shows it."""
    shown = {command: ip(command) for command in ("rule", "-6 rule", "route show table all", "-6 route show table all")}
    strict = {path.parent.name: path.read_text() for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter")}
    return shown | {"addr": ip("addr"), "rp_filter": str(strict)}


@pytest.fixture(autouse=True)
def physical(own_network: None) -> None:
    for which in ("all", "default"):  # an address that is still being checked would change what `ip` shows, later
        Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")
    ip("link add wan type veth peer name wan-far")
    for command in ("link set wan-far up", "link set wan up", "addr add 10.1.0.2/24 dev wan"):
        ip(command)
    ip("addr add fd01::2/64 dev wan nodad")
    ip("route add default via 10.1.0.1")
    ip("-6 route add default via fd01::1")
    ip("-6 addr flush scope link")


@pytest.fixture
def before(physical: None) -> dict[str, str]:
    """How this machine is without any card."""
    return everything()


@pytest.fixture
def tap(before: dict[str, str]) -> Iterator[Tap]:
    opened = open_tap("uklan")
    yield opened
    opened.close()


def config(routes: list[Route] | None = None, addresses: list[str] | None = None, **changes: Any) -> CardConfig:
    interface = Interface(
        name="uklan", mac="02:00:00:00:00:02", addresses=ADDRESSES if addresses is None else addresses,
        routes=DEFAULTS if routes is None else routes, mtu=changes.pop("mtu", 1500), queue=changes.pop("queue", 500),
    )  # fmt: skip
    return CardConfig(hub=Hub(host="hub.example", hub="LAN", user="alice"), interface=interface, **changes)


def way(to: str, mark: int = 0) -> str:
    return ip(f"route get {to} mark {mark}")


def test_a_default_route_takes_all_but_the_marked_and_the_near(tap: Tap, before: dict[str, str]) -> None:
    lan = Lan("lan", config([*DEFAULTS, *NEAR]))
    assert lan.mark == MARK
    lan.set_up("uklan")
    for far, gateway, physical_one in (("198.51.100.7", "10.9.0.1", "10.1.0.1"), ("2001:db8::7", "fd09::1", "fd01::1")):
        assert f"via {gateway} dev uklan" in way(far)
        assert f"via {physical_one} dev wan" in way(far, MARK)
    assert "dev wan" in way("10.1.0.77")  # the neighbours stay where they are
    assert "dev wan" in way("fd01::77")
    assert "default via 10.1.0.1 dev wan" in ip("route")  # untouched
    ip("route add 192.0.2.0/24 via 10.1.0.3")
    assert "via 10.1.0.3" in way("192.0.2.1")  # nearer wins, whenever it comes
    assert {row["state"] for row in lan.status()["routes"]} == {"set"}
    ip("route del 192.0.2.0/24")

    assert lan.undo() == []
    assert {row["state"] for row in lan.status()["routes"]} == {"not set"}
    tap.close()
    assert everything() == before
    assert journal.accounts() == []


def test_near_routes_need_no_rules_and_no_mark(tap: Tap) -> None:
    rules = ip("rule"), ip("-6 rule")
    lan = Lan("lan", config(NEAR))
    assert lan.mark == 0
    lan.set_up("uklan")
    assert (ip("rule"), ip("-6 rule")) == rules
    assert "10.10.0.0/16 via 10.9.0.1 dev uklan" in ip("route")
    assert "fd0a::/48 via fd09::1 dev uklan proto 75 metric 77" in ip("-6 route")
    assert journal.accounts() == []
    assert lan.undo() == []


def test_only_the_family_that_has_a_default_route_gets_rules(tap: Tap) -> None:
    rules = ip("-6 rule")
    lan = Lan("lan", config(DEFAULTS[:1]))
    lan.set_up("uklan")
    assert ip("-6 rule") == rules
    assert "not from all fwmark 0x2b75 lookup 75000" in ip("rule")
    lan.undo()


def test_two_cards_share_a_machine(tap: Tap, before: dict[str, str]) -> None:
    second = open_tap("uktwo")
    one, two = Lan("lan", config()), Lan("two", config([Route(to="default", via="10.8.0.1")], ["10.8.0.2/24"]))
    one.set_up("uklan")
    two.set_up("uktwo")
    assert "dev wan" in way("198.51.100.7", MARK)  # neither tunnel goes through the other
    assert "dev uklan" in way("198.51.100.7")
    assert one.undo() == []
    assert "dev uktwo" in way("198.51.100.7")
    assert two.undo() == []
    second.close()
    tap.close()
    assert everything() == before


def test_what_cannot_be_set_is_told_and_undone(tap: Tap, before: dict[str, str]) -> None:
    lan = Lan("lan", config([DEFAULTS[0], Route(to="10.20.0.0/16", via="172.16.0.1")]))
    with pytest.raises(EnvironmentLacks, match=r"10\.20\.0\.0/16 on uklan"):
        lan.set_up("uklan")
    assert lan.undo() == []
    tap.close()
    assert everything() == before


def test_a_machine_without_ipv6_goes_on_with_ipv4(tap: Tap) -> None:
    path = Path("/proc/sys/net/ipv6/conf/uklan/disable_ipv6")
    path.write_text("1")
    lan = Lan("lan", config([*DEFAULTS, *NEAR]))
    with capture_logs() as logs:
        lan.set_up("uklan")
    assert [entry["event"] for entry in logs] == ["address_not_set", "route_not_set", "route_not_set"]
    assert len(lan.status()["warnings"]) == 3
    assert "dev uklan" in way("198.51.100.7")
    assert [row["state"] for row in lan.status()["routes"]] == ["set", "not set", "set", "not set"]
    assert lan.undo() == []


def test_only_what_the_card_set_is_undone(tap: Tap) -> None:
    netlink.add_address("uklan", "10.9.0.2/24")  # an admin was quicker
    lan = Lan("lan", config(NEAR))
    lan.set_up("uklan")
    assert sorted(netlink.addresses("uklan")) == ADDRESSES
    assert lan.undo() == []
    assert netlink.addresses("uklan") == ["10.9.0.2/24"]


def test_undo_after_the_interface_is_gone_is_quiet_and_whole(tap: Tap, before: dict[str, str]) -> None:
    lan = Lan("lan", config([*DEFAULTS, *NEAR]))
    lan.set_up("uklan")
    tap.close()
    assert lan.undo() == []
    assert everything() == before
    assert lan.undo() == []


# -- strict reverse path ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["all", "wan"])
def test_a_strict_reverse_path_check_is_loosened_and_set_back(physical: None, where: str) -> None:
    reverse_path.write(where, reverse_path.STRICT)
    before = everything()
    tap = open_tap("uklan")
    lan = Lan("lan", config())
    lan.set_up("uklan")
    assert reverse_path.read("wan") == reverse_path.LOOSE
    assert not reverse_path.is_strict("wan")
    assert lan.undo() == []
    tap.close()
    assert everything() == before


def test_where_it_cannot_be_loosened_a_sentence_says_what_to_set(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    reverse_path.write("wan", reverse_path.STRICT)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(reverse_path, "write", refuse)
    lan = Lan("lan", config())
    with capture_logs() as logs:
        lan.set_up("uklan")
    assert [entry["event"] for entry in logs] == ["reverse_path_strict"]
    assert "net.ipv4.conf.wan.rp_filter=1" in lan.status()["warnings"][0]["text"]
    lan.undo()


# -- new settings while connected ---------------------------------------------------------------------------------


def test_only_differences_are_touched(tap: Tap, before: dict[str, str]) -> None:
    lan = Lan("lan", config(NEAR))
    lan.set_up("uklan")
    fields = ip("-6 route show fd0a::/48"), ip("-o addr show uklan")

    def changed(**changes: Any) -> Applied:
        return asyncio.run(lan.apply(config(**changes)))

    assert changed(routes=NEAR) == Applied([], redial=False)
    assert changed(routes=NEAR, mtu=1400, queue=77) == Applied(["mtu", "queue"], redial=False)
    assert "mtu 1400" in ip("link show uklan")
    assert "qlen 77" in ip("link show uklan")
    assert (ip("-6 route show fd0a::/48"), ip("-o addr show uklan")) == fields
    assert changed(routes=[*NEAR, *DEFAULTS]) == Applied(["mtu", "queue", "routes"], redial=True)
    assert lan.mark == MARK
    assert "dev uklan" in way("198.51.100.7")
    assert journal.accounts() == ["lan"]
    assert changed(routes=NEAR[1:]) == Applied(["routes"], redial=True)
    assert "dev wan" in way("198.51.100.7")
    assert "10.10.0.0" not in ip("route")
    assert journal.accounts() == []
    assert changed(routes=NEAR[1:], echo_guard=EchoGuard(period=1.0)) == Applied(["echo_guard"], redial=False)
    assert lan.undo() == []
    tap.close()
    assert everything() == before


def test_the_queue_is_as_set_and_a_super_frame_has_no_more_segments_than_the_hub_takes(tap: Tap) -> None:
    lan = Lan("lan", config())
    lan.set_up("uklan")
    assert "qlen 500" in ip("link show uklan")
    assert "gso_max_segs 128" in ip("-d link show uklan")
    assert asyncio.run(lan.apply(config(queue=77))) == Applied(["queue"], redial=False)
    assert "qlen 77" in ip("link show uklan")
    assert lan.undo() == []


def test_addresses_of_one_subnet_survive_the_first_ones_going(tap: Tap) -> None:
    addresses = ["10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24"]
    route = [Route(to="10.10.0.0/16", via="10.9.0.1")]
    lan = Lan("lan", config(route, addresses))
    lan.set_up("uklan")
    assert asyncio.run(lan.apply(config(route, addresses[1:]))) == Applied(["addresses"], redial=False)
    assert sorted(netlink.addresses("uklan")) == addresses[1:]
    assert "10.10.0.0/16 via 10.9.0.1" in ip("route")
    assert lan.undo() == []
    assert netlink.addresses("uklan") == []


def test_a_wrong_route_leaves_everything_as_it_was(tap: Tap) -> None:
    lan = Lan("lan", config())
    lan.set_up("uklan")
    before = everything()
    with pytest.raises(UsageError):
        asyncio.run(lan.apply(config([Route(to="10.0.0.1/8")])))
    assert everything() == before
    assert lan.mark == MARK
    lan.undo()


def test_settings_that_change_before_the_first_login_hold_from_then_on(tap: Tap) -> None:
    lan = Lan("lan", config([]))
    assert asyncio.run(lan.apply(config())) == Applied(["routes"], redial=True)
    lan.set_up("uklan")
    assert "dev uklan" in way("198.51.100.7")
    lan.undo()


# -- vanished routes ----------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def watched(lan: Lan, scenario: Callable[[], Coroutine[Any, Any, None]]) -> list[Any]:
    """Run the scenario beside `keep`; what was logged."""

    async def together() -> None:
        task = asyncio.create_task(lan.keep())
        try:
            async with asyncio.timeout(20):
                await asyncio.sleep(0.2)
                await scenario()
        finally:
            task.cancel()
            await asyncio.wait([task])

    with capture_logs() as logs:
        asyncio.run(together())
    return [entry for entry in logs if entry["event"].startswith("route_")]


async def sees(look: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(look):
        await asyncio.sleep(0.02)


def row(lan: Lan, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = lan.status()["routes"][number]
    return found


def test_a_deleted_route_is_put_back_three_times_and_then_only_reported(tap: Tap) -> None:
    clock = Clock()
    lan = Lan("lan", config(), clock=clock)
    lan.set_up("uklan")

    async def scenario() -> None:
        for times in (1, 2, 3):
            await asyncio.to_thread(ip, "route del default table 75000")
            await sees(lambda times=times: row(lan)["restored"] == times)  # type: ignore[misc]
            assert "dev uklan" in way("198.51.100.7")
            clock.now += 100
        await asyncio.to_thread(ip, "route del default table 75000")
        await sees(lambda: row(lan)["state"] == "gone")
        clock.now += 1000
        await asyncio.to_thread(ip, "link set lo mtu 60000")  # another change: it stays away, and is told once
        await asyncio.sleep(0.4)
        assert "dev wan" in way("198.51.100.7")
        assert row(lan)["reason"]["text"] == "it was put back 3 times within 10 minutes and removed again"
        await asyncio.to_thread(ip, "route add default via 10.9.0.1 dev uklan table 75000 proto 75")  # by hand
        await sees(lambda: row(lan)["state"] == "set")
        await asyncio.to_thread(ip, "route del default table 75000")
        await sees(lambda: row(lan)["restored"] == 4)  # ten minutes are over

    told = [(entry["event"], entry.get("times")) for entry in watched(lan, scenario)]
    restored = [("route_restored", times) for times in (1, 2, 3, 4)]
    assert told == [*restored[:3], ("route_gone", None), restored[3]]
    assert lan.undo() == []


@pytest.mark.parametrize("command", ["rule del priority 31001", "-6 rule del priority 31000", "-6 route del fd0a::/48"])
def test_rules_and_near_routes_are_put_back_too(tap: Tap, command: str) -> None:
    lan = Lan("lan", config([*DEFAULTS, *NEAR]))
    lan.set_up("uklan")
    before = everything()

    async def scenario() -> None:
        await asyncio.to_thread(ip, command)
        await sees(lambda: sum(one["restored"] for one in lan.status()["routes"]) > 0)

    assert [entry["event"] for entry in watched(lan, scenario)] == ["route_restored"]
    assert everything() == before
    assert lan.undo() == []


def test_what_takes_a_routes_place_is_left_alone(tap: Tap) -> None:
    lan = Lan("lan", config())
    lan.set_up("uklan")

    async def scenario() -> None:
        await asyncio.to_thread(ip, "route replace default via 10.9.0.9 dev uklan table 75000 proto static")
        await sees(lambda: row(lan)["state"] == "gone")

    assert [entry["event"] for entry in watched(lan, scenario)] == ["route_gone"]
    assert "via 10.9.0.9" in way("198.51.100.7")
    lan.undo()


def test_a_route_that_cannot_come_back_yet_comes_when_it_can(tap: Tap) -> None:
    lan = Lan("lan", config())
    lan.set_up("uklan")

    async def scenario() -> None:
        await asyncio.to_thread(ip, "addr del 10.9.0.2/24 dev uklan")
        await sees(lambda: row(lan)["state"] == "gone")
        await asyncio.to_thread(ip, "addr add 10.9.0.2/24 dev uklan")
        await sees(lambda: row(lan)["state"] == "set")

    assert [entry["event"] for entry in watched(lan, scenario)] == ["route_gone", "route_restored"]
    lan.undo()


def test_nothing_is_put_back_after_leaving(tap: Tap, before: dict[str, str]) -> None:
    lan = Lan("lan", config())

    async def scenario() -> None:
        await asyncio.to_thread(lan.set_up, "uklan")
        await asyncio.to_thread(lan.undo)
        await asyncio.sleep(0.3)

    assert watched(lan, scenario) == []
    tap.close()
    assert everything() == before


# -- the echo guard -----------------------------------------------------------------------------------------------


def test_the_echo_guard_asks_the_gateway_and_obeys_new_settings(tap: Tap) -> None:
    fast = EchoGuard(period=0.5)
    lan = Lan("lan", config(DEFAULTS[:1], echo_guard=fast))

    def asked() -> list[str]:
        """Whom the card's frames since the last look were Echo Requests to."""
        frames = [frame for frame in tap.read_frames() if frame[12:14] == b"\x08\x00" and frame[34:35] == b"\x08"]
        assert all(int.from_bytes(frame[16:18]) == 28 for frame in frames)
        return [".".join(map(str, frame[30:34])) for frame in frames]

    async def scenario() -> None:
        await asyncio.to_thread(lan.set_up, "uklan")
        for last in (1, 9):
            ip(f"neigh add 10.9.0.{last} lladdr 02:00:00:00:00:01 dev uklan nud permanent")
        await sees(lambda: asked()[:1] == ["10.9.0.1"])  # the gateway; nobody named a target
        status = lan.status()["echo_guard"]
        assert status["addresses"] == ["10.9.0.1", "fd09::1"]
        named = EchoGuard(period=0.5, target="10.9.0.9")
        assert await lan.apply(config(DEFAULTS[:1], echo_guard=named)) == Applied(["echo_guard"], redial=False)
        await sees(lambda: asked()[:1] == ["10.9.0.9"])
        await lan.apply(config(DEFAULTS[:1], echo_guard=EchoGuard(enabled=False)))
        asked()
        await asyncio.sleep(0.8)
        assert asked() == []
        assert lan.status()["echo_guard"]["sent"] >= 2

    assert watched(lan, scenario) == []
    lan.undo()


# -- a killed card ------------------------------------------------------------------------------------------------

KILLED = """
import sys, time
from ukihashi.card.lan import Lan
from ukihashi.config.card import *
from ukihashi.tap.device import open_tap
tap = open_tap("ukdead")
routes = [Route(to="0.0.0.0/0", via="10.7.0.1"), Route(to="::/0", via="fd07::1")]
interface = Interface(name="ukdead", mac="02:00:00:00:00:03", addresses=["10.7.0.2/24", "fd07::2/64"], routes=routes)
Lan("dead", CardConfig(hub=Hub(host="h", hub="LAN", user="u"), interface=interface)).set_up("ukdead")
print("set", flush=True)
time.sleep(60)
"""


def kill_a_card() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "set\n" in iter(process.stdout.readline, "")  # among the log
            assert "dev ukdead" in way("198.51.100.7")
        finally:
            process.kill()
    while netlink.exists("ukdead"):
        time.sleep(0.01)


def test_the_next_card_of_the_account_removes_what_a_killed_one_left() -> None:
    reverse_path.write("wan", reverse_path.STRICT)
    before = everything()
    kill_a_card()
    assert "lookup 75000" in ip("rule")
    assert "dev wan" in way("198.51.100.7")  # what is left behind harms nobody
    lan = Lan("dead", config())
    with capture_logs() as logs:
        lan.clean()
    assert len([entry for entry in logs if entry["event"] == "left_over_removed"]) == 5
    assert everything() == before
    lan.clean()
    assert everything() == before


def test_orphans_are_found_without_a_journal_and_the_living_are_spared(before: dict[str, str]) -> None:
    kill_a_card()
    tap = open_tap("uklan")
    lan = Lan("lan", config())
    lan.set_up("uklan")
    assert journal.accounts() == ["dead", "lan"]
    journal._path("dead").unlink()
    living = ip("rule").replace("31000:\tfrom all lookup main suppress_prefixlength 0 proto 75\n", "", 1)
    living = living.replace("31001:\tnot from all fwmark 0x2b75 lookup 75000 proto 75\n", "", 1)
    assert len(journal.clean_orphans()) == 4
    assert ip("rule") == living
    assert "dev uklan" in way("198.51.100.7")
    assert journal.clean_orphans() == []
    assert lan.undo() == []
    tap.close()
    assert everything() == before


def test_a_damaged_journal_is_put_aside() -> None:
    kill_a_card()
    journal._path("dead").write_bytes(b"{")
    assert journal.clean("dead") == []
    assert len(journal.clean_orphans()) == 4
    assert journal.accounts() == []
