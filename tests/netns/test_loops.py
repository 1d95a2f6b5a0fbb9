"""Loops through cards, bridges and other people's switches: cut, told of, healed. No Ethernet here has a spanning tree.

   +-- hub --+        cables outside; each gate bridges its eth1
gate 1     gate 2
   +-- LAN --+
     |     |
     w1    w2
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.net import Host, Net
from lab.offices import LAN, Office, Town
from lab.raw import BROADCAST, Wire
from lab.ukihashi import HUB, Card, Hub
from lab.wait import pause, until
from ukihashi.switch.loop_guard import ETHERTYPE

pytestmark = [pytest.mark.netns, pytest.mark.timeout(200)]

CUT_S = 5.0
HEAL_S = 15.0


def frame(station: int) -> bytes:
    """A broadcast that no other is like."""
    return BROADCAST + bytes([2, 0, 0, 0, 7, station]) + b"\x88\xb5" + os.urandom(50)


def copies(at: Wire, other: Wire, *, seconds: float = 1.5) -> int:
    """How many copies of one broadcast come out at the other end."""
    sent = frame(200)
    at.send(sent)
    return sum(seen == sent for seen in other.frames(seconds=seconds))


@contextmanager
def meanwhile(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """`act` in a thread; it ends when the event is set."""
    over = threading.Event()
    thread = threading.Thread(target=act, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def talkative(host: Host, stations: int = 40) -> Iterator[None]:
    """Many stations behind one interface that send broadcasts all the time, 50 a second."""
    with Wire(host, "eth0") as wire:

        def talk(over: threading.Event) -> None:
            number = 0
            while not over.wait(0.02):
                number += 1
                wire.send(frame(number % stations))

        with meanwhile(talk):
            yield


@contextmanager
def reflecting(host: Host) -> Iterator[None]:
    """What is not IP comes back from there."""
    with Wire(host, "eth0") as wire:

        def reflect(over: threading.Event) -> None:
            while not over.is_set():
                for seen in wire.frames(seconds=0.1):
                    if seen[12:14] == ETHERTYPE:
                        wire.send(seen)

        with meanwhile(reflect):
            yield


def loops(hub: Hub) -> list[dict[str, Any]]:
    return list(hub.tell("status")[0]["worker"]["loops"])


def cut(hub: Hub) -> dict[str, Any]:
    """The one port that is blocked; the loop was closed just now."""
    began = time.monotonic()
    [row] = until(lambda: loops(hub), seconds=CUT_S, what="the loop being cut", step_s=0.05)
    print(f"cut after {time.monotonic() - began:.2f} s")
    return row


def healed(hub: Hub) -> None:
    began = time.monotonic()
    until(lambda: not loops(hub), seconds=HEAL_S, what="the port being open again", step_s=0.1)
    print(f"open after {time.monotonic() - began:.2f} s")


def gate(office: Office, name: str) -> Host:
    """One more machine with an interface in the office and one outside."""
    made = office.town.dweller(name)
    office.wire.plug(made, LAN)
    return made


def bridge(hub: Hub, host: Host) -> tuple[Card, str]:
    card = Card(host)
    account = card.prepare(hub.invite(host.name), {"interface": {"bridge": LAN}})
    card.up(account)
    return card, account


def session(card: Card, account: str) -> str:
    return str(card.tell(account)[0]["session"])


def test_two_cards_bridge_to_one_network_while_a_storm_runs_through_it(net: Net) -> None:
    office = Town(net).office("w", hosts=2)
    second_gate, idle = gate(office, "x-gate"), office.town.dweller("idle")
    hub = Hub(office.town.cloud)
    hub.configure({"workers": 2})
    hub.start()
    member = Card(idle)
    member.join(hub.invite("idle"))
    first, first_account = bridge(hub, office.gate)
    office.wire.cut(second_gate)
    second, account = bridge(hub, second_gate)
    w1 = office.hosts[0].host
    with Wire(w1, "eth0") as at_w1, Wire(idle, member.interface()) as at_member:
        with talkative(office.hosts[1].host):
            pause(0.5)
            office.wire.mend(second_gate)
            row = cut(hub)
            assert (row["port"], row["with"]) == (session(second, account), session(first, first_account))
            told = until(lambda: second.tell(account)[0]["blocked"], seconds=2, what="the card knowing", step_s=0.05)
            assert told["with"] == row["with"]
            assert first.tell(first_account)[0]["blocked"] is None
        pause(0.3)
        for _ in at_member.frames(seconds=0.2):
            pass
        assert copies(at_w1, at_member) == 1
        assert f"a loop with {row['with']}" in hub.run("hub", "status")
        assert f"a loop with {row['with']}" in second.run("card", "status")
        assert "a port is blocked as long as the loop is there" in hub.output
        assert "the hub lets none of this card pass" in second.log()
        pause(2.5)
        assert [one["port"] for one in loops(hub)] == [row["port"]]
        office.wire.cut(second_gate)
        healed(hub)
        assert until(lambda: second.tell(account)[0]["blocked"] is None, seconds=2, what="the card knowing")
        assert "a loop is gone" in hub.output
        assert copies(at_w1, at_member) == 1
        seen = [one for one in at_member.frames(seconds=0.1) if one[12:14] == ETHERTYPE]
    assert seen == []


def test_a_bridge_of_the_hub_stays_and_frames_that_come_back_on_one_port_block_it(net: Net) -> None:
    office = Town(net).office("w", hosts=2)
    second_gate = gate(office, "x-gate")
    hub = Hub(office.gate)
    hub.start()
    hub.run("hub", "bridge", HUB, LAN)
    with reflecting(office.hosts[1].host):
        row = cut(hub)
        assert row["port"] == row["with"] == f"bridge {LAN}"
        assert "frames come back on this port" in hub.run("hub", "status")
    healed(hub)
    card, account = bridge(hub, second_gate)
    row = cut(hub)
    assert (row["port"], row["with"]) == (session(card, account), f"bridge {LAN}")
    card.leave(account)
    assert loops(hub) == []


def test_cards_that_somebody_bridged_by_hand_are_found_by_stations_that_jump(net: Net) -> None:
    office = Town(net).office("w", hosts=1)
    hub = Hub(office.town.cloud)
    hub.start()
    cards = [Card(office.gate), Card(gate(office, "x-gate"))]
    for card in cards:
        card.join(hub.invite(card.host.name))
        for command in ("link add by-hand type bridge", "link set by-hand up", f"link set {LAN} master by-hand"):
            card.host.ip(command)
        card.host.ip(f"addr flush dev {card.interface()}")
    cards[0].host.ip(f"link set {cards[0].interface()} master by-hand")
    pause(0.3)
    with talkative(office.hosts[0].host, stations=1):
        cards[1].host.ip(f"link set {cards[1].interface()} master by-hand")
        row = cut(hub)
    assert {row["port"], row["with"]} == {one["session"] for one in hub.sessions()}
