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

from lab import peers
from lab.crowd import BROADCAST, Cards, LightCard
from lab.net import Host, LabError, Net
from lab.numbered import End, Numbered, Result
from lab.pairs import Pair, ours
from lab.ukihashi import FAST_CARD, FAST_HUB, HUB, Card, Hub, gateway
from lab.wait import pause, until
from ukihashi.errors import Refused
from ukihashi.wire.constants import Code

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


def own_address(machine: Host) -> str:
    """The hub machine's IPv4 address on the virtual LAN."""
    links = json.loads(machine.run(["ip", "-j", "-4", "addr"]))
    return next(str(one["addr_info"][0]["local"]) for one in links if one["ifname"].startswith("uk"))


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


class Crew:
    """A hub of two workers with light cards of one user, who needs no password."""

    def __init__(self, net: Net) -> None:
        machine, self._host = net.lan("hub", "crowd")
        self.hub = Hub(machine)
        self.hub.configure({"workers": 2})
        self.hub.start()
        self.hub.tell("user_create", name="crowd", hub=HUB, anonymous=True)
        self.cards = Cards((machine.ipv4, 443), ["crowd"], HUB, BROADCAST)

    def join(self, *numbers: int) -> list[LightCard]:
        """Cards with these numbers, one after the other: workers know by then who has how much."""
        with self._host.inside():
            return [card for number in numbers for card in self.cards.join([number])]

    def spread(self) -> set[int]:
        """The workers that have sessions."""
        return {int(row["worker"]) for row in self.hub.tell("sessions")}


@pytest.fixture
def crew(net: Net) -> Iterator[Crew]:
    made = Crew(net)
    yield made
    made.cards.close()


def test_multilogins_and_the_hubs_own_bound_count_the_sessions_of_all_workers(crew: Crew) -> None:
    hub = crew.hub
    hub.set_policy("crowd", {"multi_logins": 3})
    crew.join(0, 1, 2)
    assert crew.spread() == {0, 1}
    for number in (3, 4):  # at whichever worker
        with pytest.raises(Refused) as refused:
            crew.join(number)
        assert refused.value.code == Code.TOO_MANY_USER_SESSION
    hub.set_policy("crowd", {"multi_logins": 0})
    hub.tell("hub_set", name=HUB, max_sessions=4)
    crew.join(5)
    for number in (6, 7):
        with pytest.raises(Refused) as refused:
            crew.join(number)
        assert refused.value.code == Code.HUB_IS_BUSY
    names = [row["session"] for row in hub.tell("sessions")]
    assert len(set(names)) == len(names) == 4


@pytest.mark.soak
def test_a_quota_counts_what_all_workers_moved(crew: Crew) -> None:
    hub, cards = crew.hub, crew.cards
    hub.tell("user_set", name="crowd", hub=HUB, quota_bytes=600 << 10)
    one, other = crew.join(0, 1)
    assert crew.spread() == {0, 1}
    for card, to in ((one, other), (other, one)):
        batch = [(to.station + card.station).ljust(1400, b".")] * 20
        for _ in range(8):  # 219 KiB by each, and as much to each: neither worker sees 600
            card.send(*batch)
            cards.turn(0.1)
    for _ in range(2):
        with pytest.raises(LabError, match="closed the connection"):
            until(lambda: cards.turn(1.0), seconds=60, what="the end of both")
    until(lambda: not hub.tell("sessions"), seconds=30, what="the end of both sessions")
    with pytest.raises(Refused):
        crew.join(2)


@pytest.mark.soak
@pytest.mark.peer("vpnclient", "vpncmd")
def test_official_clients_and_a_cascade_are_at_home_at_two_workers(net: Net) -> None:
    machine, far, *hosts = net.lan("hub", "far", "a", "b", "c")
    hub, there = Hub(machine), Hub(far)
    hub.configure({"workers": 2})
    hub.start()
    there.start(first=False)
    there.run("hub", "create", HUB)
    (made,) = hub.rows("hub", "user", "create", "taro")
    hub.set_policy("taro", {"multi_logins": 2})
    hub_address = own_address(machine)
    net_of = hub_address.rpartition(".")[0]
    clients = []
    for number, host in enumerate(hosts[:2]):
        client = peers.Client(host)
        client.start()
        client.create_account(
            "v",
            server=machine.ipv4,
            port=443,
            hub=HUB,
            user="taro",
            password=made["password"],
            cidrs=[f"{net_of}.{200 + number}/24"],
            max_tcp=8,
        )
        client.connect("v")
        clients.append(client)
    rows = hub.tell("sessions")
    assert {row["worker"] for row in rows} == {0, 1}
    hosts[0].pings(f"{net_of}.201", seconds=60)
    hosts[0].pings(hub_address, seconds=30)
    hosts[1].pings(hub_address, seconds=30)
    pause(5.0)  # they would like eight
    assert [row["connections"] for row in hub.tell("sessions")] == [1, 1]
    third = peers.Client(hosts[2])
    third.start()
    third.create_account("v", server=machine.ipv4, port=443, hub=HUB, user="taro", password=made["password"])
    with pytest.raises(LabError):
        third.connect("v", seconds=8.0)
    third.disconnect("v")

    hub.run("hub", "cascade", "create", "out", "--to", there.invite("site"))
    until(lambda: hub.tell("cascades")[0]["state"] == "online", seconds=60, what="the cascade")
    card = Card(hosts[2])
    card.join(there.invite("c"))
    hosts[2].add_address(card.interface(), f"{net_of}.220/24")
    for host in hosts[:2]:  # at the cascade's worker, and at the other
        host.pings(f"{net_of}.220", seconds=60)
    names = {str(row["session"]): int(row["worker"]) for row in rows}
    pids = {number: row["pid"] for number, row in workers(hub).items()}
    os.kill(pids[0], signal.SIGKILL)  # which has the host port and the cascade's cable
    stays = hosts[1] if names["SID-TARO-2"] == 1 else hosts[0]  # the other one has met trap T1
    stays.pings(f"{net_of}.220", seconds=90)
    stays.pings(hub_address, seconds=30)
    for client in clients:
        client.disconnect("v")
    until(lambda: not hub.tell("sessions"), seconds=60, what="the end of their sessions")
