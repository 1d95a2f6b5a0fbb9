"""Nothing is lost when the way through a proxy breaks, when the proxy is started anew, when the card is elsewhere.

card ---- relay, proxy ---- hub           the relay is on the proxy's machine, and kills what goes through it
"""

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.cuts import random_cuts
from lab.faults import FaultRelay
from lab.guarded import PROGRAMS, ROADS, Gate, Road, Town, hub_end
from lab.net import Net
from lab.numbered import End, Numbered, Result
from lab.pairs import Pair
from lab.ukihashi import FAST_CARD, FAST_HUB, Card, Hub
from lab.wait import pause, until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer(*PROGRAMS), pytest.mark.timeout(240)]

KILLS = 20
APART_S = 3.0  # a tenth of what it is at full length
SOAK_APART_S = 30.0
RATE = 100.0  # frames a second, each way
RELAY = 9000
BUFFER_KIB = 8192
WAYS = {"one": "http://", "two": "socks5h://"}
KINDS = [ROADS[name] for name in ("squid Basic", "squid inside TLS", "dante SOCKS5h", "ssh, key")]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """Times divided by ten."""
    with Net() as net:
        made = Town(net)
        made.open(FAST_HUB, {**FAST_CARD, "echo_guard": {"enabled": False}})
        yield made
        print(net.logs())


@pytest.fixture(scope="module")
def usual_town() -> Iterator[Town]:
    with Net() as net:
        made = Town(net)
        made.open(card={"echo_guard": {"enabled": False}})
        yield made
        print(net.logs())


def exact(result: Result) -> None:
    print(result)
    for counts in (result.up, result.down):
        assert (counts.lost, counts.doubled, counts.reordered, counts.damaged, counts.missed) == (0, 0, 0, 0, 0)
        assert counts.sent == counts.received > 0


def killed(town: Town, road: Road, apart_s: float) -> None:
    """The connection to the proxy is reset again and again, with numbered frames under way."""
    with town.relay(road, RELAY) as relay, town.nothing_left():
        town.take(road, port=RELAY)
        town.card.up(town.account)
        try:
            before, gaps = seen(town.card), list[float]()
            with Numbered(*town.ends(), rate=RATE, seed=20) as frames:
                for _ in range(KILLS):
                    pause(apart_s)
                    at = time.monotonic()
                    assert relay.reset() >= 1
                    gaps.append(frames.flows_again(at, seconds=30.0))
                result = frames.finish()
            print(f"{road.name}: {KILLS} kills, back after", sorted(round(gap, 2) for gap in gaps))
            exact(result)
            assert went_on(before, seen(town.card)) >= KILLS
        finally:
            town.card.leave(town.account)


def seen(card: Card) -> dict[str, Any]:
    """What must outlive a cut, and `resumes`."""
    row = card.status()
    names = ("session", "logins", "state", "resumes", "via")
    found = {name: row[name] for name in names}
    found["lost"] = row["ledger"]["lost"]
    found["interface"] = card.host.run(["cat", f"/sys/class/net/{row['interface']}/ifindex"])
    found["addresses"] = card.address(4), card.address(6)
    return found


def went_on(before: dict[str, Any], after: dict[str, Any]) -> int:
    """How often the session was gone on with: the same one, on the same interface with the same addresses."""
    changing = {"resumes", "via"}
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert (after["state"], after["lost"]) == ("online", 0)
    return int(after["resumes"] - before["resumes"])


@pytest.mark.parametrize("road", KINDS, ids=lambda road: road.name)
def test_twenty_kills_lose_nothing(town: Town, road: Road) -> None:
    # ssh can't do its part ten times as fast: it needs longer than two dials may take, until the card sees that
    redial = 0.4 if road.ssh else FAST_CARD["times"]["redial"]
    town.card.configure(town.account, {"times": {"redial": redial}})
    killed(town, road, APART_S)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("road", KINDS, ids=lambda road: road.name)
def test_twenty_kills_half_a_minute_apart_lose_nothing(usual_town: Town, road: Road) -> None:
    killed(usual_town, road, SOAK_APART_S)


def pair(town: Town, road: Road, relay: FaultRelay) -> Pair:
    """The two ends as `random_cuts` wants them."""

    def revive() -> None:
        town.card.leave(town.account)
        town.card.up(town.account)

    # a dial over ssh takes longer than one by TCP alone, and the next comes later
    blind_s = FAST_CARD["times"]["dead"] + (8.0 if road.ssh else 0.0)
    return Pair(road.name, road.name, relay, {}, *town.ends(), ("", ""), blind_s, revive, dict, BUFFER_KIB * 1024)


