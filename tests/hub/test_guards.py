"""The guards of a hub of several workers: what they know of each other's members, what is told, who is trusted."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.hub.cards import Card
from tests.hub.farm import Farm
from tests.hub.test_leases import Scene, play
from tests.switch.frames import ALL, arp, ether

from ukihashi.errors import UsageError
from ukihashi.ether import dhcp, ndp
from ukihashi.hub.addresses import host_port_mac
from ukihashi.hub.guard_plan import MOST_CAUGHT, TOLD_S, Catches, guard_rules
from ukihashi.hub.guard_reports import PERIOD_S
from ukihashi.hub.lan_plan import plan
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import Caught, HubPut, LeaseAnswered, LeasesPut, Message
from ukihashi.net.tls import server_context
from ukihashi.store import cascades, hubs, users
from ukihashi.switch import reasons
from ukihashi.switch.guards import QUIET_S
from ukihashi.switch.rules import GuardRules

SetUp = Callable[..., Farm]
ADDRESS = "10.81.7.3"
GATEWAY = "10.81.7.1"
SHORT_S = PERIOD_S / 10
GUARD = GuardRules(on=True, addresses=(ip_address(GATEWAY).packed,), trusted=("boss",))


def station(number: int) -> bytes:
    return b"\x02\0\0\0\0" + bytes([number])


def claim(by: int, address: str = ADDRESS) -> bytes:
    return arp(station(by), address, address)


def rogue_offer(by: int) -> bytes:
    from scapy.layers.dhcp import BOOTP
    from scapy.layers.inet import IP, UDP

    return ether(ALL, station(by), IP(src="10.81.7.99"), UDP(sport=67, dport=68), BOOTP(op=2))


@pytest.fixture
def farm(certificate: tuple[Path, Path]) -> Iterator[Farm]:
    made = Farm(server_context(*certificate), Limits(linger_s=0.2), 2)
    made.put_hub(HubPut("LAN", guard=GUARD))
    yield made
    made.close()


def told(farm: Farm) -> list[Caught]:
    return [message for field in farm.fields for message in field.told if isinstance(message, Caught)]


def reaches(farm: Farm, data: bytes, by: Card, to: Card) -> bool:
    to.got.clear()
    by.send(data)
    farm.quiet()
    return data in to.got


# -- workers -----------------------------------------------------------------------------------------------------------


def test_an_address_of_a_member_at_another_worker_is_not_to_be_had(farm: Farm) -> None:
    a, b, c = farm.card(0, "a"), farm.card(1, "b"), farm.card(1, "c")
    assert reaches(farm, claim(1), a, b)
    assert not reaches(farm, claim(2), b, c)
    assert not reaches(farm, claim(2), b, a)
    assert farm.session(b).drops == {reasons.FORGED: 2}
    assert not reaches(farm, arp(station(2), GATEWAY, ADDRESS), b, a)
    assert not reaches(farm, rogue_offer(2), b, a)


def test_who_is_trusted_is_so_at_every_worker(farm: Farm) -> None:
    boss, a = farm.card(0, "boss"), farm.card(1, "a")
    assert reaches(farm, rogue_offer(1), boss, a)
    assert reaches(farm, claim(2), a, boss)
    assert reaches(farm, claim(1), boss, a)
    assert not reaches(farm, claim(2), a, boss)


def test_a_session_that_moves_to_another_worker_keeps_its_address(farm: Farm) -> None:
    a, b = farm.card(0, "a"), farm.card(1, "b")
    assert reaches(farm, claim(1), a, b)
    a.cut()
    farm.go_to(a, 1)
    a.resume()
    farm.until(lambda: farm.where(a) == [1])
    assert reaches(farm, claim(1), a, b)
    assert not reaches(farm, claim(2), b, a)


def test_leases_are_heeded_by_each_worker(farm: Farm) -> None:
    a, b = farm.card(0, "a"), farm.card(1, "b")
    held = [(ip_address(ADDRESS).packed, station(1), 100.0)]
    for field in farm.fields:
        field.sessions.put_leases(LeasesPut("lan", held))
        field.sessions.put_leases(LeasesPut("another", held))
    assert not reaches(farm, claim(2), b, a), "though nobody has used it"
    assert reaches(farm, claim(1), a, b)
    for field in farm.fields:
        field.sessions.put_leases(LeasesPut("LAN", [], [held[0][0]]))
    farm.session(a).close("left")
    farm.after(QUIET_S)
    assert reaches(farm, claim(2), b, farm.card(0, "c"))
    for field in farm.fields:
        field.sessions.put_leases(LeasesPut("LAN", held))
        field.sessions.put_leases(LeasesPut("LAN", whole=True))
    assert reaches(farm, claim(2), b, farm.card(0, "d"))


# -- reports -----------------------------------------------------------------------------------------------------------


def test_what_was_dropped_is_told_at_once_and_then_once_a_minute(farm: Farm) -> None:
    for field in farm.fields:
        field.sessions.reports._period_s = SHORT_S
    a, b = farm.card(0, "a"), farm.card(1, "b")
    a.send(*[rogue_offer(1)] * 3)
    farm.quiet()
    (first,) = told(farm)
    assert (first.hub, first.session, first.user) == ("LAN", a.welcome.session_name, "a")
    assert first.dropped == {reasons.ROGUE_DHCP: 3}
    a.send(arp(station(1), GATEWAY, ADDRESS), rogue_offer(1))
    b.send(arp(station(2), GATEWAY, ADDRESS))
    farm.quiet()
    assert [one.user for one in told(farm)] == ["a", "b"], "another port need not wait"
    farm.after(SHORT_S - 1)
    assert len(told(farm)) == 2
    a.send(arp(station(1), GATEWAY, ADDRESS))
    farm.quiet()
    assert len(told(farm)) == 2
    farm.after(1.0)
    last = [one for one in told(farm) if one.user == "a"][1]
    assert (last.dropped, last.detail) == ({reasons.FORGED: 2, reasons.ROGUE_DHCP: 1}, GATEWAY)
    farm.after(2 * SHORT_S)
    assert len(told(farm)) == 3, "nothing new"
    a.send(rogue_offer(1))
    farm.quiet()
    assert len(told(farm)) == 4


def test_a_port_that_is_gone_is_not_told_of_and_control_may_be_away(farm: Farm) -> None:
    a = farm.card(0, "a")
    a.send(rogue_offer(1))
    farm.quiet()
    a.send(rogue_offer(1))
    farm.quiet()
    farm.session(a).close("left")
    farm.after(2 * PERIOD_S)
    assert len(told(farm)) == 1
    b, field = farm.card(1, "b"), farm.fields[1]
    reports, tells = field.sessions.reports, list[Message]()
    reports._tell = lambda _message: False
    b.send(rogue_offer(2))
    farm.quiet()

    def tell(message: Message) -> bool:
        tells.append(message)
        return True

    reports._tell = tell
    farm.after(1.5)
    (late,) = tells
    assert isinstance(late, Caught)
    assert late.dropped == {reasons.ROGUE_DHCP: 1}


def test_status_has_what_was_caught_lately() -> None:
    now = [1000.0]
    catches = Catches(clock=lambda: now[0])
    with capture_logs() as logged:
        for number in range(MOST_CAUGHT + 3):
            catches.put(Caught("LAN", f"SID-A-{number}", "a", {reasons.FORGED: 1}, GATEWAY, 900.0))
        catches.put(Caught("LAN", "SID-A-9", "a", {reasons.FORGED: 2, reasons.HIDDEN: 1}, "", 960.0))
    assert {line["event"] for line in logged} == {"guard_dropped"}
    rows = catches.rows()
    assert len(rows) == MOST_CAUGHT
    assert rows[0] == {
        "hub": "LAN",
        "session": "SID-A-9",
        "user": "a",
        "dropped": {reasons.FORGED: 3, reasons.HIDDEN: 1},
        "detail": "",
        "since": 900.0,
        "last": 960.0,
    }
    now[0] = 950.0 + TOLD_S
    assert [row["session"] for row in catches.rows()] == ["SID-A-9"]


# -- settings ----------------------------------------------------------------------------------------------------------


async def heard(scene: Scene) -> list[LeasesPut]:
    """What workers are told from now on."""
    messages: list[LeasesPut] = []

    async def note(message: Message) -> None:
        assert isinstance(message, LeasesPut)
        messages.append(message)

    scene.leases._tell_all = note
    return messages


def test_a_new_hub_is_guarded_with_all_that_is_its_own(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        hub = hubs.get(scene.db, "LAN")
        service, mac = plan(hub, []), host_port_mac("LAN", ("10.81.7.1/24", "fd3c:1:2::1/64"))
        assert service is not None
        rules = guard_rules(hub, service)
        own = {"10.81.7.1", "fd3c:1:2::1", "10.81.7.254", "fd3c:1:2::fe"}
        own |= {str(ndp.link_local(mac)), str(service.link_local)}
        assert rules.on
        assert {str(ip_address(one)) for one in rules.addresses} == own
        assert set(rules.stations) == {mac, service.mac}
        assert not rules.relay
        await scene.leases.addresses_set("LAN", router="10.81.7.77")
        hub = hubs.get(scene.db, "LAN")
        assert ip_address("10.81.7.77").packed in guard_rules(hub, plan(hub, [])).addresses
        await scene.leases.addresses_set("LAN", guard=False, dhcp="relay")
        off = guard_rules(hubs.get(scene.db, "LAN"), service)
        assert (off.on, off.relay, off.addresses, off.stations) == (False, True, (), ())

    play(tmp_path / "hub.db", work)


def test_a_hub_of_before_is_guarded_when_it_begins_to_serve(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        await scene.leases.addresses_set("LAN", guard=False, dhcp="off")
        assert not (await scene.leases.addresses_set("LAN", dns=True))[0]["guard"]
        assert not (await scene.leases.addresses_set("LAN", dhcp="serve", guard=False))[0]["guard"]
        await scene.leases.addresses_set("LAN", dhcp="off")
        assert (await scene.leases.addresses_set("LAN", dhcp="relay"))[0]["guard"]

    play(tmp_path / "hub.db", work)


def test_who_is_trusted_is_named_and_must_exist(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        hub = hubs.get(scene.db, "LAN")
        users.create(scene.db, hub, "bob", now=1.0)
        cascades.create(scene.db, hub, "Osaka", account={}, secrets={}, now=1.0)
        row = (await scene.leases.addresses_set("LAN", trust=["ANN", "osaka", "bridge eth1"]))[0]
        assert row["trusted"] == ["Ann", "Osaka", "bridge eth1"]
        row = (await scene.leases.addresses_set("LAN", trust=["bob"], no_trust=["OSAKA", "bridge eth1"]))[0]
        assert row["trusted"] == ["Ann", "bob"]
        assert guard_rules(hubs.get(scene.db, "LAN"), None).trusted == ("Ann", "bob")
        for fields in ({"trust": ["nobody"]}, {"trust": ["bridge "]}, {"no_trust": ["Osaka"]}):
            with pytest.raises(UsageError):
                await scene.leases.addresses_set("LAN", **fields)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            await scene.leases.addresses_set("LAN", trust=[f"bridge eth{number}" for number in range(99)])

    play(tmp_path / "hub.db", work)


def test_all_workers_know_of_a_lease_before_its_station_does(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        messages = await heard(scene)
        order: list[Message] = []
        tell, answer = scene.leases._tell_all, scene.leases._answer

        async def told(message: Message) -> None:
            order.append(message)
            await tell(message)

        async def answered(message: Message, worker: int) -> None:
            order.append(message)
            await answer(message, worker)

        scene.leases._tell_all, scene.leases._answer = told, answered
        number = await scene.lease(7)
        address = ip_address(f"10.81.7.{number}").packed
        acknowledged = next(
            at for at, one in enumerate(order) if isinstance(one, LeaseAnswered) and one.kind == dhcp.ACK
        )
        assert messages[-1] == LeasesPut("LAN", [(address, station(7), 86_400.0)])
        assert order.index(messages[-1]) < acknowledged
        await scene.leases.tell_all()
        assert messages[-1] == LeasesPut("LAN", [(address, station(7), 86_400.0)], whole=True)
        await scene.leases.lease_release(f"10.81.7.{number}", "LAN")
        assert messages[-1] == LeasesPut("LAN", [], [address])
        await scene.leases.addresses_set("LAN", dhcp="off")
        assert messages[-1] == LeasesPut("LAN", whole=True)

    play(tmp_path / "hub.db", work)


def test_what_a_station_only_says_of_itself_is_no_lease(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        messages = await heard(scene)
        await scene.ask(dhcp.INFORM, 9, wanted=77, user="bob")
        assert not any(message.held for message in messages)
        await scene.leases.tell_all()
        assert messages[-1].held == []

    play(tmp_path / "hub.db", work)
