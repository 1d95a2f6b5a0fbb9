"""A hub of several workers with real cards: one view of the virtual LAN, resumes that land elsewhere, one that dies."""

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from lab.net import Net
from lab.numbered import End, Numbered, Result
from lab.pairs import Pair, ours
from lab.ukihashi import FAST_CARD, FAST_HUB, Card, Hub, gateway
from lab.wait import pause, until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

WORKERS = 4
RESUMES_MOST = 12  # until one lands at another worker
LATE_S = 10.0  # nothing comes for so long: nothing will
BACK_S = 20.0  # a card of a worker that died, on a machine that does much else; the docs have the time on a quiet one
UPGRADE_S = 90.0  # many starts of Python beside other people's work


def workers(hub: Hub) -> dict[int, dict[str, Any]]:
    """What each worker says of itself, by its number."""
    return {int(row["worker"]): row for row in hub.tell("status")[0]["worker"]["workers"]}


def places(hub: Hub) -> dict[str, int]:
    """The worker of each user's session."""
    return {str(row["user"]): int(row["worker"]) for row in hub.tell("sessions")}


def finish(frames: Numbered) -> Result:
    """What became of them; who has no time for a second is waited for."""
    result = frames.finish()
    if not (result.up.exact and result.down.exact):
        late = frames.finish(quiet_s=LATE_S)
        print("after a second:", result, "later:", late)
        result = late
    return result


def has_resumed(card: Card, times: int) -> bool:
    return bool(card.status()["resumes"] >= times)


class Party:
    """A hub and cards at different workers of it."""

    def __init__(self, net: Net, *names: str, settings: dict[str, Any] | None = None) -> None:
        machine, *self.hosts = net.lan("hub", *names)
        self.hub = Hub(machine)
        self.hub.configure({**FAST_HUB, "workers": WORKERS})
        self.hub.start()
        self.cards = {host.name: Card(host) for host in self.hosts}
        for host in self.hosts:
            self.cards[host.name].join_with(self.hub.invite(host.name), settings or FAST_CARD)

    def end(self, name: str) -> End:
        card = self.cards[name]
        return End(card.host, card.interface())


@pytest.fixture(scope="module")
def party() -> Iterator[Party]:
    with Net() as net:
        yield Party(net, "a", "b", "c", "d")


def test_cards_at_different_workers_reach_each_other_and_the_hub(party: Party) -> None:
    hub, cards = party.hub, party.cards
    assert sorted(places(hub).values()) == list(range(WORKERS))  # connections go where there are fewest
    for one, other in itertools.permutations(cards.values(), 2):
        one.host.pings(other.address(4))
    for card in cards.values():
        card.host.pings(gateway(card.address(4)))
        card.host.pings(gateway(card.address(6)))
    stations = [row for row in hub.mac_table() if row["session"] != "host"]
    names = {row["session"] for row in hub.sessions()}
    assert {row["session"] for row in stations} == names
    assert len({row["mac"] for row in stations}) == len(stations)
    each = workers(hub)
    assert len({row["pid"] for row in each.values()}) == WORKERS
    assert [row["sessions"] for row in each.values()] == [1] * WORKERS
    assert all("queue_full" not in trunk["drops"] for row in each.values() for trunk in row["trunks"])
    said = hub.run("hub", "status")
    assert all(f"process {row['pid']}, 1 sessions" in said for row in each.values())


def test_a_session_is_ended_by_its_name_wherever_it_is(party: Party) -> None:
    hub = party.hub
    before = {row["user"]: row["session"] for row in hub.sessions()}
    number = int(before["d"].rpartition("-")[2])
    hub.run("hub", "disconnect", before["d"])
    until(
        lambda: before["d"] not in {row["session"] for row in hub.tell("sessions")},
        seconds=30,
        what="the end of the session",
    )
    account = next((party.cards["d"].config_dir / "card.d").glob("*.toml")).stem
    party.cards["d"].leave_all()
    party.cards["d"].up(account)
    after = {row["user"]: row["session"] for row in hub.sessions()}
    assert int(after["d"].rpartition("-")[2]) > max(number, len(before) - 1)
    assert len(set(after.values())) == WORKERS