def cut_at_random(town: Town, road: Road, *, cuts: int, seed: int) -> None:
    """Every kind of cut between the card and the proxy."""
    with town.relay(road, RELAY, seed) as relay, town.nothing_left():
        town.take(road, port=RELAY)
        # eight times that is what a dial may take at most, and ssh is slow on a busy machine
        town.card.configure(town.account, {"times": {"redial": 2.0 if road.ssh else FAST_CARD["times"]["redial"]}})
        town.card.up(town.account)
        try:
            before = seen(town.card)
            report = random_cuts(pair(town, road, relay), cuts=cuts, seed=seed, buffer=BUFFER_KIB * 1024)
            print(report.plan)
            print(f"{road.name}: {report.count} cuts, back after {report.worst_s:.2f} s at most: {report.cuts}")
            exact(report.result)
            assert (report.count, report.stuck) == (cuts, 0)
            assert went_on(before, seen(town.card)) >= cuts // 2
        finally:
            town.card.leave(town.account)


def test_no_cut_before_a_proxy_loses_a_frame(town: Town) -> None:
    cut_at_random(town, ROADS["squid inside TLS"], cuts=8, seed=5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("road", KINDS, ids=lambda road: road.name)
def test_no_cut_of_a_hundred_before_a_proxy_loses_a_frame(town: Town, road: Road) -> None:
    cut_at_random(town, road, cuts=100, seed=random.SystemRandom().randrange(1 << 20))


def test_a_proxy_that_is_started_anew_loses_nothing(town: Town) -> None:
    town.take(ROADS["squid Basic"])
    with town.nothing_left():
        town.card.up(town.account)
        try:
            before = seen(town.card)
            with Numbered(*town.ends(), rate=RATE, seed=21) as frames:
                pause(0.5)
                town.gate.squid.stop()
                until(lambda: town.card.status()["state"] == "reconnecting", seconds=20, what="the card noticing")
                pause(1.0)
                town.gate.squid.start()
                back = time.monotonic()
                print("back after", round(frames.flows_again(back, seconds=30.0), 2))
                exact(frames.finish())
            assert went_on(before, seen(town.card)) >= 1
        finally:
            town.card.leave(town.account)


class TwoNetworks:
    """A machine that is moved: in either network it has another address, and another proxy is the way out."""

    def __init__(self, net: Net) -> None:
        self.machine, self.hub_host = net.host("card"), net.host("hub")
        self.gates = {}
        for name, kind in (("one", "http"), ("two", "socks")):
            host = net.host(name)
            net.link(host, self.machine)
            outside, _ = net.link(host, self.hub_host)
            self.gates[name] = Gate(host, outside=outside)
            self.gates[name].open(kind)
        self.hub, self.card = Hub(self.hub_host), Card(self.machine)
        self.hub.configure(FAST_HUB)
        self.hub.start()
        self.leave("two")
        known = [
            f"http://{self.gates['one'].host.ipv4}:{ROADS['squid'].port}",
            f"socks5h://{self.gates['two'].host.ipv4}:{ROADS['dante SOCKS5h'].port}",
        ]
        settings = {**FAST_CARD, "echo_guard": {"enabled": False}, "path": {"known": known}}
        self.account = self.card.prepare(self.hub.invite("taro"), settings)
        # the proxies' machines, unlike the card's, know where the hub is
        two = self.gates["two"].host
        two.ip(f"route add {self.hub_host.ipv4}/32 via {self.hub_host.addresses[2]}")

    def leave(self, name: str) -> None:
        """Take the cable out: addresses and routes of that network go, as a network manager has it."""
        self.machine.ip(f"link set to-{name} down")
        self.machine.ip(f"addr flush dev to-{name}")

    def enter(self, name: str) -> None:
        """Put it in again."""
        inner4, inner6 = self.gates[name].host.addresses[:2]
        self.machine.add_address(f"to-{name}", f"{inner4.rpartition('.')[0]}.2/24")
        self.machine.add_address(f"to-{name}", f"{inner6.rpartition('::')[0]}::2/64")
        self.machine.ip(f"link set to-{name} up")


def test_a_machine_that_moves_to_another_network_keeps_its_session(net: Net) -> None:
    there = TwoNetworks(net)
    card = there.card
    card.up(there.account)
    with Numbered(End(there.machine, card.interface()), hub_end(there.hub), rate=RATE, seed=22) as frames:
        for old, new in (("one", "two"), ("two", "one")):
            pause(1.0)
            before = seen(card)
            there.leave(old)
            pause(0.3)
            at = time.monotonic()
            there.enter(new)
            print(f"in network {new}: back after", round(frames.flows_again(at, seconds=30.0), 2))
            after = seen(card)
            assert went_on(before, after) == 1
            assert after["via"].startswith(WAYS[new])
        exact(frames.finish())
    print(net.logs())
