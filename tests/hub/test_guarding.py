"""Loops through ports of several workers: who is blocked, who hears of it, and what outlives whom."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from tests.hub.cards import Card, frame
from tests.hub.farm import Farm

from ukihashi.hub import guarding
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import HubPut
from ukihashi.net.tls import server_context
from ukihashi.switch.loop_guard import ETHERTYPE, GONE_S, PERIOD_S, QUIET_S

LIMITS = Limits(linger_s=0.2, dead_s=10_000)
SetUp = Callable[..., Farm]


@pytest.fixture
def make_farm(certificate: tuple[Path, Path]) -> Iterator[SetUp]:
    made: list[Farm] = []

    def make(count: int = 2, seed: int | None = None) -> Farm:
        made.append(Farm(server_context(*certificate), LIMITS, count, seed))
        return made[-1]

    yield make
    for farm in made:
        farm.close()


def probes(card: Card) -> list[bytes]:
    """Those that have come since it was asked last."""
    found = [one for one in card.got if one[12:14] == ETHERTYPE]
    card.got[:] = [one for one in card.got if one[12:14] != ETHERTYPE]
    return found


def blocked(farm: Farm) -> dict[str, str]:
    rows = [row for field in farm.fields for row in field.sessions.guarding.rows()]
    return {row["port"]: row["with"] for row in rows}


def name(card: Card) -> str:
    return card.welcome.session_name


def bridges(farm: Farm, *workers: int) -> list[Card]:
    cards = []
    for number, worker in enumerate(workers):
        cards.append(farm.card(worker, "abcdef"[number], bridge_mode=True))
        farm.after(0.01)  # of two, the younger gives way
    return cards


def close_loop(farm: Farm, one: Card, two: Card) -> None:
    """What the hub sends to the one comes back from the other, until it is found out."""
    farm.until(lambda: any(frame[12:14] == ETHERTYPE for frame in one.got))
    two.send(*probes(one))
    farm.quiet()


def keep_loop(farm: Farm, one: Card, two: Card, seconds: float) -> None:
    for _ in range(int(seconds)):
        farm.after(1.0)
        for source, target in ((one, two), (two, one)):
            if found := probes(source):
                target.send(*found)
        farm.quiet()


def test_who_does_not_bridge_gets_no_probes(make_farm: SetUp) -> None:
    farm = make_farm()
    idle, bridge = farm.card(0, "idle"), farm.card(1, "bridge", bridge_mode=True)
    farm.quiet()
    for _ in range(5):
        farm.after(PERIOD_S)
    assert idle.got == []
    assert len(probes(bridge)) in {5, 6}
    row = farm.session(bridge).row(0.0)
    assert (row["loop"], row["loop_with"], farm.session(idle).row(0.0)["loop"]) == ("open", "", "")


@pytest.mark.parametrize("workers", [(0, 0), (0, 1), (1, 0), (1, 2), (1, 1)])
def test_a_loop_through_two_members_blocks_the_younger_and_heals(make_farm: SetUp, workers: tuple[int, int]) -> None:
    farm = make_farm(3)
    old, young = bridges(farm, *workers)
    other = farm.card(2, "z")
    with structlog.testing.capture_logs() as logged:
        close_loop(farm, young, old)
    assert blocked(farm) == {name(young): name(old)}
    [found] = [line for line in logged if line["event"] == "loop_found"]
    assert (found["hub"], found["blocked"], found["loop_with"]) == ("LAN", name(young), name(old))
    assert (found["sent_by"], found["back_at"]) == (name(young), name(old))
    assert (old.blocked, young.blocked) == ([], [name(old)])
    other.got.clear()
    young.send(frame(0, 7, 1))
    old.send(frame(0, 8, 2))
    farm.until(lambda: other.got)
    farm.quiet()
    assert other.got == [frame(0, 8, 2)]
    assert frame(0, 8, 2) not in young.got
    assert farm.session(young).drops["loop"] == 1
    keep_loop(farm, old, young, 20)
    assert blocked(farm) == {name(young): name(old)}
    assert young.blocked == [name(old)]
    with structlog.testing.capture_logs() as logged:
        for _ in range(int(QUIET_S) + 2):
            farm.after(1.0)
    assert blocked(farm) == {}
    assert [line["port"] for line in logged if line["event"] == "loop_gone"] == [name(young)]
    assert young.blocked == [name(old), None]
    young.send(frame(0, 7, 3))
    farm.until(lambda: frame(0, 7, 3) in other.got)


def test_a_loop_that_comes_back_on_one_port(make_farm: SetUp) -> None:
    farm = make_farm()
    [card] = bridges(farm, 1)
    close_loop(farm, card, card)
    assert blocked(farm) == {name(card): name(card)}


def test_a_probe_that_comes_in_where_nobody_bridges_shows_who_does_in_secret(make_farm: SetUp) -> None:
    farm = make_farm()
    [bridge] = bridges(farm, 0)
    secret = farm.card(1, "secret")
    close_loop(farm, bridge, secret)
    assert blocked(farm) == {name(secret): name(bridge)}
    assert secret.blocked == [name(bridge)]
    for _ in range(int(QUIET_S) + 3):
        farm.after(1.0)
    assert blocked(farm) == {}
    for _ in range(3):
        farm.after(guarding.SUSPECT_S / 2)
    probes(secret)
    for _ in range(5):
        farm.after(PERIOD_S)
    assert probes(secret) == []


def test_stations_that_jump_bring_probes_and_what_shows_no_loop_gets_them_no_more(make_farm: SetUp) -> None:
    farm = make_farm()
    one, two = farm.card(0, "one"), farm.card(1, "two")
    for number in range(guarding.JUMPS + 2):
        for card in (one, two):
            card.send(frame(0, 9, number))
            farm.quiet()
    farm.after(0.1)
    assert probes(one)
    assert probes(two)
    for _ in range(3):
        farm.after(guarding.SUSPECT_S / 2)
    probes(one), probes(two)
    for _ in range(3):
        farm.after(PERIOD_S)
    assert probes(one) == probes(two) == []
    assert blocked(farm) == {}


def test_a_probe_passes_a_full_queue(make_farm: SetUp) -> None:
    farm = make_farm()
    [bridge] = bridges(farm, 0)
    farm.quiet()
    session = farm.session(bridge)
    probes(bridge)
    full = [frame(0, 9, number, 1500) for number in range(50)]
    farm.fields[0].clock.now += PERIOD_S
    session.queue.put(full)
    farm.until(lambda: len(bridge.got) == 51)
    assert bridge.got[0][12:14] == ETHERTYPE
    assert bridge.got[1:] == full


def test_a_blocked_member_that_comes_back_at_another_worker_stays_blocked_and_hears_so(make_farm: SetUp) -> None:
    farm = make_farm(3)
    old, young = bridges(farm, 0, 1)
    close_loop(farm, old, young)
    farm.go_to(young, 2)
    young.cut()
    young.resume()
    farm.quiet()
    assert farm.where(young) == [2]
    assert blocked(farm) == {name(young): name(old)}
    assert set(young.blocked) == {name(old)}
    assert len(young.blocked) >= 2
    for _ in range(int(GONE_S) + 1):
        farm.after(1.0)
    assert blocked(farm) == {name(young): name(old)}


def test_a_block_outlives_the_judge(make_farm: SetUp) -> None:
    farm = make_farm(3)
    old, young = bridges(farm, 1, 2)
    close_loop(farm, old, young)
    seen = farm.hub(1).guard
    assert seen is not None
    before = seen.id
    farm.lose(0)
    farm.until(lambda: 0 not in farm.neighbours[1].links and 0 not in farm.neighbours[2].links)
    assert blocked(farm) == {name(young): name(old)}
    farm.fields[0].sessions.remove_hub("LAN")
    farm.fields[0].sessions.put_hub(HubPut("LAN"))  # of a new process
    farm.join(0, 1, is_new=True)
    farm.join(0, 2, is_new=True)
    farm.quiet()
    keep_loop(farm, old, young, 12)
    assert seen.id == before
    assert blocked(farm) == {name(young): name(old)}
    for _ in range(int(QUIET_S) + 2):
        farm.after(1.0)
    assert blocked(farm) == {}


def test_a_block_outlives_an_upgrade(make_farm: SetUp) -> None:
    farm = make_farm(2, seed=5)
    old, young = bridges(farm, 0, 1)
    close_loop(farm, old, young)
    before: Any = farm.hub(0).guard
    farm.upgrade(3)
    for _ in range(3):
        farm.serve()
    farm.quiet()
    after: Any = farm.hub(0).guard
    assert after is not before
    assert after.id == before.id
    assert blocked(farm) == {name(young): name(old)}
    for _ in range(int(QUIET_S) + 2):
        farm.after(1.0)
    assert blocked(farm) == {}


def test_when_the_worker_of_the_other_port_dies_the_blocked_one_opens(make_farm: SetUp) -> None:
    farm = make_farm(3)
    old, young = bridges(farm, 2, 1)
    close_loop(farm, old, young)
    farm.lose(2)
    for _ in range(int(GONE_S) + 2):
        farm.after(1.0)
    assert blocked(farm) == {}
