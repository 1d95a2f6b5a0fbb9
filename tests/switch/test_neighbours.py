"""Hostile neighbours: whatever they send, tables stay bounded and members that behave go on talking."""

from collections.abc import Callable

import pytest
from tests.switch.frames import ALL, P1, P2, P3, A, B, C, arp, frame, ip4, ip6
from tests.switch.test_ip_table import offer

from ukihashi.switch import reasons
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import PortRules
from ukihashi.switch.storm import FLOWS_MOST
from ukihashi.wire.policy import Policy

BRIDGE, MEMBER = PortRules(bridge=True), PortRules(confined=True)
GUARDED = PortRules(confined=True, policy=Policy(check_mac=True, check_ip=True, check_ipv6=True, dhcp_no_server=True))


def hub_of(hostile: PortRules, limit: int = 500) -> Switch:
    """A hostile neighbour at port 1; two members, A and B, at 2 and 3, that have talked."""
    hub = Switch(limit=limit)
    for port, rules in ((P1, hostile), (P2, MEMBER), (P3, MEMBER)):
        hub.add_port(port, rules)
    talk(hub, 0.0)
    return hub


def talk(hub: Switch, now: float) -> None:
    """A asks for B, B answers, both send: nothing of it is missing or reaches the neighbour, but for the question."""
    ask = arp(A, "10.0.0.1", "10.0.0.2")
    answer = arp(B, "10.0.0.2", "10.0.0.1", destination=A, reply=True)
    data, back = ip4(B, A, "10.0.0.1", "10.0.0.2"), ip4(A, B, "10.0.0.2", "10.0.0.1")
    assert hub.forward([ask], P2, now)[P3] == [ask]
    assert hub.forward([answer], P3, now) == {P2: [answer]}
    assert hub.forward([data] * 5, P2, now) == {P3: [data] * 5}
    assert hub.forward([back] * 5, P3, now) == {P2: [back] * 5}


def macs(n: int) -> bytes:
    return b"\x06" + n.to_bytes(5, "big")


FLOODS: dict[str, Callable[[int], bytes]] = {
    "forged stations": lambda n: frame(ALL, macs(n)),
    "forged addresses": lambda n: ip4(ALL, C, f"10.1.{n // 250 % 250}.{n % 250 + 1}"),
    "forged addresses of IPv6": lambda n: ip6(ALL, C, f"fe80::1:{n:x}"),
    "forged in VLANs": lambda n: frame(ALL, macs(n))[:12] + b"\x81\0" + (n % 4096).to_bytes(2, "big") + bytes(60),
    "unknown receivers": lambda n: frame(macs(n), C),
    "broadcasts": lambda n: frame(ALL, C),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("rules", [BRIDGE, MEMBER], ids=["bridge", "member"])
def test_a_flood_fills_nothing_but_its_own_share(flood: Callable[[int], bytes], rules: PortRules) -> None:
    hub = hub_of(rules)
    for step in range(40):
        now = step / 4
        hub.forward([flood(step * 100 + n) for n in range(100)], P1, now)
        assert len(hub.rows(now)) <= 500
        assert len(hub.address_rows(now)) <= 500
        talk(hub, now)
    storm = hub._ports[P1].storm
    assert storm is not None
    assert len(storm) <= FLOWS_MOST
    assert len(hub._ports[P1].memo) <= 512
    assert {row.port for row in hub.rows(10.0)} == {P1, P2, P3}


def test_a_newcomer_finds_room_in_tables_that_another_has_filled() -> None:
    hub = hub_of(BRIDGE)
    hub.forward([ip4(ALL, macs(n), f"10.1.{n // 250}.{n % 250 + 1}") for n in range(600)], P1, 0.0)
    assert len(hub.rows(0.0)) == 500
    hub.remove_port(P2)
    hub.add_port(P2, MEMBER)
    hub.forward([arp(A, "10.0.0.1", "10.0.0.2")], P2, 1.0)
    talk(hub, 1.0)


def test_a_flood_of_broadcasts_dies_away() -> None:
    hub = hub_of(MEMBER)
    heard = [len(hub.forward([frame(ALL, C)] * 100, P1, 1 + step / 4).get(P2, ())) for step in range(40)]
    assert sum(heard[20:]) == 0
    assert hub.drops[P1][reasons.STORM] == 4000 - sum(heard)


def test_two_ports_that_are_joined_behind_the_hub_do_not_go_round_for_ever() -> None:
    hub = Switch()
    for port in (P1, P2, P3):
        hub.add_port(port, BRIDGE)
    waiting: dict[int, list[bytes]] = {P1: [], P2: []}
    rounds = []
    hub.forward([frame(ALL, A)], P3, 0.0)
    waiting[P1] = waiting[P2] = [frame(ALL, A)]
    for step in range(2000):  # every 5 ms all that came out of one port comes in at the other
        now = 0.005 * step
        inward, waiting = waiting, {P1: [], P2: []}
        heard = 0
        for entry, port in ((P1, P2), (P2, P1)):
            out = hub.forward(inward[entry][:2000], entry, now)
            waiting[entry] += out.get(port, [])
            heard += len(out.get(P3, ()))
        rounds.append(heard)
    assert sum(rounds[1000:]) == 0
    assert hub.drops[P1][reasons.STORM] + hub.drops[P2][reasons.STORM] > 0


def test_a_guarded_member_takes_no_address_and_no_station_of_others() -> None:
    hub = hub_of(GUARDED)
    sly = [
        arp(C, "10.0.0.2", "10.0.0.1", destination=A, reply=True),  # says that B's address is its own
        arp(C, "10.0.0.2", "10.0.0.2"),
        frame(ALL, B),  # says that B is behind it
        offer("10.0.0.66", A, "offer"),
    ]
    for step in range(100):
        talk(hub, step / 10)
        assert hub.forward(sly, P1, step / 10) == {}
    assert hub.drops[P1] == {reasons.ADDRESS_TAKEN: 200, reasons.STATION_TAKEN: 100, reasons.DHCP_SERVER: 100}
    assert {row.mac: row.port for row in hub.rows(10.0)} == {A: P2, B: P3, C: P1}


def test_without_guards_a_thief_has_a_station_until_its_owner_speaks() -> None:
    hub = hub_of(MEMBER)
    hub.forward([frame(ALL, B)], P1, 1.0)
    assert hub.forward([frame(B, A)], P2, 1.0) == {P1: [frame(B, A)]}
    talk(hub, 2.0)
