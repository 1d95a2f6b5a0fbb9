"""A card joins over every kind of path, through the real programs, and leaves nothing behind.

card 10.77.1.2 ---- 10.77.1.1 gate 10.77.2.1 ---- 10.77.2.2 hub          the gate forwards nothing
"""

from collections.abc import Iterator

import pytest

from lab.flow import stream
from lab.guarded import HUB_NAME, PROGRAMS, ROADS, Road, Town
from lab.net import Net
from lab.ukihashi import gateway

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer(*PROGRAMS)]

BULK = 2 << 20  # bytes, each way
# one of each kind; the others take minutes
CORE = {
    ("squid Basic", 4), ("squid inside TLS", 4), ("dante SOCKS4a", 4), ("dante SOCKS5h", 6), ("ssh, key", 4),
}  # fmt: skip


def cells() -> list[object]:
    found = [(road, version) for road in ROADS.values() for version in road.versions]
    return [
        pytest.param(
            road,
            version,
            id=f"{road.name}, IPv{version}",
            marks=[] if (road.name, version) in CORE else [pytest.mark.soak],
        )
        for road, version in found
    ]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Net() as net:
        made = Town(net)
        made.open()
        made.take(ROADS["squid"])
        made.card.up(made.account)  # the hub has served one card: what it opens once is open
        made.card.leave(made.account)
        yield made
        print(net.logs())


def test_there_is_no_direct_way(town: Town) -> None:
    town.card.configure(town.account, {"path": {"via": "direct:"}})
    done = town.card.ask("card", "up", town.account)
    assert done.returncode == 7
    assert "route" in done.stderr


def carries(town: Town, road: Road) -> None:
    """Join, pings and bulk both ways, leave; nothing is left over."""
    with town.nothing_left():
        town.card.up(town.account)
        try:
            own = {family: town.card.address(family) for family in (4, 6)}
            for family in (4, 6):
                town.machine.pings(gateway(own[family]))
                town.hub_host.pings(own[family])
            assert stream(town.machine, town.hub_host, gateway(own[4]), least=BULK) >= BULK
            assert stream(town.hub_host, town.machine, own[4], least=BULK) >= BULK
            row = town.card.status()
            assert (row["state"], row["logins"], row["reconnects"]) == ("online", 1, 0)
            assert row["via"].startswith(f"{road.scheme}://")
        finally:
            town.card.leave(town.account)
    assert town.hub.sessions() == []


@pytest.mark.parametrize(("road", "version"), cells())
def test_a_card_joins_and_carries(town: Town, road: Road, version: int) -> None:
    town.take(road, version)
    carries(town, road)


@pytest.mark.parametrize(
    "name",
    ["squid", *(pytest.param(n, marks=pytest.mark.soak) for n in ("ssh -D, SOCKS4a", "dante SOCKS5h", "ssh, key"))],
)
def test_by_a_name_that_only_the_gate_knows(town: Town, name: str) -> None:
    town.take(ROADS[name])
    town.card.configure(town.account, {"hub": {"host": HUB_NAME}})
    assert town.machine.ask(["getent", "hosts", HUB_NAME]).returncode != 0
    carries(town, ROADS[name])