def test_one_worker_that_is_killed_costs_its_own_cards_a_login_and_others_nothing(party: Party) -> None:
    hub, cards = party.hub, party.cards
    where = places(hub)
    victim = next(name for name in ("d", "c") if where[name] != 0)
    one, other = [name for name in "abcd" if name != victim][:2]
    before = {name: cards[name].status() for name in cards}
    pids = {number: row["pid"] for number, row in workers(hub).items()}
    with (
        Numbered(party.end(one), party.end(other), rate=200, seed=3) as frames,
        Numbered(party.end(victim), party.end(one), rate=100, seed=5) as its,
    ):
        pause(0.5)
        gap = max(counts.longest_gap_s for counts in (frames.up.counts(), frames.down.counts()))
        killed = time.monotonic()
        os.kill(pids[where[victim]], signal.SIGKILL)
        back = its.flows_again(killed, seconds=BACK_S)
        pause(0.5)
        result = finish(frames)
    gap_after = max(result.up.longest_gap_s, result.down.longest_gap_s)
    print(f"frames of the killed worker's card pass again after {back:.3f} s;", end=" ")
    print(f"longest gap of the others' frames {gap * 1000:.0f} ms before, {gap_after * 1000:.0f} ms with the kill")
    assert result.up.exact, result
    assert result.down.exact, result
    assert cards[victim].status()["logins"] == before[victim]["logins"] + 1
    for name in set(cards) - {victim}:
        row = cards[name].status()
        assert (row["logins"], row["resumes"]) == (before[name]["logins"], before[name]["resumes"])
    until(lambda: len(workers(hub)) == WORKERS, seconds=30, what="the worker in place of the killed one")
    after = {number: row["pid"] for number, row in workers(hub).items()}
    assert {number for number in pids if after[number] != pids[number]} == {where[victim]}
    for name in set(cards) - {victim}:
        cards[victim].host.pings(cards[name].address(4))
        cards[name].host.pings(cards[victim].address(4))


@pytest.mark.soak
def test_an_upgrade_keeps_all_sessions_and_loses_no_frame(party: Party) -> None:
    hub, cards = party.hub, party.cards
    before = {name: card.status() for name, card in cards.items()}
    sessions = {row["user"]: row["session"] for row in hub.sessions()}
    pids = {row["pid"] for row in workers(hub).values()}
    with Numbered(party.end("a"), party.end("b"), rate=40, seed=4) as frames:
        pause(0.3)
        done = json.loads(hub.run("hub", "upgrade", "--json", timeout_s=UPGRADE_S))
        assert done["sessions"] == len(cards)
        pause(0.5)
        result = finish(frames)
    assert result.up.exact, result
    assert result.down.exact, result
    assert {row["user"]: row["session"] for row in hub.sessions()} == sessions
    assert {name: card.status()["logins"] for name, card in cards.items()} == {
        name: row["logins"] for name, row in before.items()
    }
    assert not pids & {row["pid"] for row in workers(hub).values()}
    for one, other in itertools.permutations(cards.values(), 2):
        one.host.pings(other.address(4))


@pytest.mark.soak
def test_the_number_of_workers_changes_at_an_upgrade(party: Party) -> None:
    hub, cards = party.hub, party.cards
    sessions = {row["user"]: row["session"] for row in hub.sessions()}
    for count in (2, 1, 3):
        hub.configure({"workers": count})
        done = json.loads(hub.run("hub", "upgrade", "--json", timeout_s=UPGRADE_S))
        assert done["sessions"] == len(cards)
        assert len(workers(hub)) == count
        cards["a"].host.pings(cards["b"].address(4))
        assert {row["user"]: row["session"] for row in hub.sessions()} == sessions


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Net() as net, ours(net, fast=True, workers=WORKERS) as made:
        yield made


@pytest.mark.peer("nft")
def test_a_resume_that_lands_at_another_worker_loses_nothing(pair: Pair) -> None:
    assert pair.programs is not None
    hub, card = pair.programs
    before, places_of_c = card.status(), [places(hub)["c"]]
    with Numbered(pair.one, pair.other, rate=200, seed=6) as frames:
        while len(places_of_c) <= RESUMES_MOST and len({*places_of_c}) < 3:
            pause(0.2)
            pair.relay.reset()
            wanted = before["resumes"] + len(places_of_c)
            until(partial(has_resumed, card, wanted), seconds=30, what="the resume")
            places_of_c.append(places(hub)["c"])
        result = finish(frames)
    print(places_of_c, pair.ledgers())
    assert len({*places_of_c}) > 1
    assert result.up.exact, result
    assert result.down.exact, result
    row = card.status()
    assert (row["logins"], row["ledger"]["lost"]) == (before["logins"], before["ledger"]["lost"])
